"""The probability above which each binary label is predicted, fitted on out-of-fold scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from fivefold.decisions.curves import expected
from fivefold.decisions.cuts import (
    Cells,
    Chosen,
    Count,
    ascend,
    best_common,
    best_label_accuracy,
    best_label_f1,
    best_pooled_f1,
    by_label,
    by_row,
    cells,
    exact_cuts,
    grid_cuts,
    pooled,
)
from fivefold.evaluation.sums import Values, divide, exact_match, f1, jaccard
from fivefold.scores import EDGE, Scores
from fivefold.task import Labels

DEFAULT = 0.5

GRID = np.linspace(0, 1, 101)
"""The published grid of the narratives systems."""

SHRINKAGE = 1000.0
"""Positives at which a label's own best cut and its curve's weigh the same.

Chosen on the out-of-fold scores of eight runs (five networks, three linear models, 11 to 34 labels) cut at random
into rows that choose and rows that judge. Against cuts pulled to the best common one, macro-F1 is .003 to .025 higher
where 100 to 400 rows choose; where more do, up to .016 higher and once .003 lower. Strengths from 300 to 3,000
do about as well.
"""

LABEL_CUTS: Mapping[str, Callable[[Cells], Chosen]] = {
    "f1_macro": best_label_f1,
    "mixed_mean": best_label_f1,
    "f1_micro": best_pooled_f1,
    "f1_samples": lambda problem: ascend(problem, f1, best_label_f1(problem)),
    "jaccard": lambda problem: ascend(problem, jaccard, best_label_f1(problem)),
    "accuracy": lambda problem: ascend(problem, exact_match, best_label_accuracy(problem)),
}
"""How every label gets its own cut, by metric. F1 macro and micro are exact; those that couple the
labels of a row (samples F1, Jaccard, subset accuracy) end in a local optimum of coordinate ascent."""

COMMON_CUTS: Mapping[str, tuple[Callable[[Cells], Cells], Count]] = {
    "f1_macro": (by_label, f1),
    "mixed_mean": (by_label, f1),
    "f1_micro": (pooled, f1),
    "f1_samples": (by_row, f1),
    "jaccard": (by_row, jaccard),
    "accuracy": (by_row, exact_match),
}
"""What each metric sums a figure over, and the figure; so the best common threshold is exact."""


def sweep(scores: Scores, labels: Labels, metric: str, shrinkage: float = SHRINKAGE) -> Values:
    """A threshold a label from all possible ones, (binaries,); see `label_thresholds`."""
    return label_thresholds(cells(scores, labels, exact_cuts), metric, shrinkage)


def grid(scores: Scores, labels: Labels, metric: str, shrinkage: float = SHRINKAGE) -> Values:
    """A threshold a label from the 101 points of the published grid, (binaries,); of equals the lowest."""
    return label_thresholds(cells(scores, labels, partial(grid_cuts, grid=GRID)), metric, shrinkage)


def common(scores: Scores, labels: Labels, metric: str) -> Values:
    """The one best threshold for all labels, (binaries,)."""
    if not tunable(labels, metric):
        return fixed(labels, DEFAULT)
    return fixed(labels, common_threshold(cells(scores, labels, exact_cuts), metric))


def fixed(labels: Labels, threshold: float) -> Values:
    """The same given threshold for every label, (binaries,)."""
    return np.full(len(labels.task.binaries), threshold)


def tunable(labels: Labels, metric: str) -> bool:
    """Whether the metric depends on the thresholds: .5 serves all others."""
    return metric in LABEL_CUTS and bool(labels.task.binaries)


def label_thresholds(problem: Cells, metric: str, shrinkage: float) -> Values:
    """The best threshold of every label for `metric`, shrunk towards the one its curve calls best.

    Parameters
    ----------
    problem
        The binaries' probabilities and labels, out of fold.
    metric
        A key of `LABEL_CUTS`; any other metric gives .5.
    shrinkage
        Strength of `shrink`; 0 keeps the label's own optimum.
    """
    if metric not in LABEL_CUTS or not problem.positive.shape[1]:
        return np.full(problem.positive.shape[1], DEFAULT)
    best = LABEL_CUTS[metric]
    own = problem.thresholds(best(problem))
    if shrinkage == 0:
        return own
    seen = problem.support > 0
    smooth = np.full(len(own), common_threshold(problem, metric))
    if seen.any():
        known = problem.labels(seen)
        smooth[seen] = known.thresholds(best(expected(known)))
    return shrink(own, smooth, problem.support, shrinkage)


def common_threshold(problem: Cells, metric: str) -> float:
    """The best common threshold for `metric`, exactly."""
    arrange, value = COMMON_CUTS[metric]
    return best_common(arrange(problem), value)


def shrink(own: Values, smooth: Values, positives: npt.NDArray[Any], strength: float) -> Values:
    """Pull each label's threshold, (labels,), towards a smoother one, in log-odds, the more the rarer the label.

    Its own keeps the weight n / (n + strength) for n positives, as in empirical-Bayes shrinkage of a
    mean with prior sample size `strength`.
    """
    weight = divide(positives, positives + strength)
    own, smooth = (logit(np.clip(t, EDGE, 1 - EDGE)) for t in (own, smooth))
    return np.asarray(expit(weight * own + (1 - weight) * smooth))
