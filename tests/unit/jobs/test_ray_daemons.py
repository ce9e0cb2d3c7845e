"""What is asked of a Ray of our own while it starts."""

from __future__ import annotations

import os

import pytest

from cluster.ray_daemons import UNOBSERVED, unobserved


def test_ray_gathers_little_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, *others = UNOBSERVED
    for name in others:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(chosen, "1")
    with unobserved():
        assert {name: os.environ[name] for name in UNOBSERVED} == {**UNOBSERVED, chosen: "1"}
    assert os.environ[chosen] == "1"
    assert not set(others) & set(os.environ)
