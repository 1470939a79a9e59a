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
from fivefold.models.backbones.attention import kept_bytes
from fivefold.training.precision import Precision, default_device

STATE_BYTES = 12
"""Gradient and the two moments of AdamW in fp32, beside a trained weight itself."""

MOMENT_BYTES = 8
"""The two moments alone: a pass that was measured had weights and gradients."""

BASE_BYTES = 0.65e9
"""Python, torch and transformers."""

UNEVEN = 1.5
"""What passes of many lengths take on a CPU, in terms of the longest one's activations; freed blocks fit few others."""

VALUES_A_LAYER = 17
"""Activations of a transformer layer that the backward pass needs, as multiples of tokens times width, where attention
is fused: 34 bytes in half precision (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1)."""

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


def activation_bytes(backbone: Any, tokens: int, precision: Precision, *, checkpointed: bool) -> float:
    """What a pass of so many tokens holds for its way back; 0 for a network without a backbone."""
    if backbone is None:
        return 0.0
    config = backbone.config.get_text_config()
    values = tokens * config.hidden_size * (4 if precision == "fp32" else 2)
    layers = config.num_hidden_layers
    attended = kept_bytes(config, tokens) if precision == "bf16" and default_device().type == "cpu" else 0.0
    layer = values * VALUES_A_LAYER + attended
    return float(values * layers + layer if checkpointed else layer * layers)


def peak_bytes(size: Size, activations: float, device: torch.device) -> float:
    """Memory at the peak of a fit: on a GPU what passes were seen to take, and moments; on a CPU by their formula."""
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
