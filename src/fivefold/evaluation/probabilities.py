"""Metrics of scores against labels: log loss, calibration error, ROC AUC, average precision.

Each function gives the metric as a function of row weights, as in `agreement`. Categoricals are
worked on in row chunks, so that wide scores may stay on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from fivefold.evaluation.rank_kernels import areas, average_precisions
from fivefold.evaluation.sums import Average, Sums, Values, Weighted, column_means, divide
from fivefold.scores import Scores, log_softmax
from fivefold.task import MISSING, Binary, IntArray, Labels

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017."""


def log_loss(labels: Labels, decisions: IntArray | None, scores: Scores) -> Weighted:
    """Mean over targets of the mean cross-entropy over the target's observed rows; soft labels count as such."""
    losses = row_losses(labels, scores)
    return column_means(np.nan_to_num(losses), ~np.isnan(losses))


def row_losses(labels: Labels, scores: Scores) -> Values:
    """Cross-entropy of every cell, (rows, targets); NaN where the label is missing."""
    parts = [
        np.stack([_cell_losses(part, chunk, name) for name in labels.task.names], axis=1)
        for part, chunk in in_chunks(labels, scores)
    ]
    return np.concatenate(parts)


def ece(labels: Labels, decisions: IntArray | None, scores: Scores) -> Weighted:
    """Expected calibration error over 15 equal-width bins of probability.

    One figure pools the cells of all binaries (probability against outcome), one stands for each
    categorical (probability of the top class against its being right); the metric is their mean.
    ECE = sum over bins of |sum of (probability - outcome)| / cells: Guo et al. 2017,
    arXiv 1706.04599, equation 5.
    """
    parts = []
    if labels.task.binaries:
        targets = np.hstack([labels.probabilities(target.name) for target in labels.task.binaries])
        parts.append(_binned(expit(scores.binary.astype(np.float64)), targets))
    parts += [_binned(*_top_class(labels, scores, target.name)) for target in labels.task.categoricals]
    return Average(parts, [1.0] * len(parts))


def roc_auc(labels: Labels, decisions: IntArray | None, scores: Scores) -> Weighted:
    """Mean area under the ROC curve over the binaries that have both outcomes; NaN if none has."""
    return Ranks(_descents(labels, scores), areas)


def average_precision(labels: Labels, decisions: IntArray | None, scores: Scores) -> Weighted:
    """Mean over the binaries that have both outcomes of sum (R_n - R_{n-1}) P_n; NaN if none has."""
    return Ranks(_descents(labels, scores), average_precisions)


def in_chunks(labels: Labels, scores: Scores) -> Iterator[tuple[Labels, Scores]]:
    """Labels and scores of the same rows, some thousands at a time."""
    start = 0
    for chunk in scores.chunks():
        yield labels.take(np.arange(start, start + len(chunk))), chunk
        start += len(chunk)


@dataclass(frozen=True)
class Descent:
    """One label's observed rows from the highest score down.

    Parameters
    ----------
    rows
        Row positions, (observed,).
    positive
        Whether each is positive, (observed,).
    closes
        Whether the next has a lower score, (observed,).
    """

    rows: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    closes: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ranks:
    """A metric of each label's ranking (see `rank_kernels`), averaged over the labels that have both outcomes."""

    descents: tuple[Descent, ...]
    kernel: Callable[[Values, npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]], Values]

    def __call__(self, weights: Values) -> Values:
        """The metric under each line of weights, (resamples,)."""
        values = np.stack([self.kernel(weights, d.rows, d.positive, d.closes) for d in self.descents])
        return divide(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0), otherwise=np.nan)


def _cell_losses(labels: Labels, scores: Scores, name: str) -> Values:
    block = scores.block(name)
    if isinstance(labels.task.target(name), Binary):
        logits, truth = block[:, 0].astype(np.float64), labels.probabilities(name)[:, 0]
        return np.asarray(np.logaddexp(0, logits) - truth * logits)
    logs = log_softmax(block)
    if name in labels.soft:
        return np.asarray(-(labels.soft[name] * logs).sum(axis=1, dtype=np.float64))
    codes = labels.column(name)
    return np.where(codes == MISSING, np.nan, -logs[np.arange(len(codes)), codes])


def _top_class(labels: Labels, scores: Scores, name: str) -> tuple[Values, Values]:
    """Probability of the most probable class, and of its being right (NaN if missing), each (rows, 1)."""
    confidence, right = [], []
    for part, chunk in in_chunks(labels, scores):
        logs, rows, codes = log_softmax(chunk.block(name)), np.arange(len(chunk)), part.column(name)
        top = logs.argmax(axis=1)
        confidence.append(np.exp(logs[rows, top], dtype=np.float64))
        hard = np.where(codes == MISSING, np.nan, codes == top)
        right.append(part.soft[name][rows, top] if name in part.soft else hard)
    return np.concatenate(confidence)[:, None], np.concatenate(right)[:, None].astype(np.float64)


def _binned(confidence: Values, outcomes: npt.NDArray[np.floating]) -> Sums:
    observed = ~np.isnan(outcomes)
    rows = len(confidence)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(rows)[:, None]
    gaps = np.bincount(place[observed], (confidence - outcomes)[observed], rows * BINS)
    cells = np.bincount(place[observed], minlength=rows * BINS)
    return Sums(np.hstack([gaps.reshape(rows, BINS), cells.reshape(rows, BINS)]), _gap)


def _gap(totals: Values) -> Values:
    gaps, cells = np.split(totals, 2, axis=1)
    return divide(np.abs(gaps).sum(axis=1), cells.sum(axis=1), otherwise=np.nan)


def _descents(labels: Labels, scores: Scores) -> tuple[Descent, ...]:
    return tuple(_descent(labels.column(t.name), scores.block(t.name)[:, 0]) for t in labels.task.binaries)


def _descent(codes: IntArray, logits: npt.NDArray[np.float32]) -> Descent:
    observed = np.flatnonzero(codes != MISSING)
    rows = observed[np.argsort(-logits[observed], kind="stable")]
    return Descent(rows, codes[rows] == 1, np.diff(logits[rows], append=-np.inf) < 0)
