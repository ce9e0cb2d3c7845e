"""Which versions may go: what a person asked for, never what an alias, a push or a run still needs."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.store.layout import Version
from tlgan.manifest import Manifest
from tlgan.metrics.protocol import MetricValue, same_protocol

RESTORABLE = timedelta(days=7)
GRACE = timedelta(hours=1)


@dataclass(frozen=True)
class Best:
    """Keeps the `count` versions of each artifact with the best value of a metric, for each protocol it was taken by."""

    metric: str
    count: int = 1
    mode: str = "min"


@dataclass(frozen=True)
class Policy:
    """A version is deleted when it fits every given rule and nothing keeps it. Without a rule none is deleted.

    `keep_last`: all but the newest so many; `older_than`: only those of that age; `best`: not those; `names`: patterns of
    artifacts. `restorable`: how long a deleted version can be brought back. `grace`: blobs without a version stay so
    long, which spares pushes that are under way the trouble; that they are safe does not depend on it.
    """

    keep_last: int | None = None
    older_than: timedelta | None = None
    best: Best | None = None
    names: tuple[str, ...] = ("*",)
    restorable: timedelta = RESTORABLE
    grace: timedelta = GRACE

    @property
    def deletes_versions(self) -> bool:
        return self.keep_last is not None or self.older_than is not None

    def covers(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)


def doomed(
    policy: Policy,
    versions: Mapping[Version, Manifest],
    kept: Mapping[str, str],
    now: datetime,
) -> tuple[list[Version], dict[str, str]]:
    """The versions to delete and, for the others that the rules looked at, why they stay (key -> reason).

    `kept`: version key -> why it must stay whatever the rules say.
    """
    going: list[Version] = []
    reasons: dict[str, str] = {}
    if not policy.deletes_versions:
        return going, reasons
    by_name: dict[str, list[Version]] = {}
    for version in sorted(versions, key=lambda version: version.id):
        by_name.setdefault(version.name, []).append(version)
    for name, own in by_name.items():
        if not policy.covers(name):
            continue
        best = _best(policy.best, {version: versions[version] for version in own})
        last = set(own[-policy.keep_last :]) if policy.keep_last else set()
        for version in own:
            if reason := kept.get(version.key) or _reason(policy, version, version in best, version in last, now):
                reasons[version.key] = reason
            else:
                going.append(version)
    return going, reasons


def _reason(policy: Policy, version: Version, is_best: bool, is_last: bool, now: datetime) -> str | None:
    if is_last:
        return f"one of the newest {policy.keep_last}"
    if is_best and policy.best:
        return f"best by {policy.best.metric}"
    if policy.older_than is not None and now - datetime.fromisoformat(version.created) <= policy.older_than:
        return "young enough"
    return None


def _best(rule: Best | None, versions: Mapping[Version, Manifest]) -> set[Version]:
    """The best `count` of each protocol: numbers that were taken differently can't be ranked against each other."""
    if rule is None:
        return set()
    groups: list[list[tuple[MetricValue, Version]]] = []
    for version, manifest in versions.items():
        for value in _values(manifest.metrics, rule.metric):
            group = next((group for group in groups if same_protocol(group[0][0], value)), None)
            groups.append([(value, version)]) if group is None else group.append((value, version))
    best: set[Version] = set()
    for group in groups:
        ranked = sorted(group, key=lambda pair: (pair[0].value, pair[1].id), reverse=rule.mode == "max")
        best.update([version for _, version in ranked][: rule.count])
    return best


def _values(metrics: Iterable[Mapping[str, object]], name: str) -> Iterator[MetricValue]:
    for metric in metrics:
        value, protocol = metric.get("value"), metric.get("protocol")
        if metric.get("name") == name and isinstance(value, int | float) and math.isfinite(value):
            yield MetricValue(name, float(value), dict(protocol) if isinstance(protocol, Mapping) else {})
