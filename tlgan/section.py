"""What every part of a spec is made of: the base class and the types of fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tlgan import registry, shapes

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
_Side = Annotated[int, Field(ge=shapes.SMALLEST, le=shapes.LARGEST)]
Resolution = Annotated[_Side | Annotated[list[_Side], Field(min_length=2, max_length=2)], BeforeValidator(shapes.check)]
Channels = Literal[1, 2, 3, 4]
MAX_SEED = 2**63 - 1


class Section(BaseModel):
    """Base of every part of a spec: immutable, unknown keys refused, no silent conversion of text into numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


def table_check(table: registry.Table, name: str) -> str:
    try:
        return table.check(name)
    except ValueError as error:
        raise ValueError(str(error)) from None
