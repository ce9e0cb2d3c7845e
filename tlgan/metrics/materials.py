"""What metrics are computed from. A metric names its inputs, as `set.view`; each is made once, by all ranks, for all metrics.

fake.…        the generated images           real.…       the reference images
training.…    the images trained on          mirrored.…   the same left-right, where training flips them
….features, ….classes, ….critic              see `looking.looker`
path.lengths                                 see `paths`; in units of the perceptual `distance`
diversity.pairs                              see `diversity`; the same
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tlgan.distributed import World
from tlgan.errors import DataError, SpecError
from tlgan.metrics.diversity import IMAGES, centre_rows, cluster_pairs
from tlgan.metrics.features import Extractor
from tlgan.metrics.looking import EXTRACTED, looker, rows_of
from tlgan.metrics.paths import Paths
from tlgan.metrics.perceptual import Distance, open_distance
from tlgan.metrics.pictures import Generated, Pictures, SameShape, Stored
from tlgan.metrics.reference import stored_rows
from tlgan.models.blocks import Network

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset


@dataclass
class Materials:
    """Generated images and what they are held against. `training`, `critic`, `perceptual` are needed by some metrics only."""

    fake: Pictures
    real: Dataset
    extractor: Extractor
    training: Dataset | None = None
    flipped: bool = False
    critic: Network | None = None
    perceptual: str = "extractor"
    world: World = field(default_factory=World)
    cache_dir: Path | None = None

    def collect(self, inputs: Iterable[str]) -> dict[str, Any]:
        """`{input: array}` on rank 0, `{}` on the others. All ranks call it, with the same inputs.

        Raises `SpecError` for an input whose origin is missing; `DataError` for no or unlike images.
        """
        wanted: dict[str, set[str]] = {}
        for one in inputs:
            name, _, view = one.partition(".")
            wanted.setdefault(name, set()).add(view)
        self._check(wanted)
        found = {name: getattr(self, f"_{name}")(views) for name, views in sorted(wanted.items())}
        return {f"{name}.{view}": value for name, rows in found.items() for view, value in rows.items()}

    def _check(self, wanted: dict[str, set[str]]) -> None:
        if self.training is None and not wanted.keys().isdisjoint({"training", "mirrored", "diversity"}):
            raise SpecError("this metric needs the images that were trained on; received none", hint="set `training`")
        if not isinstance(self.fake, Generated) and not wanted.keys().isdisjoint({"path", "diversity"}):
            raise SpecError("this metric needs the generator; received images", hint="pass `Generated`")
        asks_D = any("critic" in views for views in wanted.values())
        if asks_D and getattr(self.critic, "classes", None):
            raise SpecError("this metric is not defined for a discriminator that takes labels; leave it out")
        if "path" in wanted and getattr(getattr(self.fake, "g", None), "classes", None):
            raise SpecError("path lengths are not defined for a generator that takes labels; leave ppl out")
        if asks_D and self.critic is None:
            raise SpecError(
                "this metric needs a discriminator; received none", hint="evaluate an artifact that holds its D"
            )

    def _fake(self, views: set[str]) -> dict[str, Any]:
        pictures = SameShape(self.fake, list(self.real.images.shape[1:]))
        rows = rows_of(pictures, looker(views, self.extractor, self.critic), self.world)
        if self.world.is_main and not rows:
            raise DataError("no generated images to measure", hint="ask for more samples")
        return rows

    def _real(self, views: set[str]) -> dict[str, Any]:
        return self._of(self.real, views)

    def _training(self, views: set[str]) -> dict[str, Any]:
        assert self.training is not None, "checked"
        return self._of(self.training, views)

    def _mirrored(self, views: set[str]) -> dict[str, Any]:
        """None for each view where training does not flip."""
        assert self.training is not None, "checked"
        if not self.flipped:
            return dict.fromkeys(views)
        return self._of(self.training, views, mirrored=True)

    @cached_property
    def distance(self) -> Distance:
        return open_distance(self.perceptual, self.extractor, self.world.device)

    def _path(self, views: set[str]) -> dict[str, Any]:
        assert isinstance(self.fake, Generated), "checked"
        paths = Paths(self.fake)
        return rows_of(paths, paths.look(self.distance), self.world)

    def _diversity(self, views: set[str]) -> dict[str, Any]:
        """Of the first 1 000 images, on rank 0 alone."""
        assert self.training is not None, "checked"
        assert isinstance(self.fake, Generated), "checked"
        if not self.world.is_main:
            return {}
        few = Generated(self.fake.g, min(self.fake.count, IMAGES), self.fake.seed, self.fake.check)
        look = looker({"images"}, self.extractor)
        fake = rows_of(SameShape(few, list(self.real.images.shape[1:])), look, World())["images"]
        centres = rows_of(Stored(self.training, centre_rows(len(self.training))), look, World())["images"]
        pairs = cluster_pairs(self.distance, torch.from_numpy(fake), torch.from_numpy(centres))
        return {"pairs": pairs}

    def _of(self, dataset: Dataset, views: set[str], mirrored: bool = False) -> dict[str, Any]:
        """What can be, from the cache; D's logits are another's every time."""
        kept, fresh = views & set(EXTRACTED), views - set(EXTRACTED)
        rows: dict[str, Any] = {}
        if kept:
            rows |= stored_rows(
                dataset, kept, self.extractor, world=self.world, cache_dir=self.cache_dir, mirrored=mirrored
            )
        if fresh:
            rows |= rows_of(Stored(dataset, mirrored=mirrored), looker(fresh, self.extractor, self.critic), self.world)
        return rows
