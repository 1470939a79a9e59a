"""The loss of each row: binaries and categoricals of a task, added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fivefold.objectives.consistency import full_precision
from fivefold.objectives.losses import asymmetric, bce, cross_entropy, focal, symmetric_lovasz
from fivefold.objectives.weights import BINARY_HEAD, check_heads
from fivefold.task import Categorical, FloatArray, Task

BinaryLoss = Literal["bce", "focal", "asymmetric", "lovasz_rows", "lovasz_labels"]
Reduction = Literal["mean", "sum"]
LossFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of logits, targets (rows, binaries) and sides (binaries, 2) to losses (rows,)."""


class Objective:
    """What training minimises, the mean over rows of what a call returns; keys as in the recipe's `objective`.

    A call takes raw logits and targets (`targets_of`), both (rows, task.width), and returns losses (rows,):
    the binaries' loss and each categorical's cross-entropy, each times its head's weight. Missing cells add nothing.

    Parameters
    ----------
    side_weights
        float32 (task.width, 2), weights of the negative and of the positive side of each logit, or None for all
        alike; a categorical's classes weigh as their positive sides say (`weights.loss_weights`).

    Raises
    ------
    RecipeError
        If `head_weights` names what is neither "binary" nor a categorical of the task.
    """

    def __init__(
        self,
        task: Task,
        *,
        binary: BinaryLoss,
        binary_reduction: Reduction,
        focal_gamma: float,
        asymmetric_positive: float,
        asymmetric_negative: float,
        asymmetric_margin: float,
        label_smoothing: float,
        head_weights: Mapping[str, float],
        side_weights: FloatArray | None,
    ) -> None:
        check_heads(task, head_weights)
        self.task, self.label_smoothing, self.head_weights = task, label_smoothing, dict(head_weights)
        focused = partial(
            asymmetric, positive=asymmetric_positive, negative=asymmetric_negative, margin=asymmetric_margin
        )
        losses: Mapping[BinaryLoss, LossFunction] = {
            "bce": _over_cells(bce, binary_reduction),
            "focal": _over_cells(partial(focal, gamma=focal_gamma), binary_reduction),
            "asymmetric": _over_cells(focused, binary_reduction),
            "lovasz_rows": symmetric_lovasz,
            "lovasz_labels": partial(_lovasz_labels, reduction=binary_reduction),
        }
        self._binary = losses[binary]
        self._columns = torch.from_numpy(task.binary_columns)
        self._sides = None if side_weights is None else torch.from_numpy(side_weights)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Losses of the rows, (rows,); with lovasz_labels every row has the loss of the batch."""
        logits = full_precision(logits)
        self._move(logits.device)
        loss = logits.new_zeros(len(logits))
        if self.task.binaries:
            loss = loss + self._weight(BINARY_HEAD) * self._binary_loss(logits, targets)
        for target in self.task.categoricals:
            loss = loss + self._weight(target.name) * self._categorical_loss(target, logits, targets)
        return loss

    def _binary_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        columns = self._columns
        sides = None if self._sides is None else self._sides[columns]
        return self._binary(logits[:, columns], targets[:, columns], sides)

    def _categorical_loss(self, target: Categorical, logits: Tensor, targets: Tensor) -> Tensor:
        block = self.task.slices[target.name]
        weights = None if self._sides is None else self._sides[block, 1]
        return cross_entropy(logits[:, block], targets[:, block], self.label_smoothing, weights)

    def _weight(self, head: str) -> float:
        return self.head_weights.get(head, 1.0)

    def _move(self, device: torch.device) -> None:
        """Follow the logits, once, so that a step waits for no copy."""
        self._columns = self._columns.to(device)
        self._sides = None if self._sides is None else self._sides.to(device)


def _over_cells(loss: Callable[..., Tensor], reduction: Reduction) -> LossFunction:
    """A loss of cells as a loss of rows, over the cells that are present."""

    def of_rows(logits: Tensor, targets: Tensor, sides: Tensor | None) -> Tensor:
        return _reduced(loss(logits, targets, sides=sides), ~targets.isnan(), reduction)

    return of_rows


def _lovasz_labels(logits: Tensor, targets: Tensor, sides: Tensor | None, reduction: Reduction) -> Tensor:
    """Symmetric Lovász hinge of each label over the batch, as the same loss for every row."""
    by_label = None if sides is None else sides[:, None]
    values = symmetric_lovasz(logits.T, targets.T, by_label)
    return _reduced(values, ~targets.isnan().all(dim=0), reduction).expand(len(logits))


def _reduced(values: Tensor, known: Tensor, reduction: Reduction) -> Tensor:
    """Mean or sum of the known values over the last dimension; the others are 0."""
    total = values.sum(dim=-1)
    return total if reduction == "sum" else total / known.sum(dim=-1).clamp(min=1)
