"""A proxy before an S3 server that bends the rules, as servers in the field do."""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import HeadersDict
from loopback import LoopbackServer
from servers import S3Server

CODES = {
    400: "BadDigest",
    403: "AccessDenied",
    409: "ConcurrentModification",
    412: "PreconditionFailed",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class Dialect:
    """How a server bends the rules; each method may change a request (headers) or answer it with a status."""

    def early(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        """Before the body arrives."""
        return None

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        return None

    def check(self, method: str, headers: dict[str, str], body: bytes) -> int | None:
        return None

    def after(self, method: str, path: str, headers: dict[str, str], status: int) -> int:
        return status


class BareEtags(Dialect):
    """Compares If-Match without quotes; what boto3 hands out (with quotes) never fits. As Ceph 16."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if "If-Match" in headers:
            if headers["If-Match"].startswith('"'):
                return 412
            headers["If-Match"] = f'"{headers["If-Match"]}"'
        return None


class SlowToCompare(Dialect):
    """Looks first and writes later: right in sequence, wrong in a race. As Swift."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if headers.pop("If-None-Match", None):
            if proxy.has(path, headers):
                return 412
            time.sleep(0.05)
        return None


class ComparesEarly(Dialect):
    """Looks at the condition when a request begins, and writes when it has ended; the rest is in order."""

    def early(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        if headers.pop("If-None-Match", None) and proxy.has(path, headers):
            return 412
        return None


class RefusesIfMatch(Dialect):
    """Says so honestly."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        return 501 if "If-Match" in headers else None


class RefusesConditions(Dialect):
    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        return 501 if {"If-Match", "If-None-Match"} & set(headers) and method == "PUT" else None


class ChecksSums(Dialect):
    """Refuses a body that does not have its sha256 or MD5. As Ceph 20."""

    def check(self, method: str, headers: dict[str, str], body: bytes) -> int | None:
        lowered = {name.lower(): value for name, value in headers.items()}
        sums = {
            "x-amz-checksum-sha256": hashlib.sha256(body).digest(),
            "content-md5": hashlib.md5(body, usedforsecurity=False).digest(),
        }
        wrong = [name for name, found in sums.items() if name in lowered and lowered[name] != encoded(found)]
        return 400 if wrong else None


class Conflicting(Dialect):
    """Who loses is told 409, not 412. As Ceph 20, at times."""

    def after(self, method: str, path: str, headers: dict[str, str], status: int) -> int:
        return 409 if status == 412 else status


class NoRanges(Dialect):
    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        headers.pop("Range", None)
        return None


class Forbids(Dialect):
    """A key with few rights."""

    def __init__(self, *methods: str) -> None:
        self.methods = methods

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        return 403 if method in self.methods else None


class LosesReplies(Dialect):
    """Carries out each first conditional write of an alias, then answers 503, so that the client asks again."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def after(self, method: str, path: str, headers: dict[str, str], status: int) -> int:
        if (
            method == "PUT"
            and "/probe/" not in path
            and ({"If-Match", "If-None-Match"} & set(headers))
            and status == 200
        ):
            if path in self.lost:
                return status
            self.lost.add(path)
            return 503
        return status


class CutsBodies(Dialect):
    """Breaks off in the middle of each first answer to a GET."""

    def __init__(self) -> None:
        self.cut: set[str] = set()


class Proxy(LoopbackServer):
    """Stands before a server and speaks a dialect."""

    def __init__(self, server: S3Server, dialect: Dialect) -> None:
        self.upstream = urlsplit(server.endpoint).netloc
        self.dialect = dialect
        self.name = "proxy/1"
        self.ahead = 0.0  # seconds of its clock
        self.requests: list[str] = []
        super().__init__()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def has(self, path: str, headers: dict[str, str]) -> bool:
        """Whether the object is there, asked with the key of a request for it."""
        return self.ask("HEAD", path, {"Authorization": headers["Authorization"]}, b"")[0] == 200

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        method, path = request.command, request.path
        headers: Any = HeadersDict(request.headers.items())  # whatever case a client writes names in
        if headers.get("Expect") == "100-continue":
            del headers["Expect"]
        early = self.dialect.early(self, method, path, headers)
        body = request.rfile.read(int(headers.get("Content-Length", 0)))
        self.requests.append(f"{method} {path.partition('?')[0]}")
        status = early or self.dialect.before(self, method, path, headers) or self.dialect.check(method, headers, body)
        answer, data = {}, b""
        if status is None:
            status, answer, data = self.ask(method, path, headers, body)
            status = self.dialect.after(method, path, headers, status)
        if code := CODES.get(status):
            data = f"<Error><Code>{code}</Code></Error>".encode()
        request.send_response_only(status)
        for name in ("ETag", "Content-Type", "Content-Range", "Last-Modified"):
            if value := answer.get(name.lower()):
                request.send_header(name, value)
        request.send_header("Server", self.name)
        request.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
        length = answer["content-length"] if method == "HEAD" and "content-length" in answer else str(len(data))
        request.send_header("Content-Length", length)
        request.end_headers()
        if method != "HEAD":
            if isinstance(self.dialect, CutsBodies) and method == "GET" and data and path not in self.dialect.cut:
                self.dialect.cut.add(path)
                request.close_connection = True
                data = data[: len(data) // 2]
            request.wfile.write(data)
