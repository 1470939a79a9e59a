"""Where scores may be cut into predicted and not, and the best cuts for a metric.

A cut predicts the rows whose probability is above its threshold. Everything a metric needs at
every cut is a cumulative sum over the rows from the most probable down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fivefold.evaluation.sums import Values, divide, f1
from fivefold.scores import Scores
from fivefold.task import MISSING, Labels

ROUNDS = 20
"""Rounds of coordinate ascent at most; the emotions task stops after 3 to 5."""

Chosen: TypeAlias = npt.NDArray[np.int64]
"""One cut a label, (labels,)."""

Count: TypeAlias = Callable[[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]], Values]
"""Counts (true positive, predicted, positive) to a figure, elementwise."""


@dataclass(frozen=True)
class Ranking:
    """Some cells from the most probable down, and the cuts offered.

    Parameters
    ----------
    cells
        Positions of the observed cells, (observed,).
    predicted
        How many of them each cut predicts, (cuts,).
    thresholds
        The probability above which it does, (cuts,).
    """

    cells: npt.NDArray[np.int32]
    predicted: npt.NDArray[np.int32]
    thresholds: Values

    def totals(self, values: npt.NDArray[Any]) -> Values:
        """Sum of `values`, (all cells,), over the cells that each cut predicts, (cuts,)."""
        running = np.cumsum(values[self.cells], dtype=np.float64)
        return np.concatenate([[0.0], running])[self.predicted]


Rank: TypeAlias = Callable[[Values, npt.NDArray[np.bool_]], Ranking]


def exact_cuts(probabilities: Values, observed: npt.NDArray[np.bool_]) -> Ranking:
    """Every way to cut the observed cells, none predicted first; thresholds midway between neighbours.

    Cells of one probability are never parted. `probabilities` and `observed` are (cells,).
    """
    cells, descending = _descending(probabilities, observed)
    last = np.flatnonzero(np.diff(descending, append=-1.0))
    predicted = np.concatenate([[0], last + 1])
    bounds = np.concatenate([[1.0], descending[last], [0.0]])
    upper, lower = bounds[:-1], bounds[1:]
    middle = (upper + lower) / 2
    # Between adjacent floats the middle rounds to one of them, and the upper one must stay predicted.
    return Ranking(cells, predicted.astype(np.int32), np.where(middle < upper, middle, lower))


def grid_cuts(probabilities: Values, observed: npt.NDArray[np.bool_], grid: Values) -> Ranking:
    """The cuts at the thresholds of `grid` only."""
    cells, descending = _descending(probabilities, observed)
    predicted = np.searchsorted(-descending, -grid, side="left")
    return Ranking(cells, predicted.astype(np.int32), grid)


@dataclass(frozen=True)
class Cells:
    """The binaries of some rows, ready to be cut; every array is (rows, labels).

    Parameters
    ----------
    probabilities
        float64 probabilities.
    positive, observed
        Whether the label is 1, or how probably; and whether it is known at all.
    rank
        Gives the cuts offered: all of them, or those of a grid.
    """

    probabilities: Values
    positive: npt.NDArray[Any]
    observed: npt.NDArray[np.bool_]
    rank: Rank

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """The cuts of every label."""
        return tuple(self.rank(p, seen) for p, seen in zip(self.probabilities.T, self.observed.T, strict=True))

    @cached_property
    def hits(self) -> tuple[Values, ...]:
        """True positives at every cut of every label, (cuts,) each."""
        return tuple(r.totals(y) for r, y in zip(self.rankings, self.positive.T, strict=True))

    @cached_property
    def support(self) -> npt.NDArray[Any]:
        """Positives of every label, (labels,)."""
        return np.asarray(self.positive.sum(axis=0))

    def labels(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        """The same rows with some labels only."""
        return Cells(self.probabilities[:, chosen], self.positive[:, chosen], self.observed[:, chosen], self.rank)

    def thresholds(self, chosen: Chosen) -> Values:
        """The thresholds of the cuts, (labels,)."""
        return np.array([r.thresholds[cut] for r, cut in zip(self.rankings, chosen, strict=True)])


def cells(scores: Scores, labels: Labels, rank: Rank) -> Cells:
    """The binaries of `scores` and `labels`, rows in the same order."""
    truth = labels.binary_codes
    return Cells(binary_probabilities(scores), truth == 1, truth != MISSING, rank)


def by_row(problem: Cells) -> Cells:
    """A line a row."""
    return problem


def by_label(problem: Cells) -> Cells:
    """A line a label."""
    return Cells(problem.probabilities.T, problem.positive.T, problem.observed.T, problem.rank)


def pooled(problem: Cells) -> Cells:
    """One line of all cells."""
    line = (1, -1)
    return Cells(
        problem.probabilities.reshape(line),
        problem.positive.reshape(line),
        problem.observed.reshape(line),
        problem.rank,
    )


def binary_probabilities(scores: Scores) -> Values:
    """float64 probabilities of the binaries, (rows, binaries).

    In float64 neighbouring float32 log-odds stay apart up to about 24, so that a threshold found
    here separates the same rows later; none is 0, so that a threshold of 0 predicts every row.
    """
    return np.asarray(expit(np.clip(scores.binary.astype(np.float64), -700, 700)))


def best_label_f1(problem: Cells) -> Chosen:
    """The best F1 of every label on its own; of equal cuts the first offered."""
    figures = zip(problem.hits, problem.rankings, problem.support, strict=True)
    return np.array([np.argmax(f1(hits, r.predicted, support)) for hits, r, support in figures], dtype=np.int64)


def best_label_accuracy(problem: Cells) -> Chosen:
    """The best accuracy of every label on its own."""
    gains = (2 * hits - r.predicted for hits, r in zip(problem.hits, problem.rankings, strict=True))
    return np.array([np.argmax(gain) for gain in gains], dtype=np.int64)


def best_pooled_f1(problem: Cells) -> Chosen:
    """The best micro-averaged F1 over all labels jointly.

    F1 = sum 2 TP / sum (predicted + positive) is a ratio of sums, so for a given ratio r each label
    maximises 2 TP - r predicted on its own, and r grows to the optimum (Dinkelbach 1967, "On
    nonlinear fractional programming").
    """
    total, ratio = problem.support.sum(), 0.0
    while True:
        steps = zip(problem.hits, problem.rankings, strict=True)
        chosen = np.array([np.argmax(2 * hits - ratio * r.predicted) for hits, r in steps], dtype=np.int64)
        hits = sum(h[cut] for h, cut in zip(problem.hits, chosen, strict=True))
        predicted = sum(int(r.predicted[cut]) for r, cut in zip(problem.rankings, chosen, strict=True))
        better = float(divide(2 * hits, predicted + total))
        if better <= ratio:
            return chosen
        ratio = better


def ascend(problem: Cells, value: Count, chosen: Chosen) -> Chosen:
    """Coordinate ascent on the sum over rows of `value`, one label's cut at a time, from `chosen`.

    Each step is exact: given the other labels, predicting a cell changes its row's value by a known
    gain. The end is a local optimum, never worse than the start.
    """
    cuts, chosen = problem.thresholds(chosen), chosen.copy()
    predicted = (problem.probabilities > cuts) & problem.observed
    positive, support = problem.positive, problem.positive.sum(axis=1)
    hits, size = (predicted * positive).sum(axis=1), predicted.sum(axis=1)
    for _ in range(ROUNDS):
        before = chosen.copy()
        for label, ranking in enumerate(problem.rankings):
            hits -= predicted[:, label] * positive[:, label]
            size -= predicted[:, label]
            gain = value(hits + positive[:, label], size + 1, support) - value(hits, size, support)
            totals = ranking.totals(gain)
            best = int(np.argmax(totals))
            if totals[best] > totals[chosen[label]] + 1e-9:
                chosen[label] = best
                above = problem.probabilities[:, label] > ranking.thresholds[best]
                predicted[:, label] = above & problem.observed[:, label]
            hits += predicted[:, label] * positive[:, label]
            size += predicted[:, label]
        if np.array_equal(before, chosen):
            break
    return chosen


def best_common(problem: Cells, value: Count) -> float:
    """The one threshold that maximises the sum of `value` over the lines of the arrays of `problem`.

    Along each line from the most probable cell down, `value` changes by known steps; sorted
    together, their cumulative sum is the metric at every common threshold.
    """
    order = np.argsort(-problem.probabilities, axis=1, kind="stable")
    probabilities = np.take_along_axis(problem.probabilities, order, axis=1)
    positive = np.take_along_axis(problem.positive, order, axis=1)
    observed = np.take_along_axis(problem.observed, order, axis=1)
    support = positive.sum(axis=1, keepdims=True)
    values = value(np.cumsum(positive, axis=1), np.cumsum(observed, axis=1), support)
    nothing = value(np.zeros_like(support), np.zeros_like(support), support)
    ranking = problem.rank(probabilities.ravel(), observed.ravel())
    totals = ranking.totals(np.diff(values, prepend=nothing, axis=1).ravel())
    return float(ranking.thresholds[np.argmax(totals)])


def _descending(probabilities: Values, observed: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], Values]:
    seen = np.flatnonzero(observed).astype(np.int32)
    order = seen[np.argsort(-probabilities[seen], kind="stable")]
    return order, probabilities[order]
