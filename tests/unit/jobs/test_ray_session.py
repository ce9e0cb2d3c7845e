"""What a Ray session refuses before Ray is started, and that it gives back what it took."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_session import RaySession
from cluster.room import room
from cluster.sections import ResourcesSpec
from tlgan.errors import BackendError, Infeasible, SpecError


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def before_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has no Ray yet, whatever other tests have started."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.usefixtures("before_ray")
def test_a_cluster_that_is_not_there_is_told_in_seconds() -> None:
    """Ray itself would try for two minutes, and then end the process."""
    begun = time.monotonic()
    with pytest.raises(BackendError, match=r"can't reach the Ray cluster at 127\.0\.0\.1:\d+: Connection refused"):
        RaySession(f"127.0.0.1:{unused_port()}").connect()
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("before_ray")
@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "127.0.0.1", "127.0.0.1:many", ":6379"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(BackendError, match="no address of a Ray cluster"):
        RaySession(address).connect()


def test_a_job_without_ray_does_not_ask_the_cluster() -> None:
    RaySession(f"127.0.0.1:{unused_port()}").check(ResourcesSpec(), on_ray=False)


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ray_session._gpus", lambda: 0)
    with pytest.raises(Infeasible, match=r"asks for 0\.5 GPUs .* this machine has 0") as caught:
        RaySession().check(ResourcesSpec(gpus_per_worker=0.5), on_ray=False)
    assert "gpus_per_worker" in (caught.value.hint or "")


def test_a_worker_must_fit_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 3.0, "GPU": 2.0}, {"CPU": 3.0}]
    session = RaySession()
    monkeypatch.setattr(session, "_nodes", lambda on_ray: (nodes, "the cluster"))
    session.check(ResourcesSpec(workers=2, cpus_per_worker=3), on_ray=True)
    with pytest.raises(Infeasible, match="2 workers with 2 CPUs and 1 GPUs each, the cluster has room for 1"):
        session.check(ResourcesSpec(workers=2, cpus_per_worker=2, gpus_per_worker=1), on_ray=True)
    with pytest.raises(Infeasible, match="room for 0: a worker must fit on one node"):
        session.check(ResourcesSpec(workers=1, cpus_per_worker=4), on_ray=True)


def test_workers_of_one_training_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ray_session._gpus", lambda: 8)
    session = RaySession()
    session.check(ResourcesSpec(workers=1, gpus_per_worker=0.5), on_ray=False)
    for workers, gpus in ((2, 0.5), (1, 1.5)):
        with pytest.raises(SpecError, match="expected a whole number"):
            session.check(ResourcesSpec(workers=workers, gpus_per_worker=gpus), on_ray=False)


def test_fractions_of_a_gpu_add_up() -> None:
    assert room({"CPU": 16.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.1}) == 10


@pytest.mark.ray
def test_a_ray_of_its_own_from_start_to_end(tmp_path: Path) -> None:
    """In a process of its own, for this one's Ray is shared. A local Ray that was started says nothing to the terminal.

    It outlives the thread that asked for it: the stages of a pipeline are threads, and what one has started the next must
    find alive. Closing leaves no files, no processes, and the loggers as they were.
    """
    program = f"""
        import logging, threading, time
        from pathlib import Path
        from cluster.ray_session import LOGGERS, RaySession

        state = lambda: [(logging.getLogger(n).handlers[:], logging.getLogger(n).propagate) for n in LOGGERS]
        import ray
        before = state()
        with RaySession(log_file=Path({str(tmp_path / "ray.log")!r})) as session:
            stage = threading.Thread(target=session.connect)
            stage.start()
            stage.join()
            time.sleep(1)
            folder = session._folder
            assert folder.is_dir()
            assert state() != before
            assert ray.get(ray.remote(lambda: 42).remote(), timeout=30) == 42
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            own = [line.decode() for line in lines if str(folder).encode() in line]
            daemons = ["gcs_server", "raylet/raylet", "monitor.py", "dashboard.py", "log_monitor.py"]
            assert [name for name in daemons if any(name in line for line in own)] == daemons[:2]
        assert not folder.exists(), sorted(folder.rglob("*"))
        assert state() == before
        try:
            ray.put("what a thread asks that did not hear of the end")
        except Exception as error:
            print(folder)
        assert not ray.is_initialized()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [folder] = done.stdout.splitlines()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(folder.encode() in line for line in running)
    assert not Path(folder).exists()


@pytest.mark.usefixtures("before_ray")
def test_what_fails_ahead_is_told_by_whoever_needs_it() -> None:
    session = RaySession(f"127.0.0.1:{unused_port()}")
    session.connect_ahead()
    session.connect_ahead()
    session.close()
    with pytest.raises(BackendError, match="can't reach the Ray cluster at 127"):
        session.connect()


class SlowRay:
    """Ray on a busy machine: it starts at the `works`-th try."""

    def __init__(self, works: int) -> None:
        self.works, self.tries, self.ended = works, 0, 0

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        self.tries += 1
        if self.tries < self.works:
            raise Exception(
                "The current node timed out during startup. This could happen because ..."
            )  # Ray's own words

    def shutdown(self) -> None:
        self.ended += 1


@pytest.mark.parametrize(("works", "tries"), [(1, 1), (3, 3), (9, 3)])
def test_a_ray_that_starts_slowly_is_started_again(works: int, tries: int) -> None:
    session, ray = RaySession(), SlowRay(works)
    try:
        if works <= 3:
            session._init(ray)
        else:
            with pytest.raises(TimeoutError, match="this machine is too busy"):
                session._init(ray)
    finally:
        assert session._folder
        session._folder.rmdir()
        session._folder = None
    assert ray.tries == tries
    assert ray.ended == (tries - 1 if works <= 3 else tries)
