"""What the report says of a transfer method."""

from __future__ import annotations

import pytest

from jobs.reporting.story import _freezing


@pytest.mark.parametrize(
    ("transfer", "said"),
    [
        ({}, "trained every block"),
        ({"method": "freeze"}, "trained every block"),
        ({"method": "freeze", "freeze_d": 2}, "kept 2 blocks of D frozen"),
        ({"method": "finetune", "freeze_d": 2}, "trained every block"),
        ({"method": "ewc"}, "used ewc"),
        ({"method": "ewc", "freeze_d": 1, "freeze_g": 2}, "used ewc and kept 1 block of D and 2 blocks of G frozen"),
    ],
)
def test_method_and_depths(transfer: dict, said: str) -> None:
    assert _freezing(transfer) == said
