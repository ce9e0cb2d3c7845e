"""The GAN learner: one D phase (`n_critic` times) and one G phase a step.

How a step saves work, numbers unchanged: generated images are made once and serve both phases (as in the DCGAN paper's loop);
D sees real and generated images in one pass; in the G phase D's weights take no gradients; penalties are lazy.
Penalties are taken at the images as D saw them, augmented, and with respect to those, unless the augmentation says otherwise.
A conditional G draws images of the real batch's classes.

What is added to the two adversarial losses are `terms`; what trains when, and from which latents, is the transfer `method`'s.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tlgan import registry
from tlgan.augment import Params, build_augment
from tlgan.augment.apa import Apa
from tlgan.data.loader import Batch
from tlgan.distributed import World
from tlgan.ema import Ema
from tlgan.learners.optimisers import adam, frozen, load_optimiser_state, optimiser_state, train_mode
from tlgan.learners.styles import path_length_of, style_inputs
from tlgan.learners.terms import Critic, Terms, View
from tlgan.losses.lecam import lecam_of
from tlgan.losses.penalties import penalties_of
from tlgan.models.blocks import Network, channels_last
from tlgan.models.taps import tapped
from tlgan.precision import settled
from tlgan.random import generator
from tlgan.recipe import Recipe
from tlgan.transfer import method_of


class GanLearner:
    """Networks, optimisers and moving average of one training. `step` is a function of (state, batch, index) alone.

    With a transfer section, G and D are what `tlgan.transfer.start_from` made: the source's weights, prepared by the method.
    """

    def __init__(self, recipe: Recipe, G: Network, D: Network, world: World, G_ema: Network | None = None) -> None:
        self.recipe, self.world = recipe, world
        layout = {"device": world.device, "memory_format": torch.channels_last}
        self.G, self.D = G.to(**layout), D.to(**layout)
        train = recipe.train
        self.precision = settled(train.precision, world)
        self.ema = Ema(G if G_ema is None else G_ema.to(**layout), train.ema_kimg * 1000, train.ema_rampup)
        self.loss = registry.LOSSES.load(recipe.loss.name)()
        self.augment = build_augment(recipe.augment)
        self.method = method_of(recipe)
        self.terms = Terms(
            [
                *penalties_of(recipe, world),
                *lecam_of(recipe, world),
                *path_length_of(recipe, world),
                *self.method.terms(self.G, self.D, world),
            ]
        )
        betas = (train.beta1, train.beta2)
        self.optimisers = {"G": adam(self.G, train.lr_g, betas), "D": adam(self.D, train.lr_d, betas)}
        self._enter(0)

    def restart(self) -> None:
        """From here on as if training began with the networks as they are: the average is G, the optimisers know nothing."""
        self.ema.module.load_state_dict(self.G.state_dict())
        for optimiser in self.optimisers.values():
            optimiser.state.clear()

    @property
    def networks(self) -> dict[str, Network]:
        return {"G": self.G, "D": self.D, "G_ema": self.ema.module}

    def _enter(self, stage: int) -> None:
        """Train what the method trains in `stage`. DistributedDataParallel looks at `requires_grad` only as it wraps."""
        self.stage = stage
        self.method.enter(stage, self.G, self.D)
        self._ddp_G = self._ddp_D = None
        if self.world.size > 1:
            gc.collect()  # earlier wrappers take their hooks with them; they are part of reference cycles
        self._ddp_G, self._ddp_D = self.world.wrap(self.G), self.world.wrap(self.D)

    def step(self, batches: list[Batch], index: int, nimg: int) -> dict[str, Tensor]:
        """One step number `index` on `n_critic` batches; `nimg` images have been seen after it. Returns scalar statistics."""
        per_step = self.recipe.train.batch_size * len(batches)
        if (stage := self.method.stage(nimg - per_step)) != self.stage:
            self.method.cross(stage, self, batches[0])
            self._enter(stage)
        train_mode(self.G)
        train_mode(self.D)
        stats: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            critic_step = index * len(batches) + k
            last = k == len(batches) - 1
            wanted = self.terms.taps("G", index, "G") if last else []
            with torch.set_grad_enabled(last), tapped(self.G, wanted) as seen:
                z, inputs = self._latents(critic_step, batch)
                fake = self._fake(z, inputs)
            made = {"G": self.G, "D": self.D, "real": batch.images, "z": z, "inputs": inputs}
            stats |= self._d_phase({**made, "fake": fake.detach(), "step": critic_step})
        stats |= self._g_phase({**made, "fake": fake, "step": index}, seen)
        self.ema.update(self.G, nimg, per_step)
        return stats

    def _latents(self, critic_step: int, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """This rank's latents `[N, latent_dim]`, and what else the generator takes."""
        count = len(batch.images)
        rng = generator(self.recipe.train.seed, "z", critic_step)
        z = torch.randn(count * self.world.size, self.G.latent_dim, generator=rng)
        inputs = style_inputs(self.G, self.recipe, self.world, critic_step, count)
        if self.G.classes:
            inputs["labels"] = batch.labels
        z = self.world.slice(z).to(self.world.device)
        return self.method.latents(z, inputs, critic_step, self.world)

    def _fake(self, z: Tensor, inputs: dict[str, Any]) -> Tensor:
        with self._autocast():
            return self._ddp_G(z, **inputs).float()

    def _d_phase(self, made: dict[str, Any]) -> dict[str, Tensor]:
        fake, step = made["fake"], made["step"]
        draws = [self._draw(which, step, len(fake)) for which in ("real", "fake")]
        made["real"] = self._deceived(made["real"], made["inputs"], draws[0], step)
        real, fake = self.augment(made["real"], draws[0]), self.augment(fake, draws[1])
        both = channels_last(torch.cat([real, fake]))
        labels = made["inputs"].get("labels")
        with self._autocast(), tapped(self.D, self.terms.taps("D", step, "D")) as seen:
            logits_real, logits_fake = _judge(self._ddp_D, both, labels, parts=2).float().chunk(2)
        rows = self.method.rows
        shown = {"shown_real": real, "shown_fake": fake}
        shown |= {"logits_real": logits_real[rows], "logits_fake": logits_fake[rows]}
        view = View(**made, **shown, features=_features(D=seen), critic=self._critic(labels), show=self._show(draws))
        base = self.loss.d(view.logits_real, view.logits_fake)
        loss, terms = self.terms.add(base, "D", view)
        self._descend("D", loss)
        terms |= self._adapt(view.logits_real, view.logits_fake, step)
        stats = {"loss_d": base, "logits_real": logits_real.mean(), "logits_fake": logits_fake.mean(), **terms}
        return {name: value.detach() for name, value in stats.items()}

    def _g_phase(self, made: dict[str, Any], of_G: dict[str, Tensor]) -> dict[str, Tensor]:
        fake, step, labels = made["fake"], made["step"], made["inputs"].get("labels")
        others = self._judged_real(made["real"], labels, step) if self.loss.paired else {}
        shown = self.augment(fake, self._draw("g", step, len(fake)))
        with frozen(self.D), self._autocast(), tapped(self.D, self.terms.taps("G", step, "D")) as seen:
            logits = _judge(self.D, channels_last(shown), labels).float()[self.method.rows]
        base = self.loss.g(logits, others["logits_real"]) if self.loss.paired else self.loss.g(logits)
        shows = {"shown_fake": shown, "logits_fake": logits, **others, "critic": self._critic(labels)}
        with frozen(self.D):
            loss, terms = self.terms.add(base, "G", View(**made, **shows, features=_features(G=of_G, D=seen)))
        self._descend("G", loss)
        return {name: value.detach() for name, value in {"loss_g": base, **terms}.items()}

    @torch.no_grad()
    def _judged_real(self, real: Tensor, labels: Tensor | None, step: int) -> dict[str, Tensor]:
        """Real images as D sees them in the G phase, and their logits: generated ones are compared with them."""
        shown = self.augment(real, self._draw("g/real", step, len(real)))
        with self._autocast():
            logits = _judge(self.D, channels_last(shown), labels).float()[self.method.rows]
        return {"shown_real": shown, "logits_real": logits}

    @torch.no_grad()
    def _deceived(self, real: Tensor, inputs: dict[str, Any], params: Params, step: int) -> Tensor:
        """`real`, with generated images in place of some where the augmentation wants that; from latents of their own."""
        if not isinstance(self.augment, Apa) or not self.augment.deceives:
            return real
        rng = generator(self.recipe.train.seed, "pseudo", step)
        z = self.world.slice(torch.randn(len(real) * self.world.size, self.G.latent_dim, generator=rng))
        with self._autocast():
            return self.augment.deceive(real, self.G(z.to(real.device), **inputs).float(), params)

    def _adapt(self, real: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        """Tells an adaptive augmentation what D makes of real images. Where only differences of logits count, of a difference."""
        if self.augment.strength is None:
            return {}
        signs = real - fake if self.loss.relative else real
        self.augment.strength.observe(signs, step, self.world)
        return {"augment_p": self.augment.strength.p, "sign_real": signs.sign().mean()}

    def _critic(self, labels: Tensor | None) -> Critic:
        return lambda x_nchw: _judge(self.D, x_nchw, labels)

    def _show(self, draws: list[Params]) -> dict[str, Critic]:
        if not self.augment.through_penalties:
            return {}
        return {
            "real": lambda x_nchw: channels_last(self.augment(x_nchw, draws[0])),
            "fake": lambda x_nchw: channels_last(self.augment(x_nchw, draws[1])),
        }

    def _descend(self, which: str, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    def _draw(self, which: str, position: int, count: int) -> Params:
        rng = generator(self.recipe.train.seed, f"augment/{which}", position)
        drawn = self.augment.draw(count * self.world.size, rng)
        return {name: self.world.slice(values) for name, values in drawn.items()}

    def _autocast(self):
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that change in training, by owner: networks, moving average, optimisers keyed by parameter name, terms."""
        state = {which: dict(network.state_dict()) for which, network in self.networks.items()}
        for which, optimiser in self.optimisers.items():
            state[f"opt_{which}"] = optimiser_state(optimiser, self.networks[which])
        state |= self.terms.state_dict()
        if self.augment.strength is not None:
            state["augment"] = self.augment.strength.state_dict()
        if self.method.staged:
            state["transfer"] = {"stage": torch.tensor(self.stage)}
        return state

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        if self.method.staged:
            self._enter(int(state.get("transfer", {}).get("stage", 0)))
        for which, network in self.networks.items():
            network.load_state_dict(state[which])
        for which, optimiser in self.optimisers.items():
            load_optimiser_state(optimiser, self.networks[which], state[f"opt_{which}"])
        self.terms.load_state_dict(state)
        if self.augment.strength is not None and "augment" in state:  # an adopted checkpoint may be of another recipe
            self.augment.strength.load_state_dict(state["augment"])


def _judge(D: nn.Module, x_nchw: Tensor, labels: Tensor | None, parts: int = 1) -> Tensor:
    """D's logits for `parts` batches of images, one after the other, all with the classes `labels`; None without classes."""
    network = D.module if isinstance(D, DistributedDataParallel) else D
    inputs: dict[str, Any] = {"parts": parts} if network.looks_at_batch else {}
    if labels is not None:
        inputs["labels"] = labels.repeat(parts)
    return D(x_nchw, **inputs)


def _features(**seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the taps saw, by network and block, in full precision."""
    return {f"{which}.{name}": value.float() for which, maps in seen.items() for name, value in maps.items()}
