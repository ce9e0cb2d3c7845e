"""At which address the workers of a training talk to each other, and what is started beside them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from cluster.process_group import VARIABLE, NodesTrainer, interface_of, use_the_nodes_address


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


@pytest.mark.parametrize("url", ["127.0.0.1:8265", None])
def test_no_actor_that_is_of_no_use(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a Ray that has them in another way: then look whether leaving them out is still worth it."""
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace(webui_url=url))

    def made_by(kind: type[TorchTrainer]) -> set[str]:
        trainer = kind(print, scaling_config=ScalingConfig(num_workers=2))
        return {type(callback).__name__ for callback in trainer._create_default_callbacks()}

    assert made_by(TorchTrainer) - made_by(NodesTrainer) == {
        "DatasetsCallback",
        *([] if url else ["PlacementGroupCleanerCallback"]),
    }
