"""A metric does not depend on how many ranks share the work: 1, 2 and 3 of them, here threads, give the same bits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import Pixels
from tiny_gan import dataset, pair

from tlgan import registry
from tlgan.distributed import World
from tlgan.metrics.measure import MetricValue, measure
from tlgan.metrics.pictures import Generated
from tlgan.sampling import generate

SAMPLES = 900  # four blocks, the last one a part: with three ranks two have nothing left in the second round


class Classes(Pixels):
    """Pixels of the middle as features, and a linear map of them as class scores."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return super().__call__(images[:, :, 12:20, 12:20])

    def features_of(self, images: torch.Tensor) -> torch.Tensor:
        return self(images)

    def outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self(images)
        return {"features": features, "classes": features @ torch.linspace(-1, 1, 64 * 5).view(64, 5)}


class Meeting:
    """What threads of one group hand each other."""

    def __init__(self, size: int) -> None:
        self.barrier, self.rows = threading.Barrier(size, timeout=60), [torch.empty(0)] * size

    def swap(self, rank: int, rows: torch.Tensor) -> list[torch.Tensor]:
        self.rows[rank] = rows.clone()
        self.barrier.wait()
        found = [part.clone() for part in self.rows]
        self.barrier.wait()
        assert len({part.shape for part in found}) == 1, "collectives take equal shapes"
        return found


@dataclass(frozen=True)
class Thread(World):
    meeting: Any = None

    def gather_rows(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return self.meeting.swap(self.rank, rows)

    def agree(self, flag: bool) -> bool:
        return bool(torch.stack(self.meeting.swap(self.rank, torch.tensor(flag))).any())


def networks() -> tuple[Any, Any]:
    G, D = pair(arch="stylegan2", seed=3, mapping_layers=2, max_width=16)
    return G.eval(), D


def measured(world: World, cache: Any, G: Any, D: Any) -> list[MetricValue]:
    data = dataset(count=300)
    return measure(
        list(registry.METRICS),
        Generated(G, SAMPLES, seed=5),
        data,
        Classes(),
        seed=5,
        training=dataset(count=50, seed=1),
        flipped=True,
        critic=D,
        world=world,
        cache_dir=cache,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[MetricValue]:
    return measured(World(), tmp_path_factory.mktemp("alone"), *networks())


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_metric_is_bit_equal_on_more_ranks(alone: list[MetricValue], ranks: int, tmp_path) -> None:
    meeting = Meeting(ranks)
    with ThreadPoolExecutor(ranks) as pool:
        own = [(Thread(rank, ranks, meeting=meeting), tmp_path, *networks()) for rank in range(ranks)]
        results = list(pool.map(lambda arguments: measured(*arguments), own))
    assert results[0] == alone
    assert all(result == [] for result in results[1:])
    assert len({value.value for value in alone}) > len(alone) // 2, "they say something"


def test_the_images_are_those_of_generate(alone: list[MetricValue], tmp_path) -> None:
    images = generate(networks()[0], SAMPLES, seed=5)
    again = measure(["fid", "kid"], images.split(33), dataset(count=300), Classes(), seed=5, cache_dir=tmp_path)
    assert [value.value for value in again] == [v.value for v in alone if v.name in ("fid", "kid")]


def test_every_rank_does_its_share(tmp_path) -> None:
    meeting, calls = Meeting(2), [Classes(), Classes()]
    G, _ = pair(seed=3)

    def go(world: Thread) -> list[MetricValue]:
        fake = Generated(G.eval(), 512, seed=0)
        return measure(["fid"], fake, dataset(count=300), calls[world.rank], seed=0, world=world, cache_dir=tmp_path)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(go, [Thread(rank, 2, meeting=meeting) for rank in range(2)]))
    assert [sum(one.calls) for one in calls] == [256 + 256, 256 + 44]
    np.testing.assert_array_equal(len(list((tmp_path / "features").iterdir())), 1)


def test_what_rank_0_says_reaches_all_ranks() -> None:
    meeting, text = Meeting(2), "stopped by a guard: recall is 0.01 — naïve"
    with ThreadPoolExecutor(2) as pool:
        said = [(Thread(rank, 2, meeting=meeting), text if rank == 0 else "another") for rank in range(2)]
        assert list(pool.map(lambda pair: pair[0].told_by_main(pair[1]), said)) == [text, text]
        assert list(pool.map(lambda pair: pair[0].told_by_main(""), said)) == ["", ""]
