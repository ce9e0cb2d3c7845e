"""What is seen in images, one row an image: features, class scores, D's logits. Computed by all ranks, block by block.

A block is made and looked at by one rank alone, with the same code on the same batch whoever it is, and the rows are put
in the order of the images: a metric does not depend on the number of ranks. (Bit for bit, on equal devices.)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.errors import SpecError
from tlgan.metrics.features import CHUNK, Extractor
from tlgan.metrics.pictures import Pictures
from tlgan.models.blocks import Network, channels_last

Rows = dict[str, Tensor]
Look = Callable[[Tensor], Rows]
EXTRACTED = ("features", "classes")
GROUP = 4  # images that StyleGAN2's discriminator compares


def looker(views: set[str], extractor: Extractor, critic: Network | None = None) -> Look:
    """A function of uint8 images [N, C, H, W] to `{view: [N, ...]}` on the CPU, for `views` among

    features    the extractor's [N, F]
    classes     its class scores (logits) [N, K]. Raises `SpecError` for an extractor that knows none
    critic      logits [N] of the discriminator `critic`
    images      the images themselves
    """

    def look(images: Tensor) -> Rows:
        rows: Rows = {}
        if "classes" in views:
            outputs = getattr(extractor, "outputs", None)
            if outputs is None:
                raise SpecError(f"extractor {extractor.name} knows no classes", hint="use embedded or inception")
            rows |= outputs(images)
        elif "features" in views:
            rows["features"] = extractor(images)
        if "critic" in views:
            assert critic is not None, "whoever asks for logits has a discriminator"
            rows["critic"] = judge(critic, images)
        if "images" in views:
            rows["images"] = images
        return {view: rows[view] for view in sorted(views)}

    return look


@torch.no_grad()
def judge(critic: Network, images: Tensor) -> Tensor:
    """Logits [N] of a discriminator in eval mode on uint8 images [N, C, H, W], unaugmented.

    One that compares the images of a group gets whole groups: the last is filled up from the start.
    """
    count, training = len(images), critic.training
    if critic.looks_at_batch and count % GROUP:
        images = images[torch.arange(count + -count % GROUP) % count]
    critic.eval()
    device = next(critic.parameters()).device
    logits: Tensor = critic(channels_last(images.to(device).float() / 127.5 - 1)).float().cpu()
    critic.train(training)
    return logits[:count]


def rows_of(pictures: Pictures, look: Look, world: World) -> dict[str, np.ndarray]:
    """`{view: [N, ...]}` over all images, on rank 0; `{}` on the others, and when there are no images. All ranks call it."""
    found = _alone(pictures, look) if world.size == 1 else _together(pictures, look, world)
    if not found or not world.is_main:
        return {}
    return {view: torch.cat([rows[view] for rows in found]).numpy() for view in found[0]}


def _alone(pictures: Pictures, look: Look) -> list[Rows]:
    found: list[Rows] = []
    for number in count():
        images = pictures.block(number)
        if images is None:
            return found
        found.append(look(images))
    raise AssertionError("blocks end")


def _together(pictures: Pictures, look: Look, world: World) -> list[Rows]:
    """Blocks go round the ranks. One that has none left in the last round makes the last block too; it is not counted."""
    total = pictures.count
    assert total is not None, "a stream is read by one rank alone"
    blocks = -(-total // CHUNK)
    found: list[Rows] = []
    for start in range(0, blocks, world.size):
        images = pictures.block(min(start + world.rank, blocks - 1))
        assert images is not None, f"{total} images have {blocks} blocks"
        parts = {view: _gathered(rows, world) for view, rows in look(images).items()}
        for rank in range(min(world.size, blocks - start)):
            size = min(CHUNK, total - (start + rank) * CHUNK)
            found.append({view: ranks[rank][:size] for view, ranks in parts.items()})
    return found


def _gathered(rows: Tensor, world: World) -> list[Tensor]:
    """Each rank's rows on the CPU, filled up to a whole block."""
    whole = rows.new_zeros((CHUNK, *rows.shape[1:]))
    whole[: len(rows)] = rows
    return [part.cpu() for part in world.gather_rows(whole.to(world.device))]
