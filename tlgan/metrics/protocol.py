"""A metric's value together with how it was taken. Numbers taken differently refuse to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tlgan import registry
from tlgan.errors import DataError, Problem, SpecError

# Fields that do not change what is estimated: the name weights were found under, the seed of the generated draw, and the
# protocol's short name, which follows from the other fields.
_FREE = frozenset({"extractor", "seed", "protocol"})
QUICK, FULL = (2_000, 10_000), 50_000


def named(metric: str, samples: int) -> str:
    """The short name of a protocol: `kid10k_quick` for 2 000 to 10 000 generated images, `fid50k_full` from 50 000 on,
    `kid1k_small` below, `fid20k` between. The first two are the field's habit: published numbers are full ones."""
    size = f"{samples // 1000}k" if samples and samples % 1000 == 0 else str(samples)
    if samples >= FULL:
        return f"{metric}{size}_full"
    if samples < QUICK[0]:
        return f"{metric}{size}_small"
    return f"{metric}{size}_quick" if samples <= QUICK[1] else f"{metric}{size}"


@dataclass(frozen=True)
class MetricValue:
    """`value` of metric `name`. `protocol` holds extractor and its weights' digest, preprocessing, counts of real and
    fake samples, the reference's digest, seed, EMA and the estimator; all of it JSON-able."""

    name: str
    value: float
    protocol: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> MetricValue:
        """From a row of `tlgan metrics --json` or a manifest; further keys (`nimg`) are left out. Raises `DataError`."""
        missing = [key for key in ("name", "value", "protocol") if key not in row]
        if missing:
            raise DataError(f"a stored metric lacks {', '.join(missing)}; received the keys {', '.join(map(str, row))}")
        return cls(name=row["name"], value=float(row["value"]), protocol=dict(row["protocol"]))


def unlike_fields(a: MetricValue, b: MetricValue) -> list[str]:
    """Names of the protocol fields in which `a` and `b` differ, in order; empty: the two can be compared."""
    keys = list(dict.fromkeys([*a.protocol, *b.protocol]))
    names = [] if a.name == b.name else ["name"]
    absent = object()
    return names + [k for k in keys if k not in _FREE and a.protocol.get(k, absent) != b.protocol.get(k, absent)]


def same_protocol(a: MetricValue, b: MetricValue) -> bool:
    """True when the two estimate the same quantity. Seeds may differ, and so may aliases of the same weights."""
    return not unlike_fields(a, b)


def check_comparable(a: MetricValue, b: MetricValue) -> None:
    """Raises `SpecError` with one problem for each field in which the protocols differ."""
    fields = unlike_fields(a, b)
    if fields:
        raise SpecError([_unlike(a, b, f) for f in fields], hint="evaluate both again with one protocol")


def compare(a: MetricValue, b: MetricValue) -> float:
    """How much better `a` is than `b`, in the metric's own unit: positive when better, 0 when equal.

    "Better" is lower for metrics of mode `min` and higher for `max`. Raises `SpecError` for unlike protocols.
    """
    check_comparable(a, b)
    return b.value - a.value if registry.METRICS.facts(a.name)["mode"] == "min" else a.value - b.value


def _unlike(a: MetricValue, b: MetricValue, name: str) -> Problem:
    if name == "name":
        return Problem(f"{a.name} and {b.name} are different metrics and can't be compared", path="name")
    left, right = (v.protocol.get(name, "not recorded") for v in (a, b))
    return Problem(f"{a.name} was taken differently: {left} and {right}; the two can't be compared", path=name)
