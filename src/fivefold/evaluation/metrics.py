"""The metrics by name: what each needs, which way it is better, and which tasks it fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fivefold.evaluation import agreement, probabilities
from fivefold.evaluation.sums import Weighted
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels, Task


@dataclass(frozen=True)
class Metric:
    """One figure of merit.

    Parameters
    ----------
    name
        Its key in `METRICS`.
    prepare
        Labels, decisions and scores to the metric as a function of row weights.
    applies
        Whether the figure means something for a task.
    greater_is_better
        False for losses and errors.
    uses_decisions
        Whether it depends on the decision rule; else it looks at scores alone.
    """

    name: str
    prepare: Callable[[Labels, IntArray, Scores], Weighted]
    applies: Callable[[Task], bool]
    greater_is_better: bool = True
    uses_decisions: bool = True

    def function(self, labels: Labels, decisions: IntArray, scores: Scores) -> float:
        """The figure for these rows.

        Parameters
        ----------
        labels
            Labels of the rows; missing cells count nowhere.
        decisions
            int32 (rows, targets), laid out as `labels.codes`.
        scores
            Scores of the same rows, in the same order.
        """
        return float(self.prepare(labels, decisions, scores)(np.ones((1, len(labels))))[0])


def default_metric(task: Task) -> Metric:
    """The headline of a task unless the recipe names another."""
    if task.binaries:
        return METRICS["mixed_mean" if task.categoricals else "f1_macro"]
    if _has_several_categoricals(task):
        return METRICS["item_accuracy"]
    return METRICS["accuracy" if task.swap is None else "log_loss"]


def applicable(task: Task) -> tuple[Metric, ...]:
    """The metrics that mean something for `task`, in the order of `METRICS`."""
    return tuple(metric for metric in METRICS.values() if metric.applies(task))


def _every(task: Task) -> bool:
    return True


def _has_binaries(task: Task) -> bool:
    return bool(task.binaries)


def _has_several_binaries(task: Task) -> bool:
    return len(task.binaries) > 1


def _is_mixed(task: Task) -> bool:
    return bool(task.binaries and task.categoricals)


def _has_several_categoricals(task: Task) -> bool:
    return len(task.categoricals) > 1


def _has_tree(task: Task) -> bool:
    return task.tree is not None


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mixed_mean", agreement.mixed_mean, _is_mixed),
        Metric("f1_macro", agreement.f1_macro, _every),
        Metric("f1_micro", agreement.f1_micro, _every),
        Metric("f1_samples", agreement.f1_samples, _has_several_binaries),
        Metric("jaccard", agreement.jaccard_samples, _has_several_binaries),
        Metric("item_accuracy", agreement.item_accuracy, _has_several_categoricals),
        Metric("accuracy", agreement.accuracy, _every),
        Metric("hierarchical_f1", agreement.hierarchical_f1, _has_tree),
        Metric("roc_auc", probabilities.roc_auc, _has_binaries, uses_decisions=False),
        Metric("average_precision", probabilities.average_precision, _has_binaries, uses_decisions=False),
        Metric("log_loss", probabilities.log_loss, _every, greater_is_better=False, uses_decisions=False),
        Metric("ece", probabilities.ece, _every, greater_is_better=False, uses_decisions=False),
    )
}
