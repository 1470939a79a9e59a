"""A run on disk, opened: what it learnt, what it says of its own rows, and of new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.compose import Rows
from fivefold.data.corpus import build_corpus
from fivefold.data.folds import Folds, load_folds
from fivefold.data.groups import number_groups
from fivefold.data.labels import labels_frame, read_labels
from fivefold.data.layout import Layout
from fivefold.decisions.mixture import mix
from fivefold.decisions.rule import DecisionRule
from fivefold.errors import DataError, RunError
from fivefold.evaluation.summary import Evaluation
from fivefold.models.base import Classifier
from fivefold.models.families import maker, scores_of
from fivefold.models.rules import ruled
from fivefold.pipeline.decide import OutOfFold, headline_metric, load_evaluation, load_rule
from fivefold.pipeline.enrichment import ENRICHMENT, Retriever, load_retriever
from fivefold.pipeline.nearest import Nearest, load_nearest, settings_of
from fivefold.pipeline.prepare import read_source
from fivefold.pipeline.store import Store, read_json, reading
from fivefold.recipe import Recipe, load_recipe
from fivefold.recipe.training import LINEAR_KEYS
from fivefold.scores import Scores, mean
from fivefold.task import IntArray, Task

GROUP = "group of rows"
"""Column of data/rows.parquet that holds the groups, if there are any."""

BACKBONE, MODEL = "backbone", "model"
"""The stage of a pretrained backbone, and the folder of a model in a stage."""

AVERAGE = "average"
"""The stage of a run whose one model is the average of another run's folds."""

MEMBERS = "members"
"""Folder of the runs of an ensemble's members, by name."""

WEIGHTS = "weights.json"
"""File of the stage "ensemble" that holds the members' weights."""

BATCH = 4096
"""Rows scored at once."""


class Run:
    """A run folder. `load` a finished one to predict: the mean of the probabilities of every fold's model.

    The run of an ensemble has `members`, each a run of its own, and mixes what they say by their `weights`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @staticmethod
    def open(folder: str | Path) -> Run:
        """The run at `folder`, finished or not.

        Raises
        ------
        RunError
            If it is no run, or a newer version's.
        """
        store = Store(Path(folder))
        _ = store.description
        return Run(store)

    @staticmethod
    def load(folder: str | Path) -> Run:
        """The finished run at `folder`, its models read and checked.

        Raises
        ------
        RunError
            If it is no run, isn't finished, or was changed.
        """
        run = Run.open(folder)
        _ = run.rule, run.models, [each.retriever for each in (run, *run.members.values())]
        return run

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.store.folder

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with everything written out."""
        return load_recipe(self.store.recipe_path)

    @cached_property
    def task(self) -> Task:
        """What is predicted."""
        path = self.store.path("data") / "task.json"
        with reading(path):
            return Task.from_json(read_json(path))

    @cached_property
    def layout(self) -> Layout:
        """How the training file spelt its labels."""
        path = self.store.path("data") / "layout.json"
        with reading(path):
            return Layout.from_json(read_json(path))

    @cached_property
    def rule(self) -> DecisionRule:
        """The decision rule."""
        return load_rule(self.store)

    @property
    def evaluation(self) -> Evaluation:
        """The run's cross-fitted out-of-fold figures."""
        return load_evaluation(self.store)

    @cached_property
    def models(self) -> tuple[Classifier, ...]:
        """One model a fold, or their average; of an ensemble, those of every member that has a weight."""
        if self.members:
            return tuple(model for name in self.heard for model in self.members[name].models)
        make = classifier_maker(self.recipe, self.task, self.backbone)
        stages = [AVERAGE] if self.averaged else [f"folds/{fold}" for fold in self.folds.evaluated]
        return tuple(self._model(make(), stage) for stage in stages)

    @property
    def averaged(self) -> bool:
        """Whether it has one model, the average of another run's folds, whose rows it knows and didn't score."""
        return self.store.has(AVERAGE)

    @cached_property
    def backbone(self) -> Path | None:
        """The backbone that was pretrained within this run, on which adapters stand; None where there is none."""
        return None if self.recipe.pretraining is None else self.store.path(BACKBONE) / MODEL

    @cached_property
    def retriever(self) -> Retriever | Nearest | None:
        """What finds the neighbours of new rows, as text or as examples; None where models read neither."""
        settings = self.recipe.enrichment
        shown = settings_of(self.recipe)
        if self.members or settings is shown is None:
            return None
        labels = read_labels(self.rows, self.task)
        if shown is not None:
            return load_nearest(self.store, shown, self.rows["id"].to_list(), labels, self.folds)
        assert settings is not None
        return load_retriever(self.store.path(ENRICHMENT), settings, labels, self.folds)

    def _model(self, model: Classifier, stage: str) -> Classifier:
        folder = self.store.path(stage) / MODEL
        with reading(folder):
            model.load(folder)
        return model

    @cached_property
    def members(self) -> Mapping[str, Run]:
        """The run of each member of an ensemble; none for a single model."""
        ensemble = self.recipe.ensemble
        return {name: Run.open(self.folder / MEMBERS / name) for name in (ensemble.members if ensemble else ())}

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """How much each member of an ensemble counts, of sum 1; none for a single model."""
        if not self.members:
            return {}
        path = self.store.path("ensemble") / WEIGHTS
        with reading(path):
            found = read_json(path)["weights"]
            return {name: float(found[name]) for name in self.members}

    @property
    def heard(self) -> Mapping[str, float]:
        """The members that have a weight; the others needn't be run."""
        return {name: weight for name, weight in self.weights.items() if weight > 0}

    @cached_property
    def rows(self) -> pl.DataFrame:
        """Id, labels and group of every row that was trained on."""
        path = self.store.path("data") / "rows.parquet"
        with reading(path):
            return pl.read_parquet(path)

    @cached_property
    def folds(self) -> Folds:
        """The fold that held each row out."""
        path = self.store.path("data") / "folds.parquet"
        with reading(path):
            return load_folds(path, self.rows["id"].to_list())

    @cached_property
    def out_of_fold(self) -> OutOfFold:
        """Labels and raw scores of the rows that were held out.

        Raises
        ------
        RunError
            If it is an average, which held none out.
        """
        if self.averaged:
            raise RunError(
                f"{self.folder} is an average of folds, and held no rows out.",
                next_step="name the run that it was made of",
            )
        scored = np.isin(self.folds.fold, self.folds.evaluated)
        path = self.store.path("scores") / "oof.parquet"
        with reading(path):
            scores = Scores.load(path, self.task)
        groups = self.rows[GROUP].to_numpy()[scored] if GROUP in self.rows.columns else None
        return OutOfFold(read_labels(self.rows, self.task).take(scored), scores, self.folds.fold[scored], groups)

    def read(self, data: Any) -> pl.DataFrame:
        """A table of new rows: a path, a table, or texts where the run reads one text field."""
        if isinstance(data, list | tuple) and all(isinstance(text, str) for text in data):
            if len(self.recipe.data.text) > 1:
                raise DataError(
                    "Plain texts can't be told apart.",
                    allowed=f"a table with the columns {', '.join(self.recipe.data.text)}",
                    next_step="pass a table or a list of one",
                )
            return pl.DataFrame({self.recipe.data.text[0]: pl.Series(list(data), dtype=pl.String)})
        return read_source(data)

    def groups_of(self, frame: pl.DataFrame) -> IntArray | None:
        """Number of the group of each of a table's rows, or None if it has no such column."""
        group = self.recipe.data.group
        return number_groups(frame[group]) if group in frame.columns else None

    def batches(self, frame: pl.DataFrame) -> Iterator[Scores]:
        """Calibrated scores of the table's rows, some at a time."""
        id_column = self.recipe.data.id
        named = id_column if id_column in frame.columns else None
        corpus = build_corpus(frame, text=self.recipe.data.text, id=named, replace=self.recipe.data.replace)
        for start in range(0, len(corpus), BATCH):
            rows = corpus.rows(np.arange(start, min(start + BATCH, len(corpus))))
            yield self.rule.calibrate(self.raw(rows))

    def raw(self, rows: Rows) -> Scores:
        """Scores before calibration: the mean of the folds' probabilities, or the members' mixture of such means."""
        if not self.members:
            return mean(self._said_of(rows))
        return self._mixture([self.members[name].raw(rows) for name in self.heard])

    def by_fold(self, rows: Rows) -> list[Scores]:
        """Scores before calibration of each fold's model, or mixture of models, which never saw the fold's rows."""
        if not self.members:
            return self._said_of(rows)
        said = [self.members[name].by_fold(rows) for name in self.heard]
        return [self._mixture(fold) for fold in zip(*said, strict=True)]

    def _mixture(self, said: Sequence[Scores]) -> Scores:
        return mix(said, np.array(list(self.heard.values())))

    def _said_of(self, rows: Rows) -> list[Scores]:
        """What each fold's model says, of rows with neighbours that this model may see."""
        if self.retriever is None:
            return scores_of(self.models, rows)
        read = self.retriever.readings(rows, self.folds.evaluated)
        if len(read) == 1:
            return scores_of(self.models, read[0])
        return [model.score(each) for model, each in zip(self.models, read, strict=True)]

    def scores(self, data: Any) -> Scores:
        """Calibrated scores of new rows."""
        parts = list(self.batches(self.read(data)))
        ids: npt.NDArray[Any] = np.concatenate([part.ids for part in parts]) if parts else np.zeros(0, dtype=object)
        logits = [np.zeros((0, self.task.width), dtype=np.float32), *(part.logits for part in parts)]
        return Scores(self.task, ids, np.concatenate(logits))

    def predict(self, data: Any) -> pl.DataFrame:
        """Decided labels of new rows: id and a column a target."""
        return with_ids(scores := self.scores(data), labels_frame(self.task, self.rule.decide_calibrated(scores)))

    def predict_proba(self, data: Any) -> pl.DataFrame:
        """Calibrated probabilities of new rows: id and a column a binary or class."""
        scores = self.scores(data)
        probabilities = scores.probabilities()
        columns = [pl.Series(name, probabilities[:, i]) for i, name in enumerate(self.task.columns)]
        return with_ids(scores, pl.DataFrame(columns))


def classifier_maker(recipe: Recipe, task: Task, backbone: Path | None = None) -> Callable[[], Classifier]:
    """Makes the recipe's classifier, unfitted; a pretrained `backbone` with its tokenizer stands for the recipe's."""
    settings = recipe.model.model_dump(exclude={"family"})
    if backbone is not None:
        settings |= {"backbone": str(backbone), "architecture": None, "tokenizer": None}
    if recipe.training is None:
        settings |= recipe.objective.model_dump(include=set(LINEAR_KEYS))
    else:
        settings["metric"] = headline_metric(recipe.decision, task)
        settings["objective"] = recipe.objective.model_dump()
        settings["training"] = recipe.training.model_dump()
    make = maker(task, recipe.model.family, recipe.seed, settings)
    swap = recipe.task.swap
    return make if swap is None or not swap.rules else partial(ruled, make, task)


def load(folder: str | Path) -> Run:
    """The finished run at `folder`; see `Run.load`."""
    return Run.load(folder)


def with_ids(scores: Scores, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with the rows' ids as its first column."""
    return frame.insert_column(0, pl.Series("id", scores.ids.tolist(), dtype=pl.String))
