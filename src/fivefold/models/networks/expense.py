"""What a fit of a network is expected to take, told before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fivefold.errors import RunError
from fivefold.training.precision import Precision, matrix_peak

EFFICIENCY = 0.45
"""Share of the matrix peak that a fit reaches, measured with MiniLM on tweets."""

STATE_BYTES = 12
"""Gradient and the two moments of AdamW in fp32, beside a trained weight itself."""

BASE_BYTES = 0.5e9
"""Python, torch and transformers."""

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
    multiplied, learnt
        The same without embeddings, which are looked up.
    held
        Bytes that all of them take in memory.
    adapted
        Whether what learns stands beside weights that don't, all the way down.
    """

    parameters: int
    trained: int
    multiplied: int
    learnt: int
    held: int
    adapted: bool

    def training_flops(self) -> float:
        """Of a token: two for each weight forward, two back to what learns below, and two for a gradient."""
        back = self.multiplied if self.adapted else self.learnt
        return 2.0 * (self.multiplied + back + self.learnt)

    def scoring_flops(self) -> float:
        """Of a token: two for each weight."""
        return 2.0 * self.multiplied


def size_of(module: nn.Module) -> Size:
    """Count the weights of a module; quantised ones by what they stand for."""
    named = [(name, parameter, _count(parameter)) for name, parameter in module.named_parameters()]
    lean = [each for each in named if "embed" not in each[0] and "wte" not in each[0]]
    return Size(
        sum(count for _, _, count in named),
        sum(count for _, parameter, count in named if parameter.requires_grad),
        sum(count for _, _, count in lean),
        sum(count for _, parameter, count in lean if parameter.requires_grad),
        sum(parameter.numel() * parameter.element_size() for _, parameter, _ in named),
        any("lora_" in name for name, parameter, _ in named if parameter.requires_grad),
    )


def seconds_of(flops: float, device: torch.device, precision: Precision) -> float:
    """How long so many operations take at the measured peak of the device and the usual share of it."""
    return flops / (matrix_peak(device, precision, rounds=1) * EFFICIENCY)


def activation_bytes(backbone: Any, tokens: int, precision: Precision, *, checkpointed: bool) -> float:
    """What a pass of so many tokens holds for its way back; 0 for a network without a backbone."""
    if backbone is None:
        return 0.0
    config = backbone.config.get_text_config()
    values = tokens * config.hidden_size * (4 if precision == "fp32" else 2)
    layers = config.num_hidden_layers
    return float(values * (layers + VALUES_A_LAYER if checkpointed else layers * VALUES_A_LAYER))


def check_room(size: Size, device: torch.device) -> None:
    """Refuse a fit whose weights, gradients and moments alone are more than there is memory for.

    Raises
    ------
    RunError
        If they are.
    """
    needed, room = size.held + size.trained * STATE_BYTES, free_bytes(device)
    if room is not None and needed > room:
        millions, learnt = size.parameters / 1e6, size.trained / 1e6
        raise RunError(
            "This fit doesn't fit into memory.",
            allowed=f"{room / 1e9:.1f} GB are free on the {'GPU' if device.type == 'cuda' else 'machine'}",
            got=f"{needed / 1e9:.1f} GB for {millions:,.0f} million weights, {learnt:,.0f} million of them trained",
            next_step="train an adapter (model.adapter), hold the backbone in less (model.weights: nf4), or freeze it",
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
