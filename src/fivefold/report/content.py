"""Everything a report needs, gathered by its caller: the report itself fits and scores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fivefold.evaluation.summary import Evaluation
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels, Task


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
