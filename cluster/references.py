"""How a spec names what it takes in: a published artifact, or what an earlier stage of the pipeline makes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tlgan.naming import ArtifactRef, check_name
from tlgan.recipe import Name, Section


def check_reference(text: str) -> str:
    """`text` itself when it is `name:alias` or `name@<digest prefix>`. Raises `SpecError` with the corrected form."""
    ArtifactRef.parse(text)
    return text


def name_of(reference: str) -> str:
    """`digits32` of `digits32:best` and of `digits32@3fa9c1`."""
    return ArtifactRef.parse(reference).name


Reference = Annotated[str, Field(description="name:alias or name@digest"), AfterValidator(check_reference)]
StoreName = Annotated[Name, AfterValidator(check_name)]
"""A name that is also a folder's in the store, so it is valid on every system."""


class ArtifactInput(Section):
    """Exactly one of `artifact` (from the store) and `stage` (inside a pipeline: what that stage publishes)."""

    artifact: Reference | None = None
    stage: Name | None = Field(None, description="a stage of the same pipeline")

    @field_validator("stage")
    @classmethod
    def _one_origin(cls, stage: str | None, info: ValidationInfo) -> str | None:
        if "artifact" in info.data and (info.data["artifact"] is None) == (stage is None):
            raise ValueError("expected exactly one of `artifact` and `stage`")
        return stage

    def __str__(self) -> str:
        return self.artifact or f"stage {self.stage}"
