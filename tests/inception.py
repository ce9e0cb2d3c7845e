"""Inception weights for tests: torch-fidelity's own network with random weights (the real file is 91 MiB away)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tlgan.models import seeded


def write_random_weights(file: Path) -> Path:
    """A file in torch-fidelity's format, 91 MiB. Its class loads weights when built, so the first time it gets none."""
    torch.save({}, file)
    with pytest.MonkeyPatch.context() as patch, seeded(0):
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("made", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(network.state_dict(), file)
    return file
