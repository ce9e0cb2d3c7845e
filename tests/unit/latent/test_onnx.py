"""ONNX files draw what the generator draws, for any number of latents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_gan import pair

from tlgan import onnx as exporting
from tlgan.errors import IntegrityError, SpecError
from tlgan.registry import ARCHS

ALWAYS = ("resnet",)  # and dcgan by the verb's test; the exporter takes long over each


@pytest.mark.parametrize(
    "arch", [pytest.param(arch, marks=() if arch in ALWAYS else pytest.mark.minutes) for arch in ARCHS]
)
def test_the_file_draws_the_same_images(arch: str, tmp_path: Path) -> None:
    G = pair(arch, 3, resolution=[32, 16])[0].eval().requires_grad_(False)
    difference = exporting.export(G, tmp_path / "g.onnx", 0.7, {"ref": "a:b"})
    assert difference < 1e-4
    onnx.checker.check_model(str(tmp_path / "g.onnx"))
    assert json.loads(onnx.load(tmp_path / "g.onnx").metadata_props[-1].value) == {"truncation": 0.7, "ref": "a:b"}
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["latents", "images"]
    z = torch.randn(7, G.latent_dim)
    (images,) = session.run(None, {"latents": z.numpy()})
    np.testing.assert_allclose(images, G.truncated(z, 0.7).numpy(), atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"], "weights lie in the file itself"
    other = pair(arch, 3, seed=1, resolution=[32, 16])[0].eval().requires_grad_(False)
    with pytest.raises(IntegrityError, match="draws other images"):
        exporting.check(tmp_path / "g.onnx", other, G.latent_dim)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs onnx, onnxruntime, onnxscript") as caught:
        exporting.packages()
    assert caught.value.hint == "pip install 'tlgan[onnx]'"
