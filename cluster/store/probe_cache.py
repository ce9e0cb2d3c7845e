"""What was found out about a server is kept in the node's cache for a day, so that not every process asks anew.

It is doubted before: when the server has another name for itself than it had, and when an operation contradicts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError

from cluster.store.cache import cache_root
from cluster.store.locks import file_lock
from cluster.store.probe import Probe
from cluster.store.prober import Prober

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger("tlgan.store")

VERSION = 1  # of what is asked: another one asks anew
VALID = timedelta(days=1)
CERTAIN_SECONDS = 600.0
MAX_BYTES = 64 << 10
LOCK_SECONDS = 60.0


class KnownProbe:
    """The probe of one bucket and prefix, with one access key."""

    def __init__(self, client: S3Client, endpoint: str | None, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix
        self.endpoint = endpoint or "amazon"
        self._probe: Probe | None = None
        self._asked = -math.inf  # when this process did, by the monotonic clock
        self._server: str | None = None  # as the last answer named it
        self._names: set[str] = set()
        self._heard: tuple[str, float] | None = None  # the server's time and ours at the last answer
        self._lock = threading.Lock()
        client.meta.events.register("after-call.s3", self._listen)

    def get(self, *, fresh: bool = False) -> Probe:
        """As remembered, or asked now; `fresh` always asks. Raises botocore's errors."""
        with self._lock:
            if self._probe is not None and not self.certain and not self._is_valid(self._probe):
                self._probe = None
            if self._probe is None or fresh:
                self._probe = self._ask(fresh)
            return self._probe

    @property
    def certain(self) -> bool:
        """This process has asked a short while ago."""
        return time.monotonic() - self._asked < CERTAIN_SECONDS

    def doubt(self) -> bool:
        """An operation went as it could not by what is known. True when this led to asking anew: do it again."""
        if self.certain:
            return False
        log.info("%s: the server does not do what it did; asking anew what it honours", self.bucket)
        self.get(fresh=True)
        return True

    @property
    def skew(self) -> float | None:
        """Seconds, to about one, that this machine's clock is ahead of the server's. None before the first answer."""
        try:
            said, here = self._heard or ("", 0.0)
            return here - (parsedate_to_datetime(said).timestamp() + 0.5)
        except ValueError:
            return None

    @property
    def path(self) -> Path:
        """Where it is remembered. The access key is part of it, for rights differ; it can't be read back from the name."""
        try:
            credentials = boto3.session.Session().get_credentials()
        except BotoCoreError:  # the request itself will say it better
            credentials = None
        key = str(credentials.access_key) if credentials else ""
        parts = (self.endpoint, self.bucket, self.prefix, hashlib.sha256(key.encode()).hexdigest())
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return cache_root() / "probes" / f"{name}.json"

    def _ask(self, fresh: bool) -> Probe:
        path = self.path
        if not fresh and (found := self._remembered(path)):
            return found
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # (TimeoutError is one) without it several may ask, which is right too
                stack.enter_context(file_lock(path.with_suffix(".lock"), timeout=LOCK_SECONDS))
            if not fresh and (found := self._remembered(path)):
                return found
            self._names = set()
            probe = Prober(self.client, self.bucket, self.prefix).run()
            probe = probe.model_copy(update={"servers": sorted(self._names)})
            self._asked = time.monotonic()
            log.debug("%s: %d requests, %.2f s: %r", self.bucket, probe.requests, probe.seconds, probe)
            if probe.write:  # rights come by themselves
                _remember(path, probe)
            else:
                path.unlink(missing_ok=True)
            return probe

    def _remembered(self, path: Path) -> Probe | None:
        """None for what is damaged, of another version, or not valid any more."""
        try:
            if path.stat().st_size > MAX_BYTES:
                return None
            found = json.loads(path.read_bytes())
            if found["version"] != VERSION:
                return None
            probe = Probe.model_validate(found["probe"])
            return probe if self._is_valid(probe) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _is_valid(self, probe: Probe) -> bool:
        """Not too old, and of the server that answers now."""
        age = datetime.now(UTC) - datetime.fromisoformat(probe.seen)
        return timedelta(minutes=-5) <= age <= VALID and self._server in (None, *probe.servers)

    def _listen(self, parsed: Any, **_: Any) -> None:
        headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self._server = str(headers.get("server", ""))
        self._names.add(self._server)
        self._heard = str(headers.get("date", "")), time.time()


def _remember(path: Path, probe: Probe) -> None:
    """A cache that can't be written is no reason to fail."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"version": VERSION, "probe": probe.model_dump()}))
        os.replace(temporary, path)
    except OSError as error:
        log.debug("can't remember what %s honours: %s", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
