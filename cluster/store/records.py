"""Small mutable records. Each carries a checksum of itself, so that a flipped bit is no other record.

On a server without atomic replace a record looks torn for a moment while it is written: it is read again.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, TypeVar

from pydantic import ValidationError

from cluster.store.base import Store
from tlgan.canonical import canonical_json
from tlgan.errors import IntegrityError, NotFound
from tlgan.manifest import Record

R = TypeVar("R", bound=Record)

ATTEMPTS = 4


def to_bytes(record: Record) -> bytes:
    """What is stored: the fields, and `check`, the first 16 digits of their sha256."""
    fields = record.model_dump(exclude_defaults=True)
    return canonical_json(fields | {"check": _check(fields)})


def read_record(
    store: Store, key: str, model: type[R], max_bytes: int, hint: str, *, unchecked: bool = False
) -> tuple[R, str] | None:
    """The record at `key` and its token, or None. Raises `IntegrityError` with `hint` when it stays unreadable.

    `unchecked`: one without `check` is read too, as they were written once.
    """
    for attempt in range(ATTEMPTS):
        try:
            data, token = store.read(key, max_bytes=max_bytes)
        except NotFound:
            return None
        try:
            return model.model_validate(_fields(json.loads(data), unchecked)), token
        except (ValueError, RecursionError) as error:
            reason = f"not a record of {model.__name__}" if isinstance(error, ValidationError) else str(error)
            time.sleep(0.02 * 2**attempt)
    raise IntegrityError(f"{key} in {store.url} can't be read: {reason}", hint=hint)


def _fields(value: Any, unchecked: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    check = value.pop("check", None)
    if check != _check(value) and not (unchecked and check is None):
        raise ValueError("it does not match its own checksum")
    return value


def _check(fields: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(fields)).hexdigest()[:16]
