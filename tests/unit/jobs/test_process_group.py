"""At which address the workers of a training talk to each other."""

from __future__ import annotations

import os

import pytest
import ray

from cluster.process_group import VARIABLE, interface_of, use_the_nodes_address


def test_loopback_has_an_interface_and_strangers_have_none() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


@pytest.mark.parametrize(
    ("address", "given", "name"),
    [("10.1.2.3", None, "eth7"), ("10.1.2.3", "ib0", "ib0"), ("127.0.0.1", None, None), ("192.0.2.1", None, None)],
)
def test_the_nodes_own_interface_is_named_unless_a_person_did(
    address: str, given: str | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, given or "")
    if given is None:
        monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    monkeypatch.setattr("cluster.process_group.interface_of", {"10.1.2.3": "eth7"}.get)
    use_the_nodes_address()
    assert os.environ.get(VARIABLE) == name
