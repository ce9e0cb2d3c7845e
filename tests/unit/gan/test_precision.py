"""`precision: auto`: bf16 where every rank's hardware is fast in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_gan import dataset, differing, flat, new_learner, recipe, run_steps

from tlgan.distributed import World
from tlgan.precision import settled


@pytest.fixture(params=[True, False], ids=["amx", "no amx"])
def amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": request.param})
    return bool(request.param)


def test_auto_trains_as_what_it_stands_for(amx: bool, train: Any) -> None:
    """Processors with bf16 but without its matrix units are slower in it."""
    named = "bf16" if amx else "fp32"
    learners = [new_learner(recipe(precision=precision)) for precision in ("auto", named)]
    rows = [run_steps(learner, dataset(), 3) for learner in learners]
    assert rows[0] == rows[1]
    assert differing(*(flat(learner.state_dict()) for learner in learners)) == []
    started = train(recipe(precision="auto"), 8).of_type("started")
    assert [event["precision"] for event in started] == [named]


def test_one_rank_that_is_slow_in_bf16_keeps_all_from_it(amx: bool) -> None:
    class Other(World):
        """Another rank, of its own hardware, is asked the same."""

        def __init__(self, slow: bool) -> None:
            super().__init__()
            object.__setattr__(self, "slow", slow)

        def agree(self, flag: bool) -> bool:
            return flag or self.slow

    assert settled("auto", Other(slow=False)) == ("bf16" if amx else "fp32")
    assert settled("auto", Other(slow=True)) == "fp32"
    assert settled("bf16", Other(slow=True)) == "bf16"


def test_graphics_cards_are_asked_for_bf16_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, native=native: native or including_emulation,
        )
        assert settled("auto", World(device=torch.device("cuda"))) == ("bf16" if native else "fp32")


def test_a_torch_that_can_not_tell_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert settled("auto", World()) == "fp32"
