"""Parts shared by the networks.

Every network has `arch`, `role` ("G" or "D"), `config` (the keywords that rebuild it) and `blocks`, an `nn.ModuleDict`
with one entry a resolution level: `b4, b8, ...` in a generator (from the latent side), `b32, b16, ...` in a discriminator
(from the image side). All parameters live in blocks: freezing, storing and sharing count them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def level_widths(resolution: int, width: int) -> dict[int, int]:
    """Channels at each level: `width` at the image side, doubled a level, at most 8 times. {4: 4w, 8: 2w, 16: w} at 32 px."""
    levels, size = {}, resolution // 2
    while size >= 4:
        levels[size] = min(width * resolution // (2 * size), 8 * width)
        size //= 2
    return dict(sorted(levels.items()))


def spectral(module: nn.Module, enabled: bool) -> nn.Module:
    """Spectral normalisation (Miyato et al. 2018), one power iteration a forward in training."""
    return parametrizations.spectral_norm(module) if enabled else module


def channels_last(x_nchw: Tensor) -> Tensor:
    """The same images laid out NHWC in memory, which CPU and tensor-core convolutions want.

    One-channel images fit both layouts, and convolutions then pick the slow one (10x on CPU); the strides given here say NHWC.
    """
    if x_nchw.shape[1] == 1:
        return x_nchw.squeeze(1).contiguous().unsqueeze(3).permute(0, 3, 1, 2)
    return x_nchw.contiguous(memory_format=torch.channels_last)


class Network(nn.Module):
    """What every network offers. `latent_dim` is a generator's."""

    arch: str
    role: str
    config: dict[str, Any]
    blocks: nn.ModuleDict
    latent_dim: int


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is an all-reduce: every rank's output depends on every rank's input."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the *global* batch, on any backend (torch's SyncBatchNorm refuses CPU tensors).

    Alone, or in eval mode, it is torch's own. Otherwise the moments are averaged over ranks, so that the update does
    not depend on the number of workers. Ranks must hold equally many rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        synced = self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return self._synced(x) if synced else super().forward(x)

    def _synced(self, x: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        local = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]).float()
        mean, square = (_SumOverRanks.apply(local) / ranks).chunk(2)
        var = (square - mean.square()).clamp_min(0)
        if self.track_running_stats:
            count = x.numel() // x.shape[1] * ranks
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean.detach(), self.momentum)
                self.running_var.lerp_(var.detach() * (count / max(count - 1, 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]
