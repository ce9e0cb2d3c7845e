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
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations

from tlgan.errors import SpecError
from tlgan.shapes import Resolution, longer


def level_widths(resolution: Resolution, width: int) -> dict[int, int]:
    """Channels at each level: `width` at the image side, doubled a level, at most 8 times. {4: 4w, 8: 2w, 16: w} at 32 px.

    Levels are counted and named by the longer side.
    """
    resolution = longer(resolution)
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
    """What every network offers. `latent_dim` is a generator's.

    Conditional networks have `classes` and `class_counts` (images of each in training) in `config`, and take `labels` int64 `[N]`.
    `looks_at_batch`: a discriminator whose logits depend on the other images; it takes `parts`, the number of batches that
    its input is the concatenation of. `equalised`: weights are scaled by their number of inputs as they are used.
    """

    arch: str
    role: str
    config: dict[str, Any]
    blocks: nn.ModuleDict
    latent_dim: int
    looks_at_batch = False
    equalised = False

    @property
    def classes(self) -> list[str]:
        """Names of the classes that a conditional network knows; empty for others."""
        return list(self.config.get("classes", []))

    def truncated(self, z: Tensor, truncation: float, labels: Tensor | None = None) -> Tensor:
        """Images of latents `[N, latent_dim]` drawn towards their mean, zero."""
        return self(z * truncation, labels=labels)

    def describe_classes(self, classes: list[str] | None, class_counts: list[int] | None) -> int:
        """Notes the classes in `config`, and how many there are: 0 makes the network unconditional."""
        if classes:
            counts = [1] * len(classes) if class_counts is None else class_counts
            self.config |= {"classes": list(classes), "class_counts": list(counts)}
        return len(classes or [])

    def check_labels(self, labels: Tensor | None) -> None:
        """A conditional network takes labels and another doesn't. Raises `SpecError`."""
        if (labels is None) != (not self.classes):
            expected = "labels [N], for it is conditional" if self.classes else "no labels, for it is not conditional"
            received = "none" if labels is None else f"labels {list(labels.shape)}"
            raise SpecError(f"{self.arch} {self.role}: expected {expected}; received {received}")


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the *global* batch, on any backend (torch's SyncBatchNorm refuses CPU tensors).

    Alone, or in eval mode, it is torch's own. Otherwise the moments are taken over all ranks, so that the update does
    not depend on the number of workers. Ranks must hold equally many rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        synced = self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return self._synced(x) if synced else super().forward(x)

    def _synced(self, x: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        mean, var = _global_moments(x.detach().float(), ranks)
        if self.track_running_stats:
            count = x.numel() // x.shape[1] * ranks
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / max(count - 1, 1)), self.momentum)
        return _NormaliseGlobally.apply(x, self.weight, self.bias, mean, var, self.eps, ranks)


def _global_moments(x: Tensor, ranks: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[C]` over all ranks' rows, from each rank's own: no small difference of large numbers."""
    mean = x.mean((0, 2, 3))
    own = torch.stack([mean, (x - mean[:, None, None]).square_().mean((0, 2, 3))])
    parts = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(parts, own)
    means, variances = torch.stack(parts).unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _NormaliseGlobally(torch.autograd.Function):
    """Normalises with the global moments; in the gradient these depend on every rank's input. One all-reduce each way.

    The gradients of weight and bias come from torch's fused kernel; its gradient of `x` is slow on CPU, so that is two `addcmul`.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, ranks):
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.ranks = eps, ranks
        return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, mean, var = ctx.saved_tensors
        scale = torch.rsqrt(var + ctx.eps)
        held = (grad, x, weight, mean, var, mean, scale, False, ctx.eps, [False, True, True])
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(*held)
        sums = torch.stack([grad_weight, grad_bias])
        dist.all_reduce(sums)
        along, constant = sums / (x.numel() // x.shape[1] * ctx.ranks)
        gain = weight * scale
        slope = -gain * scale * along
        offset = -gain * constant - mean * slope
        gain, slope, offset = (c.to(x.dtype)[:, None, None] for c in (gain, slope, offset))
        grad_x = torch.addcmul(offset, x, slope).addcmul_(grad, gain)
        return grad_x, grad_weight, grad_bias, None, None, None, None
