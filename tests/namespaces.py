"""A cluster whose nodes are hosts of their own as far as the network goes: network namespaces on a bridge, each with an
address, and a cable that can be pulled. Needs root and Linux."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster.minicluster import MiniCluster


def missing() -> str | None:
    """Why there can be no such cluster here."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip (apt-get install iproute2)"
    name = f"tl{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"this machine makes no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


def ip(*arguments: str, inside: str | None = None) -> None:
    command = ["ip", *(["-n", inside] if inside else []), *arguments]
    subprocess.run(command, check=True, capture_output=True)


class NamespaceCluster(MiniCluster):
    """The driver runs on the head's host. `cut` pulls a node's cable, `heal` puts it back."""

    def __init__(self, folder: Path, nodes: int, cpus: int) -> None:
        super().__init__(folder, nodes, cpus)
        self.mark = f"tl{secrets.token_hex(2)}"
        self.bridge = f"{self.mark}-net"
        self.hosts: dict[str, int] = {}
        ip("netns", "add", self.bridge)
        ip("link", "add", "br0", "type", "bridge", inside=self.bridge)
        ip("link", "set", "br0", "up", inside=self.bridge)

    def _name(self, name: str) -> str:
        """The namespace of a node; made when it is asked for first."""
        name = "head" if name == "driver" else name
        space = f"{self.mark}-{name}"
        if name not in self.hosts:
            number = self.hosts[name] = len(self.hosts) + 1
            ip("netns", "add", space)
            ip(
                "link",
                "add",
                "eth0",
                "netns",
                space,
                "type",
                "veth",
                "peer",
                "name",
                f"v{number}",
                "netns",
                self.bridge,
            )
            ip("link", "set", f"v{number}", "master", "br0", "up", inside=self.bridge)
            ip("address", "add", f"10.77.0.{number}/24", "dev", "eth0", inside=space)
            for device in ("lo", "eth0"):
                ip("link", "set", device, "up", inside=space)
        return space

    def prefix(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self._name(name)]

    def host(self, name: str) -> str:
        self._name(name)
        return f"10.77.0.{self.hosts['head' if name == 'driver' else name]}"

    def cut(self, name: str) -> None:
        ip("link", "set", f"v{self.hosts[name]}", "down", inside=self.bridge)

    def heal(self, name: str) -> None:
        ip("link", "set", f"v{self.hosts[name]}", "up", inside=self.bridge)

    def close(self) -> None:
        super().close()
        for name in [*self.hosts, "net"]:
            subprocess.run(["ip", "netns", "del", f"{self.mark}-{name}"], check=False, capture_output=True)
        self.hosts = {}


def skip_without() -> None:
    if why := missing():
        pytest.skip(why)
