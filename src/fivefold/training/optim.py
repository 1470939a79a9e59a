"""Parameter groups, schedules and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

ScheduleName: TypeAlias = Literal["linear", "cosine", "constant", "plateau"]

CUT = 0.1
"""What a learning rate is multiplied by when the validation metric stops rising."""

CUT_PATIENCE = 1
"""Evaluations without a better one that are forgiven before a cut."""


@dataclass(frozen=True)
class Group:
    """Parameters by name that share a learning rate."""

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float


def layer_groups(
    depths: Sequence[Mapping[str, nn.Parameter]], learning_rate: float, head_learning_rate: float | None, decay: float
) -> list[Group]:
    """A group a depth, the head last; a layer learns at `decay` times the rate of the one above it.

    Layer-wise rates are those of Howard & Ruder 2018 (arXiv 1801.06146) and Clark et al. 2020 (arXiv 2003.10555).
    """
    *layers, head = depths
    groups = [Group(layer, learning_rate * decay ** (len(layers) - 1 - i)) for i, layer in enumerate(layers)]
    return [*groups, Group(head, head_learning_rate or learning_rate)]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, not to norms and biases."""
    return parameter.ndim > 1 and not name.endswith("bias")


def adamw(groups: Sequence[Group], weight_decay: float) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), fused.

    Each group of the optimiser keeps its peak rate as "peak".
    """
    plain: list[dict[str, Any]] = []
    for group in groups:
        trained = {name: p for name, p in group.parameters.items() if p.requires_grad}
        for decayed in (True, False):
            chosen = [p for name, p in trained.items() if decays(name, p) == decayed]
            if chosen:
                plain.append(
                    {
                        "params": chosen,
                        "lr": group.learning_rate,
                        "peak": group.learning_rate,
                        "weight_decay": weight_decay if decayed else 0.0,
                    }
                )
    return torch.optim.AdamW(plain, fused=True)


def warmup_steps(warmup: float | str, total: int, per_epoch: int) -> int:
    """Steps of warm-up from a share of all steps, "200 steps" or "2 epochs"."""
    if not isinstance(warmup, str):
        return round(warmup * total)
    amount, unit = warmup.split()
    return round(float(amount) * (per_epoch if unit == "epochs" else 1))


def schedule(name: ScheduleName, warmup: int, total: int) -> Callable[[int], float]:
    """The share of the peak rate at a step: linear warm-up, then as the name says."""

    def after(step: int) -> float:
        left = max(0.0, (total - step) / max(1, total - warmup))
        if name == "linear":
            return left
        return 0.5 * (1 + math.cos(math.pi * (1 - left))) if name == "cosine" else 1.0

    return lambda step: (step + 1) / (warmup + 1) if step < warmup else after(step)


def set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Every group's rate at `share` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


class MovingAverage:
    """An exponential moving average of weights (Polyak & Juditsky 1992).

    The decay grows as (1 + n) / (10 + n) until it reaches its value, so that the first steps don't weigh for ever.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay, self.updates = decay, 0
        self.averages = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap weights and averages; a second call swaps them back."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            present = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(present)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages as weights while this lasts."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()


@torch.no_grad()
def scale_gradients(gradients: list[Tensor], norm: float, scale: float, clip: float | None) -> float:
    """Multiply gradients of this norm by `scale`, then shorten them to a norm of `clip`; the norm before that.

    A norm that isn't finite leaves the gradients as they are.
    """
    norm *= scale
    if math.isfinite(norm):
        factor = scale if clip is None or norm <= clip else scale * clip / norm
        if factor != 1.0:
            torch._foreach_mul_(gradients, factor)
    return norm
