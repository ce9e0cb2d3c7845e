"""Ray in this process: start a local one or join a cluster, keep its chatter out of the terminal, end what was started.

A Ray that somebody else initialised in this process (a notebook, a test session) is used and left running.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.sections import ResourcesSpec
from tlgan.errors import BackendError, Infeasible

LOGGERS = ("ray", "ray.train", "ray.tune", "ray.data", "ray._private")
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
OBJECT_STORE_BYTES = 256 << 20


class RaySession:
    """Started on first use by `connect`. Use as a context manager; leaving it shuts down a Ray that it started."""

    def __init__(self, address: str | None = None, log_file: Path | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS")
        self.log_file = log_file
        self._mine = False
        self._lock = threading.Lock()
        self._handler: logging.Handler | None = None

    def check(self, resources: ResourcesSpec, parallel: int = 1) -> None:
        """Refuses what can never be given. Raises `Infeasible`; for the local machine without starting anything."""
        need = {
            "CPU": resources.cpus_per_worker * max(resources.workers, 1),
            "GPU": resources.gpus_per_worker * max(resources.workers, 1),
        }
        have, where = self._capacity()
        for what, amount in need.items():
            if amount > have.get(what, 0):
                raise Infeasible(
                    f"the run asks for {amount:g} {what}s ({max(resources.workers, 1)} workers), {where} has {have.get(what, 0):g}",
                    hint="lower resources.workers or resources.cpus_per_worker, or run on a larger cluster",
                )

    def _capacity(self) -> tuple[dict[str, float], str]:
        running = sys.modules.get("ray")
        if self.address or (running is not None and running.is_initialized()):
            return dict(self.connect().cluster_resources()), "the cluster"
        return {"CPU": float(os.cpu_count() or 1), "GPU": float(_gpus())}, "this machine"

    def connect(self) -> Any:
        """The ray module, initialised. Raises `BackendError` when the address does not answer."""
        with self._lock:  # stages of a pipeline come here side by side
            return self._connect()

    def _connect(self) -> Any:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        if ray.is_initialized():
            return ray
        self._redirect()
        try:
            if self.address:
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
            else:
                ray.init(
                    address="local",
                    num_cpus=os.cpu_count(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=tempfile.mkdtemp(prefix="tlgan-ray-", dir="/tmp"),
                )
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            where = f"the Ray cluster at {self.address}" if self.address else "a local Ray"
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"can't reach {where}: {first}", hint="check RAY_ADDRESS and RAY_AUTH_TOKEN") from error
        self._mine = True
        return ray

    def close(self) -> None:
        if self._mine:
            import ray

            ray.shutdown()
            self._mine = False
        if self._handler:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self._handler)
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
        if self.log_file is None:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.log_file)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.handlers[:] = [self._handler] if name == "ray" else []
            logger.propagate = name != "ray"


def _gpus() -> int:
    """GPUs of this machine, without importing torch."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
