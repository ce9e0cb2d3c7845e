"""Trained networks of other programs, read without running anything that is in their files.

networks, origin = read_networks(Path("ffhq.pkl"))
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlgan.errors import IntegrityError, NotFound, TlganError, did_you_mean
from tlgan.importing.known import KNOWN, Known, find
from tlgan.models.blocks import Network

__all__ = ["KNOWN", "Known", "Origin", "read_networks", "recipe_for"]

R1_PER_PIXEL = 0.0002 / 32  # Karras et al. 2020 (ADA): gamma = 0.0002 * pixels / batch, here for a batch of 32


@dataclass(frozen=True)
class Origin:
    """Where networks came from; written into the artifact's facts."""

    file: str
    sha256: str
    format: str
    known: Known | None

    def to_json(self, licence: str | None = None) -> dict[str, Any]:
        """`licence` is what a person knows better."""
        told = licence or (self.known.licence if self.known else "unknown: ask whoever trained it")
        page = {"page": self.known.page, "about": self.known.about} if self.known else {}
        return {"file": self.file, "sha256": self.sha256, "format": self.format, "licence": told, **page}


def read_networks(path: Path) -> tuple[dict[str, Network], Origin]:
    """The networks of a file, by role (G_ema, and G and D where it has them), and where they come from.

    Raises `NotFound`, saying where a well-known file is to be had; `IntegrityError` for anything but networks of a known
    layout.
    """
    from tlgan.importing import official, rosinality
    from tlgan.importing.pickles import is_checkpoint, refused

    if not path.is_file():
        raise _missing(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = find(path.name)
    if known and known.sha256 and known.sha256 != digest:
        raise IntegrityError(
            f"{path} is not the published {known.file}: expected sha256 {known.sha256}, received {digest}",
            hint="download it again, or rename it if it is another network",
        )
    torch_file = is_checkpoint(path)
    try:
        networks = (rosinality if torch_file else official).read(path)
        recipe_for(networks["G_ema"])
    except (TlganError, OSError):
        raise
    except Exception as error:  # what a file says of itself need not make sense
        raise refused(path, error) from None
    side = networks["G_ema"].config["resolution"]
    if known and known.resolution != side:
        raise IntegrityError(f"{path} draws {side} px; {known.file} ({known.about}) draws {known.resolution}")
    return networks, Origin(path.name, digest, "rosinality" if torch_file else "nvlabs", known)


def recipe_for(G: Network) -> dict[str, Any]:
    """The sections of a recipe that a fine-tuning takes over: the networks and a loss like the authors'."""
    from tlgan.recipe import LossSpec, ModelSpec

    options = {name: value for name, value in G.config.items() if name in ModelSpec.model_fields}
    model = ModelSpec.model_validate({"arch": G.arch, "conditional": bool(G.classes), **options})
    loss = LossSpec(name="nonsaturating", r1=round(R1_PER_PIXEL * G.config["resolution"] ** 2, 6))
    return {"model": model.model_dump(mode="json"), "loss": loss.model_dump(mode="json")}


def _missing(path: Path) -> NotFound:
    if known := find(path.name):
        hint = f"download {known.file} ({known.about}, {known.resolution} px) from {known.page}, then import that file"
        return NotFound(f"{path} does not exist; tlgan fetches no networks by itself", hint=hint)
    near = did_you_mean(path.name, [known.file for known in KNOWN])
    return NotFound(f"{path} does not exist", hint=near or "`tlgan import --list` shows public networks")
