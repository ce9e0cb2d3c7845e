"""How a spec names what it takes in: a published artifact, or what an earlier stage of the pipeline makes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tlgan.recipe import Name, Section

_NAME = r"[a-z0-9][a-z0-9._-]{0,99}"
_REFERENCE = re.compile(rf"(?P<name>{_NAME})(?::(?P<alias>{_NAME})|@(?P<digest>[0-9a-f]{{6,64}}))")
_EXPECTED = "expected an artifact as name:alias or name@digest"


def check_reference(text: str) -> str:
    """`text` itself when it is `name:alias` or `name@<digest prefix>`. Raises `ValueError` with the fix."""
    if _REFERENCE.fullmatch(text):
        return text
    if re.fullmatch(_NAME, text):
        raise ValueError(f'{_EXPECTED}, received the bare name "{text}"; write "{text}:latest"')
    raise ValueError(f'{_EXPECTED}, received "{text}"')


def name_of(reference: str) -> str:
    """`digits32` of `digits32:best` and of `digits32@3fa9c1`."""
    return re.split("[:@]", reference, maxsplit=1)[0]


Reference = Annotated[str, Field(description="name:alias or name@digest"), AfterValidator(check_reference)]


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
