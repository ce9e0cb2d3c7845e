"""From a `DataSpec` to a memory-mapped array: every image decoded once, cropped, resized, kept in the cache."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlgan.canonical import digest_of
from tlgan.data import cache_root
from tlgan.data.cache import Rows, cached, code_digest, content_digest
from tlgan.data.image import to_channels
from tlgan.data.order import Order, Shuffled
from tlgan.data.select import class_ids, random_keys, select
from tlgan.data.source import BrokenImage, Int64Array, Source, TooSmall, UInt8Array, open_source
from tlgan.errors import DataError, IntegrityError, SpecError
from tlgan.recipe import DataSpec
from tlgan.shapes import Resolution, resolution_of, sides, text

log = logging.getLogger("tlgan.data")
FORMAT = 1
_SHUFFLE_STREAM = 6
CHUNK = 256  # images decoded before they are written
_TOLD: set[str] = set()  # digests of the datasets whose skipped files this process has named


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 `[N, C, H, W]` (a memory map), `labels` int64 `[N]`, -1 for none.

    `digest` is the content's sha256; `skipped` lists the files left out, each with the reason.
    """

    images: UInt8Array
    labels: Int64Array
    label_names: list[str]
    digest: str
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def from_arrays(
        cls, images: UInt8Array, labels: Int64Array | None = None, label_names: tuple[str, ...] = ()
    ) -> Dataset:
        """A dataset in memory. `labels` default to none (-1), their names to numbers."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 2, 3, 4):
            raise DataError(f"expected uint8 images [N, 1 to 4, H, W]; received {images.dtype} {list(images.shape)}")
        labels = np.full(len(images), -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        names = list(label_names) or [str(label) for label in range(labels.max(initial=-1) + 1)]
        return cls(images, labels, names, content_digest(images, labels, names))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def resolution(self) -> Resolution:
        """The side in pixels, or [height, width]."""
        return resolution_of(*map(int, self.images.shape[2:]))

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    def classes(self) -> dict[str, int]:
        """Images of each class, for a conditional training. Raises `SpecError` when an image has none, or all have the same."""
        return class_counts(self._labelled(), len(self))

    def order(self, batch_size: int, seed: int) -> Order:
        """In which a `Loader` shows the images."""
        return Shuffled(len(self), seed)

    def take(self, rows: Int64Array) -> tuple[UInt8Array, Int64Array]:
        """Images and labels of some rows, copied."""
        return np.asarray(self.images)[rows], self.labels[rows]  # a plain view's indexing is faster than a memory map's

    def _labelled(self) -> dict[str, int]:
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.label_names))
        return {name: int(count) for name, count in zip(self.label_names, counts, strict=False)}

    @property
    def facts(self) -> dict[str, Any]:
        """What manifests and reports say of the data; JSON-able. `labels` counts images by label name."""
        return {
            "count": len(self),
            "resolution": self.resolution,
            "channels": self.channels,
            "digest": self.digest,
            "labels": self._labelled(),
            "skipped": [list(pair) for pair in self.skipped],
        }


def class_counts(labelled: dict[str, int], count: int) -> dict[str, int]:
    """`labelled`, images of each label, for a conditional training on `count` images. Raises `SpecError`."""
    if missing := count - sum(labelled.values()):
        raise SpecError(
            f"model.conditional: every image needs a label; {missing} of {count} have none",
            hint="use a source with labels (subfolders or a CSV for `folder`)",
        )
    if len(labelled) < 2:
        raise SpecError(
            f"model.conditional: expected images of at least 2 labels, received {len(labelled)}",
            hint="leave model.conditional out",
        )
    return labelled


def prepare(
    spec: DataSpec,
    *,
    resolution: Resolution,
    channels: int | None = None,
    artifact_path: Path | None = None,
    cache_dir: Path | None = None,
    shuffled: bool = False,
) -> Dataset:
    """The images that `spec` asks for, from the cache when they were prepared before.

    `resolution` and `channels` hold where the spec leaves them open. `artifact_path` is the directory of the pulled
    dataset artifact when the spec names one. `cache_dir` defaults to `tlgan.data.cache_root()`. The images have the
    source's order, or if `shuffled`, one that `spec.seed` decides.
    `classes` keep the source's order, and labels are numbered anew among them.

    Raises `DataError` when no image is left, when images are smaller than the resolution, or the location can't be
    used; `NotFound` when it does not exist; `BackendError` when its server can't be reached.
    """
    size, depth = spec.resolution or resolution, spec.channels or channels
    source = open_source(spec.model_copy(update={"channels": depth}), artifact_path)
    root = (cache_dir or cache_root()) / "datasets"
    modules = (type(source).__module__, "tlgan.data.image", __name__)
    if depth is None and isinstance(own := vars(type(source)).get("channels"), int):
        depth = own  # known without a look at the images: whether it was asked for by number makes no other entry
    made_from = {"format": FORMAT, "code": code_digest(*modules), "source": source.fingerprint()}
    key = digest_of({**made_from, "kind": type(source).__name__, "size": size, "channels": depth})[:32]
    whole = opened(cached(root, key, lambda into: materialise(source, size, depth, into)))
    _tell_skipped(whole)
    chosen = select(whole.labels, whole.label_names, spec, own_split=source.own_split)
    if shuffled:
        chosen = chosen[np.argsort(random_keys(len(chosen), spec.seed, _SHUFFLE_STREAM), kind="stable")]
    elif len(chosen) == len(whole) and spec.classes is None:
        return whole
    picked = {"of": key, "indices": digest_of(chosen.tolist()), "classes": spec.classes}
    return opened(cached(root, digest_of(picked)[:32], lambda into: _subset(whole, chosen, spec.classes, into)))


def opened(directory: Path) -> Dataset:
    """The dataset of a cache entry."""
    meta = json.loads((directory / "meta.json").read_text())
    images = np.load(directory / "images.npy", mmap_mode="r")
    labels = np.load(directory / "labels.npy")
    skipped = [(name, reason) for name, reason in meta["skipped"]]
    return Dataset(images, labels, meta["label_names"], meta["digest"], skipped)


def _save(into: Path, labels: Int64Array, label_names: list[str], skipped: list[tuple[str, str]]) -> str:
    """Completes an entry whose images are written. Returns the digest."""
    images = np.load(into / "images.npy", mmap_mode="r")
    digest = content_digest(images, labels, label_names)
    np.save(into / "labels.npy", labels)
    meta = {"count": len(images), "digest": digest, "label_names": label_names, "skipped": skipped}
    (into / "meta.json").write_text(json.dumps(meta, indent=1))
    return digest


def materialise(source: Source, size: Resolution, channels: int | None, into: Path) -> None:
    """Decodes a source into a cache entry, without Pillow's warnings: what can't be read is reported, the rest is fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _materialise(source, size, channels, into)


def _materialise(source: Source, size: Resolution, channels: int | None, into: Path) -> None:
    """Reads every image of the source. All images that are too small are found before the error is raised."""
    if len(source) == 0:
        raise DataError("the data source has no images")
    depth = channels or source.channels
    rows = Rows(into / "images.npy", (depth, *sides(size)))
    label_names, labels = source.label_names, list[int]()
    skipped: list[tuple[str, str]] = []
    small: list[TooSmall] = []
    for outcome in _read_all(source, size):
        if isinstance(outcome, TooSmall):
            small.append(outcome)
        elif isinstance(outcome, BrokenImage):
            skipped.append((outcome.name, outcome.reason))
        elif not small:
            rows.append(to_channels(outcome[0], depth)[None])
            labels.append(outcome[1])
    rows.close()
    if small:
        raise _too_small(small, len(source), size)
    if not labels:
        name, reason = skipped[0]
        raise DataError(f"none of {len(source)} images can be read; the first: {name}: {reason}")
    digest = _save(into, np.array(labels, np.int64), label_names, skipped)
    promised = source.fingerprint().get("content")
    if promised and (promised["resolution"], promised["channels"]) == (size, depth) and promised["digest"] != digest:
        raise IntegrityError(f"the images have digest {digest[:16]}, not the recorded {promised['digest'][:16]}")


def _read_all(source: Source, size: Resolution) -> Iterator[tuple[UInt8Array, int] | BrokenImage | TooSmall]:
    def read(index: int) -> tuple[UInt8Array, int] | BrokenImage | TooSmall:
        try:
            return source.read(index, size)
        except (BrokenImage, TooSmall) as problem:
            return problem

    if not source.parallel:
        yield from map(read, range(len(source)))
        return
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(source), CHUNK):
            yield from pool.map(read, range(start, min(start + CHUNK, len(source))))


def _subset(whole: Dataset, chosen: Int64Array, classes: list[str] | None, into: Path) -> None:
    rows = Rows(into / "images.npy", whole.images.shape[1:])
    for start in range(0, len(chosen), CHUNK):
        rows.append(whole.images[chosen[start : start + CHUNK]])
    rows.close()
    labels, names = whole.labels[chosen], whole.label_names
    if classes is not None:
        kept = sorted(set(class_ids(classes, names)))
        labels = np.searchsorted(kept, labels).astype(np.int64)
        names = [names[k] for k in kept]
    _save(into, labels, names, whole.skipped)


def _too_small(small: list[TooSmall], count: int, size: Resolution) -> DataError:
    height, width = sides(size)
    worst = min(small, key=lambda image: (min(image.width / width, image.height / height), image.name))
    fitting = int(max(height, width) * min(worst.width / width, worst.height / height))
    asked, where = (str(size), "") if height == width else (text(size), " on the longer side")
    return DataError(
        f"{len(small)} of {count} images are smaller than the resolution of {asked} px; "
        f"the smallest, {worst.name}, has {worst.width}x{worst.height}",
        hint=f"lower `resolution` to at most {fitting}{where}, or remove the small images",
    )


def _tell_skipped(dataset: Dataset) -> None:
    if not dataset.skipped or dataset.digest in _TOLD:
        return
    _TOLD.add(dataset.digest)
    first = "; ".join(f"{name}: {reason}" for name, reason in dataset.skipped[:10])
    more = f"; and {len(dataset.skipped) - 10} more" if len(dataset.skipped) > 10 else ""
    count = len(dataset.skipped)
    log.warning("skipped %d broken %s: %s%s", count, "image" if count == 1 else "images", first, more)
