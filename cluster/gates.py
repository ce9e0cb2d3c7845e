"""A bound that a metric must keep: `"< 0.05"`."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_GATE = re.compile(r"\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Gate:
    metric: str
    comparison: str
    bound: float

    def passes(self, value: float) -> bool:
        """Whether `value` keeps the bound. NaN never does."""
        return bool(_OPERATORS[self.comparison](value, self.bound))

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.bound:g}"


def parse_gate(text: str) -> tuple[str, float]:
    """`("<", 0.05)` of `"< 0.05"`. Raises `ValueError` that shows how a gate is written."""
    match = _GATE.fullmatch(text)
    if not match or not math.isfinite(float(match[2])):
        raise ValueError(f'expected a comparison with a number, as in "< 0.05" or ">= 0.4"; received "{text}"')
    return match[1], float(match[2])
