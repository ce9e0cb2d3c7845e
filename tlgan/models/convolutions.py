"""Convolutions that are slow in torch on CPU: next to the image, next to the latents and, in bf16, next to small maps.

Each class stands for the torch module it is made of: same weights, names, layouts and values, to rounding. Where torch's is not
slow, it is torch's own: on GPUs, next to images under autocast, between maps without it. Legend: `x_nchw` the side with more
pixels, often an image of few channels, `h_nchw` a map of half its side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlgan.models.blocks import channels_last

_TAPS = {
    "stride": [2, 2],
    "padding": [1, 1],
    "dilation": [1, 1],
    "transposed": False,
    "output_padding": [0, 0],
    "groups": 1,
}

LARGE = 512
"""Numbers in the weights for each pixel of a map, from which on oneDNN's gradient of the weights is slower than a product."""


class MapToPoint(nn.Conv2d):
    """`[N, C, h, w] -> [N, out, 1, 1]` with a kernel of that size, without padding: a matrix product, up to ten times faster."""

    def forward(self, h_nchw: Tensor) -> Tensor:
        rows, weight = h_nchw.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight, self.bias)[:, :, None, None]


class PointToMap(nn.ConvTranspose2d):
    """`[N, C, 1, 1] -> [N, out, h, w]` with a kernel of that size, without padding and bias: a matrix product, laid out NHWC."""

    def forward(self, z_nchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        inputs, outputs, height, width = self.weight.shape
        maps = z_nchw.flatten(1) @ self.weight.permute(0, 2, 3, 1).reshape(inputs, -1)
        return maps.view(-1, height, width, outputs).permute(0, 3, 1, 2)


class FromImage(nn.Conv2d):
    """Kernel 4, stride 2, padding 1, with bias, from an image: the gradient of the image is three times faster."""

    def forward(self, x_nchw: Tensor) -> Tensor:
        return _Halve.apply(x_nchw, self.weight, self.bias) if _on_cpu(x_nchw) else super().forward(x_nchw)


class ToImage(nn.ConvTranspose2d):
    """Kernel 4, stride 2, padding 1, with bias, to an image: three times faster forward."""

    def forward(self, h_nchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _Double.apply(h_nchw, self.weight, self.bias) if _on_cpu(h_nchw) else super().forward(h_nchw)


class Down(nn.Conv2d):
    """Kernel 4, stride 2, padding 1, from map to map: in bf16 the gradient of the weights is up to five times faster."""

    def forward(self, x_nchw: Tensor) -> Tensor:
        return _Halve.apply(*_in_bf16(self, x_nchw)) if _to_bf16(x_nchw) else super().forward(x_nchw)


class Up(nn.ConvTranspose2d):
    """Kernel 4, stride 2, padding 1, from map to map twice its side: what `Down` gains, this gains."""

    def forward(self, h_nchw: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _Double.apply(*_in_bf16(self, h_nchw)) if _to_bf16(h_nchw) else super().forward(h_nchw)


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _to_bf16(x: Tensor) -> bool:
    on = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return on and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _in_bf16(module: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> list[Tensor | None]:
    """What the functions below take, as autocast would cast it."""
    return [part if part is None else part.to(torch.bfloat16) for part in (x, module.weight, module.bias)]


class _Halve(torch.autograd.Function):
    """Convolution. The gradient of its input is `_Double`, and the other way round, so both have all derivatives."""

    @staticmethod
    def forward(ctx, x_nchw, weight, bias):
        ctx.save_for_backward(x_nchw, weight, bias)
        return F.conv2d(x_nchw, weight, bias, 2, 1)

    @staticmethod
    def backward(ctx, grad):
        x_nchw, weight, bias = ctx.saved_tensors
        grad_x = _Double.apply(grad, weight, None) if ctx.needs_input_grad[0] else None
        wanted = [False, ctx.needs_input_grad[1], bias is not None and ctx.needs_input_grad[2]]
        return grad_x, *_weight_gradients(grad, x_nchw, weight, wanted)


class _Double(torch.autograd.Function):
    """Transposed convolution, of the same weights `[map channels, image channels, 4, 4]`."""

    @staticmethod
    def forward(ctx, h_nchw, weight, bias):
        ctx.save_for_backward(h_nchw, weight, bias)
        if h_nchw.dtype == torch.bfloat16:
            return F.conv_transpose2d(h_nchw, weight, bias, 2, 1)
        return subpixel(h_nchw, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        h_nchw, weight, bias = ctx.saved_tensors
        grad = channels_last(grad)
        grad_h = _Halve.apply(grad, weight, None) if ctx.needs_input_grad[0] else None
        grad_weight, _ = _weight_gradients(h_nchw, grad, weight, [False, ctx.needs_input_grad[1], False])
        grad_bias = grad.sum((0, 2, 3)) if bias is not None and ctx.needs_input_grad[2] else None
        return grad_h, grad_weight, grad_bias


def _weight_gradients(h_nchw: Tensor, x_nchw: Tensor, weight: Tensor, wanted: list[bool]) -> list[Tensor | None]:
    """Of weight and bias, for a convolution from `x_nchw` with the gradient `h_nchw`; None for what is not wanted."""
    if not any(wanted):
        return [None, None]
    if h_nchw.dtype == torch.bfloat16 and weight.numel() >= LARGE * h_nchw[0, 0].numel():
        product = _as_product(h_nchw, x_nchw, weight) if wanted[1] else None
        return [product, h_nchw.sum((0, 2, 3)) if wanted[2] else None]
    args = {"bias_sizes": [len(weight)], "output_mask": wanted, **_TAPS}
    return torch.ops.aten.convolution_backward(h_nchw, x_nchw, weight, **args)[1:]


def _as_product(h_nchw: Tensor, x_nchw: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weights by one matrix product: the maps times, for each of their pixels, its patch of `x_nchw`."""
    outputs, inputs, size, _ = weight.shape
    count, _, height, width = h_nchw.shape
    padded = channels_last(F.pad(x_nchw, (1, 1, 1, 1)))
    each, channel, row, column = padded.stride()
    strides = (each, 2 * row, 2 * column, row, column, channel)
    patches = padded.as_strided((count, height, width, size, size, inputs), strides).reshape(-1, size * size * inputs)
    maps = h_nchw.permute(0, 2, 3, 1).reshape(-1, outputs)
    return (maps.t() @ patches).view(outputs, size, size, inputs).permute(0, 3, 1, 2)


def subpixel(h_nchw: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_transpose2d(h, weight, bias, stride=2, padding=1)`, kernel 4 (Shi et al. 2016, sub-pixel convolution).

    Output pixels of one parity in rows and columns are a convolution with the 2x2 taps of that parity. All four are
    made at once as channels, then interleaved; the rim that padding cuts off is computed too.
    """
    count, inputs, height, width = h_nchw.shape
    outputs = weight.shape[1]
    taps = weight.unflatten(3, (2, 2)).unflatten(
        2, (2, 2)
    )  # [inputs, outputs, row tap, row parity, column tap, parity]
    kernels = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2).flip(2, 3)
    biases = None if bias is None else bias.repeat(4)
    parities = F.conv2d(h_nchw, channels_last(kernels), biases, 1, 1).permute(0, 2, 3, 1)
    rows = parities.reshape(count, height + 1, width + 1, 2, 2, outputs).permute(0, 1, 3, 2, 4, 5)
    image = rows.reshape(count, 2 * height + 2, 2 * width + 2, outputs)[:, 1:-1, 1:-1]
    return channels_last(image.permute(0, 3, 1, 2))
