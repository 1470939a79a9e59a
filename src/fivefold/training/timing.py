"""How long training and scoring will take, and what passes keep, told from some of them before they start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fivefold.training.batches import Batches
from fivefold.training.dropout import spare_dropout
from fivefold.training.plan import Trainee
from fivefold.training.precision import DTYPES, Precision, synchronise

ENOUGH_SECONDS = 3.0
"""Passes are timed for about so long, in training and in scoring; a slower one is timed once, on a single row."""

GROWTH = 4
"""How many times as many rows the next timed pass has, up to a whole one."""

STAND_IN = 1 << 23
"""Weights whose update is timed instead of the network's own; their moments are larger than a CPU's cache."""

Positions = npt.NDArray[np.int64]


def epoch_seconds(trainee: Trainee, batches: Batches, precision: Precision, device: torch.device) -> float:
    """How long an epoch takes, told from a micro-batch that half of all tokens lie in longer ones than.

    On a GPU the longest one passes too, while gradients are held, so that torch has seen the peak of training.
    """
    module, steps = trainee.module, trainee.steps(0)
    parts = [part for step in steps for part in step]
    tokens = np.array([batches.tokens(part) for part in parts])
    spare_dropout(module)

    def learn(rows: Positions) -> None:
        loss_of(trainee, rows, precision, device).backward()

    with unchanged(module, device):
        module.train()
        seconds = seconds_a_token(learn, parts[middle(tokens)], batches.tokens, device)
        if device.type == "cuda":
            learn(parts[int(tokens.argmax())])
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return seconds * float(tokens.sum()) + len(steps) * update_seconds(trained, device)


def loss_of(trainee: Trainee, rows: Positions, precision: Precision, device: torch.device) -> Tensor:
    """The mean loss of some rows as training computes it."""
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
        losses, weights = trainee.losses(trainee.module, rows, trainee.turning_step)
    return (losses.float() * weights).mean()


def bytes_kept(trainee: Trainee, batches: Batches, precision: Precision, device: torch.device) -> float:
    """What the longest micro-batch keeps for its way back, told from one of its rows and from two.

    Weights aren't counted, nor what gradient checkpoints keep.
    """
    module = trainee.module
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    rows = max((part for step in trainee.steps(0) for part in step), key=batches.tokens)

    def kept(count: int) -> int:
        found: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            _loss = loss_of(trainee, rows[:count], precision, device)  # holds them while they are counted
            return sum(size for place, size in found.items() if place not in own)

    with unchanged(module, device):
        module.train()
        one, counts = kept(1), [batches.tokens(rows[:n]) for n in (1, 2, len(rows))]
        more = (kept(2) - one) / (counts[1] - counts[0]) if len(rows) > 1 else 0.0
    return one + more * (counts[2] - counts[0])


def seconds_a_token(
    work: Callable[[Positions], object], rows: Positions, tokens: Callable[[Positions], int], device: torch.device
) -> float:
    """What `work` takes on one row, then on more of them, lastly on all, as far as `ENOUGH_SECONDS` go.

    The last time counts, by the tokens it had: those before it warm up and say whether there is time for it.
    """
    if device.type == "cuda":
        work(rows[:1])  # what is compiled at the first call would be taken for its pace
    spent, rate = 0.0, 0.0
    for size in [1, *growing(len(rows)), len(rows)]:
        count = tokens(rows[:size])
        if spent and spent + rate * count > ENOUGH_SECONDS:
            break
        taken = _seconds(partial(work, rows[:size]), device)
        spent, rate = spent + taken, taken / max(count, 1)
    return rate


def growing(most: int) -> list[int]:
    """1, 4, 16, … and lastly `most`."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(GROWTH * sizes[-1], most))
    return sizes


def update_seconds(trained: int, device: torch.device) -> float:
    """How long AdamW takes to update so many weights, told from fewer that stand in for them."""
    weight = nn.Parameter(torch.ones(min(trained, STAND_IN), device=device))
    weight.grad = torch.ones_like(weight)
    optimiser = torch.optim.AdamW([weight], fused=True)
    optimiser.step()  # makes the moments
    return _seconds(optimiser.step, device) * trained / max(len(weight), 1)


def middle(tokens: Positions) -> int:
    """Position of the count below and above which half of all tokens lie."""
    order = np.argsort(tokens, kind="stable")
    reached = np.cumsum(tokens[order])
    return int(order[np.searchsorted(reached, reached[-1] / 2)])


@contextmanager
def unchanged(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module on a device while this lasts; then where it was, without gradients, and no random number gone."""
    home = next(module.parameters()).device
    with torch.random.fork_rng():
        try:
            module.to(device)
            yield
        finally:
            module.zero_grad(set_to_none=True)
            module.eval().to(home)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start
