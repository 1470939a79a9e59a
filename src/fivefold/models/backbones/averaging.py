"""Adapters of several folds as one: by the mean of their factors, exactly, or by the closest of a chosen rank.

An adapter adds s·B·A to a weight. The mean of the factors, (ΣA/K, ΣB/K), was published and is not the mean of what they
add: ΣB/K · ΣA/K also has the products of different folds, which mean nothing. Stacked factors, [A₁; …; A_K] and
[B₁ … B_K]/K, add exactly ΣBA/K at K times the rank. The closest of a lower rank is its truncated singular value
decomposition (Eckart & Young 1936), here of the small matrix between the orthonormal parts of both factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fivefold.errors import RunError
from fivefold.models.backbones.adapters import Adapter

Tensors = Mapping[str, Tensor]
Factors = tuple[Tensor, Tensor]
"""A (rank, inputs) and B (outputs, rank)."""

PAIRS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}
"""How the names of two factors of one module end."""

PATTERNS = ("rank_pattern", "alpha_pattern")


@dataclass(frozen=True)
class Average:
    """One adapter in the place of several.

    Parameters
    ----------
    adapter
        Its settings; rank and alpha follow from how it was made.
    tensors
        Its weights and the head's, by the names in an adapter's file.
    error
        Frobenius norm of the difference to the exact mean of what the adapters add, over all modules, as a share of
        that mean's.
    """

    adapter: Adapter
    tensors: dict[str, Tensor]
    error: float


def average_factors(adapter: Adapter, folds: Sequence[Tensors]) -> Average:
    """The mean of A, of B and of the head, each by itself, as published; DoRA's magnitudes too."""
    mean = {name: torch.stack([fold[name].float() for fold in folds]).mean(dim=0) for name in folds[0]}
    error = math.nan if adapter.dora else _error([mean], folds)
    return Average(adapter, mean, error)


def average_exactly(adapter: Adapter, folds: Sequence[Tensors]) -> Average:
    """The mean of what the adapters add, by stacked factors of K times the rank; the head's mean.

    Raises
    ------
    RunError
        If they are DoRA's, which add no product of factors.
    """
    return _of_products(adapter, folds, len(folds) * adapter.rank, lambda factors: factors)


def average_at_rank(adapter: Adapter, folds: Sequence[Tensors], rank: int) -> Average:
    """The closest to `average_exactly` that has this rank.

    Raises
    ------
    RunError
        If they are DoRA's, or the rank is higher than that of the exact mean.
    """
    most = len(folds) * adapter.rank
    if not 1 <= rank <= most:
        raise RunError("The averaged adapter can't have this rank.", allowed=f"1 to {most}", got=str(rank))
    return _of_products(adapter, folds, rank, lambda factors: truncated(*factors, rank))


def truncated(a: Tensor, b: Tensor, rank: int) -> Factors:
    """Factors of the matrix of this rank that is closest to b @ a; (R, n), (m, R) -> (rank, n), (m, rank).

    What a matrix smaller than the rank doesn't need of them is zero.
    """
    left, inner_left = torch.linalg.qr(b)
    right, inner_right = torch.linalg.qr(a.T)
    u, sizes, v = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    roots = sizes[:rank].sqrt()
    missing = rank - len(roots)
    first, second = (roots[:, None] * v[:rank]) @ right.T, left @ (u[:, :rank] * roots)
    return functional.pad(first, (0, 0, 0, missing)), functional.pad(second, (0, missing))


def product_norm(a: Tensor, b: Tensor) -> float:
    """Frobenius norm of b @ a, (R, n), (m, R), without making it: ‖ba‖² = tr((bᵀb)(aaᵀ))."""
    a, b = a.double(), b.double()
    return math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))


def _of_products(
    adapter: Adapter, folds: Sequence[Tensors], rank: int, shaped: Callable[[Factors], Factors]
) -> Average:
    if adapter.dora:
        raise RunError(
            "What DoRA's adapters add can't be averaged exactly: it is no product of factors.",
            next_step="take the mean of the factors, or the ensemble of the folds",
        )
    if any(key in adapter.options for key in PATTERNS):
        raise RunError("Adapters of several ranks can't be averaged exactly.", got="model.adapter.options")
    pairs = list(_pairs(folds[0]))
    paired = {name for pair in pairs for name in pair}
    tensors = {
        name: torch.stack([fold[name].float() for fold in folds]).mean(dim=0) for name in folds[0] if name not in paired
    }
    for first, second in pairs:
        stacked = _stacked([(fold[first], fold[second]) for fold in folds])
        tensors[first], tensors[second] = shaped(stacked)
    # Only factors were stacked or shortened: what scales their product has to stay.
    share = rank / adapter.rank
    settings = replace(adapter, rank=rank, alpha=adapter.alpha * (math.sqrt(share) if adapter.rslora else share))
    return Average(settings, tensors, _error([tensors], folds))


def _pairs(tensors: Tensors) -> list[tuple[str, str]]:
    return [
        (name, name.removesuffix(first) + second)
        for first, second in PAIRS.items()
        for name in tensors
        if name.endswith(first)
    ]


def _stacked(factors: Sequence[Factors]) -> Factors:
    """Factors whose product is the mean of the products of these."""
    first = torch.cat([a.float() for a, _ in factors])
    second = torch.cat([b.float() for _, b in factors], dim=1) / len(factors)
    return first, second


def _error(found: Sequence[Tensors], folds: Sequence[Tensors]) -> float:
    """How far the mean product of `found` is from that of `folds`, as a share of the latter's size."""
    apart, size = 0.0, 0.0
    for first, second in _pairs(folds[0]):
        a, b = _stacked([(each[first], each[second]) for each in found])
        exact_a, exact_b = _stacked([(each[first], each[second]) for each in folds])
        apart += product_norm(torch.cat([a, exact_a]), torch.cat([b, -exact_b], dim=1)) ** 2
        size += product_norm(exact_a, exact_b) ** 2
    return math.sqrt(apart / size) if size else 0.0
