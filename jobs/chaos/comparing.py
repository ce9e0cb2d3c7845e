"""Whether two stores hold the same results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.store import ArtifactStore


@dataclass(frozen=True)
class Verdict:
    """`artifact` has the same bytes in both stores, or `unlike` names the files that differ, and by how much."""

    artifact: str
    files: int
    unlike: list[str]

    @property
    def same(self) -> bool:
        return not self.unlike

    def to_json(self) -> dict[str, Any]:
        return {"artifact": self.artifact, "files": self.files, "same": self.same, "unlike": self.unlike}


def compare(whole: ArtifactStore, struck: ArtifactStore, names: list[str]) -> list[Verdict]:
    """The newest version of each of `names` in both."""
    return [_one(whole, struck, name) for name in names]


def _one(whole: ArtifactStore, struck: ArtifactStore, name: str) -> Verdict:
    here, there = (({f.path: f for f in store.resolve(f"{name}:latest").files}) for store in (whole, struck))
    unlike = []
    for path in sorted({*here, *there}):
        if path not in here or path not in there:
            unlike.append(f"{path} is in one of the two only")
        elif here[path].sha256 != there[path].sha256:
            far = _distance(whole.file(here[path]), struck.file(there[path])) if path.endswith(".safetensors") else ""
            unlike.append(f"{path}{far}")
    return Verdict(name, len(here), unlike)


def _distance(one: Any, other: Any) -> str:
    """The largest difference of a number in two files of tensors."""
    from safetensors.numpy import load_file

    first, second = load_file(one), load_file(other)
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        return " has other tensors"
    most = max((float(abs(first[name].astype("f8") - second[name]).max(initial=0)) for name in first), default=0.0)
    return f" differs by up to {most:.3g}"
