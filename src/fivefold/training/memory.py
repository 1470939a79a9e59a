"""Memory that a training on a CPU keeps between steps."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of malloc.h."""

LARGEST, NEVER = (2**31 - 1, 2**25), -1
"""Bytes from which a block has a mapping of its own, what older versions allow behind it, and when to shrink a heap."""


def keep_freed_memory(device: torch.device) -> bool:
    """Where a CPU computes, have glibc keep blocks that are freed, for the rest of this process; whether it does.

    By itself it returns large blocks to the kernel, which must zero every page of them again when the next step asks
    for as much: a quarter of a million page faults in 16 steps of MiniLM, and a sixth of their time.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST)
