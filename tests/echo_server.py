"""A server that answers every request with an error which repeats the request, signature and all."""

from __future__ import annotations

import http.server
import re
import threading
from types import TracebackType


class EchoServer:
    """For a `with` block. `signatures`: what it heard and said again."""

    def __init__(self, status: int) -> None:
        self.signatures: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                heard = str(self.headers)
                outer.signatures += re.findall(r"Signature=([0-9a-f]{64})", heard)
                signed = f"http://user:url-password@host{self.path}?X-Amz-Signature={(outer.signatures or [''])[-1]}"
                body = f"<Error><Code>Odd</Code><Message>{signed} {heard}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> EchoServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
