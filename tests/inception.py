"""Weights for tests of extractors, random: the real files are far away. Inception is torch-fidelity's own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tlgan.metrics.dinov2 import VisionTransformer
from tlgan.models import seeded


def write_random_weights(file: Path) -> Path:
    """A file in torch-fidelity's format, 91 MiB. Its class loads weights when built, so the first time it gets none."""
    torch.save({}, file)
    with pytest.MonkeyPatch.context() as patch, seeded(0):
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("made", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(network.state_dict(), file)
    return file


def write_random_transformer(file: Path) -> Path:
    """A file as DINOv2's release has it, of a network with two layers."""
    with seeded(0):
        network = VisionTransformer(width=64, depth=2, hidden=128, positions=1 + 16 * 16, gated=False)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.2)
    torch.save(network.state_dict(), file)
    return file
