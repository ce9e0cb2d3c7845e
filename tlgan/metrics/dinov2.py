"""DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193) as a feature extractor: `fid` on it is FD-DINOv2 (Stein et
al. 2023, https://arxiv.org/abs/2306.04675), which agrees with people's judgement where Inception does not.

The vision transformers of the authors' release, without registers, from a local file; size and depth are read off the
weights. Images are resized to 224 px (bicubic, antialiased, not rounded); features are the normalised class token.

Legend: N images; T tokens (256 patches of 14 px and the class token); D width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlgan.errors import DataError, NotFound
from tlgan.metrics.extractors import digest_of_network, resized, to_channels
from tlgan.metrics.features import check_images
from tlgan.metrics.weights import load_into, read_weights

SIDE, PATCH, HEAD = 224, 14, 64
WHERE = (
    "get https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth (1.2 GB; vits14 is 84 MB) where "
    "there is a network, and pass it as `extractor: dinov2:/path/to/the/file.pth`"
)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_ntd: Tensor) -> Tensor:
        n, t, d = x_ntd.shape
        q, k, v = self.qkv(x_ntd).view(n, t, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwiGlu(nn.Module):
    """The giant model's feed-forward part."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width), (SwiGlu if gated else Mlp)(width, hidden)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class VisionTransformer(nn.Module):
    """Names of parameters are the release's. `positions`: tokens it has position embeddings for, the class token's too."""

    def __init__(self, width: int, depth: int, hidden: int, positions: int, gated: bool) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the pretraining; nothing uses it
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width, hidden, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """[N, 3, H, W], sides multiples of 14, to the class token [N, D]."""
        grid = self.patch_embed["proj"](x_nchw)
        tokens = torch.cat([self.cls_token.expand(len(grid), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self._positions(grid.shape[2], grid.shape[3])
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)[:, 0]
        return out

    def _positions(self, rows: int, cols: int) -> Tensor:
        """[1, T, D] for a grid of patches, bicubic from the pretraining's; the release adds 0.1 to the size on purpose."""
        own, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        if (rows, cols) == (side, side):
            return self.pos_embed
        square = patches.view(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (cols + 0.1) / side)
        square = F.interpolate(square, scale_factor=scale, mode="bicubic")
        assert square.shape[2:] == (rows, cols), "the 0.1 rounds away"
        return torch.cat([own, square.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def build(state: dict[str, Tensor]) -> VisionTransformer:
    """The network that has tensors of these shapes. Raises `KeyError` when they are not such a network's."""
    width, positions = state["pos_embed"].shape[2], state["pos_embed"].shape[1]
    depth = 1 + max(int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name)))
    gated = "blocks.0.mlp.w3.weight" in state
    hidden = state[f"blocks.0.mlp.{'w3' if gated else 'fc2'}.weight"].shape[1]
    return VisionTransformer(width, depth, hidden, positions, gated)


class DinoFeatures:
    """`weights`: a file of the authors' release. Raises `NotFound` or `DataError`. It knows no classes."""

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, weights: Path | None, device: str | torch.device = "cpu") -> None:
        if weights is None:
            raise NotFound("extractor dinov2 needs a file of weights; received none", hint=WHERE)
        state = read_weights(weights, "DINOv2", WHERE)
        try:
            network = build(state)
        except (KeyError, ValueError, IndexError) as error:
            raise DataError(f"{weights} does not hold DINOv2's vision transformer: {error!r}", hint=WHERE) from error
        load_into(network, state, weights, "DINOv2's vision transformer", WHERE)
        self.name, self.device = "dinov2", torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self.device)
        about = {"resize": f"bicubic antialiased to {SIDE} px, not rounded", "channels": 3, "layer": "class token"}
        about |= {"width": network.cls_token.shape[2], "depth": len(network.blocks)}
        self.digest = digest_of_network(network, {"arch": "dinov2-vit14", **about})
        self.protocol: dict[str, Any] = {"extractor": self.name, "extractor_digest": self.digest, **about}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 to 4, H, W] to float32 [N, D] on the CPU."""
        return torch.cat([self._network(self._prepare(part)).cpu() for part in check_images(images).split(64)])

    def _prepare(self, images: Tensor) -> Tensor:
        x = resized(to_channels(images.to(self.device).float(), 3), SIDE) / 255
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.MEAN, self.STD))
        return (x - mean) / std
