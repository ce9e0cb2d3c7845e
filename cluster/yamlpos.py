"""YAML 1.2 with positions: plain values, and for each of them the file, line and column where it stands.

Differs from PyYAML's own loading: `2e-4` and `1e3` are numbers, `yes` and `on` are text, a key given twice is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from cluster.document import Document, Path, Place
from tlgan.errors import Problem

MAX_NODES = 50_000
MAX_DEPTH = 50

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _INT, _FLOAT, _BOOL, _NULL, _MERGE = (
    f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "merge")
)
_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_WHOLE_POWER = re.compile(r"([-+]?[0-9]+)[eE]\+?([0-9]{1,2})")
_RESOLVERS = (
    (_BOOL, "true|True|TRUE|false|False|FALSE", "tTfF"),
    (_NULL, "~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_INT, "[-+]?[0-9]{1,300}|0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}", "-+0123456789"),
    (_FLOAT, _NUMBER + r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    (_MERGE, "<<", "<"),
)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's composer with the types of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _regex, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_regex})$"), list(_first))


def scalar(text: str) -> Any:
    """The value of an unquoted YAML scalar, as in a command line's `path=value`."""
    loader = _Loader("")
    try:
        return _value(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
    finally:
        loader.dispose()


def parse(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """All documents of a file and what is wrong with its YAML. Empty documents are left out."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for node, problem in _nodes(text, file):
        if problem:
            problems.append(problem)
        elif node.tag != _NULL:
            builder = _Builder(file)
            builder.document.value = builder.build(node, (), "", 0)
            documents.append(builder.document)
            problems += builder.problems
    if not documents and not problems:
        problems.append(Problem("the file is empty", "", file, 1, 1, "`tlgan init` writes a spec to start from"))
    return documents, problems


def _nodes(text: str, file: str) -> Iterator[tuple[Any, Problem | None]]:
    loader = None
    try:
        if _too_deep(text):
            raise RecursionError
        loader = _Loader(text)
        while loader.check_node():
            yield loader.get_node(), None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "not valid YAML"
        hint = "indent with blanks, not tabs" if r"'\t'" in said or "found a tab" in said else None
        yield None, Problem(said, "", file, *((mark.line + 1, mark.column + 1) if mark else (1, 1)), hint)
    except yaml.YAMLError as error:
        yield None, Problem(" ".join(str(error).split()), "", file, 1, 1)
    except RecursionError:
        yield None, Problem("the YAML is nested too deeply", "", file, 1, 1)
    finally:
        if loader is not None:
            loader.dispose()


def _too_deep(text: str) -> bool:
    """Whether composing would exhaust the C stack, which ends the process. Only long texts can nest that deep."""
    depth = 0
    for event in yaml.parse(text, _Loader) if len(text) > 10_000 else ():
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 1000:
            return True
    return False


@dataclass
class _Builder:
    """Turns one document's nodes into values and notes where each stands."""

    file: str
    document: Document = field(default_factory=lambda: Document(None))
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def problem(self, node: Any, label: str, message: str, hint: str | None = None) -> None:
        place = self.place(node, label)
        self.problems.append(Problem(message, place.label, place.file, place.line, place.column, hint))

    def place(self, node: Any, label: str) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1, label)

    def build(self, node: Any, path: Path, label: str, depth: int) -> Any:
        self.count += 1
        self.document.places[path] = self.place(node, label)
        if depth > MAX_DEPTH or self.count > MAX_NODES:  # also ends an anchor that contains itself
            if self.count <= MAX_NODES:
                self.problem(node, "", f"nested deeper than {MAX_DEPTH} levels")
            elif self.count == MAX_NODES + 1:
                self.problem(node, "", f"more than {MAX_NODES} values, counting what aliases repeat")
            self.count = max(self.count, MAX_NODES + 1)
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, label, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*path, i), f"{label}[{i}]", depth + 1) for i, n in enumerate(node.value)]
        return self.scalar(node, label)

    def scalar(self, node: Any, label: str) -> Any:
        try:
            return _value(node.tag, node.value)
        except ValueError as error:
            self.problem(node, label, str(error))
            return node.value

    def mapping(self, node: Any, path: Path, label: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged |= self.merge(value_node, path, label, depth)
                continue
            key = self.key(key_node, label)
            if key is None:
                continue
            inner = f"{label}.{key}" if label else key
            if key in first:
                self.problem(key_node, inner, f'the key "{key}" is given twice; first in line {first[key]}')
                continue
            first[key] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key), inner, depth + 1)
            self.document.keys[(*path, key)] = self.place(key_node, inner)
        return {**merged, **result}

    def key(self, node: Any, label: str) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in (_STR, _INT, _FLOAT, _BOOL, _NULL):
            return str(node.value)
        self.problem(node, label, "expected a plain word as key, received a list, a mapping or a tagged value")
        return None

    def merge(self, node: Any, path: Path, label: str, depth: int) -> dict[str, Any]:
        """`<<: *anchor`, or a list of anchors of which the first wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in reversed(nodes):
            if not isinstance(part, yaml.MappingNode):
                self.problem(part, label, "expected a mapping after <<")
            elif depth <= MAX_DEPTH:
                result |= self.mapping(part, path, label, depth + 1)
        return result


def _value(tag: str, text: str) -> Any:
    if tag in (_STR, _MERGE, "!"):
        return text
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return _boolean(text)
    if tag == _INT:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if tag == _FLOAT:
        return _float(text)
    raise ValueError(f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not used in specs")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f'expected true or false, received "{text}"')
    return text.lower() == "true"


def _float(text: str) -> int | float:
    if whole := _WHOLE_POWER.fullmatch(text):  # 1e4 also serves where a whole number is expected
        return int(whole[1] + "0" * int(whole[2]))
    special = {"inf": math.inf, "nan": math.nan}.get(text.lstrip("-+").lstrip(".").lower())
    if special is not None:
        return -special if text.startswith("-") else special
    return float(text)
