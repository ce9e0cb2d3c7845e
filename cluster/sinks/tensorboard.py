"""TensorBoard event files, by tensorboardX, which Ray Tune brings: `tensorboard --logdir .tlgan/sinks/tensorboard`."""

from __future__ import annotations

import io
from typing import Any

from cluster.sinks import About, Event, numbers


class TensorBoard:
    """Scalars by image count, and the sample grids."""

    def __init__(self, about: About) -> None:
        from tensorboardX import SummaryWriter

        self.about = about
        self.writer: Any = SummaryWriter(str(about.folder / "tensorboard" / about.run))

    def __call__(self, event: Event) -> None:
        for name, value in numbers(event):
            self.writer.add_scalar(name, value, event.get("nimg", 0))
        if event["type"] == "grid":
            self._grid(event["nimg"])

    def _grid(self, nimg: int) -> None:
        import numpy as np
        from PIL import Image

        png = self.about.store.get(f"runs/{self.about.run}/grids/{nimg:012d}.png", max_bytes=64 << 20)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self.writer.add_image("grid", pixels, nimg, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
