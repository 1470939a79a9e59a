from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

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


NEW = platform.libc_ver()[0] == "glibc" and tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 35)


@pytest.mark.skipif(not NEW, reason="before glibc 2.35 blocks of over 32 MB always have a mapping of their own")
def test_a_freed_block_is_used_again() -> None:
    plain = faults("")
    if plain < 10_000:
        pytest.skip("pages are so large that few are missing")
    assert faults("assert keep_freed_memory(torch.device('cpu'))") < plain / 100


def test_other_platforms_and_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_freed_memory(torch.device("meta")) is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory(torch.device("cpu")) is False
