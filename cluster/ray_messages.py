"""What Ray tells a person of its processes ("a worker died ..."): it writes that to standard output, where data belong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("ray.messages")
WRITER = "print_to_stdstream"


@contextmanager
def logged() -> Iterator[None]:
    """In the block such messages go to the logger `ray.messages`. A Ray (other than 2.60) without that function: no change."""
    from ray._private import worker

    original = getattr(worker, WRITER, None)
    if original is not None:
        setattr(worker, WRITER, write)
    try:
        yield
    finally:
        if original is not None:
            setattr(worker, WRITER, original)


def write(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """Instead of Ray's function of this kind: `data` has `lines` of text and `pid`, a number or "raylet", "autoscaler"."""
    for line in data["lines"]:
        log.warning("%s", line if ignore_prefix else f"({data['pid']}) {line}")
