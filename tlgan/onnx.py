"""A generator as an ONNX file, for programs without torch: `latents` `[N, latent_dim]` to `images` `[N, C, H, W]`.

Images are float32, mostly in [-1, 1]; N is free. Truncation is part of the file. Needs the packages of `pip install 'tlgan[onnx]'`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlgan.errors import IntegrityError, SpecError
from tlgan.latent.space import of_class
from tlgan.models.blocks import Network
from tlgan.random import latents

EXAMPLES = 3  # rows that are traced: any number but one
TOLERANCE = 1e-3  # of values in [-1, 1]: half a grey level is 0.004


class _Drawing(nn.Module):
    def __init__(self, g: Network, truncation: float, name: str | None) -> None:
        super().__init__()
        self.network, self.truncation = g, truncation
        self._of_class = of_class(g, name)
        self.eval()

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self._of_class.truncated(latents, self.truncation)
        return images


def export(
    g: Network, dest: Path, truncation: float = 1.0, about: dict[str, str] | None = None, name: str | None = None
) -> float:
    """Writes `dest` and holds its images against torch's. Returns the largest difference of a value.

    `name`: the class, where the generator is conditional. `about` becomes the file's metadata. Raises `SpecError` without the
    packages or for a bad truncation, `IntegrityError` when the images differ.
    """
    if not 0 <= truncation <= 1:
        raise SpecError(f"truncation: expected a number from 0 to 1, received {truncation}")
    packages()
    model = _Drawing(g, truncation, name).cpu()
    z = latents(0, 0, EXAMPLES, g.latent_dim)
    rows = {"latents": {0: torch.export.Dim("n", min=1)}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own code
        program: Any = torch.onnx.export(
            model,
            (z,),
            input_names=["latents"],
            output_names=["images"],
            dynamic_shapes=rows,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update({"tlgan": json.dumps({"truncation": truncation, **(about or {})})})
    program.save(str(dest), external_data=False)
    return check(dest, model, g.latent_dim)


def check(file: Path, model: nn.Module, latent_dim: int) -> float:
    """The largest difference between the file's images in onnxruntime and torch's, for 1 and for 5 latents."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in (1, 5):
        z = latents(1, 0, count, latent_dim)
        with torch.no_grad():
            ours = model(z).float()
        theirs = torch.from_numpy(session.run(["images"], {"latents": z.numpy()})[0])
        largest = max(largest, float((ours - theirs).abs().max()))
    if not largest <= TOLERANCE:
        raise IntegrityError(f"{file} draws other images than the model: values differ by up to {largest:.2g}")
    return largest


def packages() -> None:
    """Raises `SpecError` when what is needed is not installed."""
    import importlib.util

    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise SpecError(f"ONNX export needs {', '.join(missing)}", hint="pip install 'tlgan[onnx]'")
