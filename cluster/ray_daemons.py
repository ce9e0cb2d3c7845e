"""Which daemons a Ray of our own has: those that run tasks. The others answer questions that nobody asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
