"""prepare(): the cache, its keys and races, and the choice of images by class, split and limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tlgan.data.cache import is_whole
from tlgan.data.dataset import Dataset, prepare
from tlgan.data.digits import Digits
from tlgan.errors import DataError
from tlgan.recipe import DataSpec

DIGITS = 1797


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare(DataSpec(source="digits"), resolution=16)


def rows(dataset: Dataset) -> list[bytes]:
    return [image.tobytes() for image in dataset.images]


def test_images_are_a_read_only_memory_map(digits: Dataset) -> None:
    assert isinstance(digits.images, np.memmap)
    assert digits.images.shape == (DIGITS, 1, 16, 16)
    assert digits.images.dtype == np.uint8
    assert not digits.images.flags.writeable
    assert digits.labels.dtype == np.int64


def test_facts_are_json(digits: Dataset) -> None:
    facts = json.loads(json.dumps(digits.facts))
    assert facts["count"] == sum(facts["labels"].values()) == DIGITS
    assert (facts["resolution"], facts["channels"], facts["skipped"]) == (16, 1, [])
    assert facts["digest"] == digits.digest
    assert list(facts["labels"]) == list("0123456789")


def test_digest_is_of_the_content(digits: Dataset) -> None:
    images, names = np.array(digits.images), tuple(digits.label_names)
    assert Dataset.from_arrays(images, digits.labels, names).digest == digits.digest
    images[-1, 0, 5, 5] ^= 1
    assert Dataset.from_arrays(images, digits.labels, names).digest != digits.digest
    assert Dataset.from_arrays(np.array(digits.images), digits.labels[::-1], names).digest != digits.digest


def test_a_second_call_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Digits.read
    calls: list[int] = []
    monkeypatch.setattr(Digits, "read", lambda self, index, size: calls.append(index) or read(self, index, size))
    first = prepare(DataSpec(source="digits"), resolution=8, cache_dir=tmp_path)
    assert len(calls) == DIGITS
    again = prepare(DataSpec(source="digits"), resolution=8, cache_dir=tmp_path)
    some = prepare(DataSpec(source="digits", limit=10), resolution=8, cache_dir=tmp_path)
    assert len(calls) == DIGITS
    assert again.digest == first.digest
    assert len(some) == 10
    prepare(DataSpec(source="digits"), resolution=9, cache_dir=tmp_path)
    assert len(calls) == 2 * DIGITS


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    first = prepare(DataSpec(source="digits"), resolution=8, cache_dir=tmp_path)
    (entry,) = [path for path in (tmp_path / "datasets").iterdir() if path.is_dir()]
    images = entry / "images.npy"
    images.write_bytes(images.read_bytes()[:-100])
    leftover = entry.parent / f".{entry.name}.killed.tmp"
    leftover.mkdir()
    assert not is_whole(entry)
    assert prepare(DataSpec(source="digits"), resolution=8, cache_dir=tmp_path).digest == first.digest
    assert not leftover.exists()


RACER = """
import sys
from pathlib import Path
from tlgan.data.dataset import prepare
from tlgan.data.digits import Digits
from tlgan.recipe import DataSpec
read = Digits.read
def counted(self, index, size):
    with open(sys.argv[2], "ab") as file:
        file.write(b".")
    return read(self, index, size)
Digits.read = counted
print(prepare(DataSpec(source="digits"), resolution=8, cache_dir=Path(sys.argv[1])).digest)
"""


def test_the_source_s_own_channels_asked_for_make_no_other_entry(tmp_path: Path) -> None:
    """An extractor leaves them open, a generator names them: what takes seconds to draw is drawn once."""
    for channels in (None, 1, 3):
        prepare(DataSpec(source="digits"), resolution=8, channels=channels, cache_dir=tmp_path)
    assert len([entry for entry in (tmp_path / "datasets").iterdir() if is_whole(entry)]) == 2


def test_two_processes_at_once_make_one_entry(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    command = [sys.executable, "-c", RACER, str(tmp_path / "cache"), str(tally)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {racer.communicate(timeout=120)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0]
    assert len(digests) == 1
    assert tally.stat().st_size == DIGITS
    entries = [path for path in (tmp_path / "cache" / "datasets").iterdir() if path.is_dir()]
    assert len(entries) == 1


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "datasets").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="can't be written") as caught:
        prepare(DataSpec(source="digits"), resolution=8, cache_dir=tmp_path)
    assert "TLGAN_CACHE" in (caught.value.hint or "")


@pytest.mark.parametrize("share", [0.5, 0.1, 0.33])
def test_train_and_test_are_disjoint_and_together_all(digits: Dataset, share: float) -> None:
    train, test = (
        prepare(DataSpec(source="digits", split=side, test_share=share), resolution=16) for side in ("train", "test")
    )
    assert sorted(rows(train) + rows(test)) == sorted(rows(digits))
    assert len(test) == pytest.approx(DIGITS * share, abs=1)
    for label, count in enumerate(np.bincount(digits.labels)):
        assert (test.labels == label).sum() == pytest.approx(count * share, abs=1)


def test_an_image_keeps_its_side_of_the_split_whatever_classes_are_asked_for() -> None:
    train = prepare(DataSpec(source="digits", split="train"), resolution=16)
    threes = prepare(DataSpec(source="digits", split="train", classes=["3"]), resolution=16)
    assert rows(threes) == [row for row, label in zip(rows(train), train.labels, strict=True) if label == 3]


def test_a_smaller_limit_is_a_subset_of_a_larger_one() -> None:
    sizes = (10, 50, 100)
    small, middle, large = (set(rows(prepare(DataSpec(source="digits", limit=n), resolution=16))) for n in sizes)
    assert small < middle < large
    assert len(prepare(DataSpec(source="digits", limit=10_000), resolution=16)) == DIGITS


@pytest.mark.parametrize("classes", [None, ["1", "5", "8"]])
def test_a_limit_takes_each_label_with_its_share(classes: list[str] | None) -> None:
    for seed in range(3):
        for limit in (7, 100, 333):
            whole = prepare(DataSpec(source="digits", classes=classes), resolution=8)
            some = prepare(DataSpec(source="digits", classes=classes, limit=limit, seed=seed), resolution=8)
            assert len(some) == limit
            for label in range(len(whole.label_names)):
                share = (whole.labels == label).mean() * limit
                assert abs((some.labels == label).sum() - share) <= 1


def test_the_seed_chooses_other_images() -> None:
    one, two = (prepare(DataSpec(source="digits", limit=100, seed=s), resolution=16) for s in (0, 1))
    assert len(set(rows(one)) & set(rows(two))) < 30


def test_classes_keep_their_images_and_are_numbered_anew(digits: Dataset) -> None:
    some = prepare(DataSpec(source="digits", classes=["7", "2"]), resolution=16)
    assert some.label_names == ["2", "7"]
    expected = [row for row, label in zip(rows(digits), digits.labels, strict=True) if label in (2, 7)]
    assert rows(some) == expected
    assert [some.label_names[label] for label in some.labels] == [str(d) for d in digits.labels if d in (2, 7)]


def test_an_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown classes LATINO; the data has: ARABIC") as caught:
        prepare(DataSpec(source="glyphs", classes=["LATINO"]), resolution=8)
    assert caught.value.hint == 'did you mean "LATIN"?'


def test_nothing_left_is_an_error() -> None:
    spec = DataSpec(source="digits", split="test", test_share=0.0001)
    with pytest.raises(DataError, match="no image is left of 1797"):
        prepare(spec, resolution=16)


def test_grey_becomes_rgb_and_back(digits: Dataset) -> None:
    colour = prepare(DataSpec(source="digits"), resolution=16, channels=3)
    assert colour.channels == 3
    assert np.array_equal(colour.images, np.repeat(digits.images, 3, axis=1))
    grey = prepare(DataSpec(source="photos", crops=4, channels=1), resolution=16, channels=3)
    assert grey.images.shape == (4, 1, 16, 16)


def test_the_spec_decides_the_resolution() -> None:
    assert prepare(DataSpec(source="digits", resolution=12, limit=2), resolution=16).resolution == 12


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, tlgan.data, tlgan.data.dataset; "
        "assert not {'torch', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
