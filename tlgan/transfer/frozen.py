"""The frozen source: a copy of a network that never changes, and its features of images."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from tlgan.models.adapters import plain
from tlgan.models.blocks import Network, channels_last
from tlgan.models.taps import tapped


def frozen_copy(network: Network) -> Network:
    """A copy in eval mode, without gradients, adapters and heads. No state: it is the parent's whenever a training starts."""
    return copy.deepcopy(plain(network)).eval().requires_grad_(False)


def feature_blocks(D: Network) -> list[str]:
    """The blocks of a discriminator whose outputs are features: all but the last, which gives the logit."""
    return list(D.blocks)[:-1]


def features_of(D: Network, x_nchw: Tensor, inputs: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """The feature maps of images, by block, in full precision; differentiable in the images.

    `inputs`: what G took for a batch; `x_nchw` may be several such batches, one after the other.
    """
    asked = labels_of(inputs or {}, len(x_nchw))
    with torch.autocast(x_nchw.device.type, enabled=False), tapped(D, feature_blocks(D)) as seen:
        D(channels_last(x_nchw.float()), **asked)
    return seen


def labels_of(inputs: dict[str, Any], count: int) -> dict[str, Tensor]:
    """What a conditional network takes besides `count` images; empty for others."""
    labels = inputs.get("labels")
    return {} if labels is None else {"labels": labels.repeat(count // len(labels))}
