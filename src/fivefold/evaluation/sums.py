"""Figures that follow from sums over rows, so that a resample of the rows costs one product.

A metric is prepared once for its rows, as a function of row weights: ones give its value, the
counts of a bootstrap resample give a replicate. scikit-learn's metrics are the reference in the
tests; they take neither missing cells nor many weightings at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]

Weighted: TypeAlias = Callable[[Values], Values]
"""Row weights (resamples, rows) to the metric under each, (resamples,)."""


@dataclass(frozen=True)
class Sums:
    """A metric computed from weighted column sums.

    Parameters
    ----------
    statistics
        (rows, statistics), a dense array or a sparse one of scipy.
    finish
        Column sums (resamples, statistics) to the metric, (resamples,).
    """

    statistics: Any
    finish: Callable[[Values], Values]

    def __call__(self, weights: Values) -> Values:
        """The metric under each line of weights, (resamples,)."""
        return self.finish(np.asarray(weights @ self.statistics))


@dataclass(frozen=True)
class Average:
    """A weighted average of several metrics of the same rows; `shares` need not sum to one."""

    parts: Sequence[Weighted]
    shares: Sequence[float]

    def __call__(self, weights: Values) -> Values:
        """The average under each line of weights, (resamples,)."""
        values = np.stack([part(weights) for part in self.parts])
        return np.asarray(np.average(values, axis=0, weights=self.shares))


def column_means(values: npt.NDArray[Any], observed: npt.NDArray[np.bool_]) -> Sums:
    """Mean over columns of each column's mean over its observed rows.

    `values` and `observed` are (rows, columns). Columns without an observed row are left out;
    where none is left the figure is NaN.
    """
    statistics = np.hstack([np.where(observed, values, 0), observed]).astype(np.float64)
    return Sums(statistics, _mean_ratio)


def divide(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any], otherwise: float = 0.0) -> Values:
    """`numerator / denominator`, and `otherwise` where the denominator is zero."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    ratio = np.full(shape, otherwise)
    np.divide(numerator, denominator, out=ratio, where=np.asarray(denominator) != 0)
    return ratio


def f1(hits: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]) -> Values:
    """F1 = 2 TP / (predicted + positive) from counts of any shape; 0 where both are 0."""
    return divide(2.0 * hits, predicted + positive)


def jaccard(hits: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]) -> Values:
    """Jaccard index = TP / (predicted + positive - TP) from counts of any shape; 0 where both are 0."""
    return divide(1.0 * hits, predicted + positive - hits)


def exact_match(hits: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]) -> Values:
    """1 where everything positive and nothing else is predicted, else 0; from counts of any shape."""
    return np.asarray((hits == predicted) & (hits == positive), dtype=np.float64)


def _mean_ratio(totals: Values) -> Values:
    sums, counts = np.split(totals, 2, axis=1)
    return divide(divide(sums, counts).sum(axis=1), (counts > 0).sum(axis=1), otherwise=np.nan)
