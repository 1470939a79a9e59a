"""Figures of a run on rows with labels, and two runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fivefold.data.labels import read_labels, same_labels
from fivefold.data.layout import normalise
from fivefold.errors import LabelError, RunError
from fivefold.evaluation.intervals import Difference, Predictions, paired_difference
from fivefold.evaluation.metrics import METRICS, applicable
from fivefold.evaluation.summary import Evaluation, evaluate
from fivefold.pipeline.decide import OutOfFold, load_predictions
from fivefold.pipeline.run import Run
from fivefold.task import MISSING


def evaluate_run(folder: str | Path, data: Any = None) -> Evaluation:
    """Figures of the run on a labelled table; without one, its cross-fitted out-of-fold figures.

    Raises
    ------
    LabelError
        If the table has no labels, or labels outside the task.
    """
    if data is None:
        return Run.open(folder).evaluation
    run = Run.load(folder)
    frame = run.read(data)
    labels = read_labels(normalise(frame, run.layout), run.task)
    if (labels.codes == MISSING).all():
        raise LabelError("No label of the table is filled in.", next_step="evaluate on rows with labels")
    scores = run.scores(frame)
    return evaluate(
        labels,
        run.rule.decide_calibrated(scores),
        scores,
        run.evaluation.metric,
        seed=run.recipe.seed,
        groups=run.groups_of(frame),
        thresholds=run.rule.thresholds,
    )


def compare_runs(first: str | Path, second: str | Path, metric: str | None = None) -> Difference:
    """Paired difference of two runs' cross-fitted out-of-fold decisions, on the rows that both scored.

    Raises
    ------
    RunError
        If the runs predict different things, share no rows, know other labels of them, or the metric doesn't apply.
    """
    runs = [Run.open(first), Run.open(second)]
    if runs[0].task.columns != runs[1].task.columns:
        raise RunError("The two runs predict different things.", next_step="compare runs of one task")
    name = metric or runs[0].evaluation.metric
    allowed = [each.name for each in applicable(runs[0].task)]
    if name not in allowed:
        raise RunError(f"The metric '{name}' means nothing for this task.", allowed=", ".join(allowed))
    rows = [run.out_of_fold for run in runs]
    shared = np.isin(rows[0].scores.ids.astype(str), rows[1].scores.ids.astype(str))
    if not shared.any():
        raise RunError("The two runs share no row by id.", next_step="fit both on the same file")
    ids = rows[0].scores.ids[shared]
    labels = rows[0].labels.take(shared)
    if not same_labels(labels, rows[1].labels.take(positions(rows[1].scores.ids, ids))):
        raise RunError(
            "The two runs know other labels of rows with the same ids.",
            got="no column of ids: rows are numbered" if runs[0].recipe.data.id is None else None,
            next_step="fit both on the same file, and name a column of ids in data.id",
        )
    a, b = (align(predictions_of(run, own), ids) for run, own in zip(runs, rows, strict=True))
    groups = None if rows[0].groups is None else rows[0].groups[shared]
    return paired_difference(labels, a, b, METRICS[name], seed=runs[0].recipe.seed, groups=groups)


def predictions_of(run: Run, rows: OutOfFold) -> Predictions:
    """The run's cross-fitted decisions and scores."""
    return load_predictions(run.store, rows, run.recipe.decision, run.recipe.seed)


def align(predictions: Predictions, ids: npt.NDArray[Any]) -> Predictions:
    """The predictions in the order of `ids`."""
    index = positions(predictions.scores.ids, ids)
    return Predictions(predictions.decisions[index], predictions.scores.take(index))


def positions(ids: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each of the `wanted` ids stands, int64 (wanted,)."""
    position = {name: row for row, name in enumerate(ids)}
    return np.array([position[name] for name in wanted], dtype=np.int64)


def render(evaluation: Evaluation) -> str:
    """The figures as lines for a terminal, the headline first."""
    names = sorted(evaluation.estimates, key=lambda name: name != evaluation.metric)
    lines = [f"{evaluation.rows:,} rows; 95 % bootstrap intervals" + tuned_note(evaluation)]
    for name in names:
        estimate = evaluation.estimates[name]
        mark = "→" if name == evaluation.metric else " "
        lines.append(f"{mark} {name:<18} {estimate.value:.4f}  [{estimate.low:.4f}, {estimate.high:.4f}]")
    return "\n".join(lines)


def tuned_note(evaluation: Evaluation) -> str:
    """How much the rule would have flattered itself, where one was tuned."""
    if evaluation.metric not in evaluation.tuned:
        return ""
    return f"; cross-fitted (tuned on the same rows: {evaluation.tuned[evaluation.metric]:.4f})"


def render_difference(difference: Difference) -> str:
    """The comparison as one line."""
    return (
        f"{difference.metric}: A - B = {difference.difference:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}], p = {difference.p_value:.3f}, "
        f"A better in {difference.share_better:.0%} of resamples"
    )
