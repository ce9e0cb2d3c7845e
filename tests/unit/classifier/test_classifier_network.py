"""ConvNet: shapes, blocks and rebuilding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tlgan.artifact import load_network, save_networks
from tlgan.errors import DataError
from tlgan.models.classifier import ConvNet


@pytest.mark.parametrize(("resolution", "convolutions"), [(8, 2), (28, 3), (32, 4), (48, 4), (64, 5), (256, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_at_any_resolution(resolution: int, convolutions: int, channels: int) -> None:
    network = ConvNet(resolution=resolution, channels=channels, classes=5, width=4, features=12)
    x = torch.randn(2, channels, resolution, resolution)
    assert network(x).shape == (2, 5)
    assert network.features(x).shape == (2, 12)
    assert list(network.blocks) == [f"conv{i + 1}" for i in range(convolutions)] + ["embed", "head"]


def test_width_doubles_up_to_eight_times() -> None:
    network = ConvNet(resolution=256, channels=3, classes=2, width=4, features=8)
    assert [network.blocks[f"conv{i}"][0].out_channels for i in range(1, 8)] == [4, 8, 16, 32, 32, 32, 32]


def test_head_reads_the_features_and_everything_learns() -> None:
    network = ConvNet(resolution=16, channels=1, classes=3, width=4, features=8)
    x = torch.randn(8, 1, 16, 16)
    torch.testing.assert_close(network.eval()(x), network.blocks["head"](network.features(x)))
    network.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_survives_being_saved(tmp_path: Path) -> None:
    network = ConvNet(resolution=16, channels=3, classes=3, width=4, features=8)
    network(torch.randn(16, 3, 16, 16))
    save_networks(tmp_path, {"C": network}, type="classifier")
    again = load_network(tmp_path, "C")
    assert type(again) is ConvNet
    assert again.config == network.config
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(again(x), network.eval()(x))


def test_images_too_small_are_refused() -> None:
    with pytest.raises(DataError, match="8 px and more; received 4 px"):
        ConvNet(resolution=4, channels=1, classes=2)
