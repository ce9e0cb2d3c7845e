"""JSON of which equal values have equal bytes, the digest of it, and where two values differ."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """What differs between two dumps of a recipe, a field each: `train.lr_g was 0.0002, is 1e-05`."""
    found: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        old, new, where = before.get(name), after.get(name), f"{path}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{where}.")
        elif old != new:
            found.append(f"{where} was {_short(old)}, is {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
