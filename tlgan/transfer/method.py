"""What a transfer method may do. It is made of five primitives, and overrides what it needs:

1. a mask of what trains, and its schedule    `prepare`, `stage`, `enter`, `cross`
2. weight anchors                             a term of G's or D's loss, from `terms`
3. feature anchors to the frozen source       a term that looks at features, from `terms`
4. adapters                                   small trained changes of weights, put in by `prepare`, merged when published
5. a term on D's side                         from `terms`; `latents` and `rows` say which images it and D's loss are about

A method decides nothing about data, optimisers or ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from tlgan.learners.terms import Term
from tlgan.models.blocks import Network
from tlgan.recipe import Recipe, TransferSpec

if TYPE_CHECKING:
    from tlgan.data.loader import Batch
    from tlgan.distributed import World
    from tlgan.learners.gan import GanLearner


class Method:
    """Plain training of all parameters, with nothing added: also what pretraining does."""

    rows = slice(None)
    """Of a batch, the images that the adversarial loss is about."""

    staged = False
    """Whether the stage can't be told from the number of images alone, and goes into checkpoints."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.spec = recipe, recipe.transfer or TransferSpec()

    def prepare(self, G: Network, D: Network) -> None:
        """Puts adapters in and leaves `requires_grad` on for all parameters that train at some time.

        Called once the source's weights are in, before optimisers and DistributedDataParallel see the networks.
        """

    def terms(self, G: Network, D: Network, world: World) -> list[Term]:
        """Terms of the loss. The networks are prepared and are the source still: what is anchored to it is copied here."""
        return []

    def stage(self, nimg: int) -> int:
        """Which stage of the training a step belongs to, after `nimg` images. Stages follow each other from 0."""
        return 0

    def enter(self, stage: int, G: Network, D: Network) -> None:
        """Sets `requires_grad` for a stage. Also called on resume: it depends on the stage alone."""

    def cross(self, stage: int, learner: GanLearner, batch: Batch) -> None:
        """What is done once, when a stage begins, before `enter`; not on resume, nor for stage 0.

        `batch`: the first of this rank's that the stage will train on.
        """

    def latents(self, z: Tensor, inputs: dict[str, Any], position: int, world: World) -> tuple[Tensor, dict[str, Any]]:
        """This rank's latents `[N, latent_dim]` and what else G takes, perhaps changed. `position`: the D step's number."""
        return z, inputs
