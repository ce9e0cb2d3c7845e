"""What only a directory can show: races of processes, permissions, locks, the URL forms, light imports."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.store import ArtifactStore, open_store
from cluster.store import locks as store_locks
from cluster.store.local import DirectoryStore
from cluster.store.locks import file_lock
from tlgan.errors import BackendError, SpecError

COUNT = """
import sys
from cluster.store import open_store
from tlgan.errors import Conflict
store, wins = open_store(sys.argv[1]), 0
while wins < 15:
    value, token = store.read("a/count")
    try:
        store.compare_and_swap("a/count", b"%d" % (int(value) + 1), token)
        wins += 1
    except Conflict:
        pass
print(store.put_if_absent("a/winner", sys.argv[2].encode()))
"""


def test_processes_that_compare_and_swap_lose_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a/count", b"0")
    commands = [[sys.executable, "-c", COUNT, store.url, str(number)] for number in range(4)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert store.get("a/count") == b"60"
    assert sorted(said) == ["False", "False", "False", "True"]
    assert store.get("a/winner") == b"%d" % said.index("True")
    assert list((tmp_path / ".tmp").iterdir()) == []


@pytest.mark.parametrize("place", ["file/below", "/proc/none/store"])
def test_a_store_that_can_not_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    (tmp_path / "model").write_text("weights")
    root = tmp_path / place
    with pytest.raises(BackendError) as error:
        ArtifactStore(str(root)).push("digits32", tmp_path / "model", kind="files")
    assert str(root) in error.value.message
    assert "--store" in str(error.value.hint)


def test_a_directory_without_permission(tmp_path: Path) -> None:
    """Root may write anywhere, so another user tries."""
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        with pytest.raises(BackendError, match="Permission denied"):
            open_store(str(tmp_path / "store")).put("a/b", b"")
        return
    script = (
        "import os, sys; from cluster.store import open_store\n"
        "store = open_store(sys.argv[1]); os.setuid(65534); store.put('a', b'')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    where = f"{tmp_path}/store/.tmp"
    assert f"BackendError: store file://{tmp_path}/store: can't write {where}: Permission denied" in done.stderr


def test_reading_makes_no_directory(tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path / "store"))
    assert artifacts.names() == []
    assert list(artifacts.store.list()) == []
    assert not (tmp_path / "store").exists()


def test_put_if_absent_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = DirectoryStore(tmp_path)
    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(lambda number: store.put_if_absent("a/key", b"%d" % number), range(20))) == 1


@pytest.fixture(params=["flock", "existence"])
def _kind_of_lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "existence":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(store_locks.fcntl, "flock", refuse)


@pytest.mark.usefixtures("_kind_of_lock")
def test_one_holds_the_lock(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def hold() -> None:
        with file_lock(tmp_path / "lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 10


@pytest.mark.usefixtures("_kind_of_lock")
def test_waiting_for_a_lock_ends(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(TimeoutError, match="held by others"),
        file_lock(tmp_path / "lock", timeout=0.1),
    ):
        pass


def test_a_lock_falls_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from cluster.store.locks import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    with file_lock(tmp_path / "lock", timeout=5):
        pass


def test_an_abandoned_lock_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_locks, "fcntl", None)
    held = tmp_path / "lock.held"
    held.write_text("of a process that is gone")
    with pytest.raises(TimeoutError), file_lock(tmp_path / "lock", timeout=0.1, stale=30):
        pass
    os.utime(held, (time.time() - 60,) * 2)
    with file_lock(tmp_path / "lock", timeout=5, stale=30):
        assert held.read_text() != "of a process that is gone"
    assert not held.exists()


def test_forms_of_the_url(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store().url == f"file://{workdir}/.tlgan/store"
    assert open_store("some/where").url == f"file://{workdir}/some/where"
    odd = DirectoryStore(workdir / "a b%#?é")
    assert open_store(odd.url).url == odd.url
    assert open_store("file://localhost/x").url == "file:///x"
    monkeypatch.setenv("TLGAN_STORE", "file:///from/environment")
    assert open_store().url == "file:///from/environment"


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket",
        "http://host/x",
        "s3:bucket",
        "file:x",
        "file://x/y",
        "s3://",
        "s3:///x",
        "s3://b",
        "s3://bu cket/x",
    ],
)
def test_other_urls_are_refused_with_both_forms(url: str) -> None:
    with pytest.raises(SpecError) as error:
        open_store(url)
    assert "file:///" in str(error.value)
    assert "s3://bucket/prefix" in str(error.value)


def test_secrets_in_urls_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("s3://AKIA:se/cr3t@bucket/x", "s3://bucket/x?X-Amz-Signature=se/cr3t", "http://u:se/cr3t@host/x"):
        with pytest.raises(SpecError) as error:
            open_store(url)
        assert "cr3t" not in str(error.value)
    monkeypatch.setenv("TLGAN_S3_ENDPOINT", "http://me:se/cr3t@host:9000")
    with pytest.raises(SpecError, match="TLGAN_S3_ENDPOINT") as error:
        open_store("s3://bucket/x")
    assert "cr3t" not in str(error.value)


def test_imports_stay_light() -> None:
    script = (
        "import sys; from cluster.store import ArtifactStore; ArtifactStore('/none').names()\n"
        "print([m for m in ('boto3', 'botocore', 'torch', 'ray', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
