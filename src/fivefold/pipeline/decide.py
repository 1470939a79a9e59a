"""Out-of-fold scores to the decision rule and honest figures: the stage "decision"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.labels import labels_frame, read_labels
from fivefold.decisions.rule import DecisionRule, cross_fitted, fit_rule
from fivefold.errors import RecipeError
from fivefold.evaluation.intervals import Predictions
from fivefold.evaluation.metrics import METRICS, applicable, default_metric
from fivefold.evaluation.summary import Evaluation, evaluate
from fivefold.pipeline.folds import write_json
from fivefold.pipeline.store import Store, read_json, reading
from fivefold.recipe.settings import DecisionSettings
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels, Task


@dataclass(frozen=True)
class OutOfFold:
    """What a run says of its own rows, none of which trained the model or chose the rule that speaks.

    Parameters
    ----------
    labels, scores
        Labels and raw scores of the evaluated rows.
    folds
        Fold of each row, (rows,).
    groups
        Group of each row for the bootstrap, (rows,), or None.
    """

    labels: Labels
    scores: Scores
    folds: IntArray
    groups: npt.NDArray[Any] | None


def headline_metric(settings: DecisionSettings, task: Task) -> str:
    """The metric that the rule maximises and the run headlines.

    Raises
    ------
    RecipeError
        If it doesn't apply to the task.
    """
    if settings.metric is None:
        return default_metric(task).name
    names = [metric.name for metric in applicable(task)]
    if settings.metric not in names:
        raise RecipeError(
            f"decision.metric: '{settings.metric}' means nothing for this task.", allowed=", ".join(names)
        )
    return settings.metric


def rule_fitter(settings: DecisionSettings, task: Task) -> Callable[[Scores, Labels], DecisionRule]:
    """The function that fits the recipe's rule on scores and labels."""
    chosen: dict[str, Any] = {} if settings.shrinkage is None else {"shrinkage": settings.shrinkage}
    return partial(
        fit_rule,
        metric=headline_metric(settings, task),
        thresholds=settings.thresholds,
        calibration=settings.calibration,
        tree=settings.tree,
        **chosen,
    )


def decide(store: Store, rows: OutOfFold, settings: DecisionSettings, seed: int) -> None:
    """Fit the rule, cross-fit its figures, and write both."""
    fit = rule_fitter(settings, rows.scores.task)
    rule = fit(rows.scores, rows.labels)
    honest = cross_fitted(rows.scores, rows.labels, rows.folds, fit, seed=seed)
    evaluation = evaluate(
        rows.labels,
        honest.decisions,
        honest.scores,
        headline_metric(settings, rows.scores.task),
        seed=seed,
        groups=rows.groups,
        thresholds=rule.thresholds,
        tuned=tuned_figures(rule, rows) if is_tuned(settings, rows.labels.task) else {},
    )
    with store.stage("decision") as folder:
        write_json(folder / "rule.json", rule.to_json())
        write_json(folder / "metrics.json", evaluation.to_json())
        ids = pl.DataFrame({"id": honest.scores.ids.tolist()}, schema={"id": pl.String})
        decisions = labels_frame(rows.scores.task, honest.decisions)
        pl.concat([ids, decisions], how="horizontal").write_parquet(folder / "decisions.parquet")


def is_tuned(settings: DecisionSettings, task: Task) -> bool:
    """Whether the rows choose anything of the rule."""
    return settings.calibration != "none" or (bool(task.binaries) and isinstance(settings.thresholds, str))


def tuned_figures(rule: DecisionRule, rows: OutOfFold) -> dict[str, float]:
    """Every metric with the rule that these very rows chose: the optimistic figures."""
    calibrated = rule.calibrate(rows.scores)
    decisions = rule.decide_calibrated(calibrated)
    once = np.ones((1, len(rows.labels)))
    figures = {
        metric.name: float(metric.prepare(rows.labels, decisions, calibrated)(once)[0])
        for metric in applicable(rows.labels.task)
    }
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def load_rule(store: Store) -> DecisionRule:
    """The run's decision rule."""
    path = store.path("decision") / "rule.json"
    with reading(path):
        return DecisionRule.from_json(read_json(path))


def load_evaluation(store: Store) -> Evaluation:
    """The run's cross-fitted figures."""
    path = store.path("decision") / "metrics.json"
    with reading(path):
        return Evaluation.from_json(read_json(path))


def load_predictions(store: Store, rows: OutOfFold, settings: DecisionSettings, seed: int) -> Predictions:
    """The cross-fitted decisions, and the calibrated scores they were made from."""
    honest = cross_fitted(rows.scores, rows.labels, rows.folds, rule_fitter(settings, rows.scores.task), seed=seed)
    path = store.path("decision") / "decisions.parquet"
    with reading(path):
        return Predictions(read_labels(pl.read_parquet(path), rows.scores.task).codes, honest.scores)


def figure(name: str, rows: OutOfFold, predictions: Predictions, index: npt.NDArray[Any]) -> float:
    """One metric on some of the rows."""
    labels, scores = rows.labels.take(index), predictions.scores.take(index)
    prepared = METRICS[name].prepare(labels, predictions.decisions[index], scores)
    return float(prepared(np.ones((1, len(labels))))[0])
