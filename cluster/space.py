"""Where a sweep samples one field: `{int: [lo, hi]}`, `{uniform: ...}`, `{log_uniform: ...}` or `{choice: [...]}`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from tlgan.recipe import Section

SPACE_KINDS = ("int", "uniform", "log_uniform", "choice")

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Space(Section):
    """Exactly one kind. Both ends of a range are included (an `int` range may sample `hi`)."""

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "maxProperties": 1}, defer_build=True, serialize_by_alias=True
    )

    int_range: list[int] | None = Field(None, alias="int", min_length=2, max_length=2)
    uniform: list[Finite] | None = Field(None, min_length=2, max_length=2)
    log_uniform: list[Finite] | None = Field(None, min_length=2, max_length=2, description="uniform in the logarithm")
    choice: list[Annotated[Any, WithJsonSchema({})]] | None = Field(None, min_length=1)

    @field_validator("int_range", "uniform", "log_uniform")
    @classmethod
    def _rising(cls, ends: list[float] | None, info: ValidationInfo) -> list[float] | None:
        if ends is not None:
            if ends[0] >= ends[1]:
                raise ValueError(f"expected [low, high] with low < high, received {ends}")
            if info.field_name == "log_uniform" and ends[0] <= 0:
                raise ValueError(f"expected a low end > 0, received {ends[0]}")
        return ends

    @model_validator(mode="after")
    def _one_kind(self) -> Space:
        if len(given := self.model_dump(exclude_none=True)) != 1:
            raise ValueError(
                f"expected exactly one of: {', '.join(SPACE_KINDS)}; received {', '.join(given) or 'none of them'}"
            )
        return self

    @property
    def kind(self) -> str:
        """One of `SPACE_KINDS`."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def values(self) -> list[Any]:
        """The two ends of a range, or the choices."""
        return next(v for v in (self.int_range, self.uniform, self.log_uniform, self.choice) if v is not None)

    def has(self, value: Any) -> bool:
        """Whether `value` could be sampled."""
        if self.choice is not None:
            return value in self.choice
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = self.int_range is None or isinstance(value, int)
        return number and whole and self.values[0] <= value <= self.values[1]

    def grid(self) -> list[Any] | None:
        """All values in order; None for a continuous range, which has no grid."""
        if self.int_range is not None:
            return list(range(self.int_range[0], self.int_range[1] + 1))
        return self.choice
