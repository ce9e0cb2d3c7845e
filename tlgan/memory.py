"""How the process's C library handles memory. One setting, worth 5 to 10 % of a training step on CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST_FROM_HEAP, KEPT = 32 << 20, 512 << 20  # bytes


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Lets glibc keep up to 512 MiB of freed memory for the next step, and says whether it does.

    By default the activations of every step are returned to the system and faulted in again, thousands of pages a step.
    The peak stays what it was. Does nothing without glibc, or when the environment sets these limits (`MALLOC_...`).
    """
    if not sys.platform.startswith("linux") or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
