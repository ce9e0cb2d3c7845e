"""Manifests: identity by digest, strict reading, tolerance of newer fields."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tlgan.canonical import canonical_json
from tlgan.errors import IntegrityError, SpecError
from tlgan.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, Parent

SHA = "ab" * 32
CREATED = "2026-01-02T03:04:05.000006Z"


def make(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {"kind": "gan", "created": CREATED}
    fields["files"] = [FileEntry(path=path, size=3, sha256=SHA) for path in ("b.txt", "a/c.txt")]
    fields["parents"] = [Parent(role="init", ref="glyphs32:latest", digest="cd" * 32)]
    fields |= {"recipe": {"lr": 2e-4}, "metrics": [{"name": "kid", "value": 0.5, "protocol": {}}], "facts": {"n": 1}}
    fields |= changes
    return Manifest.create("digits32", fields.pop("files"), **fields)


def test_the_digest_is_the_sha256_of_the_stored_bytes() -> None:
    manifest = make()
    assert manifest.digest == hashlib.sha256(manifest.to_json()).hexdigest()
    assert manifest.ref == f"digits32@{manifest.digest[:16]}"
    assert Manifest.from_json(manifest.to_json(), manifest.digest) == manifest
    assert [entry.path for entry in manifest.files] == ["a/c.txt", "b.txt"]
    assert manifest.size == 6


def test_describe_has_the_fields_of_the_contract() -> None:
    said = make().describe()
    assert {"name", "digest", "created", "parents", "recipe", "metrics", "files"} <= set(said)
    assert said["files"][0] == {"path": "a/c.txt", "size": 3, "sha256": SHA}
    assert {"ref", "digest"} <= set(said["parents"][0])
    json.dumps(said)


def test_fields_of_a_newer_writer_keep_the_digest() -> None:
    value = json.loads(make().to_json())
    value["signature"] = "x"
    value["files"][0]["key"] = "blobs/other"
    data = canonical_json(value)
    manifest = Manifest.from_json(data)
    assert manifest.to_json() == data
    assert manifest.digest == hashlib.sha256(data).hexdigest()


def test_same_content_ignores_only_the_time() -> None:
    assert make().same_content(make(created="2027-01-02T03:04:05.000006Z"))
    assert not make().same_content(make(facts={"n": 2}))


def test_a_flipped_byte_is_found_before_parsing() -> None:
    data = bytearray(make().to_json())
    digest = hashlib.sha256(data).hexdigest()
    data[0] = ord("[")
    with pytest.raises(IntegrityError, match="does not match its digest"):
        Manifest.from_json(bytes(data), digest)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "can't be read"),
        (b"\xff\xfe", "can't be read"),
        (b"[" * 200_000, "can't be read"),
        (b"[]", "can't be read"),
        (b'{"format":3}', "newer tlgan"),
        (make().to_json() + b" ", "not canonical"),
        (make().to_json().replace(b'"size":3', b'"size":3,"size":3'), "not canonical"),
        (make().to_json().replace(b"b.txt", b"../b.txt"), "can't be read"),
        (make().to_json().replace(b'"size":3', b'"size":-3'), "can't be read"),
        (make().to_json().replace(b'"size":3', b'"size":"3"'), "can't be read"),
        (make().to_json().replace(b"0.5", b"NaN"), "can't be read"),
        (make(facts={"x": "y" * 100}).to_json() + b" " * MAX_MANIFEST_BYTES, "at most"),
    ],
)
def test_odd_bytes_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(IntegrityError) as error:
        Manifest.from_json(data)
    assert said in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": [{"name": "kid", "value": float("nan")}]}, "can't be written as JSON"),
        ({"kind": "Not A Kind"}, "kind"),
        ({"created": "yesterday"}, "created"),
        ({"facts": {"long": "x" * (MAX_MANIFEST_BYTES + 1)}}, "push long lists"),
        ({"facts": {"odd": object()}}, "JSON"),
    ],
)
def test_a_bad_manifest_is_not_made(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        make(**changes)
    assert said in str(error.value)


def test_parents_are_references_unless_external() -> None:
    with pytest.raises(ValueError, match="which version"):
        Parent(ref="glyphs32", digest=SHA)
    assert Parent(ref="glyphs, 32 px", digest=SHA, external=True, role="data").external
