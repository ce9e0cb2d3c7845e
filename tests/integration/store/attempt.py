"""Attempt 1 of a run that falls asleep while it publishes: `python attempt.py STORE RUN FOLDER CALL`.

It stops itself (SIGSTOP) once the guard has passed for the CALL-th time: 1 before the commit, 2 before the aliases,
3 between the look at an alias and its move. Exit code 4: it was told that it was taken over.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cluster.fence import Fence
from cluster.store import ArtifactStore
from tlgan.errors import Conflict
from tlgan.manifest import Manifest


def main(url: str, run: str, folder: str, call: str) -> int:
    artifacts = ArtifactStore(url)
    fence = Fence(artifacts.store, run, attempt=1)
    calls = 0

    def guard() -> None:
        nonlocal calls
        fence()
        calls += 1
        if calls == int(call):
            os.kill(os.getpid(), signal.SIGSTOP)

    files = artifacts.stage(Path(folder), pin="run-1/1")
    try:
        artifacts.commit(Manifest.create("model", files, kind="files"), ["latest"], guard, fence.claim)
    except Conflict as error:
        print(error.message)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
