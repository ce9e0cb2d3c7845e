"""Our optimisers are torch's, without what `torch.compile` needs of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tlgan.learners.optimisers import Adam, AdamW

ONE_STEP = """
import sys, torch
from tlgan.learners.optimisers import Adam, AdamW
for made in (Adam, AdamW):
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = made([weight], fused=made is Adam)
    (weight**2).sum().backward()
    optimiser.step()
    optimiser.zero_grad()
    optimiser.load_state_dict(optimiser.state_dict())
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_steps_are_those_of_torch(ours: Any, theirs: Any) -> None:
    ends = []
    for made in (ours, theirs):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        optimiser = made([weight], lr=0.1, betas=(0.5, 0.9))
        for _ in range(3):
            optimiser.zero_grad(set_to_none=True)
            (weight.sin() ** 2).sum().backward()
            optimiser.step()
        assert weight.requires_grad
        assert torch.is_grad_enabled()
        ends.append([weight.detach(), *optimiser.state_dict()["state"][0].values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_training_does_not_wait_for_the_compiler_to_be_imported() -> None:
    found = subprocess.run([sys.executable, "-c", ONE_STEP], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
