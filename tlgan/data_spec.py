"""The section of a spec that says where images come from."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from tlgan import registry
from tlgan.section import MAX_SEED, Channels, Resolution, Section, table_check

_SECRET_IN_URL = re.compile(
    r"://[^/@]*:[^@]*@|://[^/]*@|[?&#][\w-]*(sig|token|key|credential|secret)[\w-]*=", re.IGNORECASE
)


class DataSpec(Section):
    """Where images come from: a `source`, or a dataset `artifact` made by `tlgan data pack`."""

    source: str | None = Field(None, description="glyphs, digits, photos, folder, parquet or torchvision:<Name>")
    artifact: str | None = Field(None, description="a dataset artifact, name:alias or name@digest")
    path: str | None = Field(None, description="folder or Parquet location (a path or s3://bucket/prefix)")
    resolution: Resolution | None = Field(
        None, description="side in pixels after resizing, or [height, width]; default: the model's"
    )
    channels: Channels | None = Field(
        None, description="1 grey, 3 RGB, 2 and 4 the same with alpha; default: as the source has them, without alpha"
    )
    labels: str | None = Field(None, description="folder source: a CSV of file,label; default: the subfolder's name")
    classes: list[str] | None = Field(None, description="keep only images with these labels", min_length=1)
    split: Literal["all", "train", "test"] = Field("all", description="a seeded split by image; test is held out")
    test_share: float = Field(0.5, gt=0, lt=1, description="share of images in the test split")
    limit: int | None = Field(
        None, ge=1, description="a seeded subset of at most this many images, each label with its share"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of split, subset, crops and `data pack --shuffle`")
    crops: int = Field(5000, ge=1, description="photos source: number of random crops")
    flip: bool = Field(False, description="mirror half of the images left-right while training")
    download: bool = Field(False, description="torchvision source: download the dataset when it is missing")
    sharded: bool = Field(
        False, description="each node fetches only what its workers show, of an artifact packed with --shuffle"
    )

    @field_validator("source")
    @classmethod
    def _known(cls, source: str | None) -> str | None:
        if source is not None:
            name, _, argument = source.partition(":")
            table_check(registry.SOURCES, name)
            if registry.SOURCES.facts(name).get("argument") and not argument:
                raise ValueError(f"source {name} needs a dataset's name, as in {name}:CIFAR10")
        return source

    @field_validator("artifact")
    @classmethod
    def _one_origin(cls, artifact: str | None, info: ValidationInfo) -> str | None:
        if "source" in info.data and (info.data["source"] is None) == (artifact is None):
            raise ValueError("expected exactly one of `source` and `artifact`")
        return artifact

    @field_validator("path")
    @classmethod
    def _path_given(cls, path: str | None, info: ValidationInfo) -> str | None:
        name = (info.data.get("source") or "").partition(":")[0]
        if name in registry.SOURCES and registry.SOURCES.facts(name).get("path") and not path:
            raise ValueError(f"source {name} needs `path`")
        if path and "://" in path and _SECRET_IN_URL.search(path):
            raise ValueError("has a user, a password or a signature in it; keys come from the environment (AWS_...)")
        return path

    @field_validator("sharded")
    @classmethod
    def _all_of_a_pack(cls, sharded: bool, info: ValidationInfo) -> bool:
        if sharded and "artifact" in info.data and info.data["artifact"] is None:
            raise ValueError("needs a dataset `artifact`, packed by `tlgan data pack SOURCE NAME --shuffle`")
        chosen = {"classes": None, "split": "all", "limit": None}
        for name in (name for name, default in chosen.items() if sharded and info.data.get(name, default) != default):
            raise ValueError(f"shows all images of a pack; choose by `{name}` when packing: -s {name}=...")
        return sharded


def whole_only(data: DataSpec | None) -> DataSpec | None:
    """For data of which every node needs all."""
    if data is not None and data.sharded:
        raise ValueError("only the images that a GAN trains on can be sharded; leave `sharded` out")
    return data
