"""Feature statistics beside what they describe: computed when something is published, or when first asked for.

    statistics/<extractor's digest>/<subject>.npz     see `tlgan.metrics.statistics`

A subject is `images-<content digest>` or `generator-<digest of its files>`, so a dataset or a generator that is published
under two names has one entry. Entries are derived data: whoever may not write computes them again, and a damaged one is
computed anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.store import ArtifactStore
from cluster.store.base import Store
from tlgan.canonical import digest_of
from tlgan.errors import BackendError, IntegrityError, NotFound, SpecError, TlganError
from tlgan.manifest import FileEntry
from tlgan.metrics.statistics import FeatureStatistics, gather

if TYPE_CHECKING:
    from tlgan.data.dataset import Dataset
    from tlgan.manifest import Manifest
    from tlgan.metrics.features import Extractor

log = logging.getLogger("tlgan.statistics")
SAMPLES = 2000
MOST_IMAGES = 10_000
SEED = 0
MOST_BYTES = 256 << 20
GENERATOR = "G_ema"


def of_dataset(store: Store, dataset: Dataset, extractor: Extractor) -> FeatureStatistics:
    """Statistics of a dataset's images, from the store when they are there; of `MOST_IMAGES` evenly taken ones at most."""

    def compute() -> FeatureStatistics:
        import torch

        from tlgan.metrics.features import CHUNK, extract

        step = -(-len(dataset) // MOST_IMAGES)
        rows = range(0, len(dataset), step * CHUNK)
        batches = (torch.from_numpy(np.array(dataset.images[start : start + step * CHUNK : step])) for start in rows)
        about = {"images": dataset.digest, "of": len(dataset), "extractor": extractor.name}
        return gather([extract(extractor, batches)], about)

    return _kept(store, f"images-{dataset.digest}", extractor, compute)


def of_artifact(artifacts: ArtifactStore, manifest: Manifest, extractor: Extractor) -> FeatureStatistics:
    """Statistics of `SAMPLES` images that the generator of `manifest` draws; it is pulled only when they are not there.

    Raises `SpecError` for an artifact without a generator.
    """

    def compute() -> FeatureStatistics:
        from tlgan.artifact import load_generator

        return _drawn(load_generator(artifacts.pull(manifest)), extractor)

    return _kept(artifacts.store, generator_subject(manifest.files, manifest.ref), extractor, compute)


def of_generator(store: Store, entries: Iterable[FileEntry], G: Any, extractor: Extractor) -> FeatureStatistics:
    """The same for a network at hand, whose files are `entries`."""
    subject = generator_subject(entries, "the model")
    return _kept(store, subject, extractor, lambda: _drawn(G, extractor))


def at_publication(
    artifacts: ArtifactStore,
    extractor: str,
    classifier: str | None,
    dataset: Dataset | None,
    G: Any = None,
    entries: Iterable[FileEntry] = (),
) -> None:
    """Stores the statistics of a dataset, and of a generator with its files, as they are published.

    `classifier` is the pinned reference of the extractor's artifact. What goes wrong is a warning: the statistics are made
    when they are asked for.
    """
    from tlgan.metrics.extractors import open_extractor

    try:
        path = artifacts.pull(classifier) if classifier else None
        device = "cpu" if G is None else next(G.parameters()).device
        features = open_extractor(extractor, artifact_path=path, artifact_ref=classifier, device=device)
        if dataset is not None:
            of_dataset(artifacts.store, dataset, features)
        if G is not None:
            of_generator(artifacts.store, entries, G, features)
    except TlganError as error:
        log.warning("feature statistics were not stored: %s", error.message)


def generator_subject(entries: Iterable[FileEntry], what: str) -> str:
    """`generator-<digest>` over the files of the generator that draws. Raises `SpecError` when there is none."""
    files = sorted((entry.path, entry.sha256) for entry in entries if entry.path.startswith(f"{GENERATOR}/"))
    if not files:
        raise SpecError(f"{what} has no network {GENERATOR} to draw with")
    return f"generator-{digest_of({'files': files, 'samples': SAMPLES, 'seed': SEED})}"


def _drawn(G: Any, extractor: Extractor) -> FeatureStatistics:
    from tlgan.metrics.features import extract
    from tlgan.sampling import stream

    features = extract(extractor, stream(G, SAMPLES, SEED))
    return gather([features], {"samples": SAMPLES, "seed": SEED, "extractor": extractor.name})


def stored(store: Store, subject: str, extractor: Extractor) -> FeatureStatistics | None:
    """What the store has of a subject; None without an entry, and for a damaged one."""
    key = _key(subject, extractor)
    try:
        return FeatureStatistics.from_bytes(store.get(key, max_bytes=MOST_BYTES))
    except NotFound:
        return None
    except IntegrityError as error:
        log.warning("%s: %s; computing them again", key, error.message)
        return None


def _key(subject: str, extractor: Extractor) -> str:
    return f"statistics/{extractor.digest[:32]}/{subject}.npz"


def _kept(
    store: Store, subject: str, extractor: Extractor, compute: Callable[[], FeatureStatistics]
) -> FeatureStatistics:
    found = stored(store, subject, extractor)
    if found is not None:
        return found
    found = compute()
    try:
        store.put(_key(subject, extractor), found.to_bytes())
    except BackendError as error:
        log.info("feature statistics are not stored: %s", error.message)
    return found
