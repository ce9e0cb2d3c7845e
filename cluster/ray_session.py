"""Ray in this process: start a local one or join a cluster, keep its chatter out of the terminal, end what was started.

A Ray that somebody else initialised in this process (a notebook, a test session) is used and left running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from cluster.code import PACKAGES, VARIABLE
from cluster.ray_daemons import few_daemons, unobserved
from cluster.ray_messages import logged
from cluster.ray_signals import apart, take_back
from cluster.room import Node, check_fits, groups_here, grown
from cluster.sections import ResourcesSpec
from cluster.spinning import spinning_longer
from tlgan.errors import BackendError

LOGGERS = ("ray", "ray.train", "ray.tune", "ray.data", "ray._private")
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
OBJECT_STORE_BYTES = 256 << 20
CONNECT_SECONDS = 5.0
START_TRIES = 3
TOO_SLOW = "timed out during startup"
"""What Ray says when a node did not start within its half a minute, as on a machine with much to do."""


class RaySession:
    """Started on first use by `connect`. Use as a context manager; leaving it shuts down a Ray that it started."""

    def __init__(self, address: str | None = None, log_file: Path | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS")
        if self.address == "local":
            self.address = None
        self.log_file = log_file
        self._mine = self._took_signals = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None
        self._handler: logging.Handler | None = None
        self._before: dict[str, tuple[list[logging.Handler], bool]] = {}
        self._folder: Path | None = None
        self._ahead: threading.Thread | None = None
        self._until_closed = contextlib.ExitStack()

    def check(self, resources: ResourcesSpec, *, on_ray: bool) -> None:
        """Refuses what can never be given by Ray, or by this process's machine. Raises `Infeasible`, and starts nothing."""
        nodes, where = self._nodes(on_ray)
        check_fits(resources, nodes, where)

    def _nodes(self, on_ray: bool) -> tuple[list[Node], str]:
        running = sys.modules.get("ray")
        if on_ray and (self.address or (running is not None and running.is_initialized())):
            alive = [node["Resources"] for node in self.connect().nodes() if node["Alive"]]
            return grown(alive, groups_here()), "the cluster"
        return [this_machine()], "this machine"

    def connect_ahead(self) -> None:
        """Connects beside what this process is doing now. A failure is left to `connect`, which tries again."""
        if self._ahead is None:
            self._ahead = threading.Thread(target=self._connect_quietly, daemon=True, name="tlgan-ray-ahead")
            self._ahead.start()

    def _connect_quietly(self) -> None:
        with contextlib.suppress(BackendError):
            self.connect()
            import ray.train.torch  # noqa: F401  seconds, too

    def connect(self) -> Any:
        """The ray module, initialised. Raises `BackendError` when the address does not answer."""
        with self._lock:  # stages of a pipeline come here side by side
            ray = self._connect()
        self.take_signals_back()
        return ray

    def take_signals_back(self) -> None:
        """After `connect` in another thread: what the main thread has to do, if it has not done it."""
        if self._took_signals and take_back():
            self._took_signals = False

    def _connect(self) -> Any:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        if ray.is_initialized():
            return ray
        if self.address:
            check_answers(self.address)
        self._redirect()
        self._until_closed.enter_context(logged())
        try:
            self._begin(ray)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            where = f"the Ray cluster at {self.address}" if self.address else "a local Ray"
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"can't reach {where}: {first}", hint="check RAY_ADDRESS and RAY_AUTH_TOKEN") from error
        self._mine = self._took_signals = True
        return ray

    def _begin(self, ray: Any) -> None:
        """Starts Ray from a thread that lives as long as the session.

        The kernel ends Ray's processes together with the *thread* that started them, and a pipeline's stages run in threads.
        """
        begun: Future[None] = Future()

        def keep() -> None:
            try:
                self._init(ray)
                begun.set_result(None)
            except BaseException as error:
                begun.set_exception(error)
                return
            self._over.wait()

        self._over.clear()
        self._keeper = threading.Thread(target=keep, daemon=True, name="tlgan-ray")
        self._keeper.start()
        begun.result()

    def _init(self, ray: Any) -> None:
        if self.address:
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env=_code_for_workers(),
            )
            return
        self._folder = Path(tempfile.mkdtemp(prefix="tlgan-ray-", dir="/tmp"))  # paths of its sockets must be short
        for tries_left in reversed(range(START_TRIES)):
            try:
                self._start(ray)
                return
            except Exception as error:
                if TOO_SLOW not in str(error):
                    raise
                ray.shutdown()
                if not tries_left:
                    raise TimeoutError(
                        f"it did not start in time, {START_TRIES} times: this machine is too busy"
                    ) from error

    def _start(self, ray: Any) -> None:
        with spinning_longer(), apart(), few_daemons(), unobserved():
            ray.init(
                address="local",
                num_cpus=_cpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._folder),
            )

    def close(self) -> None:
        """Ends the Ray that was started here, removes its files, gives the loggers back."""
        if self._ahead:
            self._ahead.join()
            self._ahead = None
        if self._mine or self._folder:
            import ray
            from ray._private import auto_init_hook

            auto_init_hook.enable_auto_connect = False  # a thread that still asks something would start another Ray
            ray.shutdown()
            self._mine = False
        self._over.set()
        if self._keeper:
            self._keeper.join(timeout=30)
            self._keeper = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._until_closed.close()
        for name, (handlers, propagate) in self._before.items():
            logger = logging.getLogger(name)
            logger.handlers[:], logger.propagate = handlers, propagate
        self._before = {}
        if self._handler:
            self._handler.close()
            self._handler = None

    def __enter__(self) -> RaySession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _redirect(self) -> None:
        """Ray's loggers write to `log_file` alone."""
        if self.log_file is None or self._handler:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.log_file)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        for name in LOGGERS:
            logger = logging.getLogger(name)
            self._before[name] = list(logger.handlers), logger.propagate
            logger.handlers[:] = [self._handler] if name == "ray" else []
            logger.propagate = name != "ray"


def check_answers(address: str) -> None:
    """Raises `BackendError` when nobody listens at `address`: Ray itself would try for minutes. `auto` is Ray's to find."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        place = parts.hostname, parts.port
        if parts.scheme not in ("", "ray") or not all(place):
            raise ValueError
    except ValueError:
        hint = "an address looks like 10.0.0.1:6379 or ray://10.0.0.1:10001"
        raise BackendError(f"RAY_ADDRESS is {address!r}, no address of a Ray cluster", hint=hint) from None
    try:
        socket.create_connection((str(place[0]), int(place[1] or 0)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise BackendError(
            f"can't reach the Ray cluster at {address}: {error.strerror or error}",
            hint="is it running? Without RAY_ADDRESS a local Ray is started",
        ) from None


def _code_for_workers() -> dict[str, list[str]] | None:
    """A submitted run's own code, which Ray unpacks on every node; without it, what the nodes have installed."""
    folder = os.environ.get(VARIABLE)
    return {"py_modules": [str(Path(folder) / package) for package in PACKAGES]} if folder else None


def this_machine() -> Node:
    return {"CPU": float(_cpus()), "GPU": float(_gpus())}


def _cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """GPUs of this machine, without importing torch."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
