"""A proxy before an S3 server that bends the rules, as servers in the field do."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from urllib.parse import urlsplit

from servers import S3Server


class Dialect:
    """How a server bends the rules; each method may change a request (headers) or answer it with a status."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
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
            if proxy.ask("HEAD", path, {}, b"")[0] == 200:
                return 412
            time.sleep(0.05)
        return None


class RefusesIfMatch(Dialect):
    """Says so honestly."""

    def before(self, proxy: Proxy, method: str, path: str, headers: dict[str, str]) -> int | None:
        return 501 if "If-Match" in headers else None


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


class Proxy:
    """Stands before a server and speaks a dialect."""

    def __init__(self, server: S3Server, dialect: Dialect) -> None:
        self.upstream = urlsplit(server.endpoint).netloc
        self.dialect = dialect
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        method, path, headers = request.command, request.path, dict(request.headers)
        if headers.get("Expect") == "100-continue":
            del headers["Expect"]
        body = request.rfile.read(int(headers.get("Content-Length", 0)))
        self.requests.append(f"{method} {path.partition('?')[0]}")
        status = self.dialect.before(self, method, path, headers)
        answer, data = {}, b""
        if status is None:
            status, answer, data = self.ask(method, path, headers, body)
            status = self.dialect.after(method, path, headers, status)
        if status in (412, 501, 503):
            data = b"<Error><Code>%s</Code></Error>" % (
                b"PreconditionFailed" if status == 412 else b"ServiceUnavailable"
            )
        request.send_response_only(status)
        for name in ("ETag", "Content-Type", "Last-Modified"):
            if name in answer:
                request.send_header(name, answer[name])
        length = answer["Content-Length"] if method == "HEAD" and "Content-Length" in answer else str(len(data))
        request.send_header("Content-Length", length)
        request.end_headers()
        if method != "HEAD":
            if isinstance(self.dialect, CutsBodies) and method == "GET" and data and path not in self.dialect.cut:
                self.dialect.cut.add(path)
                request.close_connection = True
                data = data[: len(data) // 2]
            request.wfile.write(data)
