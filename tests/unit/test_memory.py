"""Freed memory stays in the process: a second training step finds its pages where the first left them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource
from tlgan.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def step():
    parts = [libc.malloc(8 << 20) for _ in range(8)]
    for part in parts:
        ctypes.memset(part, 1, 8 << 20)
    for part in reversed(parts):
        libc.free(part)
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_page_faults() -> None:
    def faults(keep: bool) -> int:
        program = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)

    assert faults(keep=True) < 1000 < faults(keep=False)


def test_settings_of_the_environment_win() -> None:
    program = "from tlgan.memory import keep_freed_memory; assert not keep_freed_memory()"
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "131072"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
