"""What the loop is told and what it answers: the trainee, how to train it, where it stands, what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fivefold.training.optim import Group, ScheduleName
from fivefold.training.precision import Precision
from fivefold.training.watch import Watch

Figures: TypeAlias = Mapping[str, float]


class Trainee(Protocol):
    """What the loop trains.

    `turning_step` is the step from which the losses mean something else, and are no longer held against earlier ones.
    """

    module: nn.Module
    turning_step: int

    def steps(self, epoch: int) -> list[list[npt.NDArray[np.int64]]]:
        """An epoch's optimiser steps, each its micro-batches of row positions; as many in every epoch."""
        ...

    def losses(self, module: nn.Module, rows: npt.NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """Losses of a micro-batch and how much each counts, (items,) both; a step minimises their weighted mean.

        `module` is the trainee's own under whatever precision and processes need around it; so it is what to call.
        """
        ...

    def evaluate(self, module: nn.Module) -> Figures:
        """Figures of the validation rows, "score" among them, higher is better; empty without such rows."""
        ...

    def groups(self) -> Sequence[Group]:
        """What is trained, and how fast."""
        ...

    def restart(self, seed: int) -> None:
        """Draw untrained weights anew and put trained ones back, in place."""
        ...


@dataclass(frozen=True)
class Optimisation:
    """How to train; the keys of the recipe's section `training`."""

    epochs: float
    learning_rate: float
    weight_decay: float = 0.01
    schedule: ScheduleName = "linear"
    warmup: float | str = 0.1
    clip: float | None = 1.0
    precision: Precision = "fp32"
    evaluations_per_epoch: int = 1
    restarts: int = 2
    checkpoint_minutes: float = 5.0
    ema: float | None = None
    keep: Literal["last", "best"] = "last"
    patience: int | None = None
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What training did.

    Parameters
    ----------
    steps, skipped, restarts
        Optimiser steps taken, steps without a finite loss and gradient, and returns from divergence.
    best
        The highest validation score, -inf without validation rows.
    seconds
        Time in training steps, evaluations not counted.
    gave_up
        Whether it diverged once more than `restarts` allowed; the weights are then the last good ones.
    """

    steps: int
    skipped: int
    restarts: int
    best: float
    seconds: float
    gave_up: bool

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth saying aloud."""
        said = []
        if self.skipped:
            said.append(f"{self.skipped} training steps had no finite loss and gradient and were skipped.")
        if self.restarts:
            said.append(f"Training diverged and went back {self.restarts} times, each with another model seed.")
        if self.gave_up:
            said.append("Training diverged again and was stopped at its last good weights; lower the learning rate.")
        return tuple(said)


@dataclass
class Progress:
    """Where a training stands; plain values, so that a checkpoint holds them.

    Parameters
    ----------
    returned_to
        The step that the latest restart went back to.
    stale, since_cut
        Evaluations since the best one, and since that or the latest cut of the rate.
    share
        What cuts have left of the rate.
    loss, losses
        Sum and count of the training losses that aren't in the curve yet.
    lines
        Lines of the curve.
    """

    step: int = 0
    skipped: int = 0
    restarts: int = 0
    returned_to: int | None = None
    best: float = -math.inf
    stale: int = 0
    share: float = 1.0
    since_cut: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    losses: int = 0
    lines: int = 0
    gave_up: bool = False
    watch: Watch = field(default_factory=Watch)
