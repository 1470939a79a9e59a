"""What a fit of a network takes in memory, told before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fivefold.errors import RunError
from fivefold.training.batches import Batches
from fivefold.training.plan import Trainee
from fivefold.training.precision import Precision, default_device
from fivefold.training.timing import bytes_kept

STATE_BYTES = 12
"""Gradient and the two moments of AdamW in fp32, beside a trained weight itself."""

MOMENT_BYTES = 8
"""The two moments alone: a pass that was measured had weights and gradients."""

BASE_BYTES = 0.65e9
"""Python, torch and transformers."""

UNEVEN = 1.5
"""What passes of many lengths take on a CPU, in terms of the longest one's activations; freed blocks fit few others."""

CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Size:
    """Weights of a network.

    Parameters
    ----------
    parameters, trained
        All of them, and those that learn.
    held
        Bytes that all of them take in memory.
    """

    parameters: int
    trained: int
    held: int


def size_of(module: nn.Module) -> Size:
    """Count the weights of a module; quantised ones by what they stand for."""
    parameters = list(module.parameters())
    return Size(
        sum(map(_count, parameters)),
        sum(_count(parameter) for parameter in parameters if parameter.requires_grad),
        sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    )


def activation_bytes(trainee: Trainee, batches: Batches, precision: Precision, *, checkpointed: bool) -> float:
    """What the longest pass of training holds for its way back; 0 on a GPU, which measures it.

    With gradient checkpoints that is what every layer reads, and what one layer keeps.
    """
    device = default_device()
    net: Any = trainee.module
    if device.type == "cuda":
        return 0.0
    kept = bytes_kept(trainee, batches, precision, device)
    if not checkpointed:
        return kept
    net.gradient_checkpointing_disable()
    whole = bytes_kept(trainee, batches, precision, device)
    net.gradient_checkpointing_enable()
    config = net.backbone.config.get_text_config()
    tokens = max(batches.tokens(part) for step in trainee.steps(0) for part in step)
    read = tokens * config.hidden_size * (4 if precision == "fp32" else 2) * config.num_hidden_layers
    return float(kept + read + (whole - kept) / config.num_hidden_layers)


def peak_bytes(size: Size, activations: float, device: torch.device) -> float:
    """Memory at the peak of a fit: what passes took on a GPU, and moments; on a CPU all that is known of."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) + size.trained * MOMENT_BYTES)
    return BASE_BYTES + size.held + size.trained * STATE_BYTES + UNEVEN * activations


def check_room(size: Size, device: torch.device) -> float | None:
    """The bytes that are free for a fit; None if nobody says.

    Raises
    ------
    RunError
        If weights, gradients and moments alone are more.
    """
    needed, room = size.held + size.trained * STATE_BYTES, free_bytes(device)
    if room is not None and needed > room:
        raise _too_large(size, device, room, f"{needed / 1e9:.1f} GB")
    return room


@contextmanager
def measured(size: Size, device: torch.device) -> Iterator[None]:
    """Passes whose peak `peak_bytes` tells on a GPU, whose memory is free again after them.

    Raises
    ------
    RunError
        If they need more than there is.
    """
    if device.type != "cuda":
        yield
        return
    room = free_bytes(device) or 0.0
    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _too_large(size, device, room, "more in the first step") from error
    finally:
        torch.cuda.empty_cache()


def _too_large(size: Size, device: torch.device, room: float, got: str) -> RunError:
    millions, learnt = size.parameters / 1e6, size.trained / 1e6
    return RunError(
        "This fit doesn't fit into memory.",
        allowed=f"{room / 1e9:.1f} GB are free on the {'GPU' if device.type == 'cuda' else 'machine'}",
        got=f"{got} for {millions:,.0f} million weights, {learnt:,.0f} million of them trained",
        next_step="train an adapter (model.adapter), hold the backbone in less (model.weights: nf4), freeze it, "
        "lower training.tokens_per_pass, or take a smaller one",
    )


def free_bytes(device: torch.device) -> float | None:
    """Memory that a fit may take on this device, this process's share of torch's included; None if nobody says."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    said = [_available(), _limit()]
    return min((each for each in said if each is not None), default=None)


def _available() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")) + _resident()
    except (OSError, StopIteration):
        return None


def _resident() -> float:
    """What this process holds already, among it the weights that are asked about."""
    return float(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _limit() -> float | None:
    try:
        return float(CONTROL_GROUP.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _count(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else prod(state.shape)
