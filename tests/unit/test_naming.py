"""The grammar of names, paths and references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlgan.errors import SpecError
from tlgan.naming import ArtifactRef, check_name, check_path, check_paths


@pytest.mark.parametrize("name", ["digits32", "a", "0-1_2.3", "x" * 100])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Digits",
        "-a",
        ".a",
        "a.",
        "a..b",
        "a/b",
        "a b",
        "con",
        "nul.txt",
        "lpt1",
        "x" * 101,
        "é",
        "a\n",
        "a:b",
        "a@b",
    ],
)
def test_bad_names_are_refused_by_name(name: str) -> None:
    with pytest.raises(SpecError) as error:
        check_name(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    "path", ["a", "a/b.txt", "G/block 1 (ema).safetensors", ".hidden", "A_b+c=d@e,f", "console.log"]
)
def test_good_paths(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\\b", "c:/x", "c:x", "a/b.", "a ", "a /b", "CON",
        "dir/aux.json", "com1", "Nul .txt", "a\0b",
        "a\nb", "%2e%2e/a", "ä", "a~1", "-rf", "x*", "a" * 201, "a/" * 16 + "a", "b" * 199 + "/" + "c" * 201,
    ],
)  # fmt: skip
def test_bad_paths(path: str) -> None:
    with pytest.raises(SpecError):
        check_path(path)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["a.txt", "A.txt"], "differ only by case"),
        (["dir/x", "Dir/y"], "differ only by case"),
        (["a", "a/b"], "both a file and a directory"),
        (["a/b", "a"], "both a file and a directory"),
        (["a", "a"], "twice"),
    ],
)
def test_paths_that_meet(paths: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        check_paths(paths)


def test_references_go_both_ways() -> None:
    assert ArtifactRef.parse("digits32:best") == ArtifactRef("digits32", alias="best")
    assert ArtifactRef.parse("digits32@01ab") == ArtifactRef("digits32", digest="01ab")
    for text in ("digits32:best", "digits32@01ab"):
        assert str(ArtifactRef.parse(text)) == text


def test_a_bare_name_is_refused_with_the_fix() -> None:
    with pytest.raises(SpecError, match="does not say which version") as error:
        ArtifactRef.parse("digits32")
    assert "digits32:latest" in str(error.value)


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":b", "a@", "a@xyz", "a@123", "a@ABCD", "a:b:c", "a:b@c", "a@1234:b", "A:b"]
)
def test_bad_references(text: str) -> None:
    with pytest.raises(SpecError):
        ArtifactRef.parse(text)


@given(st.text(max_size=40))
def test_whatever_is_accepted_stays_below_its_directory(path: str) -> None:
    try:
        check_path(path)
    except SpecError:
        return
    assert path.isascii()
    assert not path.startswith("/")
    assert all(part not in ("", ".", "..") and part == part.rstrip(". ") for part in path.split("/"))
    assert not set(path) & set('\\:*?"<>|%$~\0\n')
