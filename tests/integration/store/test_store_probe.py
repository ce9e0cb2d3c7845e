"""What a server honours is found out, remembered for a day, and doubted when the server shows otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dialects
import pytest
from dialects import Dialect, Proxy
from servers import KEY, S3Server

from cluster.store import ArtifactStore, probe_cache, prober
from cluster.store.probe import Probe
from cluster.store.s3 import S3Store
from tlgan.errors import BackendError, Conflict

Open = Callable[[Dialect], tuple[S3Store, Proxy]]
FULL = {"if_none_match": "yes", "if_match": "yes", "etag_form": "quoted", "ranges": "206", "list_after_put": True}

FORM = "%Y-%m-%dT%H:%M:%S.%fZ"
NOW = datetime.now(UTC).strftime(FORM)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def probing(proxy: Proxy) -> int:
    return sum("/probe/" in request for request in proxy.requests)


def again(store: S3Store) -> S3Store:
    """The same store in another process, as it were."""
    return S3Store(store.bucket, store.prefix.rstrip("/"), store.endpoint)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moto", FULL | {"content_md5": False, "sha256": False, "encryption": "yes"}),
        ("rgw", FULL | {"etag_form": "bare", "content_md5": True, "sha256": False, "encryption": "refused"}),
        (
            "rclone",
            {"if_none_match": "ignored", "if_match": "ignored", "etag_form": None, "content_md5": True, "sha256": False}
            | {"ranges": "200", "encryption": "ignored", "list_after_put": True},
        ),
    ],
)
def test_known_servers(
    name: str, expected: dict[str, object], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server = request.getfixturevalue(f"{name}_server")
    server.use(monkeypatch)
    store = S3Store(server.new_bucket(), "models", server.endpoint)
    found = store.probe
    assert {key: getattr(found, key) for key in expected} == expected
    assert found.write
    assert found.delete
    assert 10 < found.requests <= 65
    assert list(store.list()) == []
    assert len(found.words()) == 9


@pytest.mark.parametrize(
    ("dialect", "facts", "note"),
    [
        (
            dialects.SlowToCompare(),
            {"if_none_match": "raced"},
            "If-None-Match: it keeps it only while nobody else writes",
        ),
        (
            dialects.ComparesEarly(),
            {"if_none_match": "raced"},
            "If-None-Match: it keeps it only while nobody else writes",
        ),
        (dialects.RefusesIfMatch(), FULL | {"if_match": "refused", "etag_form": None}, "If-Match: it refuses it"),
        (dialects.RefusesConditions(), {"if_none_match": "refused"}, "If-None-Match and If-Match: it refuses both"),
        (dialects.BareEtags(), FULL | {"etag_form": "bare"}, ""),
        (dialects.Conflicting(), FULL, ""),
        (dialects.ChecksSums(), FULL | {"content_md5": True, "sha256": True}, ""),
        (dialects.NoRanges(), FULL | {"ranges": "wrong"}, ""),
        (dialects.Forbids("DELETE"), FULL | {"delete": False, "write": True}, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Dialect) else "",
)
def test_dialects(behind: Open, dialect: Dialect, facts: dict[str, object], note: str) -> None:
    store, _ = behind(dialect)
    assert {key: getattr(store.probe, key) for key in facts} == facts
    assert store.capabilities.note == (note and f"the server does not honour {note}")
    assert store.capabilities.compare_and_swap == (note == "")


def test_a_writer_that_overtakes_finds_who_compares_early(behind: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "ROUNDS", 0)
    assert behind(dialects.ComparesEarly())[0].probe.if_none_match == "raced"
    assert behind(Dialect())[0].probe.if_none_match == "yes"


def test_losers_are_told_so_however_the_server_says_it(behind: Open) -> None:
    for dialect in (dialects.Conflicting(), dialects.BareEtags()):
        store, _ = behind(dialect)
        token = store.compare_and_swap("a/b", b"1", None)
        newer = store.compare_and_swap("a/b", b"2", token)
        for expected in (token, None, '"' + "0" * 32 + '"'):
            with pytest.raises(Conflict):
                store.compare_and_swap("a/b", b"3", expected)
        assert not store.put_if_absent("a/b", b"3")
        assert store.read("a/b") == (b"2", newer)


def test_it_is_remembered(behind: Open, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, proxy = behind(Dialect())
    first = store.probe
    assert len(proxy.requests) == first.requests
    proxy.requests.clear()
    assert again(store).probe == first
    assert proxy.requests == []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert again(store).probe.seen > first.seen
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    assert store.known.get(fresh=True).seen > first.seen
    assert len(list((own_cache / "probes").glob("*.json"))) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b'{"version": 1, "probe": {"if_match": "perhaps"}}', b'{"version": 0, "probe": {}}'],
)
def test_a_damaged_memory_is_none(content: bytes, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moto_server.use(monkeypatch)
    asked = Probe.model_validate({**FULL, "delete": True, "write": True, "servers": [], "seen": NOW, "requests": 7})
    monkeypatch.setattr("cluster.store.probe_cache.Prober.run", lambda self: asked)
    store = S3Store("bucket", "models", moto_server.endpoint)
    store.known.path.parent.mkdir(parents=True)
    store.known.path.write_bytes(content)
    assert store.probe == asked
    assert json.loads(store.known.path.read_text())["probe"]["requests"] == 7, "and written anew"


def remember(store: S3Store, age: timedelta = timedelta(0), **facts: object) -> None:
    """As if another process had seen this."""
    seen = (datetime.now(UTC) - age).strftime(FORM)
    probe = Probe.model_validate({**FULL, "delete": True, "servers": ["proxy/1"], "seen": seen, **facts})
    store.known.path.parent.mkdir(parents=True, exist_ok=True)
    store.known.path.write_text(json.dumps({"version": probe_cache.VERSION, "probe": probe.model_dump()}))


def test_it_is_asked_anew_after_a_day_and_of_another_server(behind: Open) -> None:
    store, proxy = behind(Dialect())
    remember(store, timedelta(hours=23))
    assert store.probe.requests == 0
    remember(store, timedelta(hours=25))
    assert again(store).probe.requests > 0
    remember(store, -timedelta(hours=1))
    assert again(store).probe.requests > 0
    remember(store)
    proxy.name = "proxy/2"
    other = again(store)
    assert other.probe.requests == 0  # no answer seen yet
    assert other.head("a") is None
    assert other.probe.servers == ["proxy/2"]


def test_a_server_has_several_names(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with each kind of answer; that is no other server."""
    moto_server.use(monkeypatch)
    store = S3Store(moto_server.new_bucket(), "models", moto_server.endpoint)
    first = store.probe
    assert len(first.servers) == 2
    for ask in (lambda one: list(one.list()), lambda one: one.head("a"), lambda one: one.put("a", b"")):
        other = again(store)
        ask(other)
        assert other.probe == first


def test_a_remembered_form_of_the_etag_that_is_wrong_now(behind: Open) -> None:
    store, proxy = behind(dialects.BareEtags())
    remember(store)
    token = store.compare_and_swap("a/b", b"1", None)
    assert probing(proxy) == 0
    token = store.compare_and_swap("a/b", b"2", token)
    assert store.probe.etag_form == "bare"
    assert store.read("a/b") == (b"2", token)


def test_a_remembered_promise_that_is_refused_now(behind: Open) -> None:
    store, _ = behind(dialects.RefusesConditions())
    remember(store)
    assert store.put_if_absent("a/b", b"1")
    assert not store.put_if_absent("a/b", b"2")
    assert store.get("a/b") == b"1"
    with pytest.raises(BackendError, match="can't compare and swap: the server does not honour"):
        store.compare_and_swap("a/b", b"2", None)
    remember(store)
    with pytest.raises(BackendError, match="can't compare and swap: the server does not honour"):
        again(store).compare_and_swap("a/b", b"2", store.read("a/b")[1])


def test_one_process_of_a_node_asks(behind: Open) -> None:
    store, proxy = behind(Dialect())
    stores = [again(store) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        probes = list(pool.map(lambda one: one.probe, stores))
    assert len({probe.seen for probe in probes}) == 1
    assert len(proxy.requests) == probes[0].requests


def test_reading_asks_nothing_and_writes_nothing(behind: Open, own_cache: Path, tmp_path: Path) -> None:
    store, proxy = behind(Dialect())
    (tmp_path / "file").write_bytes(b"1")
    ArtifactStore(store).push("one", tmp_path / "file", kind="files")
    store.known.path.unlink()
    proxy.dialect = dialects.Forbids("PUT", "POST", "DELETE")
    proxy.requests.clear()
    reading = ArtifactStore(again(store), tmp_path / "elsewhere")
    reading.pull("one:latest")
    assert reading.names() == ["one"]
    assert reading.show("one:latest")["aliases"] == ["latest"]
    assert reading.verify("one:latest", full=True).ok
    assert reading.lineage("one:latest")
    assert {request.split()[0] for request in proxy.requests} <= {"GET", "HEAD"}
    assert reading.store.capabilities.note == "the access key may not write here"
    assert not any((own_cache / "probes").glob("*.json"))
    with pytest.raises(BackendError, match="refuses the credentials"):
        reading.move_alias("one", "best", reading.resolve("one:latest").digest)


def test_a_cache_that_can_not_be_written_is_no_reason_to_fail(
    behind: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("TLGAN_CACHE", str(tmp_path / "file"))
    store, _ = behind(Dialect())
    assert store.capabilities.compare_and_swap
