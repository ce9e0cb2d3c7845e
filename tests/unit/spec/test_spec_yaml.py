"""YAML 1.2 scalars, and where everything stands."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from cluster.yamlpos import parse, scalar


def value_of(text: str) -> Any:
    documents, problems = parse(text, "f.yaml")
    assert problems == []
    return documents[0].value


def problems_of(text: str) -> list[str]:
    return [str(p) for p in parse(text, "f.yaml")[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("2.0e-4", 2e-4), ("1e3", 1000), ("1E+2", 100), ("1.", 1.0), (".5", 0.5), ("-3", -3), ("+7", 7),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("true", True), ("False", False), ("yes", "yes"), ("on", "on"),
        ("null", None), ("~", None), ("", None), ("12:30", "12:30"), ("2020-01-01", "2020-01-01"), ("1_000", "1_000"),
        ("< 0.05", "< 0.05"), ("-.inf", -math.inf), ("e3", "e3"), ("1e", "1e"), ("=", "="),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_quoted_and_tagged_scalars_stay_text() -> None:
    assert value_of('[ "1", \'2e-4\', !!str 3, "true" ]') == ["1", "2e-4", "3", "true"]


def test_nan() -> None:
    assert math.isnan(scalar(".nan"))


def test_anchors_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 5}, *a]}\nd: *a"
    value = value_of(text)
    assert (value["b"], value["c"], value["d"]) == ({"x": 1, "y": 3}, {"x": 5, "y": 2}, {"x": 1, "y": 2})
    value["d"]["x"] = 9
    assert value["a"]["x"] == 1


def test_places() -> None:
    document = parse("a: 1\nb:\n  - c: {d: 2}\n", "f.yaml")[0][0]
    place = document.place(("b", 0, "c", "d"))
    assert (place.file, place.line, place.column, place.label) == ("f.yaml", 3, 12, "b[0].c.d")
    assert document.place(("b", 0, "c", "d"), key=True).column == 9
    missing = document.place(("b", 0, "c", "nothing", "deeper"))
    assert (missing.line, missing.column, missing.label) == (3, 8, "b[0].c.nothing.deeper")


def test_lines_count_over_all_documents_of_a_file() -> None:
    first, second = parse("a: 1\n---\n\nb: 2\n---\n", "f.yaml")[0]
    assert (first.place(("a",)).line, second.place(("b",)).line) == (1, 4)


def test_a_key_given_twice() -> None:
    assert problems_of("a: 1\nb: {c: 1, c: 2}\na: 3") == [
        'f.yaml:2:11: b.c: the key "c" is given twice; first in line 2',
        'f.yaml:3:1: a: the key "a" is given twice; first in line 1',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "f.yaml:1:5: mapping values are not allowed in this context"),
        ("a:\n\t- b", "f.yaml:2:1: found character that cannot start any token"),
        ("a: *b", "f.yaml:1:4: found undefined alias"),
        ("a: 'b", "f.yaml:1:6: found unexpected end of stream"),
        ("a: !python/object:os.system x", "f.yaml:1:4: a: the tag !python/object:os.system is not used in specs"),
        ("a: !!bool maybe", 'f.yaml:1:4: a: expected true or false, received "maybe"'),
        ("? [1]\n: 2", "f.yaml:1:3: expected a plain word as key, received a list, a mapping or a tagged value"),
        ("a: &a [*a]", "f.yaml:1:4: nested deeper than 50 levels"),
        ("<<: 3", "f.yaml:1:5: expected a mapping after <<"),
        ("", "f.yaml:1:1: the file is empty (`tlgan init` writes a spec to start from)"),
        ("# nothing\n---\n", "f.yaml:1:1: the file is empty (`tlgan init` writes a spec to start from)"),
    ],
)
def test_broken_yaml_says_where(text: str, message: str) -> None:
    assert problems_of(text) == [message]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert [p.split(": ")[1] for p in problems_of("\n".join(lines))] == [
        "more than 50000 values, counting what aliases repeat"
    ]


def test_deep_nesting_does_not_end_the_process() -> None:
    code = "from cluster.yamlpos import parse\nfor c in '[', '- ', '{a: ': print(*parse(c * 400_000, 'f')[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("the YAML is nested too deeply") == 3
