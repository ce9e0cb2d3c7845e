"""A run that falls asleep (SIGSTOP) when its training is over, before it publishes: `python asleep.py STORE SPEC.json`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from jobs.execute import execute
from jobs.session import Session
from tlgan.errors import TlganError


def sleep_when_trained(run: str, event: dict[str, Any]) -> None:
    if event["type"] == "trained":
        os.kill(os.getpid(), signal.SIGSTOP)


def main(url: str, spec: str) -> int:
    with Session(ArtifactStore(url), sleep_when_trained) as session:
        try:
            execute(parse_job(json.loads(Path(spec).read_text())), session)
        except TlganError as error:
            print(error.message)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
