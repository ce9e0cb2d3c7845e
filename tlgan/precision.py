"""In which precision networks compute. Weights, optimisers, averages and penalties are in fp32 always."""

from __future__ import annotations

from typing import Literal

import torch

from tlgan.distributed import World

Precision = Literal["fp32", "bf16"]


def settled(wanted: Literal["fp32", "bf16", "auto"], world: World) -> Precision:
    """`auto` is bf16 where every rank's hardware computes in it natively and faster, and fp32 elsewhere. All ranks call it."""
    if wanted != "auto":
        return wanted
    return "fp32" if world.agree(not _fast_in_bf16(world.device)) else "bf16"


def _fast_in_bf16(device: torch.device) -> bool:
    """CUDA from Ampere on; processors with AMX (Intel, since 2023), where a step of a DCGAN takes two thirds of the time."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", None)  # older torch can't tell
        return bool(capabilities and capabilities().get("amx_bf16"))
    return False
