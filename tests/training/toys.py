"""A tiny trainee: a network with dropout, norms and a tied, a frozen and an unused part that learns four clusters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fivefold.training.batches import Batches
from fivefold.training.loop import Training, mixed_seed, train
from fivefold.training.optim import Group, layer_groups
from fivefold.training.plan import Optimisation, Outcome

SEED = 3
HOW = Optimisation(epochs=2, learning_rate=0.02, checkpoint_minutes=0.0)


FULL = replace(HOW, ema=0.9, keep="best", schedule="plateau", patience=9, evaluations_per_epoch=3)
LONG = replace(HOW, epochs=10, schedule="constant", clip=None)
"""80 steps."""


class Killed(BaseException):
    """What a test raises where a process would die."""


class Net(nn.Module):
    """Eight numbers in, four logits out."""

    def __init__(self, dropout: float = 0.05) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.deep = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.deep.weight
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 4)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 8) -> (rows, 4)."""
        x = self.norm(self.frozen(x))
        x = x + self.dropout(torch.relu(self.deep(x)))
        return self.head(x + self.dropout(torch.relu(self.tied(x))))


def fresh(seed: int, dropout: float = 0.05) -> Net:
    """A network drawn with a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(dropout)


class Toy:
    """The trainee; `planted` sees each loss, the step and how often training has gone back, and may change it."""

    def __init__(
        self,
        *,
        rows: int = 60,
        batch_size: int = 8,
        rows_per_pass: int = 5,
        dropout: float = 0.05,
        planted: Callable[[Toy, Tensor, int, int], Tensor] | None = None,
        event: Callable[[], None] = lambda: None,
    ) -> None:
        random = np.random.default_rng(0)
        self.y = torch.from_numpy(random.integers(0, 4, 2 * rows))
        noise = torch.from_numpy(random.normal(0, 0.5, (2 * rows, 8))).float()
        self.x = nn.functional.one_hot(self.y, 8).float() * 4 + noise
        self.weights = torch.from_numpy(random.uniform(0.5, 2, 2 * rows)).float()
        ones = np.ones(rows, dtype=np.int64)
        self.batches = Batches(ones, ones, batch_size, rows_per_pass, SEED)
        self.rows, self.dropout, self.planted, self.event = rows, dropout, planted, event
        self.module: nn.Module = fresh(SEED, dropout)
        self.seen: list[tuple[int, list[int]]] = []
        self.turning_step = 0

    def steps(self, epoch: int) -> list[list[Any]]:
        return self.batches.epoch(epoch)

    def losses(self, module: nn.Module, rows: Any, step: int) -> tuple[Tensor, Tensor]:
        self.event()
        self.seen.append((step, rows.tolist()))
        losses = nn.functional.cross_entropy(module(self.x[rows]), self.y[rows], reduction="none")
        if self.planted is not None:
            losses = self.planted(self, losses, step, attempt(step))
        return losses, self.weights[rows]

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        self.event()
        assert not module.training
        logits = module(self.x[self.rows :])
        right = (logits.argmax(1) == self.y[self.rows :]).float().mean()
        loss = nn.functional.cross_entropy(logits, self.y[self.rows :]).detach()
        return {"score": float(right), "log_loss": float(loss)}

    def groups(self) -> Sequence[Group]:
        named = dict(self.module.named_parameters())
        names = (("frozen", "norm"), ("deep", "tied"), "head")
        depths = [{k: v for k, v in named.items() if k.startswith(name)} for name in names]
        return layer_groups(depths, 0.04, 0.03, 0.9)

    def restart(self, seed: int) -> None:
        with torch.no_grad():
            drawn = dict(fresh(seed, self.dropout).named_parameters())
            for name, parameter in self.module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(drawn[name])


def attempt(step: int) -> int:
    """How often training has gone back, told from the seed of the step."""
    seed, rank = torch.initial_seed() % 2**64, int(os.environ.get("RANK", 0))
    return next((n for n in range(9) if mixed_seed(SEED, n, step, rank) == seed), -1)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether weights are equal to the last bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def timeless(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0)


def curve(scratch: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (scratch / "learning.jsonl").read_text().splitlines()]


def result(toy: Toy, how: Optimisation, scratch: Path | None) -> tuple[Any, dict[str, Tensor], list[Any]]:
    outcome = train(toy, how, seed=SEED, scratch=scratch)
    return timeless(outcome), weights_of(toy.module), curve(scratch) if scratch else []


def blow_up(at: int, attempts: set[int]) -> Callable[..., Tensor]:
    """From a step on the loss is back on its plateau, or the weights are huge."""

    def planted(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
        return losses * 0 + 2.5 + losses.detach() * 0.1 if step >= at and attempt in attempts else losses

    return planted


def every_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    due = property(lambda self: not self.finished and self.progress.step % 10 == 0)
    monkeypatch.setattr(Training, "checkpoint_due", due)
