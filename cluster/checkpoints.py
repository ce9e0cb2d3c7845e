"""Checkpoints in the store, so that a run goes on after its node is gone.

runs/<run>/checkpoints/<nimg>/state.safetensors, state.json
runs/<run>/checkpoints/<nimg>/complete.json       digests of both; written last: without it the checkpoint does not exist
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from cluster.store.base import Store, sha256_of
from tlgan.errors import BackendError, IntegrityError, NotFound

log = logging.getLogger("tlgan.checkpoints")
FILES = ("state.safetensors", "state.json")


class Checkpoints:
    """Checkpoints of one run. `keep`: the newest so many stay."""

    def __init__(self, store: Store, run_id: str, keep: int = 2) -> None:
        self.store, self.prefix, self.keep = store, f"runs/{run_id}/checkpoints/", keep

    def push(self, path: Path, nimg: int) -> None:
        """Uploads and verifies a checkpoint directory. A store that is away costs the copy, not the run."""
        place = f"{self.prefix}{nimg:012d}/"
        try:
            digests = {name: sha256_of(path / name) for name in FILES}
            for name in FILES:
                self.store.put(place + name, path / name, sha256=digests[name])
            self.store.put(place + "complete.json", json.dumps(digests).encode())
            for old in self.complete()[: -self.keep]:
                self._remove(old)
        except BackendError as error:
            log.warning("checkpoint %d is on this machine only: %s", nimg, error)

    def complete(self) -> list[int]:
        """nimg of all complete checkpoints, oldest first."""
        found = (
            re.fullmatch(r"(\d+)/complete\.json", i.key.removeprefix(self.prefix)) for i in self.store.list(self.prefix)
        )
        return sorted(int(match[1]) for match in found if match)

    def fetch_newer(self, root: Path) -> None:
        """Puts the newest checkpoint that can be read into `root`, unless one at least as new is there."""
        local = max((int(p.name.removeprefix("ckpt-")) for p in root.glob("ckpt-*")), default=-1)
        for nimg in reversed(self.complete()):
            if nimg <= local:
                return
            try:
                self._fetch(nimg, root)
                return
            except (IntegrityError, NotFound) as error:
                log.warning("checkpoint %d is damaged, trying the one before: %s", nimg, error)

    def clear(self) -> None:
        """Removes all, half uploaded ones too: the run has ended and its result is published."""
        for nimg in self.complete():
            self._remove(nimg)
        for info in list(self.store.list(self.prefix)):
            self.store.delete(info.key)

    def _fetch(self, nimg: int, root: Path) -> None:
        place = f"{self.prefix}{nimg:012d}/"
        digests = json.loads(self.store.get(place + "complete.json", max_bytes=65536))
        temporary = root / f".fetch-{nimg:012d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name in FILES:
                self.store.download(place + name, temporary / name, sha256=digests[name])
            temporary.rename(root / f"ckpt-{nimg:012d}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _remove(self, nimg: int) -> None:
        place = f"{self.prefix}{nimg:012d}/"
        for name in ("complete.json", *FILES):
            self.store.delete(place + name)
