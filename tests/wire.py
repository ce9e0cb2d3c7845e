"""Between a store's client and its server: requests counted, changed, or answered in the server's stead."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from cluster.store.s3 import S3Store


class Wire:
    """Sees each request of a store, and may change it or answer it."""

    def __init__(self, store: S3Store) -> None:
        self.seen: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.change: Callable[[str, AWSPreparedRequest], AWSResponse | None] = lambda operation, request: None
        store.client.meta.events.register("before-send.s3", self._see)

    def _see(self, event_name: str, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        operation = event_name.rpartition(".")[2]
        self.seen[operation] += 1
        if "Range" in request.headers:
            self.ranges.append(_text(request.headers["Range"]))
        return self.change(operation, request)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Raw:
    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield b"<Error><Code>SlowDown</Code></Error>"


def busy(request: AWSPreparedRequest) -> AWSResponse:
    return AWSResponse(request.url, 503, {}, Raw())


def flipped(request: AWSPreparedRequest) -> None:
    body = request.body if isinstance(request.body, bytes) else request.body.read()
    request.body = io.BytesIO(bytes([body[0] ^ 1]) + body[1:])
