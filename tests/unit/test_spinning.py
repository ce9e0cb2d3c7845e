"""How long waiting threads spin: little in a command's own process, longer in the workers of a Ray that it starts."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from cluster.ray_session import RaySession
from cluster.spinning import OWN, SHARED, VARIABLE, spinning_longer
from jobs.cli import main


def test_a_command_spins_little_and_its_workers_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)  # both are put back after the test, whatever the command sets
    assert main(["--version"]) == 0
    assert os.environ[VARIABLE] == SHARED
    with spinning_longer():
        assert os.environ[VARIABLE] == OWN
    assert os.environ[VARIABLE] == SHARED
    started: list[str] = []
    RaySession()._start(SimpleNamespace(init=lambda **_: started.append(os.environ[VARIABLE])))
    assert started == [OWN]
    assert os.environ[VARIABLE] == SHARED


def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "77")
    assert main(["--version"]) == 0
    with spinning_longer():
        assert os.environ[VARIABLE] == "77"
    assert os.environ[VARIABLE] == "77"
