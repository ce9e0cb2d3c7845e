"""The space in which a generator's images are walked and searched: styles where the network has them, latents elsewhere.

Legend: `z_nd` latents `[N, latent_dim]`; `codes` `[N, latent_dim]` in z, `[N, style_dim]` in w.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlgan.errors import SpecError
from tlgan.models.blocks import Network
from tlgan.random import latents
from tlgan.sampling import labels_of

MEAN_SAMPLES = 1024


class Space:
    """`name` is `w` for a network with styles, else `z`; `dim` is the length of a code."""

    def __init__(self, g: Network) -> None:
        self.g: Any = g
        self.name = "w" if hasattr(g, "synthesise") else "z"
        self.dim = int(g.config["style_dim"]) if self.name == "w" else g.latent_dim
        self.device = next(g.parameters()).device

    def codes(self, z_nd: Tensor, truncation: float = 1.0) -> Tensor:
        """Codes of latents, drawn towards the mean by `truncation`."""
        z = z_nd.to(self.device)
        return self.g.styles(z, truncation)[:, 0] if self.name == "w" else z * truncation

    def images(self, codes: Tensor) -> Tensor:
        """Float images `[N, C, H, W]`, differentiable. `codes` may be `[N, style_count, style_dim]` in w."""
        if self.name == "z":
            images: Tensor = self.g(codes)
            return images
        styles = codes if codes.dim() == 3 else codes[:, None].expand(-1, self.g.style_count, -1)
        drawn: Tensor = self.g.synthesise(styles)
        return drawn

    @torch.no_grad()
    def moments(self, seed: int = 0) -> tuple[Tensor, float]:
        """The mean code `[dim]`, and the root mean square distance of codes to it per dimension."""
        codes = self.codes(latents(seed, 0, MEAN_SAMPLES, self.g.latent_dim))
        mean = codes.mean(0)
        return mean, float((codes - mean).square().mean().sqrt())


class OfClass:
    """A conditional generator that draws one class only: used like a generator without classes."""

    def __init__(self, g: Network, label: int) -> None:
        self._g: Any = g
        self.label = label

    def __getattr__(self, name: str) -> Any:
        return getattr(self._g, name)

    def _labels(self, z: Tensor) -> Tensor:
        return torch.full((z.shape[0],), self.label, dtype=torch.int64, device=z.device)

    def __call__(self, z: Tensor) -> Tensor:
        images: Tensor = self._g(z, labels=self._labels(z))
        return images

    def styles(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        styles: Tensor = self._g.styles(z, truncation, self._labels(z))
        return styles

    def truncated(self, z: Tensor, truncation: float) -> Tensor:
        images: Tensor = self._g.truncated(z, truncation, labels=self._labels(z))
        return images


def of_class(g: Network, name: str | None) -> Any:
    """`g` itself, or a conditional `g` drawing the class `name`. Raises `SpecError` where one is missing or unknown."""
    if name is None and not g.classes:
        return g
    if name is None:
        raise SpecError("this generator is conditional; expected a class", hint=f"--class {g.classes[0]}, say")
    labels = labels_of(g, 0, 0, 1, [name])
    assert labels is not None
    return OfClass(g, int(labels[0]))


def with_styles(g: Network, what: str) -> Space:
    """The space of a network with styles. Raises `SpecError` for another one."""
    space = Space(g)
    if space.name != "w":
        raise SpecError(f"{what} needs a network with styles (stylegan2); {g.arch} has none")
    return space


def level_position(g: Any, block: str) -> int:
    """Number of the first style that block `block` of a network with styles takes. Raises `SpecError`."""
    position = 0
    names = [name for name in g.blocks if hasattr(g.blocks[name], "convs")]
    for name in names:
        if name == block:
            return position
        position += len(g.blocks[name].convs)
    raise SpecError(f'there is no level "{block}"; expected one of: {", ".join(names)}')
