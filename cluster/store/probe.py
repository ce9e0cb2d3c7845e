"""What a server was seen to do, in facts and in words. `prober` finds it out, `probe_cache` remembers it for a day."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Literal

from pydantic import Field

from cluster.store.base import Capabilities
from tlgan.manifest import Record

EtagForm = Literal["quoted", "bare"]
Honours = Literal["yes", "raced", "ignored", "refused", "unknown"]
"""A condition on a write: kept; kept only when nobody writes at the same time; answered with 200 and not kept; refused."""

_LACKS = {
    "ignored": "it answers 200 to {} and overwrites",
    "raced": "it keeps {} only while nobody else writes",
    "refused": "it refuses {}",
}


class Probe(Record):
    """Each answer was checked against what was stored afterwards. `seen`: when; `servers`: its names for
    itself, which may differ by request.

    `etag_form`: how If-Match wants the etag, None where it does not work. `content_md5`, `sha256`: a wrong sum is refused and
    nothing stored. `ranges`: the status of the right answer to a range, "wrong" for another answer. `write`, `delete`:
    rights of the access key; without `write` all else is unknown. `encryption`: what AES256 at rest, asked for, gives.
    """

    write: bool = True
    delete: bool = False
    if_none_match: Honours = "unknown"
    if_match: Honours = "unknown"
    etag_form: EtagForm | None = None
    content_md5: bool = False
    sha256: bool = False
    ranges: Literal["206", "200", "wrong", "unknown"] = "unknown"
    list_after_put: bool = False
    encryption: Literal["yes", "ignored", "refused", "unknown"] = "unknown"
    servers: list[str] = Field(default_factory=list)
    seen: str = ""
    requests: int = 0
    seconds: float = 0.0

    @property
    def create_only(self) -> bool:
        return self.if_none_match == "yes"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.create_only, self.create_only and self.if_match == "yes", self.note)

    @property
    def note(self) -> str:
        """What the server can't promise; empty when it promises all that the store asks for."""
        if not self.write:
            return "the access key may not write here"
        conditions = {"If-None-Match": self.if_none_match, "If-Match": self.if_match}
        missing = [name for name, honours in conditions.items() if honours != "yes"]
        if not missing:
            return ""
        how = []
        for kind, text in _LACKS.items():
            if names := [name for name in missing if conditions[name] == kind]:
                how.append(text.format(names[0] if len(names) < len(missing) else "both" if len(names) > 1 else "it"))
        return f"the server does not honour {' and '.join(missing)}: {', '.join(how)}"

    def words(self) -> list[tuple[str, str]]:
        """Question and answer, for people."""
        if not self.write:
            return [("may this key write?", "no, so nothing else was tried")]
        swap = self.create_only and self.if_match == "yes"
        conditions = {"yes": "yes", "raced": "NO, only while nobody else writes", "refused": "no, it refuses"}
        ranges = {"206": "yes", "200": "yes, though it answers 200"}
        encryption = {"yes": "yes", "ignored": "NO, it accepts the wish and ignores it", "refused": "no, it refuses"}
        unkept = "NO, it answers 200 and overwrites"
        return [
            ("may this key write? delete?", f"yes; {'yes' if self.delete else 'no'}"),
            ("two people can move an alias at once", "yes" if swap else "no: one writer at a time"),
            ("creates a key only once (If-None-Match)", conditions.get(self.if_none_match, unkept)),
            ("replaces only what was read (If-Match)", self._if_match(conditions.get(self.if_match, unkept))),
            ("finds bytes damaged on the way (MD5)", "yes" if self.content_md5 else "NO, it stores them"),
            ("finds bytes damaged on the way (SHA-256)", "yes" if self.sha256 else "no"),
            ("gives parts of an object", ranges.get(self.ranges, "no")),
            ("lists at once what was written", "yes" if self.list_after_put else "NO"),
            ("encrypts at rest when asked (AES256)", encryption.get(self.encryption, "unknown")),
        ]

    def _if_match(self, text: str) -> str:
        return f"{text}, with bare etags" if self.if_match == "yes" and self.etag_form == "bare" else text


def etag_as(form: EtagForm, etag: str) -> str:
    return f'"{etag.strip(chr(34))}"' if form == "quoted" else etag.strip('"')


def md5_of(data: bytes) -> str:
    """As Content-MD5 wants it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def body_arguments(data: bytes) -> dict[str, Any]:
    """Body and Content-MD5: servers that enforce it refuse a body damaged on the way."""
    return {"Body": data, "ContentMD5": md5_of(data)}
