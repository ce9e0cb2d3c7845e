"""An S3 server that can be sent away: a proxy that answers 503 to everything for as long as it is told to."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Outage(ThreadingHTTPServer):
    """Hands requests on to `endpoint`, unless `away` is set. `refused` counts those that met a 503, `read` what was got by path."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.away, self.refused = urlsplit(endpoint), threading.Event(), 0
        self.read: Counter[str] = Counter()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def leave_for(self, seconds: float) -> None:
        """Away now, and back by itself."""
        self.away.set()
        timer = threading.Timer(seconds, self.away.clear)
        timer.daemon = True
        timer.start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Outage

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.away.is_set():
            self.server.refused += 1
            self._answer(503, [("Retry-After", "1")], b"")
            return
        if self.command == "GET":
            self.server.read[urlsplit(self.path).path] += 1
        behind = http.client.HTTPConnection(self.server.behind.netloc, timeout=60)
        try:
            behind.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = behind.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
        finally:
            behind.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - what http.server calls

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def outage(endpoint: str) -> Iterator[Outage]:
    server = Outage(endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
