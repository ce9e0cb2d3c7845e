"""The orchestration: the store, jobs, runs, training on Ray. `cluster.Client` is its door for Python; it loads when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from cluster.client import Client

        globals()[name] = Client
        return Client
    raise AttributeError(f"module 'cluster' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
