"""Cross-domain correspondence (Ojha et al. 2021, "Few-shot image generation via cross-domain correspondence").

Distances between images of a batch, seen at every block of G, stay in proportion what they are for the frozen source's G on the
same latents. D judges whole images only near a few anchor latents, and patches of all: with ten images to learn from, whole
ones are learnt by heart. The patch head sits on D's middle block and is not published.

Departures: of every batch a quarter is near anchors, where the authors' code makes every fourth batch so; one tap of D for
patches where it draws one of several; distances within groups of four images, which stay together however many workers there are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlgan import registry
from tlgan.distributed import World
from tlgan.learners.terms import Term, View
from tlgan.losses.adversarial import NonSaturating
from tlgan.models import seeded
from tlgan.models.blocks import Network
from tlgan.models.taps import tapped
from tlgan.random import generator
from tlgan.shapes import sides
from tlgan.transfer.frozen import frozen_copy
from tlgan.transfer.mask import freeze_depths
from tlgan.transfer.method import Method

EVERY = 4  # one image in so many is near an anchor
GROUP = 4  # images whose distances are compared
SPREAD = 0.05  # standard deviation of latents around an anchor, as in the authors' code


class CrossDomain(Method):
    rows = slice(None, None, EVERY)

    def prepare(self, G: Network, D: Network) -> None:
        freeze_depths(G, D, self.spec)
        middle = middle_block(D)
        with torch.no_grad(), tapped(D.eval(), [middle]) as seen:
            labels = {"labels": torch.zeros(2, dtype=torch.long)} if D.config.get("classes") else {}
            D(torch.zeros(2, D.config["channels"], *sides(D.config["resolution"])), **labels)
        with seeded(self.recipe.train.seed):
            D.heads = nn.ModuleDict({"patch": PatchHead(seen[middle].shape[1])})

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        source = frozen_copy(G)
        patches = [PatchTerm(side, self.recipe.loss.name, middle_block(D)) for side in ("D", "G")]
        return [*patches, Distances(source, self.spec.option("weight"))]

    def latents(self, z: Tensor, inputs: dict[str, Any], position: int, world: World) -> tuple[Tensor, dict[str, Any]]:
        """Every fourth row becomes an anchor, the same ones all through the training, with a little of its own noise."""
        seed, count = self.recipe.train.seed, self.spec.option("anchors")
        anchors = torch.randn(count, z.shape[1], generator=generator(seed, "anchors"))
        drawn = torch.randint(count, (len(z) * world.size,), generator=generator(seed, "anchors/which", position))
        near = anchors[world.slice(drawn)].to(z.device) + SPREAD * z
        chosen = torch.zeros(len(z), 1, dtype=torch.bool, device=z.device)
        chosen[self.rows] = True
        if "cut" in inputs:  # an anchor's image has one latent
            inputs = {**inputs, "cut": torch.where(chosen[:, 0], inputs["cut"].new_tensor(2**31 - 1), inputs["cut"])}
        return torch.where(chosen, near, z), inputs


def middle_block(D: Network) -> str:
    """Where patches are judged: at 8 px for 32 px images."""
    names = list(D.blocks)
    return names[(len(names) - 1) // 2]


class PatchHead(nn.Module):
    """A feature map `[N, C, h, w]` to a logit a patch, `[N * h * w]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(F.leaky_relu(self.hidden(x), 0.2))
        return logits.flatten()


class PatchTerm(Term):
    """The adversarial objective once more, on the logits of patches.

    The non-saturating one where the objective compares with real images in G's phase, whose patches are not judged there.
    """

    def __init__(self, side: str, loss: str, block: str) -> None:
        self.side, self.name, self.taps = side, f"patch_{side.lower()}", [f"D.{block}"]
        objective = registry.LOSSES.load(loss)()
        self.loss = NonSaturating() if getattr(objective, "paired", False) else objective

    def __call__(self, view: View) -> Tensor:
        head = view.D.get_submodule("heads.patch")
        logits = head(view.features[self.taps[0]])
        loss: Tensor = self.loss.g(logits) if self.side == "G" else self.loss.d(*logits.chunk(2))
        return loss


class Distances(Term):
    """`weight * KL(G's || source's)` of how near each image of a group is to each other one; a mean over images and blocks."""

    name, side = "distances", "G"

    def __init__(self, source: Network, weight: float) -> None:
        self.source, self.weight = source, weight
        self.blocks = [name for name in source.blocks if name != "mapping"]  # the synthesis, where images take shape
        self.taps = [f"G.{name}" for name in self.blocks]

    def __call__(self, view: View) -> Tensor:
        for theirs, own in zip(self.source.modules(), view.G.modules(), strict=True):
            theirs.training = own.training  # both normalise by the batch, or neither: the distance starts at zero
        with (
            torch.no_grad(),
            torch.autocast(view.z.device.type, enabled=False),
            tapped(self.source, self.blocks) as seen,
        ):
            self.source(view.z, **view.inputs)
        parts = []
        for name in self.blocks:
            adapted, kept = log_nearness(view.features[f"G.{name}"]), log_nearness(seen[name])
            parts.append(F.kl_div(kept, adapted, reduction="sum", log_target=True) / len(adapted))
        return torch.stack(parts).mean() * self.weight


def log_nearness(maps: Tensor) -> Tensor:
    """`[N, ...] -> [N', GROUP - 1]`: in each group, the logarithm of the softmax of cosine similarities to the others.

    A last group that is not full is left out, unless it is the only one.
    """
    group = min(GROUP, len(maps))
    rows = F.normalize(maps.flatten(1)[: len(maps) // group * group], dim=1).unflatten(0, (-1, group))
    similar = rows @ rows.transpose(1, 2)
    others = ~torch.eye(group, dtype=torch.bool, device=maps.device)
    logarithms: Tensor = similar[:, others].view(-1, group - 1).log_softmax(1)
    return logarithms
