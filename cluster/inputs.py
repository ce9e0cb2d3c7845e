"""The images of a run on a node: whole datasets, or of one that is sharded the part that a rank shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.store import ArtifactStore
from tlgan.manifest import Manifest
from tlgan.recipe import DataSpec, Recipe
from tlgan.shapes import Resolution

if TYPE_CHECKING:
    from tlgan.data.sharded import Shards


def dataset_of(
    spec: DataSpec,
    resolution: Resolution,
    artifacts: ArtifactStore,
    channels: int | None = None,
    here: Mapping[str | None, Path] | None = None,
) -> Any:
    """The prepared dataset of a pinned `spec`; a dataset artifact is pulled through the node's cache.

    `here`: artifacts that are on this node already.
    """
    from tlgan.data.dataset import prepare

    path = (here or {}).get(spec.artifact) or (artifacts.pull(spec.artifact) if spec.artifact else None)
    return prepare(spec, resolution=resolution, channels=channels, artifact_path=path)


def images_of(recipe: Recipe, artifacts: ArtifactStore, world: Any) -> Any:
    """What this rank trains on: the whole dataset, or where that is sharded, the shards that hold the rank's rows."""
    if not recipe.data.sharded:
        return dataset_of(recipe.data, recipe.model.resolution, artifacts, recipe.model.channels)
    from tlgan.data.order import check_lanes
    from tlgan.data.sharded import open_share

    manifest, shards = shards_of(recipe.data, recipe.model.resolution, recipe.model.channels, artifacts)
    check_lanes(shards.facts["count"], recipe.train.batch_size)
    needed = shards.needed(recipe.train.batch_size, world.rank, world.size)
    return open_share(shards, needed, lambda k: artifacts.pick(manifest, manifest.files[k]))


def sample_of(recipe: Recipe, artifacts: ArtifactStore) -> Any:
    """Images like those that `recipe` trains on, to try it: of a sharded dataset, the first shard."""
    if not recipe.data.sharded:
        return dataset_of(recipe.data, recipe.model.resolution, artifacts, recipe.model.channels)
    from tlgan.data.sharded import open_share

    manifest, shards = shards_of(recipe.data, recipe.model.resolution, recipe.model.channels, artifacts)
    share = open_share(shards, [0], lambda k: artifacts.pick(manifest, manifest.files[k]))
    return share.pieces[0][1]


def shards_of(
    spec: DataSpec, resolution: Resolution, channels: int | None, artifacts: ArtifactStore
) -> tuple[Manifest, Shards]:
    """The manifest of a sharded dataset, and what it says of the shards. Nothing is fetched."""
    from tlgan.data.sharded import Shards

    assert spec.artifact is not None, "sharded data is an artifact"
    manifest = artifacts.resolve(spec.artifact)
    shards = Shards.of(manifest.facts, manifest.ref)
    shards.check(spec.resolution or resolution, spec.channels or channels)
    return manifest, shards
