"""Which daemons a Ray of our own has: those that run tasks. The others answer questions that nobody asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

UNOBSERVED = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}
"""What Ray's processes would tell of themselves to a dashboard all the time while workers train, but for metrics: they can be
asked for without one. A Ray that does not know one of these variables leaves it alone."""
NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")


@contextmanager
def few_daemons() -> Iterator[None]:
    """A Ray that is started in the block has no autoscaler, no API server and nothing that brings logs to the driver.

    It can't grow, shows no dashboard and leaves logs in files, so the three would only cost: a third of its start, which waits
    for the API server, and two seconds of processor time. Ray (2.60) has no option for that; one without these methods starts
    as it always did.
    """
    from ray._private.node import Node

    originals = {name: getattr(Node, name) for name in NEEDLESS if hasattr(Node, name)}
    for name in originals:
        setattr(Node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(Node, name, original)


@contextmanager
def unobserved() -> Iterator[None]:
    """A Ray that is started in the block gathers little for a dashboard, but what a person's environment says."""
    before = {name: os.environ.get(name) for name in UNOBSERVED}
    os.environ.update({name: value for name, value in UNOBSERVED.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def has_api_server() -> bool:
    """Whether the Ray that this process belongs to, as driver or as worker, has somebody to ask about its actors.

    True where that can't be known.
    """
    try:
        from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
        from ray.experimental.internal_kv import _internal_kv_get
    except ImportError:
        return True
    return bool(_internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD))
