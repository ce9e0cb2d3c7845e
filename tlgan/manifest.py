"""The typed description of a published artifact: its files by digest, what it was made from, how it measured.

A manifest is stored as canonical JSON; its digest is the sha256 of those bytes, so `sha256sum` of the stored object
is the artifact's identity. Fields that a newer writer added are kept, so an older reader finds the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tlgan.canonical import canonical_json
from tlgan.errors import IntegrityError, Problem, SpecError
from tlgan.naming import ArtifactRef, check_name, check_paths

__all__ = ["ArtifactRef", "FileEntry", "Manifest", "Parent", "Piece", "MAX_MANIFEST_BYTES", "blobs_of", "now_utc"]

FORMATS = (1, 2)  # 2 has files in pieces: a collector that knows nothing of those would delete them
MAX_MANIFEST_BYTES = 8 << 20
MAX_FILES = 20_000
MAX_PIECES = 40_000  # of all files together: a manifest with as many has half of its largest size
MAX_PARENTS = 1_000
MAX_NESTING = 64  # levels of lists and mappings in recipe, metrics and facts
MAX_FILE_BYTES = 5 << 40  # of one file: what S3 takes

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$")]


class Record(BaseModel):
    """Base of what is stored: immutable, strict, and it carries fields it does not know."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Piece(Record):
    """A stretch of a large file, stored as a blob of its own. `nonce` as of a `FileEntry`."""

    size: int = Field(gt=0, le=MAX_FILE_BYTES)
    sha256: Sha256
    nonce: Nonce | None = None


class FileEntry(Record):
    """One file of an artifact: `path` relative with slashes, `size` in bytes.

    `nonce` tells several stored copies of one content apart; `pieces`, from the front of the file to its end, are given where it
    is not stored as one blob. Both say where the bytes lie, not what they are.
    """

    path: str
    size: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: Sha256
    nonce: Nonce | None = None
    pieces: list[Piece] | None = Field(default=None, min_length=1, max_length=MAX_PIECES)

    @model_validator(mode="after")
    def _whole(self) -> FileEntry:
        if self.pieces and self.nonce:
            raise ValueError(f"{self.path} has pieces and a nonce; each piece has its own")
        if self.pieces and (size := sum(piece.size for piece in self.pieces)) != self.size:
            raise ValueError(f"the pieces of {self.path} have {size} bytes together; expected {self.size}")
        return self

    @property
    def blobs(self) -> list[FileEntry]:
        """What is stored of it: itself, or each of its pieces as a file of the same path."""
        if self.pieces is None:
            return [self]
        return [FileEntry(path=self.path, **piece.model_dump()) for piece in self.pieces]


class Parent(Record):
    """What an artifact was made from. `digest` is the parent manifest's; `ref` is what the person wrote.

    An `external` parent lives outside the store (a data source, say): `ref` is then free text and `digest` its own.
    """

    role: str = "parent"
    ref: str = Field(min_length=1, max_length=400)
    digest: Sha256
    external: bool = False

    @model_validator(mode="after")
    def _reference(self) -> Parent:
        if not self.external:
            ArtifactRef.parse(self.ref)
        return self


class Manifest(Record):
    """An immutable artifact version. Build one with `Manifest.create`, read one with `Manifest.from_json`."""

    format: Literal[1, 2] = 1
    name: str
    kind: str = Field(description="gan, classifier, dataset, files, ...", pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    created: Utc
    files: list[FileEntry] = Field(default=[], max_length=MAX_FILES)
    parents: list[Parent] = Field(default=[], max_length=MAX_PARENTS)
    recipe: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)

    @field_validator("files")
    @classmethod
    def _paths(cls, files: list[FileEntry]) -> list[FileEntry]:
        check_paths(entry.path for entry in files)
        sizes: dict[str, int] = {}
        for entry in [*files, *blobs_of(files)]:
            if sizes.setdefault(entry.sha256, entry.size) != entry.size:
                raise ValueError(f"content {entry.sha256[:16]} has two sizes")
        if sum(len(entry.pieces or ()) for entry in files) > MAX_PIECES:
            raise ValueError(f"its files have more than {MAX_PIECES} pieces together")
        return files

    @model_validator(mode="after")
    def _format(self) -> Manifest:
        if (self.format == 2) != any(entry.pieces for entry in self.files):
            raise ValueError(f"format {self.format} of a manifest {'with' if self.format == 1 else 'without'} pieces")
        return self

    @field_validator("recipe", "metrics", "facts")
    @classmethod
    def _nesting(cls, value: Any) -> Any:
        level = [value]
        for _ in range(MAX_NESTING + 1):
            level = [below for one in level for below in _parts(one)]
        if level:
            raise ValueError(f"nested deeper than {MAX_NESTING} levels")
        return value

    @classmethod
    def create(
        cls,
        name: str,
        files: Iterable[FileEntry],
        *,
        kind: str,
        parents: Iterable[Parent] = (),
        recipe: dict[str, Any] | None = None,
        metrics: Iterable[dict[str, Any]] = (),
        facts: dict[str, Any] | None = None,
        created: str | None = None,
    ) -> Manifest:
        """With every field written out; `created` defaults to now. Raises `SpecError` naming each bad field."""
        ordered = sorted(files, key=lambda entry: entry.path)
        fields = {
            "format": 2 if any(entry.pieces for entry in ordered) else 1,
            "name": name,
            "kind": kind,
            "created": created or now_utc(),
            "files": ordered,
            "parents": list(parents),
            "recipe": recipe,
            "metrics": list(metrics),
            "facts": facts or {},
        }
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as error:
            raise SpecError(_problems(error)) from None
        manifest.to_json()
        return manifest

    @classmethod
    def from_json(cls, data: bytes, digest: str | None = None) -> Manifest:
        """Reads stored bytes. `digest` (or a prefix of it) is checked before anything is parsed.

        Raises `IntegrityError` when the bytes do not match, are no canonical JSON or break a rule of the format.
        """
        found = hashlib.sha256(data).hexdigest()
        if digest is not None and not found.startswith(digest):
            raise IntegrityError(f"manifest does not match its digest: expected {digest}, received {found}")
        if len(data) > MAX_MANIFEST_BYTES:
            raise IntegrityError(f"manifest {found[:16]} has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are read")
        try:
            value = json.loads(data)
            if isinstance(value, dict) and value.get("format") not in (None, *FORMATS):
                hint = "a newer tlgan wrote it; update this one"
                raise IntegrityError(
                    f"manifest {found[:16]} has format {value['format']!r}; expected {' or '.join(map(str, FORMATS))}",
                    hint=hint,
                )
            manifest = cls.model_validate(value)
            same = manifest.to_json() == data
        except (ValueError, RecursionError) as error:  # JSON, UTF-8, pydantic and the grammar all raise ValueErrors
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
            if isinstance(error, ValidationError):
                reason = str(_problems(error)[0])
            raise IntegrityError(f"manifest {found[:16]} can't be read: {reason}") from None
        if not same:
            raise IntegrityError(f"manifest {found[:16]} is not canonical JSON, so tlgan did not write it")
        return manifest

    def to_json(self) -> bytes:
        """The bytes that are stored. Raises `SpecError` for values JSON does not have (nan, infinity)."""
        try:
            data = canonical_json(self.model_dump(exclude_unset=True))  # mode="json" would turn nan into null
        except (ValueError, TypeError) as error:
            hint = "recipe, metrics and facts may hold text, finite numbers, true, false, null, lists and mappings"
            raise SpecError(f"manifest of {self.name} can't be written as JSON: {error}", hint=hint) from None
        if len(data) > MAX_MANIFEST_BYTES:
            raise SpecError(
                f"manifest of {self.name} has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are allowed",
                hint="push long lists as a file",
            )
        return data

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def ref(self) -> str:
        """`name@<16 digits>`: names exactly this version."""
        return f"{self.name}@{self.digest[:16]}"

    @property
    def blobs(self) -> list[FileEntry]:
        """What is stored of its files; a content that several have stands there several times."""
        return blobs_of(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together, as pulled."""
        return sum(entry.size for entry in self.files)

    def same_content(self, other: Manifest) -> bool:
        """Equal in everything but the time of creation and the places of the bytes."""
        apart: Any = {"format": True, "created": True, "files": {"__all__": {"nonce", "pieces"}}}
        mine, theirs = (canonical_json(one.model_dump(exclude=apart)) for one in (self, other))
        return mine == theirs

    def describe(self) -> dict[str, Any]:
        """JSON-able, with `digest`: what `artifact show --json` prints."""
        described = {"name": self.name, "digest": self.digest, **self.model_dump(mode="json", exclude={"name"})}
        return described | {"files": [_given(file) for file in described["files"]]}


def blobs_of(files: Iterable[FileEntry]) -> list[FileEntry]:
    """What is stored of `files`, in their order."""
    return [blob for entry in files for blob in entry.blobs]


def now_utc() -> str:
    """The current time as `2026-01-31T12:00:00.000000Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    """The fields of a file or a piece that say something."""
    told = {key: value for key, value in entry.items() if value is not None}
    return told | {"pieces": [_given(piece) for piece in told["pieces"]]} if "pieces" in told else told


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _problems(error: ValidationError) -> list[Problem]:
    return [
        Problem(str(item["msg"]).removeprefix("Value error, "), path=".".join(map(str, item["loc"])))
        for item in error.errors(include_url=False)
    ]
