"""What every feature extractor and every classifier in the tables promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from inception import write_random_transformer, write_random_weights
from torch import Tensor

from tlgan import registry
from tlgan.artifact import load_network, save_networks
from tlgan.errors import DataError
from tlgan.metrics.extractors import open_extractor
from tlgan.metrics.features import Extractor
from tlgan.models import seeded

EXTRACTORS = list(registry.EXTRACTORS)
CLASSIFIERS = list(registry.CLASSIFIERS)


def images(count: int, channels: int = 1, size: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draw)


def classifier(arch: str, channels: int = 1) -> torch.nn.Module:
    with seeded(0):
        network = registry.CLASSIFIERS.load(arch)(resolution=16, channels=channels, classes=3, width=4, features=8)
        network.train()(torch.randn(32, channels, 16, 16))
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def extractor(request: pytest.FixtureRequest, folder: Path) -> Extractor:
    if request.param.startswith("inception"):
        return open_extractor(f"{request.param}:{write_random_weights(folder / 'inception.pth')}")
    if request.param == "dinov2":
        return open_extractor(f"dinov2:{write_random_transformer(folder / 'dinov2.pth')}")
    save_networks(folder / "classifier", {"C": classifier("convnet")}, type="classifier")
    argument = ":features:latest" if registry.EXTRACTORS.facts(request.param).get("argument") else ""
    return open_extractor(request.param + argument, artifact_path=folder / "classifier")


@pytest.mark.parametrize("extractor", EXTRACTORS, indirect=True)
class TestEveryExtractor:
    def test_names_itself_and_its_weights(self, extractor: Extractor) -> None:
        assert len(bytes.fromhex(extractor.digest)) == 32
        assert extractor.protocol["extractor_digest"] == extractor.digest
        assert extractor.protocol["extractor"] == extractor.name
        assert extractor.protocol["resize"]
        assert json.loads(json.dumps(extractor.protocol)) == extractor.protocol

    def test_gives_finite_rows_that_tell_images_apart(self, extractor: Extractor) -> None:
        features = extractor(images(3))
        assert features.dtype == torch.float32
        assert features.device.type == "cpu"
        assert features.ndim == 2
        assert len(features) == 3
        assert torch.isfinite(features).all()
        assert torch.pdist(features).min() > 0

    def test_repeats_itself_whatever_the_global_generator(self, extractor: Extractor) -> None:
        first = extractor(images(3))
        torch.manual_seed(123)
        assert torch.equal(extractor(images(3)), first)

    def test_a_row_is_of_its_image_alone(self, extractor: Extractor) -> None:
        batch = images(4)
        torch.testing.assert_close(extractor(batch)[2:3], extractor(batch[2:3]), rtol=1e-4, atol=1e-5)

    def test_takes_grey_and_colour_of_any_size_and_leaves_them_alone(self, extractor: Extractor) -> None:
        for channels, size in [(1, 8), (3, 16), (3, 40)]:
            x = images(2, channels, size)
            before = x.clone()
            assert extractor(x).shape == extractor(images(2)).shape
            assert torch.equal(x, before)

    def test_refuses_what_is_not_uint8_images(self, extractor: Extractor) -> None:
        for x in (torch.zeros(1, 1, 16, 16), images(1)[0], images(1).expand(1, 5, 16, 16)):
            with pytest.raises(DataError, match="expected uint8"):
                extractor(x)


@pytest.mark.parametrize("arch", CLASSIFIERS)
class TestEveryClassifier:
    def test_rebuilds_from_its_files(self, arch: str, tmp_path: Path) -> None:
        network = classifier(arch, channels=3)
        save_networks(tmp_path, {"C": network}, type="classifier")
        again, x = load_network(tmp_path, "C"), torch.randn(4, 3, 16, 16)
        assert (again.arch, again.role, again.config) == (arch, "C", network.config)
        assert torch.equal(again(x), network.eval()(x))
        assert again(x).shape == (4, 3)
        assert again.features(x).shape == (4, 8)

    def test_every_block_learns_and_can_be_frozen(self, arch: str) -> None:
        for frozen in classifier(arch).blocks:
            network = classifier(arch)
            network.blocks[frozen].requires_grad_(False)
            network(torch.randn(8, 1, 16, 16)).square().sum().backward()
            for name, block in network.blocks.items():
                moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in block.parameters()]
                assert moved
                assert all(moved) if name != frozen else not any(moved)

    def test_is_initialised_by_the_seed(self, arch: str) -> None:
        x = torch.randn(2, 1, 16, 16)
        assert torch.equal(classifier(arch).eval()(x), classifier(arch).eval()(x))
