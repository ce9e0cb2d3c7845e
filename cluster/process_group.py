"""The process group of Ray Train's workers, on the network by which Ray's nodes see each other. Imports ray and torch.

Left alone, gloo listens where the host's own name points, which on many machines is loopback (Debian writes 127.0.1.1 into
/etc/hosts): workers on other hosts would be told to connect to themselves.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

VARIABLE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915


@dataclass
class NodesTorchConfig(TorchConfig):
    """`TorchConfig` whose workers talk at their node's address."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _NodesBackend


class _NodesBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_the_nodes_address)
        super().on_start(worker_group, backend_config)


def use_the_nodes_address() -> None:
    """In a worker. What a person has set stays; a node that is known as loopback is alone anyway."""
    import ray

    address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if VARIABLE not in os.environ and not address.startswith("127.") and (name := interface_of(address)):
        os.environ[VARIABLE] = name


def interface_of(address: str) -> str | None:
    """The network interface with this IPv4 address, None when no one has it. Linux."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no address, or this is no Linux
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
