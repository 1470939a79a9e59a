"""How much two passes over the same rows disagree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from fivefold.task import Task


def rdrop(task: Task, first: Tensor, second: Tensor, categorical: float) -> Tensor:
    """Disagreement of two passes with different dropout (R-Drop; Liang et al. 2021, arXiv 2106.14448).

    Mean squared difference of the binaries' logits, plus `categorical` times the symmetric Kullback-Leibler
    divergence ½ [KL(p‖q) + KL(q‖p)] of each categorical, summed. Labels aren't looked at, so none is missing.

    Shape
    -----
    first, second: raw logits (rows, task.width); returned (rows,).
    """
    first, second = full_precision(first), full_precision(second)
    loss = first.new_zeros(len(first))
    if task.binaries:
        columns = torch.from_numpy(task.binary_columns).to(first.device)
        loss = loss + (first[:, columns] - second[:, columns]).square().mean(dim=-1)
    for target in task.categoricals:
        block = task.slices[target.name]
        loss = loss + categorical * symmetric_kl(first[:, block], second[:, block])
    return loss


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """½ [KL(p‖q) + KL(q‖p)] = ½ Σ (p - q)(log p - log q) of two softmaxes.

    Shape
    -----
    first, second: logits (…, classes); returned (…,).
    """
    log_p, log_q = log_softmax(first, dim=-1), log_softmax(second, dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1) / 2


def full_precision(logits: Tensor) -> Tensor:
    """Logits in at least float32: squares, exponentials and sums of 16-bit numbers lose what a loss measures."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
