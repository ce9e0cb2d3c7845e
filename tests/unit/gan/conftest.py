"""A whole training on tiny networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gan import dataset, flat

from tlgan import train as loop
from tlgan.data import Dataset
from tlgan.distributed import World
from tlgan.guards import Guards
from tlgan.recipe import Recipe


@dataclass
class Outcome:
    result: loop.Result
    events: list[dict[str, Any]] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def facts(self, after: int = 0) -> list[dict[str, Any]]:
        """Events after image `after` without what the clock decides (so when a checkpoint was told of, too), and without
        how the run started."""
        left_out = ("started", "resumed", "transfer", "checkpoint")
        rows = [e for e in self.events if e["nimg"] > after and e["type"] not in left_out]
        return [{k: _plain(v) for k, v in e.items() if k not in ("seconds", "img_per_s")} for e in rows]

    def state(self) -> dict[str, torch.Tensor]:
        return flat({which: dict(net.state_dict()) for which, net in self.result.networks.items()})


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Outcome]:
    """train(recipe, total, where="a", stop_at=None, parent=None, data=None, **schedule): runs, and keeps what was told."""

    def run(
        of: Recipe,
        total: int,
        where: str = "a",
        *,
        stop_at: int | None = None,
        stop_after_steps: int | None = None,
        parent: Path | None = None,
        data: Dataset | None = None,
        evaluator: loop.Evaluator | None = None,
        guards: Guards | None = None,
        events: list[dict[str, Any]] | None = None,
        **schedule: Any,
    ) -> Outcome:
        events = [] if events is None else events
        saved: list[int] = []
        steps = itertools.count(1)
        hooks = loop.Hooks(
            report=events.append,
            should_stop=lambda: (
                next(steps) == stop_after_steps
                or (stop_at is not None and any(e["type"] == "progress" and e["nimg"] >= stop_at for e in events))
            ),
            saved=lambda path, nimg: saved.append(nimg),
        )
        result = loop.train(
            of,
            data or dataset(),
            loop.Schedule(total=total, **schedule),
            tmp_path / where,
            parent=parent,
            evaluator=evaluator,
            guards=guards,
            world=World(),
            hooks=hooks,
        )
        return Outcome(result, events, saved)

    return run
