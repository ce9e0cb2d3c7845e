"""The loop of pytorch's classic DCGAN example, written anew: the yardstick of `tests.bench.loop`.

What the example does and a faster loop would not: images go through PIL-style transforms one by one in two loader
processes, D takes real and generated images in two passes, its weights collect gradients in the G step too, every
iteration reads five numbers back and prints them. Default Adam (betas 0.5 and 0.999), no moving average, default memory
layout, networks of torch's own modules. Left out: the sample grid every hundred iterations and the checkpoint every epoch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.data import DataLoader

REAL, FAKE = 1.0, 0.0


def networks(ours_g: nn.Module, ours_d: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The `dcgan` pair as the example writes it, one `Sequential` of torch's modules each, with the weights of ours.

    G takes `[N, latent_dim, 1, 1]` and gives images, D takes images and gives logits `[N, 1, 1, 1]`.
    """
    G, D = nn.Sequential(*map(_plain, _leaves(ours_g))), nn.Sequential(*map(_plain, _leaves(ours_d)))
    for theirs, ours in ((G, ours_g), (D, ours_d)):
        own = [*ours.parameters(), *ours.buffers()]
        for to, value in zip([*theirs.parameters(), *theirs.buffers()], own, strict=True):
            to.data = value.detach().clone()
    return G, D


def _leaves(network: nn.Module) -> Iterator[nn.Module]:
    return (layer for block in network.blocks.children() for layer in block)


def _plain(layer: nn.Module) -> nn.Module:
    """torch's own module of the same kind, with spectral norm where `layer` has it."""
    kinds = (nn.ConvTranspose2d, nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU, nn.ReLU, nn.Tanh)
    kind = next(kind for kind in kinds if isinstance(layer, kind))
    if kind is nn.BatchNorm2d:
        return nn.BatchNorm2d(layer.num_features)
    if kind in (nn.Conv2d, nn.ConvTranspose2d):
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        conv = kind(*sizes, bias=layer.bias is not None)
        return spectral_norm(conv) if is_parametrized(layer) else conv
    return nn.LeakyReLU(0.2, inplace=True) if kind is nn.LeakyReLU else kind()


class Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """uint8 images, decoded before, through the example's transforms one at a time."""

    def __init__(self, images_nchw: npt.NDArray[np.uint8]) -> None:
        channels = images_nchw.shape[1]
        self.images_nhwc = np.ascontiguousarray(images_nchw.transpose(0, 2, 3, 1))
        from torchvision import transforms  # which imports torch's compiler, seconds

        self.transform = transforms.Compose(
            [transforms.ToPILImage(), transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.5,) * channels)]
        )

    def __len__(self) -> int:
        return len(self.images_nhwc)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images_nhwc[index]), 0


def from_files(images_nchw: npt.NDArray[np.uint8], batch_size: int, workers: int = 2) -> Iterator[Tensor]:
    """Batches as the example gets them, epoch after epoch."""
    loader = DataLoader(Images(images_nchw), batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True)
    return (batch for _ in itertools.count() for batch, _label in loader)


def from_memory(images_nchw: npt.NDArray[np.uint8], batch_size: int) -> Iterator[Tensor]:
    """The same batches cut from one float tensor: what is left of the loop's time is computing."""
    images = torch.from_numpy(np.array(images_nchw)).float().div_(127.5).sub_(1.0)
    while True:
        yield from images[torch.randperm(len(images))].split(batch_size)[:-1]


def train(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[Tensor],
    *,
    latent_dim: int,
    lr: float,
    steps: int,
    warmup: int,
    log: IO[str],
) -> float:
    """Images per second after the first `warmup` of `steps` iterations."""
    criterion = nn.BCEWithLogitsLoss()
    optimizer_d = torch.optim.Adam(D.parameters(), lr=lr, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(G.parameters(), lr=lr, betas=(0.5, 0.999))
    begun, count = 0.0, 0
    for step, real in enumerate(itertools.islice(batches, steps)):
        if step == warmup:
            begun, count = time.perf_counter(), 0
        count += len(real)

        D.zero_grad()
        label = torch.full((len(real),), REAL)
        output = D(real).view(-1)
        loss_real = criterion(output, label)
        loss_real.backward()
        d_x = output.mean().item()

        fake = G(torch.randn(len(real), latent_dim, 1, 1))
        label.fill_(FAKE)
        output = D(fake.detach()).view(-1)
        loss_fake = criterion(output, label)
        loss_fake.backward()
        d_g_z1 = output.mean().item()
        optimizer_d.step()

        G.zero_grad()
        label.fill_(REAL)
        output = D(fake).view(-1)
        loss_g = criterion(output, label)
        loss_g.backward()
        d_g_z2 = output.mean().item()
        optimizer_g.step()

        loss_d = (loss_real + loss_fake).item()
        print(f"[{step}/{steps}] D {loss_d:.4f} G {loss_g.item():.4f} {d_x:.4f} {d_g_z1:.4f}/{d_g_z2:.4f}", file=log)
    return count / (time.perf_counter() - begun)
