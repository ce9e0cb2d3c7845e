"""The loader: a pure function of (seed, step) whose batches do not depend on the number of workers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tlgan.data.dataset import Dataset
from tlgan.data.loader import Loader, _Ahead
from tlgan.errors import SpecError


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (37, 3, 8, 8), dtype=np.uint8)
    images[0, 0, 0, :2] = 0, 255
    return Dataset.from_arrays(images, np.arange(37) % 5)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def test_images_are_float_nchw_scaled_to_plus_minus_one(dataset: Dataset) -> None:
    batch = Loader(dataset, 37, seed=1).batch(0)
    assert batch.images.shape == (37, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert (batch.images.min(), batch.images.max()) == (-1, 1)
    expected = torch.from_numpy(dataset.images[batch.indices.numpy()]).double() / 127.5 - 1
    assert torch.allclose(batch.images.double(), expected, atol=1e-7)


def test_labels_belong_to_their_images(dataset: Dataset) -> None:
    batch = Loader(dataset, 16, seed=1).batch(3)
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.labels.tolist() == [dataset.labels[i] for i in batch.indices.tolist()]


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_union_over_ranks_does_not_depend_on_the_world_size(dataset: Dataset, world_size: int) -> None:
    alone = Loader(dataset, 12, seed=5, flip=True)
    ranks = [Loader(dataset, 12, seed=5, flip=True, rank=r, world_size=world_size) for r in range(world_size)]
    for step in (0, 1, 7, 1000):
        parts = [loader.batch(step) for loader in ranks]
        assert all(len(part.images) == 12 // world_size for part in parts)
        assert equal(torch.cat([p.images for p in parts]), alone.batch(step).images)
        assert equal(torch.cat([p.labels for p in parts]), alone.batch(step).labels)


def test_a_batch_does_not_depend_on_earlier_calls(dataset: Dataset) -> None:
    fresh = Loader(dataset, 10, seed=2, flip=True).batch(25)
    used = Loader(dataset, 10, seed=2, flip=True)
    for step in (0, 99, 3, 24):
        used.batch(step)
    assert equal(used.batch(25).images, fresh.images)
    assert equal(used.batch(25).indices, fresh.indices)


def test_batches_continue_where_another_run_stopped(dataset: Dataset) -> None:
    whole = [b.images for b in itertools.islice(Loader(dataset, 8, seed=0, flip=True).batches(0), 20)]
    rest = [b.images for b in itertools.islice(Loader(dataset, 8, seed=0, flip=True).batches(13), 7)]
    assert all(equal(a, b) for a, b in zip(whole[13:], rest, strict=True))


@pytest.mark.parametrize("batch_size", [8, 37, 50, 100])
def test_every_epoch_shows_every_image_once(dataset: Dataset, batch_size: int) -> None:
    loader = Loader(dataset, batch_size, seed=4)
    steps = -(-37 * 4 // batch_size)
    shown = torch.cat([loader.batch(step).indices for step in range(steps)])
    epochs = [shown[k * 37 : (k + 1) * 37].tolist() for k in range(4)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # another order each time


def test_the_seed_changes_order_and_flips(dataset: Dataset) -> None:
    one, two = Loader(dataset, 37, seed=0, flip=True).batch(0), Loader(dataset, 37, seed=1, flip=True).batch(0)
    assert one.indices.tolist() != two.indices.tolist()
    assert not equal(flipped(dataset, one), flipped(dataset, two))


def flipped(dataset: Dataset, batch: object) -> torch.Tensor:
    """Which images of the batch are mirrored; fails when one is neither as stored nor mirrored."""
    plain = torch.from_numpy(dataset.images[batch.indices.numpy()]).float().div(127.5).sub(1)  # type: ignore[attr-defined]
    as_stored = (batch.images == plain).flatten(1).all(1)  # type: ignore[attr-defined]
    mirrored = (batch.images == plain.flip(-1)).flatten(1).all(1)  # type: ignore[attr-defined]
    assert bool((as_stored | mirrored).all())
    return mirrored & ~as_stored


def test_flip_mirrors_half_of_the_images_left_right(dataset: Dataset) -> None:
    loader = Loader(dataset, 1000, seed=3, flip=True)
    share = torch.cat([flipped(dataset, loader.batch(step)) for step in range(10)]).float().mean()
    assert 0.48 < share < 0.52  # 4 standard deviations of 10 000 coins
    assert not flipped(dataset, Loader(dataset, 1000, seed=3).batch(0)).any()


def test_order_is_the_same_on_every_machine(dataset: Dataset) -> None:
    batch = Loader(dataset, 8, seed=0, flip=True).batch(100)
    assert batch.indices.tolist() == GOLDEN_INDICES
    assert flipped(dataset, batch).int().tolist() == GOLDEN_FLIPS


GOLDEN_INDICES = [22, 17, 3, 26, 12, 34, 33, 27]
GOLDEN_FLIPS = [1, 0, 0, 0, 0, 1, 0, 0]


def test_the_dataset_is_not_written_to(dataset: Dataset) -> None:
    before = dataset.images.copy()
    loader = Loader(dataset, 37, seed=0, flip=True)
    loader.batch(0).images.zero_()
    loader.batch(1)
    assert np.array_equal(dataset.images, before)


def test_a_batch_that_workers_cannot_share_is_refused(dataset: Dataset) -> None:
    with pytest.raises(SpecError, match="batch_size 10 can't be divided by 3 workers"):
        Loader(dataset, 10, seed=0, world_size=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_equal_those_on_the_cpu(dataset: Dataset) -> None:
    cpu, gpu = Loader(dataset, 16, seed=6, flip=True), Loader(dataset, 16, seed=6, flip=True, device="cuda")
    for a, b in itertools.islice(zip(cpu.batches(5), gpu.batches(5), strict=False), 50):
        assert b.images.is_cuda
        assert torch.allclose(a.images, b.images.cpu(), atol=1e-6)
        assert torch.equal(a.indices, b.indices.cpu())


def test_batches_gathered_ahead_by_a_thread(dataset: Dataset) -> None:
    loader = Loader(dataset, 8, seed=0, flip=True)
    with _Ahead(loader, 5) as ahead:
        batches = [loader._finish(ahead.get()) for _ in range(6)]
        thread = ahead._thread
    assert not thread.is_alive()
    assert all(equal(batch.images, loader.batch(5 + k).images) for k, batch in enumerate(batches))


def test_an_error_of_the_thread_is_raised_where_batches_are_taken(dataset: Dataset) -> None:
    loader = Loader(dataset, 8, seed=0)
    loader.dataset = Dataset.from_arrays(dataset.images[:1])  # as if the file had lost its end
    with _Ahead(loader, 0) as ahead, pytest.raises(IndexError):
        ahead.get()
