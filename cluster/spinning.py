"""How long a thread of torch that waits for the others spins before it sleeps: rounds of some 50 ns, by libgomp.

Two threads on two processors, images a second of a DCGAN, times what sleeping at once gives. Alone: 1.1 to 1.2 for 5 000 rounds,
1.3 for 20 000, 1.4 for libgomp's own 300 000. Beside a second such training: 0.86, 0.6, 0.2. So where others may be at work it
is little, and more where the processors were given to a worker of a Ray of our own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "GOMP_SPINCOUNT"
SHARED, OWN = "5000", "20000"


def spin_little() -> None:
    """In this process and those it starts; before torch is imported. What a person has set stays."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault(VARIABLE, SHARED)


@contextmanager
def spinning_longer() -> Iterator[None]:
    """For processes started in the block, where `spin_little` chose."""
    if os.environ.get(VARIABLE) != SHARED:
        yield
        return
    os.environ[VARIABLE] = OWN
    try:
        yield
    finally:
        os.environ[VARIABLE] = SHARED
