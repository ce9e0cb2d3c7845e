"""Attacks on the grammar: whatever it lets through means one and the same file on POSIX, Windows and macOS."""

from __future__ import annotations

import ntpath
import string
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlgan.errors import SpecError
from tlgan.naming import MAX_PATH, ArtifactRef, check_name, check_path, check_paths

DEVICES = ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
SPELLINGS = st.sampled_from(["{}", "{}.txt", "{}.tar.gz", "{} .txt", "{}.", "{} ", "a/{}", "{}/a", "a/{}.b/c", "{}..x"])
ODD = st.sampled_from(list("\0\n\r\t\x1b\x7f\\:*?\"<>|%$~`'!#&;^{}[] ./\u00a0\u200b\u202e\u2044\uff0f"))
PIECES = st.one_of(
    ODD, st.sampled_from([*string.ascii_letters, "..", "./", "//", "COM", "¹", "²", "é", "e\u0301", "ı", "ſ", "K"])
)


def accepted(path: str) -> bool:
    try:
        return check_path(path) == path
    except SpecError:
        return False


@given(st.sampled_from(DEVICES), SPELLINGS, st.booleans())
def test_devices_in_any_spelling_are_refused(device: str, spelling: str, upper: bool) -> None:
    path = spelling.format(device.upper() if upper else device.title())
    assert not accepted(path)


@pytest.mark.parametrize(
    "path",
    [
        "COM¹", "com².txt", "LPT³", "CONIN$", "CONOUT$", "CLOCK$",  # superscripts are digits to Windows
        "file:stream", "file::$DATA", "a.txt:Zone.Identifier",  # alternate streams
        "PROGRA~1", "a~1.txt",  # short names
        "\\\\server\\share", "//server/share", "\\\\?\\C:\\x", "//?/C:/x", "\\\\.\\pipe\\x", "C:", "C:x", "/etc/passwd",
        "..\\x", "a\\..\\..\\x", "....//x", "a/./b", "a/../../b", "~/x", "~root/x", "$HOME/x", "%TEMP%/x", "`x`",
        "%2e%2e%2fx", "%252e%252e/x", "..%c0%af", "a%00b", "&#46;&#46;/x",
        "a\u202egnp.exe", "a\u2024\u2024/b", "\uff0e\uff0e/x", "a\uff0fb", "x\u200b", "\ufeffx", "a\u0000b",
        "a.", "a..", "a ", "a. ", " a", "a./b", "a /b", "-", "--help", "-rf", "+x/../y", "a\rb", "a\x1b[2Jb", "x" * 201,
        "/".join("a" * 17), "a/" * 300,
    ],
)  # fmt: skip
def test_known_tricks(path: str) -> None:
    assert not accepted(path)


@given(st.lists(PIECES, min_size=1, max_size=12).map("".join))
def test_what_is_accepted_means_the_same_everywhere(path: str) -> None:
    if not accepted(path):
        return
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    assert posix.as_posix() == windows.as_posix() == path
    assert not windows.drive
    assert not windows.root
    assert ntpath.normpath(path).replace("\\", "/") == path
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert unicodedata.normalize(form, path) == path
    assert path.casefold() == path.lower()
    assert unquote(path) == path
    assert unquote(unquote(quote(path))) == path
    assert path.isprintable()
    assert len(path.encode()) <= MAX_PATH


@given(st.lists(st.text("aAbB/", min_size=1, max_size=6), min_size=2, max_size=5))
def test_accepted_paths_make_as_many_files_where_case_is_ignored(paths: list[str]) -> None:
    try:
        check_paths(paths)
    except SpecError:
        return
    assert len({path.lower() for path in paths}) == len(paths)
    folders = {"/".join(path.lower().split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    assert folders.isdisjoint(path.lower() for path in paths)


@given(st.text(max_size=200))
def test_a_name_that_is_accepted_is_a_path_and_its_own_small_form(name: str) -> None:
    try:
        check_name(name)
    except SpecError:
        return
    assert check_path(name) == name == name.lower()
    assert ".." not in name
    assert str(ArtifactRef.parse(f"{name}:latest")) == f"{name}:latest"


@given(st.text(max_size=300))
def test_references_never_crash_and_say_nothing_unprintable(text: str) -> None:
    try:
        ref = ArtifactRef.parse(text)
    except SpecError as error:
        said = str(error)
    else:
        said = str(ref)
        assert said == text
    assert all(part.isprintable() for part in said.splitlines())


def test_a_huge_name_is_not_repeated_in_full() -> None:
    for text in ("x" * 10**6, "a" * 10**6 + ":latest", "../" * 10**5):
        with pytest.raises(SpecError) as error:
            ArtifactRef.parse(text)
        assert len(str(error.value)) < 1000
        with pytest.raises(SpecError) as error:
            check_path(text)
        assert len(str(error.value)) < 1000
