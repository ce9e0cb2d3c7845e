"""What a command line came to, as tests look at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of --json, which stands in the last line of stderr."""
        return dict(json.loads(self.err.strip().splitlines()[-1])["error"])


Tlgan = Callable[..., Answer]
