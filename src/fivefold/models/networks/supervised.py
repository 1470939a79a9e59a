"""Rows with labels as the loop's trainee: batches, losses, and the validation figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fivefold.data.compose import Rows
from fivefold.decisions.rule import fit_rule
from fivefold.evaluation.metrics import METRICS
from fivefold.models.networks.material import Material
from fivefold.objectives.consistency import rdrop
from fivefold.objectives.objective import Objective
from fivefold.objectives.targets import targets_of
from fivefold.scores import Scores, normalised
from fivefold.task import FloatArray, Labels, Task
from fivefold.training.batches import Batches, in_order
from fivefold.training.dropout import drop_nothing
from fivefold.training.optim import Group
from fivefold.training.streams import each

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """R-Drop: how much two passes under dropout must agree, from which step on; see `objectives.consistency`."""

    alpha: float
    categorical: float
    start_step: int


@dataclass(frozen=True)
class Examples:
    """Labelled rows of a material.

    Parameters
    ----------
    material
        What the network reads.
    index
        Position of each row in the material, (rows,).
    labels, weights
        Of the same rows.
    """

    material: Material
    index: Positions
    labels: Labels
    weights: FloatArray

    def batches(self, batch_size: int, tokens_per_pass: int, seed: int) -> Batches:
        """The rows in training order."""
        lengths, counts = self.material.lengths[self.index], self.material.counts[self.index]
        return Batches(lengths, counts, batch_size, tokens_per_pass, seed)


@dataclass(frozen=True)
class Watched:
    """Rows whose metric is followed while training."""

    material: Material
    rows: Rows
    metric: str

    def figures(self, logits: FloatArray) -> dict[str, float]:
        """The metric, with thresholds that are best on these very rows, and the log loss.

        "score" is the metric turned so that higher is better.
        """
        labels = self.rows.labels
        scores = Scores(labels.task, self.rows.ids, logits)
        metric = METRICS[self.metric]
        value = metric.function(labels, fit_rule(scores, labels, metric=self.metric).decide(scores), scores)
        loss = METRICS["log_loss"].function(labels, labels.codes, scores)
        return {"score": value if metric.greater_is_better else -value, self.metric: value, "log_loss": loss}


class Supervised:
    """What the loop trains: a network on labelled rows.

    Parameters
    ----------
    module
        Takes a material's batches and gives logits (rows, width).
    groups
        Its parameters, and how fast each learns.
    fresh
        The weights to begin with, for a seed.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Group],
        examples: Examples,
        batches: Batches,
        objective: Objective,
        *,
        agreement: Agreement | None,
        watched: Watched | None,
        tokens_per_pass: int,
        fresh: Callable[[int], Mapping[str, Tensor]],
    ) -> None:
        self.module, self._groups = module, groups
        self.examples, self.batches, self.objective = examples, batches, objective
        self.agreement, self.watched = agreement, watched
        self.turning_step = agreement.start_step if agreement else 0
        self.tokens_per_pass, self.fresh = tokens_per_pass, fresh

    def steps(self, epoch: int) -> list[list[Positions]]:
        """An epoch's optimiser steps, each its micro-batches of row positions."""
        return self.batches.epoch(epoch)

    def groups(self) -> Sequence[Group]:
        """What is trained, and how fast."""
        return self._groups

    def losses(self, module: nn.Module, rows: Positions, step: int) -> tuple[Tensor, Tensor]:
        """A loss a row, and the rows' weights, (rows,) both."""
        device = next(module.parameters()).device
        targets = torch.from_numpy(targets_of(self.examples.labels.take(rows))).to(device)
        weights = torch.from_numpy(self.examples.weights[rows]).to(device)
        if self.agreement is None:
            return self.objective(self._logits(module, rows), targets), weights
        if step < self.agreement.start_step:
            drop_nothing(module)
            return self.objective(self._logits(module, rows), targets), weights
        module.train()
        first, second = self._logits(module, np.concatenate([rows, rows])).chunk(2)
        losses = (self.objective(first, targets) + self.objective(second, targets)) / 2
        apart = rdrop(self.objective.task, first, second, self.agreement.categorical)
        return losses + self.agreement.alpha * apart, weights

    def evaluate(self, module: nn.Module) -> Mapping[str, float]:
        """Figures of the watched rows; empty without any."""
        if self.watched is None:
            return {}
        rows = self.watched.rows
        task = rows.labels.task
        return self.watched.figures(logits_of(module, self.watched.material, rows.index, task, self.tokens_per_pass))

    @torch.no_grad()
    def restart(self, seed: int) -> None:
        """Begin again with the untrained weights of another seed."""
        fresh = self.fresh(seed)
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(fresh[name])

    def _logits(self, module: nn.Module, rows: Positions) -> Tensor:
        logits: Tensor = module(**on_device(self.examples.material.batch(self.examples.index[rows]), module))
        return logits.float()


def on_device(batch: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The batch where the module's weights are."""
    device = next(module.parameters()).device
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def logits_of(module: nn.Module, material: Material, index: Positions, task: Task, tokens_per_pass: int) -> FloatArray:
    """Log-odds and log-probabilities of the rows at `index`, float32 (rows, width), scored by length.

    A module that says it is `reentrant` scores several passes side by side; one that has `spared` tokens of every
    sequence computes only the others.
    """
    logits = np.empty((len(index), task.width), dtype=np.float32)

    def score(rows: Positions) -> None:
        logits[rows] = module(**on_device(material.batch(index[rows]), module)).float().cpu().numpy()

    lengths = material.lengths[index] - getattr(module, "spared", 0)
    batches = in_order(lengths, material.counts[index], tokens_per_pass)
    device, reentrant = next(module.parameters()).device, getattr(module, "reentrant", False)
    each(batches, score, device, side_by_side=reentrant)
    return normalised(task, logits)
