"""Names, file paths and references of artifacts: an allow-list that is valid and unambiguous on POSIX and Windows.

name, alias   lower case letters, digits and ._-  (100 at most), as in a spec
path          segments of letters, digits and ._+=@,()- and inner blanks, joined by /
reference     name:alias  or  name@<4 to 64 digits of the manifest's sha256>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tlgan.errors import SpecError

MAX_PATH = 400
MAX_SEGMENT = 200
MAX_DEPTH = 16
_SHOWN = 120  # characters of a bad name that are repeated in the error

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SEGMENT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9._+=@,() -]*")
_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)  # devices on Windows, with any extension


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def _problem_of_segment(segment: str) -> str | None:
    if segment in ("", ".", ".."):
        return f'"{segment}" is no file name'
    if len(segment) > MAX_SEGMENT:
        return f"a part is {len(segment)} characters long; {MAX_SEGMENT} are allowed"
    if segment.endswith((".", " ")):
        return f"{_shown(segment)} ends with a dot or a blank, which Windows drops"
    if _RESERVED.fullmatch(segment.partition(".")[0].rstrip(" ")):
        return f"{_shown(segment)} is a device on Windows"
    if not _SEGMENT.fullmatch(segment):
        return f"{_shown(segment)} may only have letters, digits and ._+=@,()- and blanks inside"
    return None


def check_name(name: str, what: str = "artifact name") -> str:
    """`name` itself. Raises `SpecError` naming the rule it breaks."""
    if not _NAME.fullmatch(name):
        hint = "lower case letters, digits and ._- are allowed, a letter or digit first, 100 characters at most"
        raise SpecError(f"{what} {_shown(name)} is not valid", hint=hint)
    if ".." in name or (problem := _problem_of_segment(name)):
        raise SpecError(f"{what} {name!r} is not valid: {'it has two dots in a row' if '..' in name else problem}")
    return name


def check_path(path: str) -> str:
    """A relative file path inside an artifact, as it is. Raises `SpecError` when a system could read it otherwise."""
    segments = path.split("/")
    if len(path) > MAX_PATH or len(segments) > MAX_DEPTH:
        raise SpecError(
            f"file path {_shown(path)} is too long: {len(path)} characters in {len(segments)} parts",
            hint=f"{MAX_PATH} characters and {MAX_DEPTH} parts are allowed",
        )
    for segment in segments:
        if problem := _problem_of_segment(segment):
            raise SpecError(
                f"file path {_shown(path)} is not valid: {problem}", hint="rename the file before pushing it"
            )
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Every path is valid and no two meet on a file system that ignores case. Raises `SpecError`."""
    spelled: dict[str, str] = {}  # every directory and file, case folded -> as written
    files: set[str] = set()
    for path in paths:
        check_path(path)
        if path in files:
            raise SpecError(f"file path {path!r} is listed twice")
        files.add(path)
        segments = path.split("/")
        for depth in range(1, len(segments) + 1):
            part = "/".join(segments[:depth])
            if spelled.setdefault(part.lower(), part) != part:
                raise SpecError(
                    f"file paths {spelled[part.lower()]!r} and {part!r} differ only by case",
                    hint="Windows and macOS can't hold both; rename one",
                )
    for path in files:
        for depth in range(1, path.count("/") + 1):
            if (parent := "/".join(path.split("/")[:depth])) in files:
                raise SpecError(f"file path {parent!r} is both a file and a directory of {path!r}")


@dataclass(frozen=True)
class ArtifactRef:
    """`name:alias` or `name@<digest prefix>`; exactly one of `alias` and `digest` is set."""

    name: str
    alias: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.alias}" if self.alias else f"{self.name}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> ArtifactRef:
        """Raises `SpecError` with the corrected form."""
        if "@" in text:
            name, _, digest = text.partition("@")
            check_name(name)
            if not _PREFIX.fullmatch(digest):
                hint = f"give 4 to 64 hexadecimal digits, as in {name}@0123456789abcdef"
                raise SpecError(f"artifact reference {_shown(text)} has no valid digest after @", hint=hint)
            return cls(name, digest=digest)
        name, colon, alias = text.partition(":")
        check_name(name)
        if not colon:
            hint = f"write {name}:latest or another alias, or {name}@<digest>"
            raise SpecError(f'artifact reference "{text}" does not say which version', hint=hint)
        return cls(name, alias=check_name(alias, f'alias of "{name}"'))
