"""Datasets that are sharded over nodes: a rank reads one stretch of rows, and batches are those of any number of ranks."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tlgan.data.dataset import Dataset, prepare
from tlgan.data.loader import Loader
from tlgan.data.order import InLanes, stretch
from tlgan.data.pack import write_parquet
from tlgan.data.sharded import Shards, Share, open_share
from tlgan.errors import DataError, SpecError
from tlgan.recipe import DataSpec

COUNT, BATCH = 1797, 24


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, dict[str, Any], list[Path]]:
    """The digits in a random order, and their shards."""
    folder = tmp_path_factory.mktemp("packed") / "shards"
    dataset = prepare(DataSpec(source="digits", resolution=32), resolution=32, shuffled=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlgan.data.pack.ROWS", 100)
        facts = write_parquet(dataset, folder, shard_bytes=100_000)
    return dataset, {**facts, "shuffled": True}, sorted(folder.iterdir())


@pytest.fixture
def shards(packed: tuple[Dataset, dict[str, Any], list[Path]]) -> Shards:
    return Shards.of(packed[1], "digits:latest")


def share_of(shards: Shards, files: list[Path], rank: int, world_size: int) -> Share:
    needed = shards.needed(BATCH, rank, world_size)
    return open_share(shards, needed, files.__getitem__)


def test_a_shuffled_pack_has_the_same_images_in_another_order(packed: Any) -> None:
    dataset = packed[0]
    plain = prepare(DataSpec(source="digits", resolution=32), resolution=32)
    again = prepare(DataSpec(source="digits", resolution=32), resolution=32, shuffled=True)
    other = prepare(DataSpec(source="digits", resolution=32, seed=1), resolution=32, shuffled=True)
    assert dataset.digest == again.digest not in (plain.digest, other.digest)
    rows = [sorted(map(bytes, images.reshape(COUNT, -1))) for images in (dataset.images, plain.images, other.images)]
    assert rows[0] == rows[1] == rows[2]
    assert dataset.labels.tolist() != plain.labels.tolist()
    assert np.bincount(dataset.labels).tolist() == np.bincount(plain.labels).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_batches_do_not_depend_on_the_number_of_ranks(packed: Any, shards: Shards, world_size: int) -> None:
    """Each rank with its own shards, against one process that has all."""
    dataset, _, files = packed
    shares = [share_of(shards, files, rank, world_size) for rank in range(world_size)]
    ranks = [
        Loader(share, BATCH, seed=3, flip=True, rank=rank, world_size=world_size) for rank, share in enumerate(shares)
    ]
    order = InLanes(COUNT, BATCH, 3)
    for step in (0, 1, 73, 74, 75, 1000):
        parts = [loader.batch(step) for loader in ranks]
        rows = torch.cat([part.indices for part in parts]).numpy()
        assert rows.tolist() == order.rows(step * BATCH, BATCH).tolist()
        assert torch.cat([part.labels for part in parts]).tolist() == dataset.labels[rows].tolist()
        plain = torch.from_numpy(dataset.images[rows]).float().div(127.5).sub(1)
        images = torch.cat([part.images for part in parts])
        mirrored = (images == plain.flip(-1)).flatten(1).all(1)
        assert bool(((images == plain).flatten(1).all(1) | mirrored).all())
        assert 0 < int(mirrored.sum()) < BATCH


def test_a_rank_needs_its_part_of_the_shards_only(packed: Any, shards: Shards) -> None:
    files = len(packed[2])
    assert files > 8
    for world_size in (1, 2, 4, 8):
        needed = [shards.needed(BATCH, rank, world_size) for rank in range(world_size)]
        assert sorted({k for some in needed for k in some}) == list(range(files))
        assert max(map(len, needed)) <= files // world_size + 2
        firsts, lasts = zip(*(stretch(COUNT, BATCH, rank, world_size) for rank in range(world_size)), strict=True)
        assert (firsts[0], lasts[-1]) == (0, COUNT)
        assert firsts[1:] == lasts[:-1]


def test_an_epoch_shows_every_lane_once_and_leaves_out_another_image_each_time() -> None:
    count, batch = 103, 10
    order = InLanes(count, batch, seed=0)
    seen = np.zeros(count, int)
    for epoch in range(200):
        rows = np.concatenate([order.rows((epoch * 10 + k) * batch, batch) for k in range(10)])
        assert len(set(rows.tolist())) == 100
        seen[rows] += 1
    assert seen.sum() == 200 * 100
    assert seen.min() > 150  # in a lane of eleven each is left out 1 of 11 times: 182 shown, +- 4
    first = [order.rows(k * batch, batch).tolist() for k in range(10)]
    second = [order.rows((10 + k) * batch, batch).tolist() for k in range(10)]
    assert first != second


def test_the_order_is_the_same_on_every_machine() -> None:
    order = InLanes(1000, 8, seed=5)
    assert order.rows(0, 8).tolist() == GOLDEN[0]
    assert order.rows(8 * 777 + 4, 4).tolist() == GOLDEN[1]


def test_it_knows_what_the_whole_is_like(packed: Any, shards: Shards) -> None:
    dataset, facts, files = packed
    for share in (Share(shards), share_of(shards, files, 1, 4)):
        assert len(share) == COUNT
        assert share.classes() == dataset.classes()
        assert list(share.classes()) == dataset.label_names
        assert (share.resolution, share.channels, share.digest) == (32, 1, facts["digest"])
        assert share.facts == dataset.facts


def test_what_was_decoded_is_not_decoded_again(
    packed: Any, shards: Shards, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = open_share(shards, [2], packed[2].__getitem__, tmp_path)
    monkeypatch.setattr("tlgan.data.sharded.materialise", lambda *_: pytest.fail("it is in the cache"))
    again = open_share(shards, [2], lambda k: pytest.fail(f"shard {k} is fetched"), tmp_path)
    rows = np.arange(first.pieces[0][0], first.pieces[0][0] + 5)
    assert np.array_equal(again.take(rows)[0], packed[0].images[rows])


def test_shards_that_nobody_opens_any_more_go(packed: Any, shards: Shards, tmp_path: Path) -> None:
    def entries() -> list[Path]:
        return sorted(path for path in (tmp_path / "datasets").glob("shards-*/*") if path.is_dir())

    old = open_share(shards, [1, 2], packed[2].__getitem__, tmp_path)
    for entry in entries():
        os.utime(entry, (0, 0))
    open_share(shards, [2, 3], packed[2].__getitem__, tmp_path)
    assert len(entries()) == 2
    first = old.pieces[0][0]
    assert np.array_equal(old.take(np.array([first]))[0][0], packed[0].images[first])  # it is still open


def test_many_shards_may_be_open(packed: Any, shards: Shards, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 4, limits[1]))
    try:
        assert len(open_share(shards, range(8), packed[2].__getitem__, tmp_path).pieces) == 8
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_unshuffled_pack_is_refused(packed: Any) -> None:
    facts = {name: value for name, value in packed[1].items() if name != "shuffled"}
    with pytest.raises(SpecError, match="packed in the order of its source") as caught:
        Shards.of(facts, "digits@ab")
    assert "--shuffle" in str(caught.value.hint)


def test_another_size_than_that_of_the_pack_is_refused(shards: Shards) -> None:
    shards.check(32, None)
    for resolution, channels in ((64, None), (32, 3)):
        with pytest.raises(SpecError, match="packed at 32 px"):
            shards.check(resolution, channels)


def test_a_shard_of_another_length_is_refused(packed: Any, shards: Shards, tmp_path: Path) -> None:
    wrong = Shards(shards.facts, (shards.rows[0] + 1, *shards.rows[1:]))
    with pytest.raises(DataError, match="shard 0 gives"):
        open_share(wrong, [0], packed[2].__getitem__, tmp_path)


def test_fewer_images_than_places_are_refused() -> None:
    with pytest.raises(SpecError, match="received 5 for 8"):
        InLanes(5, 8, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "digits", "sharded": True}, "needs a dataset `artifact`"),
        ({"artifact": "d:latest", "limit": 5, "sharded": True}, "choose by `limit` when packing"),
        ({"artifact": "d:latest", "split": "train", "sharded": True}, "choose by `split` when packing"),
        ({"artifact": "d:latest", "classes": ["1"], "sharded": True}, "choose by `classes` when packing"),
    ],
)
def test_what_does_not_go_with_sharding(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec(**fields)


GOLDEN = [[109, 135, 282, 484, 594, 724, 772, 908], [550, 686, 848, 877]]
