"""What an evaluation found: every metric with its interval, and a line a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.evaluation.agreement import binary_counts, class_counts
from fivefold.evaluation.intervals import RESAMPLES, bootstrap, interval
from fivefold.evaluation.metrics import METRICS, applicable
from fivefold.evaluation.sums import Values, divide, f1
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels

CLASSES = 200
"""Classes of one categorical that get a line of their own, the most frequent ones."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelReport:
    """One label of a binary, or one class of a categorical."""

    target: str
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    threshold: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Figures of one set of decisions against labels.

    Parameters
    ----------
    metric
        Name of the headline figure, a key of `estimates`.
    rows
        How many rows were evaluated.
    estimates
        Every metric that applies to the task and is known on these rows (ROC AUC needs both outcomes).
    labels
        A line a label or class; the 200 most frequent classes of each categorical.
    tuned
        Metric name to its value when the same rows chose the decision rule: the optimistic figure
        that the cross-fitted `estimates` replace. Empty where nothing was tuned.
    """

    metric: str
    rows: int
    estimates: Mapping[str, Estimate]
    labels: tuple[LabelReport, ...]
    tuned: Mapping[str, float]

    @property
    def headline(self) -> Estimate:
        """The estimate of the headline metric."""
        return self.estimates[self.metric]

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_json` described."""
        return Evaluation(
            plain["metric"],
            plain["rows"],
            {name: Estimate(**estimate) for name, estimate in plain["estimates"].items()},
            tuple(LabelReport(**line) for line in plain["labels"]),
            plain["tuned"],
        )


def evaluate(
    labels: Labels,
    decisions: IntArray,
    scores: Scores,
    metric: str,
    *,
    seed: int,
    groups: npt.NDArray[Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    tuned: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Every metric that applies to the task, each with its bootstrap interval, and a line a label.

    Parameters
    ----------
    labels, decisions, scores
        Labels, decisions (rows, targets) and scores of the same rows in the same order.
    metric
        The headline, a key of `METRICS`.
    seed, groups, resamples
        Of the bootstrap: see `intervals.resample`.
    thresholds
        Binary name to its threshold, shown in the label's line.
    tuned
        Kept as given: see `Evaluation`.

    Raises
    ------
    ValueError
        If the metric doesn't apply to the task, or there are no rows.
    """
    names = [each.name for each in applicable(labels.task)]
    if metric not in names or not len(labels):
        raise ValueError(f"metric must be one of {names}, on at least one row. Got {metric}, {len(labels)} rows.")
    figures = {name: METRICS[name].prepare(labels, decisions, scores) for name in names}
    replicates = bootstrap(figures, len(labels), seed=seed, groups=groups, resamples=resamples)
    values = {name: float(figure(np.ones((1, len(labels))))[0]) for name, figure in figures.items()}
    known = (name for name, value in values.items() if name == metric or not np.isnan(value))
    estimates = {name: _estimate(values[name], replicates[name]) for name in known}
    return Evaluation(metric, len(labels), estimates, label_reports(labels, decisions, thresholds or {}), tuned or {})


def label_reports(labels: Labels, decisions: IntArray, thresholds: Mapping[str, float]) -> tuple[LabelReport, ...]:
    """A line a binary, then a line for each of the 200 most frequent classes of each categorical."""
    task = labels.task
    counts = binary_counts(labels, decisions).sum(axis=0).reshape(3, -1)
    lines = [
        _report(target.name, "1", counts[:, column], thresholds.get(target.name))
        for column, target in enumerate(task.binaries)
    ]
    for target in task.categoricals:
        counts = class_counts(labels, decisions, target.name).sum(axis=0).reshape(3, -1)
        frequent = np.argsort(-counts[2], kind="stable")[:CLASSES]
        lines += [_report(target.name, target.classes[code], counts[:, code], None) for code in frequent]
    return tuple(lines)


def _estimate(value: float, replicates: Values) -> Estimate:
    low, high = interval(replicates)
    # Calibration error grows under resampling, so its percentiles may all lie above the figure itself.
    return Estimate(value, min(low, value), max(high, value))


def _report(target: str, label: str, counts: npt.NDArray[Any], threshold: float | None) -> LabelReport:
    hits, predicted, positive = counts
    return LabelReport(
        target,
        label,
        precision=float(divide(hits, predicted)),
        recall=float(divide(hits, positive)),
        f1=float(f1(hits, predicted, positive)),
        support=int(positive),
        predicted=int(predicted),
        threshold=threshold,
    )
