"""Whatever a file holds, the answer is jobs or problems, never a traceback."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_texts import SPECS

from cluster.fields import fields_of
from cluster.job import KINDS, Job
from cluster.specfile import apply_params, check_files, load_spec
from tlgan.errors import Problem, SpecError

WORDS = sorted(
    {w for model in KINDS.values() for w in fields_of(model)} | {"a", "b", "stage", "artifact", "int", "choice"}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*KINDS, *WORDS, "a:b", "1e4"]),
)
KEYS = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=5), st.sampled_from(["train.kimg", "base.train", "transfer.freeze_d"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
SPECIFIC = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(KINDS)), "name": st.just("x")},
    optional={word: VALUES for word in WORDS if word not in ("kind", "name")},
)
FEW = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as name:
        for file, text in SPECS.items():
            (Path(name) / file).write_text(text)
        yield Path(name)


def check(path: Path, overrides: list[str]) -> None:
    jobs, problems = check_files([path], overrides)
    assert jobs or problems
    assert all(isinstance(job, Job) for job in jobs)
    assert all(isinstance(p, Problem) and p.message and "pydantic" not in str(p) for p in problems)


@FEW
@given(text=st.text(alphabet=st.sampled_from("kind: ptrasweo[]{},&*!|>'\"\n-#?%01.~\t\x00é"), max_size=60))
def test_any_text(folder: Path, text: str) -> None:
    (folder / "fuzz.yaml").write_text(text, encoding="utf-8")
    check(folder / "fuzz.yaml", [])


@FEW
@given(raw=st.binary(max_size=40))
def test_any_bytes(folder: Path, raw: bytes) -> None:
    (folder / "fuzz.yaml").write_bytes(raw)
    check(folder / "fuzz.yaml", [])


@FEW
@given(value=SPECIFIC, overrides=st.lists(st.tuples(KEYS, SCALARS), max_size=2))
def test_any_value_of_any_field(folder: Path, value: dict[str, Any], overrides: list[tuple[str, Any]]) -> None:
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    check(folder / "fuzz.yaml", [f"{name}={text}" for name, text in overrides])


@FEW
@given(stages=st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries(
    {"run": st.sampled_from([*SPECS, "x.yaml", "fuzz.yaml"]) | VALUES},
    optional={"needs": st.lists(st.sampled_from("abcd"), max_size=2) | VALUES, "set": st.dictionaries(KEYS, VALUES) | VALUES},
), max_size=3))  # fmt: skip
def test_any_pipeline(folder: Path, stages: dict[str, Any]) -> None:
    spec = {"kind": "pipeline", "name": "p", "stages": stages}
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    check(folder / "fuzz.yaml", [])


@FEW
@given(space=st.dictionaries(KEYS, st.dictionaries(st.sampled_from(["int", "uniform", "choice"]), VALUES) | VALUES))
def test_any_space(folder: Path, space: dict[str, Any]) -> None:
    spec = {"kind": "sweep", "name": "s", "base": "finetune.yaml", "space": space, "search": {"algo": "grid"}}
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    check(folder / "fuzz.yaml", [])


@FEW
@given(params=st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_sampled_parameters(folder: Path, params: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(apply_params(load_spec(folder / "finetune.yaml"), params), Job)
