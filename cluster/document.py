"""A value of nested mappings and lists that knows where each of its parts was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tlgan.errors import Problem

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """`file` is what was typed, or `--set a.b=v` (then without line). `label` is the dotted path in that file."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    label: str = ""


def dotted(path: Path, label: str = "") -> str:
    """`data.classes[0]` of `("data", "classes", 0)`, after `label`."""
    for part in path:
        label = f"{label}[{part}]" if isinstance(part, int) else f"{label}.{part}" if label else str(part)
    return label


@dataclass
class Document:
    """`places` holds where values stand, `keys` where their keys do. Parts from other files keep their own places."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def get(self, path: Path) -> Any:
        """The value at `path`, or None."""
        value = self.value
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and -1 < part < len(value):
                value = value[part]
            else:
                return None
        return value

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where `path` stands; for what was not written, where the nearest enclosing part does."""
        table = self.keys if key else self.places
        for length in range(len(path), -1, -1):
            known = (table if length == len(path) else self.places).get(path[:length])
            if known:
                return replace(known, label=dotted(path[length:], known.label))
        return Place(label=dotted(path))

    def problem(self, path: Path, message: str, hint: str | None = None, *, key: bool = False) -> Problem:
        place = self.place(path, key=key)
        return Problem(message, place.label, place.file, place.line, place.column, hint)

    def set(self, path: Path, value: Any, place: Place) -> Path | None:
        """Puts `value` there, making mappings on the way. Returns the path of a part in the way that is no mapping."""
        return self.graft(path, Document(value, {(): place}, {(): place}))

    def graft(self, path: Path, other: Document) -> Path | None:
        """Puts the whole of `other` at `path`, with its places. Returns the path of what is in the way, or None."""
        if not path:
            self.value, self.places, self.keys = other.value, dict(other.places), dict(other.keys)
            return None
        made: list[Path] = []
        blocked = self._descend(path, other.value, made)
        if blocked is None:
            self._forget(path)
            self.places |= {path + inner: place for inner, place in other.places.items()}
            self.keys |= {path + inner: place for inner, place in other.keys.items()}
            if written := other.keys.get((), other.places.get(())):
                self.keys.setdefault(path, written)
                for outer in made:
                    self.places[outer] = self.keys[outer] = written
        return blocked

    def _descend(self, path: Path, value: Any, made: list[Path]) -> Path | None:
        here = self.value
        for depth, part in enumerate(path[:-1]):
            inner = here.get(part) if isinstance(here, dict) else _item(here, part)
            if inner is None and isinstance(here, dict):
                inner = here[str(part)] = {}
                made.append(path[: depth + 1])
            if not isinstance(inner, dict | list):
                return path[: depth + 1]
            here = inner
        if isinstance(here, dict):
            here[path[-1]] = value
        elif _item(here, path[-1]) is None:
            return path[:-1]
        else:
            here[int(path[-1])] = value
        return None

    def _forget(self, path: Path) -> None:
        depth = len(path)
        self.places = {p: place for p, place in self.places.items() if p[:depth] != path}
        self.keys = {p: place for p, place in self.keys.items() if p[:depth] != path or p == path}

    def sub(self, path: Path) -> Document:
        """A copy of the part at `path` with its places."""
        depth = len(path)
        places, keys = (
            {p[depth:]: place for p, place in table.items() if p[:depth] == path} for table in (self.places, self.keys)
        )
        return Document(copy_of(self.get(path)), places, keys)


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, list) and str(part).isdecimal() and int(part) < len(value):
        return value[int(part)]
    return None


def copy_of(value: Any) -> Any:
    """A deep copy of mappings and lists; leaves are shared."""
    if isinstance(value, Mapping):
        return {key: copy_of(inner) for key, inner in value.items()}
    return [copy_of(inner) for inner in value] if isinstance(value, list) else value
