"""Small seeded stand-ins for extractors and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlgan.canonical import digest_of


class Pixels:
    """Features are the pixels in [0, 1]; counts its calls."""

    def __init__(self, name: str = "pixels", scale: float = 255.0) -> None:
        self.name = name
        self.scale = scale
        self.digest = digest_of({"pixels": scale})
        self.protocol: dict[str, Any] = {"extractor": name, "extractor_digest": self.digest, "resize": "none"}
        self.calls: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return images.flatten(1).float() / self.scale


def random_images(count: int, seed: int, channels: int = 1, size: int = 4) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draw)
