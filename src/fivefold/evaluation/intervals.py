"""How sure a figure is: percentile bootstrap intervals and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.errors import DataError
from fivefold.evaluation.metrics import Metric
from fivefold.evaluation.sums import Values, Weighted
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels

RESAMPLES = 1000

CONFIDENCE = 0.95

CELLS = 2**19
"""Weights held at once; at 4 MiB they stay near the processor's cache."""


@dataclass(frozen=True)
class Predictions:
    """What one system says of some rows: its scores and the decisions, (rows, targets), made from them."""

    decisions: IntArray
    scores: Scores


@dataclass(frozen=True)
class Difference:
    """Two systems compared on the same rows.

    Parameters
    ----------
    metric
        Name of the metric.
    difference
        Its value for the first minus that for the second.
    low, high
        95 % percentile interval of the difference.
    share_better
        Share of resamples in which the first is better, ties counted half.
    p_value
        Two-sided: twice the smaller share of resamples on either side of no difference,
        (1 + count) / (1 + resamples) (Davison and Hinkley 1997, section 4.2).
    """

    metric: str
    difference: float
    low: float
    high: float
    share_better: float
    p_value: float


def resample(
    rows: int, *, seed: int, groups: npt.NDArray[Any] | None = None, resamples: int = RESAMPLES
) -> Iterator[Values]:
    """How often each resample draws each row, some resamples at a time, (some, rows).

    With `groups`, (rows,), whole groups are drawn, so that rows of a group move together
    and a resample may hold somewhat fewer or more rows.
    """
    generator = np.random.default_rng(seed)
    unit = None if groups is None else np.unique(groups, return_inverse=True)[1]
    units = rows if unit is None else int(unit.max()) + 1
    step = max(1, CELLS // rows)
    for start in range(0, resamples, step):
        weights = np.empty((min(step, resamples - start), rows))
        for line in weights:
            drawn = np.bincount(generator.integers(units, size=units), minlength=units)
            line[:] = drawn if unit is None else drawn[unit]
        yield weights


def bootstrap(
    figures: Mapping[str, Weighted],
    rows: int,
    *,
    seed: int,
    groups: npt.NDArray[Any] | None = None,
    resamples: int = RESAMPLES,
) -> Mapping[str, Values]:
    """Every figure under the same resamples, (resamples,) each."""
    parts = [
        {name: figure(weights) for name, figure in figures.items()}
        for weights in resample(rows, seed=seed, groups=groups, resamples=resamples)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in figures}


def interval(replicates: Values) -> tuple[float, float]:
    """Percentile interval of 95 % (Efron and Tibshirani 1993, chapter 13); NaN resamples are left out."""
    tail = 100 * (1 - CONFIDENCE) / 2
    known = replicates[~np.isnan(replicates)]
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def paired_difference(
    labels: Labels,
    a: Predictions,
    b: Predictions,
    metric: Metric,
    *,
    seed: int,
    groups: npt.NDArray[Any] | None = None,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two systems under the same resamples of the same rows.

    Raises
    ------
    DataError
        If the two don't speak of the same rows in the same order.
    """
    if not np.array_equal(a.scores.ids, b.scores.ids):
        raise DataError(
            "The two systems scored different rows, so they can't be compared pair by pair.",
            got=f"{len(a.scores)} and {len(b.scores)} rows",
            next_step="align the scores by id first: scores.align(ids)",
        )
    figures = {name: metric.prepare(labels, p.decisions, p.scores) for name, p in (("a", a), ("b", b))}
    whole = np.ones((1, len(labels)))
    replicates = bootstrap(figures, len(labels), seed=seed, groups=groups, resamples=resamples)
    gaps = replicates["a"] - replicates["b"]
    gaps = gaps[~np.isnan(gaps)]
    above = gaps > 0 if metric.greater_is_better else gaps < 0
    return Difference(
        metric.name,
        float((figures["a"](whole) - figures["b"](whole))[0]),
        *interval(gaps),
        share_better=float((above + 0.5 * (gaps == 0)).mean()) if len(gaps) else float("nan"),
        p_value=_p_value(gaps),
    )


def _p_value(gaps: Values) -> float:
    side = min((gaps <= 0).sum(), (gaps >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(gaps))))
