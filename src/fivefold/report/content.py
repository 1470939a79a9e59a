"""Everything a report needs, gathered by its caller: the report itself fits and scores nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fivefold.evaluation.summary import Estimate, Evaluation
from fivefold.evaluation.sums import Values
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels, Task


@dataclass(frozen=True)
class Member:
    """A model of an ensemble: what it is, how much it counts, and its own cross-fitted headline figure."""

    name: str
    model: str
    weight: float
    headline: Estimate


@dataclass(frozen=True)
class LearningCurve:
    """How one fold learnt.

    Parameters
    ----------
    epochs, losses
        Training points: epoch and loss, (points,).
    checked, values
        Evaluations: epoch and the headline metric on the validation rows, (evaluations,).
    """

    epochs: Values
    losses: Values
    checked: Values
    values: Values

    @staticmethod
    def from_lines(lines: Iterable[Mapping[str, Any]], metric: str) -> LearningCurve:
        """The curve that the lines of a learning.jsonl describe; `metric` is drawn, or else what was steered by."""
        known = list(lines)
        training = [(line["epoch"], line["loss"]) for line in known if "score" not in line and "loss" in line]
        checks = [(line["epoch"], line.get(metric, line["score"])) for line in known if "score" in line]
        return LearningCurve(*_columns(training), *_columns(checks))


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Values, Values]:
    """Two columns, without the pairs whose figure is no finite number."""
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]


@dataclass(frozen=True)
class ReportContent:
    """What the report page, its pictures and the model card say.

    Parameters
    ----------
    title
        What the classifier is called.
    labels
        Labels of the evaluated rows.
    scores
        Calibrated out-of-fold scores of the same rows; may be memory-mapped.
    decisions
        Cross-fitted decisions, int32 (rows, targets), in the layout of `Labels.codes`.
    evaluation
        The figures of `decisions` against `labels`.
    thresholds
        Name of a binary to the probability from which on it is predicted.
    folds
        Value of the headline metric on each fold.
    texts
        Text of each row, of which the page quotes the worst errors; empty to quote none.
    learnt
        What was learnt from what, as ordered facts: data files, rows, model, seed, versions, time.
    warnings
        Sentences a reader must see before trusting the figures.
    explanations
        Label to its strongest n-grams and their weights, where the model can tell.
    members
        The models of an ensemble; empty for a single model.
    learning
        Member to the learning curves of its folds, "" for a single model; empty where nothing learns by steps.
    dataset, run, language, license, tags
        What the model card says of the data's name, the run's folder, the texts' language code,
        the licence and further tags of the model.

    Raises
    ------
    ValueError
        If labels, scores, decisions and texts don't have the same rows.
    """

    title: str
    labels: Labels
    scores: Scores
    decisions: IntArray
    evaluation: Evaluation
    thresholds: Mapping[str, float] = field(default_factory=dict)
    folds: tuple[float, ...] = ()
    texts: Sequence[str] = ()
    learnt: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    explanations: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    learning: Mapping[str, Sequence[LearningCurve]] = field(default_factory=dict)
    dataset: str = "unnamed data"
    run: str = "RUN"
    language: str | None = None
    license: str = "unknown"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = self.labels.codes.shape
        if self.decisions.shape != expected:
            raise ValueError(f"decisions must have shape {expected}. Got {self.decisions.shape} instead.")
        if len(self.scores) != len(self.labels):
            raise ValueError(f"scores must have {len(self.labels)} rows. Got {len(self.scores)} instead.")
        if len(self.texts) not in (0, len(self.labels)):
            raise ValueError(f"texts must have {len(self.labels)} rows or none. Got {len(self.texts)} instead.")

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.labels.task
