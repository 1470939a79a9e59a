from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from fivefold.training.memory import keep_freed_memory

FAULTS = """
import resource, torch
from fivefold.training.memory import keep_freed_memory
{call}
torch.ones(1 << 25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints how many pages the kernel gave for a block of 64 MB behind a freed one of 128."""


def faults(call: str) -> int:
    script = FAULTS.format(call=call)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library isn't glibc")
def test_a_freed_block_is_used_again() -> None:
    assert faults("") > 10_000
    assert faults("assert keep_freed_memory()") < 100


def test_other_platforms_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
