"""Losses as plain functions of logits and targets.

Targets are probabilities, float (…, labels), NaN where missing; a missing cell adds nothing to a loss or its gradient.
A soft target counts as present with its probability and as absent with the rest. `sides`, float (…, labels, 2) or
anything that broadcasts to it, are the weights of absence and of presence; None weighs them alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, relu, softplus


def bce(logits: Tensor, targets: Tensor, sides: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each cell.

    Shape
    -----
    logits, targets: (…, labels); returned alike.
    """
    return _expected(softplus(logits), softplus(-logits), targets, sides)


def focal(logits: Tensor, targets: Tensor, gamma: float, sides: Tensor | None = None) -> Tensor:
    """Cross-entropy of each cell times (1 - probability of the truth) ** gamma: easy cells count less.

    Lin et al. 2017, arXiv 1708.02002, equation 4. `gamma` 0 is binary cross-entropy.

    Shape
    -----
    logits, targets: (…, labels); returned alike.
    """
    # Powers are taken of log-probabilities: p ** gamma has no finite gradient where p rounds to 0 and gamma < 1.
    absent = softplus(logits) * torch.exp(gamma * logsigmoid(logits))
    present = softplus(-logits) * torch.exp(gamma * logsigmoid(-logits))
    return _expected(absent, present, targets, sides)


def asymmetric(
    logits: Tensor, targets: Tensor, positive: float, negative: float, margin: float, sides: Tensor | None = None
) -> Tensor:
    """Focal loss with a gamma a side, under which absence costs nothing up to a probability of `margin`.

    Ridnik, Ben-Baruch et al. 2021, arXiv 2009.14119, section 2. Binary cross-entropy where all three are 0.
    With a margin absence costs at most -log(margin): very confident presence is taken for a wrong label.

    Parameters
    ----------
    positive, negative
        Gamma of the labels that are present, and of those that are absent.

    Shape
    -----
    logits, targets: (…, labels); returned alike.
    """
    # log of 1 - shifted probability = min(1, 1 - p + margin); the sum in logs stays exact for large logits.
    log_margin = logits.new_full((), margin).log()
    log_absent = torch.logaddexp(logsigmoid(-logits), log_margin).clamp(max=0)
    # Below the smallest number the power's gradient is infinite for gamma < 1, and there the loss is 0 anyway.
    shifted = (-torch.expm1(log_absent)).clamp(min=torch.finfo(logits.dtype).tiny)
    absent = -log_absent * shifted**negative
    present = softplus(-logits) * torch.exp(positive * logsigmoid(-logits))
    return _expected(absent, present, targets, sides)


def lovasz_hinge(logits: Tensor, targets: Tensor, sides: Tensor | None = None) -> Tensor:
    """Lovász extension of the Jaccard loss of the labels that are present, on hinge errors.

    Berman et al. 2018, arXiv 1705.08790, definition 2: errors in falling order, each times what it adds to the
    Jaccard loss. With `sides` cells count by their weights in intersection and union.

    Shape
    -----
    logits, targets: (…, cells); returned (…,).
    """
    errors, absent, present = _hinge_errors(logits, targets, sides)
    return (relu(errors) * _jaccard_steps(absent, present)).sum(dim=-1)


def symmetric_lovasz(logits: Tensor, targets: Tensor, sides: Tensor | None = None) -> Tensor:
    """Mean of the Lovász hinge for the labels that are present and for those that are absent.

    ½ [L(z, y) + L(-z, 1 - y)]; both have the same errors, so one sort serves them.

    Shape
    -----
    logits, targets: (…, cells); returned (…,).
    """
    errors, absent, present = _hinge_errors(logits, targets, sides)
    steps = _jaccard_steps(absent, present) + _jaccard_steps(present, absent)
    return (relu(errors) * steps).sum(dim=-1) / 2


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of each row's classes, of which `smoothing` is spread evenly (Szegedy et al. 2016, section 7).

    Shape
    -----
    logits, targets: (…, classes); weights of the true class: (classes,); returned (…,), 0 where the row is missing.
    """
    truth = torch.where(targets.isnan(), 0, targets)
    truth = truth if weights is None else truth * weights
    # Spread after weighting, so that a rare class's weight doesn't draw the smoothing to that class.
    spread = truth.mean(dim=-1, keepdim=True)
    return -((truth + smoothing * (spread - truth)) * log_softmax(logits, dim=-1)).sum(dim=-1)


def _masses(targets: Tensor, sides: Tensor | None) -> tuple[Tensor, Tensor]:
    """How much each cell counts as absent and as present; 0 where missing."""
    absent, present = torch.where(targets.isnan(), 0, 1 - targets), torch.where(targets.isnan(), 0, targets)
    return (absent, present) if sides is None else (absent * sides[..., 0], present * sides[..., 1])


def _expected(absent: Tensor, present: Tensor, targets: Tensor, sides: Tensor | None) -> Tensor:
    """Loss of each cell from what absence and presence would cost."""
    without, having = _masses(targets, sides)
    return without * absent + having * present


def _hinge_errors(logits: Tensor, targets: Tensor, sides: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Hinge errors in falling order and the masses of absence and presence in the same order."""
    absent, present = _masses(targets, sides)
    signs = torch.where(targets.isnan(), 0, 2 * targets - 1)
    errors, order = (1 - logits * signs).sort(dim=-1, descending=True)
    return errors, absent.gather(-1, order), present.gather(-1, order)


def _jaccard_steps(absent: Tensor, present: Tensor) -> Tensor:
    """How much each further cell, if wrong, adds to the Jaccard loss of what is present."""
    total = present.sum(dim=-1, keepdim=True)
    union = total + absent.cumsum(dim=-1)
    jaccard = 1 - (total - present.cumsum(dim=-1)) / union
    # No union yet: only missing cells so far, which lose nothing.
    jaccard = torch.where(union > 0, jaccard, 0)
    return jaccard.diff(dim=-1, prepend=torch.zeros_like(total))
