"""Log lines for programs: with `TLGAN_LOG_FORMAT=json`, one JSON object a line instead of text.

`time` (UTC), `level`, `logger`, `message`, `host`, `pid`, what the process is (`run`, `attempt`, `rank`), and `error`, a traceback.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from datetime import UTC, datetime
from typing import Any

from cluster.store.base import scrub

VARIABLE = "TLGAN_LOG_FORMAT"
TEXT = "%(message)s"


class JsonFormatter(logging.Formatter):
    """`about` is in every line. Secrets are cut out, as from the logs in the store."""

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__()
        self.about = {"host": socket.gethostname(), "pid": os.getpid(), **about}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub(record.getMessage()),
            **self.about,
        }
        if record.exc_info:
            line["error"] = scrub(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def set_up(level: int = logging.WARNING, text: str = TEXT, **about: Any) -> None:
    """The root logger of this process, to stderr: as text, or as JSON where the variable asks for it.

    A process that has handlers keeps them as they are, for text; for JSON they get the other format.
    """
    logging.basicConfig(level=level, format=text)
    if os.environ.get(VARIABLE, "").lower() == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter(about))
