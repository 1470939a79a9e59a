"""What a device computes well: the precision of training, and the peak of its matrix unit."""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

import torch

from fivefold.errors import RecipeError

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

PEAK_SIZE = {"cpu": 2048, "cuda": 8192}
"""Edge of the square matrices whose product measures the peak."""


TRAINING_TOKENS = {"cpu": 2048, "cuda": 16_384}
SCORING_TOKENS = {"cpu": 1024, "cuda": 65_536}
"""Tokens of a pass: on a CPU so few that activations stay in its cache (1.2 times as fast in training and 1.5 times in
scoring as with 8,192, measured with MiniLM), on a GPU so many that it is never waiting."""


def default_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether the chip has bf16 instructions; without them bf16 is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(asked: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """The precision to train in; "auto": bf16 where the chip computes in it, else fp16 on a GPU and fp32 on a CPU.

    Raises
    ------
    RecipeError
        If what was asked for can't run on this device.
    """
    if asked == "auto":
        return "bf16" if computes_bf16(device) else "fp16" if device.type == "cuda" else "fp32"
    if asked == "fp16" and device.type == "cpu":
        raise RecipeError("training.precision fp16 needs a GPU.", allowed="auto, fp32 or bf16 on a CPU")
    return asked


def matrix_peak(device: torch.device, precision: Precision, rounds: int = 3) -> float:
    """Measured FLOP/s of a large square matrix product, the best of `rounds`."""
    size = PEAK_SIZE[device.type]
    left = torch.randn(size, size, device=device, dtype=DTYPES[precision])
    left @ left
    best = 0.0
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        left @ left
        synchronise(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
