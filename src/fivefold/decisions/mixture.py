"""Several models' probabilities as one: weights a model, fitted on out-of-fold scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from fivefold.decisions.rule import halves
from fivefold.scores import CHUNK, EDGE, Scores, empty, to_logits
from fivefold.task import Binary, FloatArray, Labels, Target

Weights = npt.NDArray[np.float64]

MOST_ROWS = 400_000
MOST_CELLS = 10_000_000
"""Rows, and cells of labels, that weights are fitted on; of more, evenly spread rows are taken."""

NEGLIGIBLE = 1e-3
"""A smaller weight is 0: the model behind it needn't be run."""


@dataclass(frozen=True)
class Evidence:
    """What each model gave to what was true.

    Parameters
    ----------
    given
        float32 (models, cells): the probability of a side or class that was true.
    share
        (cells,): how true it was; 1 for a hard label.
    target
        (cells,): the position of its target in the task.
    row
        (cells,): the row it belongs to.
    """

    given: FloatArray
    share: Weights
    target: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]

    def counts(self, chosen: npt.NDArray[np.bool_]) -> Weights:
        """How much each chosen cell counts: cells of a target alike, targets alike; sums to 1."""
        share, target = self.share[chosen], self.target[chosen]
        totals = np.bincount(target, weights=share)
        return np.asarray(share / totals[target] / np.count_nonzero(totals))


@dataclass(frozen=True)
class Mixture:
    """How several models are mixed.

    Parameters
    ----------
    weights
        For new rows, fitted on all rows; (models,).
    cross_fitted
        Part of the rows (see `parts`) to weights that were fitted on the rows of the others, (models,) each.
    """

    weights: Weights
    cross_fitted: Mapping[int, Weights]


def fit_mixture(models: Sequence[Scores], labels: Labels, folds: npt.NDArray[np.integer], seed: int) -> Mixture:
    """Weights, non-negative and of sum 1, whose mixture has the least log loss, averaged over the targets.

    Parameters
    ----------
    models
        Each model's out-of-fold scores of the same rows.
    labels, folds
        Labels of these rows, and the fold of each.
    seed
        See `parts`.
    """
    evidence, own = gather_evidence(models, labels), parts(folds, seed)
    return Mixture(
        _minimise(evidence, np.ones(len(evidence.row), dtype=bool)),
        {int(part): _minimise(evidence, own[evidence.row] != part) for part in np.unique(own)},
    )


def parts(folds: npt.NDArray[np.integer], seed: int) -> npt.NDArray[np.integer]:
    """The part of each row, mixed by what the others chose: its fold, or one of two random halves of a hold-out."""
    return folds if len(np.unique(folds)) > 1 else halves(len(folds), seed)


def mix(models: Sequence[Scores], weights: Weights) -> Scores:
    """The weighted mean of the models' probabilities for the same rows, as logits.

    Raises
    ------
    ValueError
        If the models scored different rows.
    """
    if any(not np.array_equal(model.ids, models[0].ids) for model in models[1:]):
        raise ValueError("models must have scored the same rows in the same order")
    shares = zip(models, weights.astype(np.float32), strict=True)
    total: FloatArray = sum(
        (model.probabilities() * weight for model, weight in shares),
        np.zeros(models[0].logits.shape, dtype=np.float32),
    )
    return Scores(models[0].task, models[0].ids, to_logits(models[0].task, total))


def mix_parts(
    models: Sequence[Scores], own: npt.NDArray[np.integer], weights: Mapping[int, Weights], path: Path
) -> Scores:
    """The mixture of all rows, each by the weights of its part; memory-mapped at `path` where wide.

    Parameters
    ----------
    own
        Part of each row, a key of `weights`; (rows,).
    """
    mixed = empty(models[0].task, models[0].ids, path)
    for part, weight in weights.items():
        rows = np.flatnonzero(own == part)
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            mixed.logits[some] = mix([model.take(some) for model in models], weight).logits
    return mixed


def gather_evidence(models: Sequence[Scores], labels: Labels) -> Evidence:
    """What each model gave to what was true, chunk by chunk."""
    rows = _sample(labels)
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    found = [part for chunk in chunks for part in _of_rows(models, labels, chunk)]
    return Evidence(
        np.concatenate([each.given for each in found], axis=1),
        np.concatenate([each.share for each in found]),
        np.concatenate([each.target for each in found]),
        np.concatenate([each.row for each in found]),
    )


def _sample(labels: Labels) -> npt.NDArray[np.int64]:
    most = min(MOST_ROWS, MOST_CELLS // len(labels.task.targets), len(labels))
    return np.linspace(0, len(labels) - 1, max(most, 1)).astype(np.int64)


def _of_rows(models: Sequence[Scores], labels: Labels, rows: npt.NDArray[np.int64]) -> Iterator[Evidence]:
    """The evidence of some rows, target by target."""
    said = [model.take(rows).probabilities() for model in models]
    known = labels.take(rows)
    for position, target in enumerate(labels.task.targets):
        truth, columns = _sides(target, known.probabilities(target.name)), labels.task.slices[target.name]
        row, side = np.nonzero(truth > 0)
        given = np.stack([_sides(target, probabilities[:, columns])[row, side] for probabilities in said])
        share, place = truth[row, side].astype(np.float64), np.full(len(row), position, dtype=np.int32)
        yield Evidence(given.clip(EDGE, 1), share, place, rows[row])


def _sides(target: Target, probabilities: FloatArray) -> FloatArray:
    """A column an outcome: absent and present for a binary, the classes of a categorical."""
    return np.hstack([1 - probabilities, probabilities]) if isinstance(target, Binary) else probabilities


def _minimise(evidence: Evidence, chosen: npt.NDArray[np.bool_]) -> Weights:
    """The mixture is linear in the weights, so that its log loss is convex and has one minimum."""
    models = len(evidence.given)
    equal = np.full(models, 1 / models)
    if not chosen.any():
        return equal
    given, counts = evidence.given[:, chosen].astype(np.float64), evidence.counts(chosen)

    def loss(weights: Weights) -> tuple[float, Weights]:
        mixed = np.maximum(weights @ given, EDGE)
        return -float(counts @ np.log(mixed)), -(given @ (counts / mixed))

    found = minimize(
        loss,
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * models,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 200},
    )
    kept = np.where(found.x < NEGLIGIBLE, 0, found.x)
    return np.asarray(kept / kept.sum())
