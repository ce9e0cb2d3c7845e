"""Extractors: conversion of channels and size, digests, and what is said when weights are missing or wrong."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from inception import write_random_weights
from PIL import Image
from stand_ins import random_images
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tlgan.artifact import save_networks
from tlgan.errors import BackendError, DataError, NotFound, SpecError
from tlgan.metrics import inception
from tlgan.metrics.extractors import ClassifierFeatures, open_extractor, resized, to_channels
from tlgan.metrics.inception import InceptionFeatures
from tlgan.metrics.protocol import MetricValue, check_comparable
from tlgan.models import build_pair, seeded
from tlgan.models.classifier import ConvNet
from tlgan.recipe import ModelSpec


def convnet(seed: int = 0, channels: int = 1, resolution: int = 16) -> ConvNet:
    """A network with running statistics that are not the initial ones."""
    with seeded(seed):
        network = ConvNet(resolution=resolution, channels=channels, classes=3, width=4, features=8)
        network.train()(torch.randn(32, channels, resolution, resolution))
    return network


def saved(path: Path, network: ConvNet) -> Path:
    save_networks(path, {"C": network}, type="classifier")
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return saved(tmp_path / "classifier", convnet())


def test_features_are_those_of_the_network_in_eval_mode(artifact: Path) -> None:
    images = random_images(20, 1, size=16)
    features = ClassifierFeatures(artifact, "c")(images)
    expected = convnet().eval().features(images / 127.5 - 1)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected.detach(), rtol=1e-5, atol=1e-6)


def test_many_images_are_batched_and_each_stands_alone(artifact: Path) -> None:
    extractor, images = ClassifierFeatures(artifact, "c"), random_images(600, 2, size=16)
    together = extractor(images)
    assert together.shape == (600, 8)
    torch.testing.assert_close(together[300:303], extractor(images[300:303]), rtol=1e-5, atol=1e-6)
    assert torch.equal(together, extractor(images))


def test_other_sizes_are_resized_antialiased(artifact: Path) -> None:
    extractor, images = ClassifierFeatures(artifact, "c"), random_images(10, 3, size=40)
    small = F.interpolate(images.float(), size=(16, 16), mode="bilinear", antialias=True, align_corners=False)
    expected = convnet().eval().features(small / 127.5 - 1)
    torch.testing.assert_close(extractor(images), expected.detach(), rtol=1e-5, atol=1e-6)
    checkers = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255  # finer than 16 px can show
    flat = torch.full((1, 1, 16, 16), 127.5)
    expected = convnet().eval().features(flat / 127.5 - 1)
    away_from_the_rim = extractor._prepare(checkers.byte()[None, None])[..., 2:-2, 2:-2]
    torch.testing.assert_close(away_from_the_rim, torch.zeros(1, 1, 12, 12), atol=1e-5, rtol=0)


def test_colour_becomes_luma_and_grey_is_repeated(artifact: Path, tmp_path: Path) -> None:
    grey = random_images(6, 4, size=16)
    on_grey = ClassifierFeatures(artifact, "c")
    torch.testing.assert_close(on_grey(grey.expand(-1, 3, -1, -1)), on_grey(grey), rtol=1e-4, atol=1e-5)
    red = torch.tensor([255.0, 0, 0])[None, :, None, None]
    assert to_channels(red, 1).item() == pytest.approx(0.299 * 255)
    on_colour = ClassifierFeatures(saved(tmp_path / "rgb", convnet(channels=3)), "c")
    assert torch.equal(on_colour(grey), on_colour(grey.repeat(1, 3, 1, 1)))


def test_the_digest_is_of_the_weights_not_of_the_place(artifact: Path, tmp_path: Path) -> None:
    digest = ClassifierFeatures(artifact, "c").digest
    assert ClassifierFeatures(saved(tmp_path / "copy", convnet()), "other name").digest == digest
    assert ClassifierFeatures(saved(tmp_path / "seed", convnet(seed=1)), "c").digest != digest
    touched = convnet()
    touched.blocks["embed"][1].running_var[0] += 1e-3
    assert ClassifierFeatures(saved(tmp_path / "touched", touched), "c").digest != digest


def test_the_protocol_says_where_features_come_from(artifact: Path) -> None:
    extractor = open_extractor("classifier:features:latest", artifact_path=artifact, artifact_ref="features@0123")
    assert extractor.protocol == {
        "extractor": "features@0123",
        "extractor_digest": extractor.digest,
        "resize": "bilinear antialiased to 16 px, not rounded",
        "channels": 1,
        "range": "[-1, 1]",
    }
    assert open_extractor("embedded", artifact_path=artifact).digest == extractor.digest


def test_wrong_images_and_artifacts_are_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected uint8 .* received float32 \[1, 1, 16, 16\]"):
        ClassifierFeatures(artifact, "c")(torch.zeros(1, 1, 16, 16))
    with pytest.raises(DataError, match=r"received uint8 \[1, 5, 16, 16\]"):
        ClassifierFeatures(artifact, "c")(random_images(1, 0, channels=5, size=16))
    with pytest.raises(NotFound, match=r"no model\.json"):
        ClassifierFeatures(tmp_path, "c")
    g, d = build_pair(ModelSpec(width=4), 1, seed=0)
    save_networks(tmp_path / "gan", {"G": g, "D": d}, type="gan")
    with pytest.raises(NotFound, match="no network C"):
        ClassifierFeatures(tmp_path / "gan", "c")
    save_networks(tmp_path / "odd", {"C": d}, type="gan")
    with pytest.raises(SpecError, match="holds a Discriminator, which gives no features"):
        ClassifierFeatures(tmp_path / "odd", "c")


def test_open_extractor_refuses_what_it_cannot_open() -> None:
    with pytest.raises(SpecError, match=r'unknown feature extractor "incepton".*did you mean "inception"'):
        open_extractor("incepton")
    for spec in ("embedded", "classifier:features:latest"):
        with pytest.raises(SpecError, match=f"extractor {spec} needs a classifier artifact") as caught:
            open_extractor(spec)
        assert "kind classifier" in str(caught.value.hint)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


def test_inception_from_a_file_gives_torch_fidelitys_features(inception_weights: Path) -> None:
    extractor = open_extractor(f"inception:{inception_weights}")
    network = FeatureExtractorInceptionV3("it", ["2048"], feature_extractor_weights_path=str(inception_weights))
    images = random_images(2, 5, channels=3, size=32)
    assert torch.equal(extractor(images), network(images)[0])
    grey = random_images(1, 6, size=32)
    assert torch.equal(extractor(grey), network(grey.repeat(1, 3, 1, 1))[0])
    assert extractor.protocol["layer"] == "2048"
    assert extractor.protocol["extractor_digest"] == extractor.digest


@pytest.mark.parametrize(("size", "side"), [(32, 75), (64, 40), (50, 50)])
def test_the_clean_resize_is_pillows_on_floats(size: int, side: int) -> None:
    x = random_images(1, 7, size=size).float()
    image = Image.fromarray(x[0, 0].numpy()).resize((side, side), Image.Resampling.BICUBIC)
    expected = np.asarray(image).clip(0, 255)
    assert np.abs(resized(x, side)[0, 0].numpy() - expected).max() < 0.01


def test_the_two_resizes_are_kept_apart(inception_weights: Path) -> None:
    legacy, clean = (open_extractor(f"{name}:{inception_weights}") for name in ("inception", "inception_clean"))
    small, ready = random_images(2, 8, channels=3, size=48), random_images(1, 9, channels=3, size=299)
    assert not torch.allclose(legacy(small), clean(small), rtol=1e-3)
    torch.testing.assert_close(legacy(ready), clean(ready), rtol=1e-3, atol=1e-4)  # nothing to resize: one network
    assert legacy.digest != clean.digest
    a, b = (MetricValue("fid", 1.0, extractor.protocol) for extractor in (legacy, clean))
    with pytest.raises(SpecError, match="resize: fid was taken differently: bilinear as TensorFlow"):
        check_comparable(a, b)
    logits = FeatureExtractorInceptionV3(
        "it", ["logits_unbiased"], feature_extractor_weights_path=str(inception_weights)
    )
    assert torch.equal(legacy.outputs(small)["classes"], logits(small)[0])


def test_inception_weights_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file") as caught:
        open_extractor(f"inception:{tmp_path / 'none.pth'}")
    assert "weights-inception-2015-12-05" in str(caught.value.hint)
    assert "inception:/path/to" in str(caught.value.hint)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="not a file of weights"):
        InceptionFeatures(garbage)
    torch.save([torch.zeros(1)], garbage)
    with pytest.raises(DataError, match="no dictionary of tensors"):
        InceptionFeatures(garbage)
    torch.save(convnet().state_dict(), garbage)
    with pytest.raises(DataError, match="does not hold torch-fidelity's InceptionV3"):
        InceptionFeatures(garbage)


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_weights_file_that_carries_code_is_refused_unopened(workdir: Path) -> None:
    torch.save({"fc.bias": _Bomb()}, workdir / "bomb.pth")
    with pytest.raises(DataError, match="not a file of weights"):
        InceptionFeatures(workdir / "bomb.pth")
    assert not (workdir / "exploded").exists()


@pytest.fixture
def no_weights_yet(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path
    torch.hub.set_dir(before)


def test_inception_without_a_network_says_where_to_get_it(no_weights_yet: Path, monkeypatch) -> None:
    monkeypatch.setattr(inception, "_url", lambda: "http://127.0.0.1:1/weights-inception-2015-12-05-6726825d.pth")
    with pytest.raises(BackendError, match=r"can't be downloaded.*Connection refused") as caught:
        open_extractor("inception")
    assert "http://127.0.0.1:1/weights-inception-2015-12-05-6726825d.pth" in str(caught.value.hint)
    assert "inception:/path/to" in str(caught.value.hint)


def test_a_download_is_checked_and_kept(no_weights_yet: Path, inception_weights: Path, monkeypatch) -> None:
    sha = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    for name in ("good-" + sha[:8], "wrong-00000000"):
        shutil.copy(inception_weights, no_weights_yet / f"{name}.pth")
    monkeypatch.setattr(inception, "_url", (no_weights_yet / "wrong-00000000.pth").as_uri)
    with pytest.raises(BackendError, match="invalid hash value"):
        InceptionFeatures()
    assert not list((no_weights_yet / "hub").rglob("*.pth"))
    monkeypatch.setattr(inception, "_url", (no_weights_yet / f"good-{sha[:8]}.pth").as_uri)
    assert InceptionFeatures().digest == InceptionFeatures(inception_weights).digest
    (no_weights_yet / f"good-{sha[:8]}.pth").unlink()
    InceptionFeatures()  # from the hub folder now
