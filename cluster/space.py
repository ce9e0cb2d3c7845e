"""Where a sweep samples one field: `{int: [lo, hi]}`, `{uniform: ...}`, `{log_uniform: ...}` or `{choice: [...]}`.

With `when: {other.path: value}` it is sampled only in trials where the other searched field has that value, or one of a list;
in all others it is as in the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from tlgan.recipe import Section

SPACE_KINDS = ("int", "uniform", "log_uniform", "choice")

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Space(Section):
    """Exactly one kind. Both ends of a range are included (an `int` range may sample `hi`)."""

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "maxProperties": 2}, defer_build=True, serialize_by_alias=True
    )

    int_range: list[int] | None = Field(None, alias="int", min_length=2, max_length=2)
    uniform: list[Finite] | None = Field(None, min_length=2, max_length=2)
    log_uniform: list[Finite] | None = Field(None, min_length=2, max_length=2, description="uniform in the logarithm")
    choice: list[Annotated[Any, WithJsonSchema({})]] | None = Field(None, min_length=1)
    when: dict[str, Annotated[Any, WithJsonSchema({})]] | None = Field(
        None, min_length=1, description="sampled only where other fields of the space have this value, or one of a list"
    )

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
        if len(given := self.model_dump(exclude_none=True, exclude={"when"})) != 1:
            raise ValueError(
                f"expected exactly one of: {', '.join(SPACE_KINDS)}; received {', '.join(given) or 'none of them'}"
            )
        return self

    @property
    def kind(self) -> str:
        """One of `SPACE_KINDS`."""
        return next(iter(self.model_dump(exclude_none=True, exclude={"when"})))

    @property
    def values(self) -> list[Any]:
        """The two ends of a range, or the choices."""
        return next(v for v in (self.int_range, self.uniform, self.log_uniform, self.choice) if v is not None)

    def wanted(self, path: str) -> list[Any]:
        """The values of `path` under which this field is sampled."""
        value = (self.when or {})[path]
        return value if isinstance(value, list) else [value]

    def is_active(self, point: Mapping[str, Any]) -> bool:
        """Whether the field is sampled beside the values of `point`, which has all active fields that are named in `when`."""
        return all(path in point and same(point[path], self.wanted(path)) for path in self.when or {})

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


def same(value: Any, wanted: list[Any]) -> bool:
    """Whether `value` is in the list: 1 and 1.0 are the same, 1 and true are not."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)


def in_order(space: Mapping[str, Space]) -> list[str]:
    """The paths in alphabetical order, but each after those that its `when` names. Raises `ValueError` on a circle."""
    order: list[str] = []
    while len(order) < len(space):
        ready = [
            p for p in sorted(space) if p not in order and all(w in order for w in space[p].when or {} if w in space)
        ]
        if not ready:
            circle = sorted(set(space) - set(order))
            raise ValueError(f"a circle: {', '.join(circle)} each wait for another of them")
        order.append(ready[0])
    return order
