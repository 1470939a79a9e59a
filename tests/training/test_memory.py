"""Products of ever new shapes don't fill the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from fivefold.training.precision import computes_bf16

MANY_SHAPES = """
import json
from pathlib import Path
import torch
import fivefold.training

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def multiply(shapes):
    weight = torch.ones(64, 64, dtype=torch.bfloat16)
    for tokens in shapes:
        torch.ones(tokens, 64, dtype=torch.bfloat16) @ weight

multiply(range(1, 300))
before = resident()
multiply(range(300, 1500))
print(json.dumps((resident() - before) / 1200))
"""


def bytes_a_shape(**environment: str) -> float:
    """What a process grows by with every new shape, behind the first 300."""
    command = [sys.executable, "-c", MANY_SHAPES]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


@pytest.mark.skipif(not computes_bf16(torch.device("cpu")), reason="these products are oneDNN's on chips with bf16")
def test_shapes_are_forgotten() -> None:
    kept = bytes_a_shape(ONEDNN_PRIMITIVE_CACHE_CAPACITY="4096", LRU_CACHE_CAPACITY="4096")
    assert bytes_a_shape() < kept / 3
