"""The rows that averages are judged on, and the judge: each average beside the ensemble of the folds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fivefold.data.compose import Rows
from fivefold.data.corpus import build_corpus
from fivefold.data.labels import read_labels
from fivefold.data.layout import normalise
from fivefold.errors import FivefoldError, LabelError, RunError
from fivefold.evaluation.intervals import Difference, Predictions, paired_difference
from fivefold.evaluation.metrics import METRICS
from fivefold.evaluation.summary import Estimate, Evaluation, evaluate
from fivefold.models.base import Classifier
from fivefold.pipeline.candidates import Candidate
from fivefold.pipeline.continuation import trained_on
from fivefold.pipeline.overlap import overlap
from fivefold.pipeline.run import Run
from fivefold.pipeline.trained import trained_rows
from fivefold.scores import Scores
from fivefold.task import MISSING, Labels

log = logging.getLogger("fivefold")

SAMPLE = 1000
"""Training rows on which the ways are compared where no others are given."""


@dataclass(frozen=True)
class Way:
    """One average, judged.

    Parameters
    ----------
    name, rank
        Which one, and the rank of its adapter.
    error
        Distance to the exact mean of what the folds' adapters add, as a share of that mean's size.
    megabytes
        Of its adapter and head.
    estimate
        The run's metric on the judging rows.
    difference
        To the ensemble of the folds on the same rows.
    """

    name: str
    rank: int
    error: float
    megabytes: float
    estimate: Estimate
    difference: Difference


@dataclass(frozen=True)
class JudgingRows:
    """A labelled table, what to say of it, and whether no fold saw it."""

    frame: pl.DataFrame
    labels: Labels
    told: str
    fresh: bool


def judging_rows(run: Run, data: Any) -> JudgingRows:
    """The table to judge on: `data`, or a sample of the training rows where it is None.

    Raises
    ------
    LabelError
        If it has no labels.
    RunError
        If folds were trained on some of the rows that were given.
    """
    if data is None:
        frame = trained_rows(run)
        if frame.height > SAMPLE:
            frame = frame[np.sort(np.random.default_rng(run.recipe.seed).choice(frame.height, SAMPLE, replace=False))]
        told = f"{frame.height:,} training rows, which nearly all folds saw: differences count, levels are too good"
    else:
        frame = run.read(data)
        told = f"{frame.height:,} rows {unseen(run, frame)}"
    labels = read_labels(normalise(frame, run.layout), run.task)
    if (labels.codes == MISSING).all():
        raise LabelError("No label of the table is filled in.", next_step="judge on rows with labels")
    return JudgingRows(frame, labels, told, fresh=data is not None)


def unseen(run: Run, frame: pl.DataFrame) -> str:
    """What to say of rows that the folds weren't trained on.

    Raises
    ------
    RunError
        If they were.
    """
    try:
        known = trained_on(run)
    except FivefoldError:
        return "that nobody compared with the training rows, whose file can't be read again"
    seen = np.any([overlap(frame, each, run.recipe, "the training data", recipe) for recipe, each in known], axis=0)
    if seen.any():
        raise RunError(
            "The folds were trained on some of the rows to judge on.",
            got=f"{int(seen.sum()):,} of {len(seen):,} rows have the texts of a training row",
            next_step="take them out, or name no file: then a sample of the training rows is taken, and said",
        )
    return "that no fold saw"


def rows_of(run: Run, frame: pl.DataFrame) -> Rows:
    """The table as models read it."""
    data = run.recipe.data
    named = data.id if data.id in frame.columns else None
    return build_corpus(frame, text=data.text, id=named, replace=data.replace).rows()


class Judge:
    """Scores averages on rows, beside the ensemble of the folds."""

    def __init__(self, run: Run, judging: JudgingRows) -> None:
        self.run, self.rows = run, rows_of(run, judging.frame)
        self.labels, self.fresh = judging.labels, judging.fresh
        self.groups = run.groups_of(judging.frame)
        self.metric = run.evaluation.metric
        self.ensemble = self.predictions(run.raw(self.rows))
        self.ensemble_estimate = self.estimate(self.ensemble)

    def predictions(self, raw: Scores) -> Predictions:
        """Decisions by the run's own rule."""
        scores = self.run.rule.calibrate(raw)
        return Predictions(self.run.rule.decide_calibrated(scores), scores)

    def evaluation(self, predictions: Predictions) -> Evaluation:
        """Every metric with its interval."""
        rule, seed = self.run.rule, self.run.recipe.seed
        decided = predictions.decisions, predictions.scores
        return evaluate(self.labels, *decided, self.metric, seed=seed, groups=self.groups, thresholds=rule.thresholds)

    def estimate(self, predictions: Predictions) -> Estimate:
        """The run's metric with its interval."""
        return self.evaluation(predictions).headline

    def way(self, candidate: Candidate) -> Way:
        """A candidate with its figures."""
        log.info("Scoring the average by '%s'", candidate.name)
        predictions = self.predictions(candidate.load(self.run).score(self.rows))
        metric, seed = METRICS[self.metric], self.run.recipe.seed
        gap = paired_difference(self.labels, predictions, self.ensemble, metric, seed=seed, groups=self.groups)
        size = sum(path.stat().st_size for path in candidate.folder.iterdir()) / 1e6
        return Way(candidate.name, candidate.rank, candidate.error, size, self.estimate(predictions), gap)

    def figures(self, model: Classifier) -> Evaluation:
        """Every metric of the model that is kept; those of the folds' run where these rows say nothing of levels."""
        return self.evaluation(self.predictions(model.score(self.rows))) if self.fresh else self.run.evaluation

    def loss(self, way: Way) -> float:
        """What is smaller the better the average is."""
        return -way.estimate.value if METRICS[self.metric].greater_is_better else way.estimate.value

    def is_worse(self, way: Way) -> bool:
        """Whether the interval of the difference to the ensemble lies on its wrong side."""
        gap = way.difference
        return gap.high < 0 if METRICS[self.metric].greater_is_better else gap.low > 0
