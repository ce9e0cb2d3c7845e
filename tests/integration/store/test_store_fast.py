"""Small puts by obstore: used where ETags tell damage, and never the last word."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import obstore
import pytest
from botocore.credentials import Credentials
from servers import KEY, SECRET, S3Server

from cluster.store import open_store
from cluster.store.s3 import S3Store
from cluster.store.s3_fast import MOST

DATA = b"weights" * 100


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that obstore put."""
    seen: list[str] = []
    put: Callable[..., Any] = obstore.put

    def see(store: Any, key: str, *given: Any, **more: Any) -> Any:
        seen.append(key)
        return put(store, key, *given, **more)

    monkeypatch.setattr(obstore, "put", see)
    return seen


@pytest.fixture(params=["moto", "rclone", "rgw"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store whose server has shown that its ETags are md5."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.use(monkeypatch)
    store = open_store(f"s3://{server.new_bucket()}/team")
    assert isinstance(store, S3Store)
    store.put("first", DATA)
    return store


def test_only_once_the_server_has_shown_its_etags(fast: S3Store, sent: list[str]) -> None:
    fast.put("second", DATA + b"2")
    assert sent == ["team/second"], "and not the first"
    assert fast.fast.describe().startswith("by obstore")
    assert fast.get("second") == DATA + b"2"
    assert fast.get("first") == DATA
    fast._receipts.etags_are_md5 = False
    fast.put("third", DATA)
    assert sent == ["team/second"]


def test_what_it_can_not_do_the_client_does(fast: S3Store, sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise obstore.exceptions.GenericError("503")

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", refuse)
        fast.put("refused", DATA)
    assert fast.get("refused") == DATA
    assert fast.put_if_absent("once", DATA)
    fast.put("large", bytes(MOST + 1))
    assert set(sent) <= {"team/once"}, "that is a plain put where the server knows no conditions"
    assert fast.head("large").size == MOST + 1  # type: ignore[union-attr]


def test_damage_on_the_way_is_noticed(fast: S3Store, sent: list[str]) -> None:
    def flip(request: Any, **_: Any) -> None:
        if isinstance(request.body, bytes) and not sent:
            request.body = bytes([request.body[0] ^ 1]) + request.body[1:]

    fast.client.meta.events.register("before-send.s3.PutObject", flip)
    fast.put("damaged", DATA)
    assert sent == ["team/damaged"]
    assert fast.get("damaged") == DATA, "sent again"


def test_keys_that_change_are_followed(fast: S3Store, sent: list[str]) -> None:
    fast.put("before", DATA)
    signer: Any = fast.client._request_signer  # type: ignore[attr-defined]
    made = fast.fast._made
    signer._credentials = Credentials(KEY, SECRET)
    fast.put("same", DATA)
    assert fast.fast._made is made
    signer._credentials = Credentials(KEY, SECRET, "a token")
    assert fast.fast._store() is not made[1]  # type: ignore[index]
    assert sent == ["team/before", "team/same"]


def test_a_forked_process_asks_the_client(fast: S3Store, sent: list[str]) -> None:
    fast.put("parent", DATA)
    if not (pid := os.fork()):
        with contextlib.suppress(BaseException):
            fast.put("child", DATA)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert fast.get("child") == DATA


def test_where_it_is_not_used(monkeypatch: pytest.MonkeyPatch, moto_server: S3Server) -> None:
    moto_server.use(monkeypatch)
    bucket = moto_server.new_bucket()
    assert S3Store(bucket, endpoint=moto_server.endpoint).fast.usable
    assert not S3Store(bucket).fast.usable
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.pem")
    assert not S3Store(bucket, endpoint="https://127.0.0.1:1").fast.usable
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("TLGAN_S3_SSE", "AES256")
    assert not S3Store(bucket, endpoint=moto_server.endpoint).fast.usable


def test_without_obstore(fast: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    fast.put("second", DATA)
    assert fast.get("second") == DATA
    assert not fast.fast.usable
    assert "by boto3" in fast.fast.describe()
