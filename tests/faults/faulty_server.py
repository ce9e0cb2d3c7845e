"""A proxy before an S3 server that goes wrong at random, and the workload over it: the S3 backend meets real answers.

Bodies of objects are flipped, those of listings are not: nothing in S3 vouches for a listing but the connection itself.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import botocore.endpoint
from botocore.awsrequest import HeadersDict

from cluster.store.s3 import S3Store
from tests.faults.faulty import damaged
from tests.faults.workload import Report, Workload
from tests.loopback import LoopbackServer

BEFORE = ("503", "409", "bad body")
CODES = {400: "BadDigest", 409: "ConditionalRequestConflict", 412: "PreconditionFailed", 503: "SlowDown"}
Answer = tuple[int, Mapping[str, str], bytes]


class FaultyServer(LoopbackServer):
    """Listens at `endpoint`. A share `rate` of the requests goes wrong; `seen` counts how."""

    def __init__(self, upstream: str, random: Random) -> None:
        self.upstream, self.random = urlsplit(upstream).netloc, random
        self.rate, self.seen = 0.0, Counter[str]()
        self._lock = threading.Lock()
        super().__init__()

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        given = request.headers.items()
        headers: Any = HeadersDict((name, value) for name, value in given if name.lower() != "expect")
        body = request.rfile.read(int(headers.get("Content-Length", 0)))
        kind = self._draw(request.command, request.path, headers, body)
        if kind in BEFORE:
            _send(request, _error({"503": 503, "409": 409, "bad body": 400}[kind]))
            return
        if kind == "slow":
            time.sleep(0.05)
        status, answer, data = self._ask(request.command, request.path, headers, body)
        if kind == "lost reply":
            request.close_connection = True
        elif kind in ("503 after", "412"):
            _send(request, _error(503 if kind == "503 after" else 412))
        elif kind == "flipped bit" and status < 300:
            _send(request, (status, answer, damaged(data, kind, self.random)))
        else:
            _send(request, (status, answer, data), cut=kind == "truncated")

    def _draw(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> str | None:
        with self._lock:
            if self.random.random() >= self.rate or "/probe" in path:
                return None
            kinds = ["503", "503 after", "lost reply", "slow"]
            if method == "GET":
                kinds += ["truncated"] + ["flipped bit"] * ("list-type" not in path)
            if method == "PUT":
                kinds += ["409", "412"] if {"If-Match", "If-None-Match"} & headers.keys() else []
                kinds += ["bad body"] if _checks(headers, body) else []
            kind = self.random.choice(kinds)
            self.seen[kind] += 1
            return kind

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self.upstream, timeout=20)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, {name.title(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def _checks(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a server that looks at Content-MD5 would see that a bit of the body was flipped."""
    found = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    return bool(body) and headers.get("Content-MD5") == found


def _error(status: int) -> Answer:
    return status, {}, f"<Error><Code>{CODES[status]}</Code><Message>made so</Message></Error>".encode()


def _send(request: http.server.BaseHTTPRequestHandler, answer: Answer, cut: bool = False) -> None:
    status, headers, data = answer
    request.send_response_only(status)
    for name in ("Etag", "Content-Type", "Last-Modified", "Content-Range"):
        if name in headers:
            request.send_header(name, headers[name])
    head = request.command == "HEAD"
    request.send_header("Content-Length", headers.get("Content-Length", "0") if head else str(len(data)))
    request.end_headers()
    if cut:
        request.close_connection = True
        data = data[: len(data) // 2]
    if not head:
        request.wfile.write(data)


@contextmanager
def quick_retries() -> Iterator[None]:
    """The client waits a hundredth of what it would."""
    real: Any = botocore.endpoint.time
    botocore.endpoint.time = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 100), time=time.time)  # type: ignore[assignment]
    try:
        yield
    finally:
        botocore.endpoint.time = real


def run(seed: int, steps: int, endpoint: str, bucket: str, folder: Path, most_faults: int) -> Report:
    """The workload in `bucket` of the server at `endpoint`; ends at `most_faults`. Needs its keys in the environment."""
    random = Random(seed)
    server = FaultyServer(endpoint, random)
    try:
        with quick_retries():
            truth = S3Store(bucket, f"seed-{seed}", endpoint)
            faulty = S3Store(bucket, f"seed-{seed}", server.endpoint)
            faulty.capabilities  # noqa: B018 - probed while nothing goes wrong
            workload = Workload(faulty, truth, Random(seed), folder)
            workload.calm = lambda: server.rate == 0
            for _ in range(steps):
                server.rate = random.choice([0.0, 0.1, 0.3, 0.5])
                workload.step()
                if workload.problems or sum(server.seen.values()) >= most_faults:
                    break
    finally:
        server.close()
    return Report(seed, workload.steps, server.seen, workload.problems)
