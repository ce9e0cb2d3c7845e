"""The GAN learner: one D phase (`n_critic` times) and one G phase a step.

How a step saves work, numbers unchanged: generated images are made once and serve both phases (as in the DCGAN paper's loop);
D sees real and generated images in one pass; in the G phase D's weights take no gradients; penalties are lazy.
Penalties are taken at the images as D saw them, augmented, and with respect to those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tlgan import registry
from tlgan.augment import Params, build_augment
from tlgan.data.loader import Batch
from tlgan.distributed import World
from tlgan.ema import Ema
from tlgan.learners.styles import PathLength, style_inputs
from tlgan.losses.penalties import penalties_of
from tlgan.models.blocks import Network, channels_last
from tlgan.random import generator
from tlgan.recipe import Recipe


class GanLearner:
    """Networks, optimisers and moving average of one training. `step` is a function of (state, batch, index) alone."""

    def __init__(self, recipe: Recipe, G: Network, D: Network, world: World, G_ema: Network | None = None) -> None:
        self.recipe, self.world = recipe, world
        layout = {"device": world.device, "memory_format": torch.channels_last}
        self.G, self.D = G.to(**layout), D.to(**layout)
        train = recipe.train
        self.ema = Ema(G if G_ema is None else G_ema.to(**layout), train.ema_kimg * 1000, train.ema_rampup)
        self.loss = registry.LOSSES.load(recipe.loss.name)()
        self.penalties = penalties_of(recipe.loss)
        self.path_length = PathLength(recipe, world)
        self.augment = build_augment(recipe.augment)
        betas = (train.beta1, train.beta2)
        self.optimisers = {
            "G": _adam(self.G, train.lr_g, betas),
            "D": _adam(self.D, train.lr_d, betas),
        }
        self._ddp_G, self._ddp_D = world.wrap(self.G), world.wrap(self.D)

    @property
    def networks(self) -> dict[str, Network]:
        return {"G": self.G, "D": self.D, "G_ema": self.ema.module}

    def step(self, batches: list[Batch], index: int, nimg: int) -> dict[str, Tensor]:
        """One step number `index` on `n_critic` batches; `nimg` images have been seen after it. Returns scalar statistics."""
        train_mode(self.G)
        train_mode(self.D)
        stats: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            critic_step = index * len(batches) + k
            last = k == len(batches) - 1
            with torch.set_grad_enabled(last):
                z, inputs = self._latents(critic_step, len(batch.images))
                fake = self._fake(z, inputs)
            stats |= self._d_phase(batch.images, fake.detach(), critic_step)
        stats |= self._g_phase(fake, z, inputs, index)
        self.ema.update(self.G, nimg, self.recipe.train.batch_size * len(batches))
        return stats

    def _latents(self, critic_step: int, count: int) -> tuple[Tensor, dict[str, Any]]:
        """This rank's latents `[count, latent_dim]`, and what else the generator takes."""
        rng = generator(self.recipe.train.seed, "z", critic_step)
        z = torch.randn(count * self.world.size, self.G.latent_dim, generator=rng)
        inputs = style_inputs(self.G, self.recipe, self.world, critic_step, count)
        return self.world.slice(z).to(self.world.device), inputs

    def _fake(self, z: Tensor, inputs: dict[str, Any]) -> Tensor:
        with self._autocast():
            return self._ddp_G(z, **inputs).float()

    def _d_phase(self, real: Tensor, fake: Tensor, critic_step: int) -> dict[str, Tensor]:
        draws = [self._draw(which, critic_step, len(real)) for which in ("real", "fake")]
        real, fake = self.augment(real, draws[0]), self.augment(fake, draws[1])
        both = channels_last(torch.cat([real, fake]))
        with self._autocast():
            parts = {"parts": 2} if self.D.looks_at_batch else {}
            logits_real, logits_fake = self._ddp_D(both, **parts).float().chunk(2)
        loss = self.loss.d(logits_real, logits_fake)
        stats = {"loss_d": loss, "logits_real": logits_real.mean(), "logits_fake": logits_fake.mean()}
        for penalty in self.penalties:
            if critic_step % penalty.interval == 0:
                rng = generator(self.recipe.train.seed, penalty.name, critic_step)
                mix = self.world.slice(torch.rand(len(real) * self.world.size, generator=rng)).to(real.device)
                term = penalty(self.D, real, fake, mix)
                stats[penalty.name] = term / penalty.interval
                loss = loss + term
        self.optimisers["D"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers["D"].step()
        return {name: value.detach() for name, value in stats.items()}

    def _g_phase(self, fake: Tensor, z: Tensor, inputs: dict[str, Any], index: int) -> dict[str, Tensor]:
        with frozen(self.D), self._autocast():
            shown = self.augment(fake, self._draw("g", index, len(fake)))
            loss = self.loss.g(self.D(channels_last(shown)).float())
        stats = {"loss_g": loss.detach()}
        if self.path_length.due(index):
            term = self.path_length(self.G, z, inputs, index)
            stats[self.path_length.name] = term.detach() / self.path_length.interval
            loss = loss + term
        self.optimisers["G"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers["G"].step()
        return stats

    def _draw(self, which: str, position: int, count: int) -> Params:
        rng = generator(self.recipe.train.seed, f"augment/{which}", position)
        drawn = self.augment.draw(count * self.world.size, rng)
        return {name: self.world.slice(values) for name, values in drawn.items()}

    def _autocast(self):
        bf16 = self.recipe.train.precision == "bf16"
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=bf16)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that change in training, by owner: networks, moving average, optimisers keyed by parameter name."""
        state = {which: dict(network.state_dict()) for which, network in self.networks.items()}
        for which, optimiser in self.optimisers.items():
            state[f"opt_{which}"] = optimiser_state(optimiser, self.networks[which])
        if self.path_length.weight:
            state[self.path_length.name] = {"mean": self.path_length.mean}
        return state

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        for which, network in self.networks.items():
            network.load_state_dict(state[which])
        for which, optimiser in self.optimisers.items():
            load_optimiser_state(optimiser, self.networks[which], state[f"opt_{which}"])
        if self.path_length.weight:
            self.path_length.mean = state[self.path_length.name]["mean"].to(self.world.device)


def _adam(network: Network, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    trainable = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(trainable, lr=lr, betas=betas, fused=True)


def train_mode(network: Network) -> None:
    """Training mode, but for blocks whose every parameter is frozen: their batch statistics and norms stay as they are."""
    network.train()
    for block in network.blocks.values():
        if not any(p.requires_grad for p in block.parameters()):
            block.eval()


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """No gradients for the parameters of `network` in the block; what was frozen before stays frozen after."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def optimiser_state(optimiser: torch.optim.Optimizer, network: Network) -> dict[str, Tensor]:
    """`{parameter name/slot: tensor}`: names, not positions, so runs with different frozen parts can read each other's."""
    names = {p: name for name, p in network.named_parameters()}
    return {f"{names[p]}/{slot}": value for p, slots in optimiser.state.items() for slot, value in slots.items()}


def load_optimiser_state(optimiser: torch.optim.Optimizer, network: Network, state: dict[str, Tensor]) -> None:
    slots: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = value
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, p in trainable.items():
        if name in slots:
            optimiser.state[p] = {slot: _laid_out_as(p, value) for slot, value in slots[name].items()}


def _laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    """A copy of an optimiser's slot with the strides of its parameter: fused Adam walks raw memory, whatever the strides say."""
    if value.shape != p.shape:
        return value.to(p.device, copy=True)
    return torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
