"""Every key of a recipe: its type, unit, default and meaning. Pure data; nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fivefold.recipe.conflicts import conflicts
from fivefold.recipe.enrichment import EnrichmentSettings
from fivefold.recipe.ensemble import EnsembleSettings, MemberSettings, member_sections, reads
from fivefold.recipe.models import LinearSettings, ModelSettings
from fivefold.recipe.section import Choices, Names, Settings
from fivefold.recipe.training import ObjectiveSettings, PretrainingSettings, TrainingSettings

Metric = Literal[
    "f1_macro",
    "f1_micro",
    "f1_samples",
    "jaccard",
    "accuracy",
    "log_loss",
    "roc_auc",
    "average_precision",
    "ece",
    "item_accuracy",
    "mixed_mean",
    "hierarchical_f1",
]


RESERVED = ("id", "fold")
"""As in `fivefold.task`, which imports numpy; a test keeps them alike."""


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


Source = str | list[str] | None


class DataSettings(Settings):
    """Which files, and which of their columns. Paths are relative to where the command runs."""

    train: Source = Field(None, description="labelled file or files, hf:// id, or demo://SHAPE")
    test: Source = Field(None, description="rows to predict at the end of the fit")
    unlabelled: Source = Field(None, description="text without labels, for domain pretraining")
    extra: Source = Field(
        None, description="labelled rows that are always in training and never scored; less those of train and test"
    )
    exclude: Source = Field(None, description="rows whose texts must not be in training, such as another run's data")
    text: Names = Field([], description="text columns; empty: inferred and said aloud")
    replace: list[tuple[str, str]] = Field(
        [], description="pairs: a regular expression of Python, and what its matches in the texts become"
    )
    id: str | None = Field(None, description="column that names a row; none: the row's number")
    group: str | None = Field(None, description="column of rows that must stay in one fold")
    weight: str | None = Field(None, description="column of how much a row counts in training")
    fold: str | None = Field(None, description="column with given folds")
    extra_fold: str | None = Field(
        None, description="column of data.extra that names the one fold whose model trains on a row; empty: all"
    )

    @field_validator("replace")
    @classmethod
    def _compiled(cls, replace: list[tuple[str, str]]) -> list[tuple[str, str]]:
        for pattern, text in replace:
            try:
                re.sub(pattern, text, "")
            except (re.error, IndexError) as error:
                raise ValueError(f"'{pattern}' to '{text}' is no replacement: {error}") from None
        return replace


class SwapSettings(Settings):
    """Fields that trade places and the classes that follow, for pairs."""

    fields: list[tuple[str, str]] = Field(min_length=1, description="pairs of text columns that trade places")
    target: str = Field(description="the categorical whose classes follow")
    classes: dict[str, str] = Field(
        min_length=1,
        description="class to class, both ways, first that by which the first field wins; those left out stay",
    )
    rules: bool = Field(
        True, description="pairs that are the same, or have an empty side, get the rates of such training rows"
    )

    @field_validator("fields")
    @classmethod
    def _disjoint(cls, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        repeated = _repeated([name for pair in fields for name in pair])
        if repeated:
            raise ValueError(f"a field trades places with one other field, but {repeated} stand here more than once")
        return fields


class TaskSettings(Settings):
    """The targets; all empty: inferred from the training file and said aloud."""

    binary: Names = Field([], description="0/1 columns, one label each")
    label_list: str | None = Field(None, description="a column that lists the labels present; each becomes a binary")
    categorical: dict[str, list[str]] = Field({}, description="column: its classes; empty: learnt from training rows")
    tree: Names = Field([], description="categoricals from root to leaf")
    tree_paths: list[list[str]] = Field([], description="valid paths, a class a level; empty: those of training rows")
    swap: SwapSettings | None = Field(
        None, description="fields that trade places, and the classes that follow; for pairs"
    )

    @property
    def named(self) -> dict[str, str]:
        """Label column to the key that names it."""
        named = dict.fromkeys(self.binary, "task.binary") | dict.fromkeys(self.categorical, "task.categorical")
        return named | ({} if self.label_list is None else {self.label_list: "task.label_list"})

    @model_validator(mode="before")
    @classmethod
    def _names_only(cls, value: object) -> object:
        """`categorical: [a, b]`, or a single name, is short for classes to be learnt."""
        if isinstance(value, dict) and isinstance(value.get("categorical"), str | list):
            names = value["categorical"]
            return {**value, "categorical": {str(name): [] for name in ([names] if isinstance(names, str) else names)}}
        return value

    @model_validator(mode="after")
    def _distinct(self) -> TaskSettings:
        names = [*self.binary, *self.categorical, *([] if self.label_list is None else [self.label_list])]
        if repeated := _repeated(names):
            raise ValueError(
                f"{repeated} named more than once among binary, categorical and label_list; name each once"
            )
        if taken := [name for name in RESERVED if name in {*self.binary, *self.categorical}]:
            raise ValueError(f"a label can't be called {taken}, as Fivefold writes columns of that name; rename it")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> TaskSettings:
        if repeated := _repeated(self.tree):
            raise ValueError(f"tree names {repeated} more than once")
        strange = [name for name in self.tree if name not in self.categorical]
        if strange:
            raise ValueError(f"tree names {strange}, which 'categorical' doesn't")
        if self.tree_paths and any(len(path) != len(self.tree) for path in self.tree_paths):
            raise ValueError("every path of tree_paths must name one class a level of 'tree'")
        if self.swap and self.swap.target not in self.categorical:
            raise ValueError(f"swap.target names '{self.swap.target}', which 'categorical' doesn't")
        return self


class FoldSettings(Settings):
    """How rows are split."""

    count: int = Field(5, ge=2, description="how many folds; each row is held out by one and trains the others")
    method: Literal["auto", "plain", "stratified", "multilabel", "grouped", "stratified_grouped"] = Field(
        "auto", description="what is balanced and kept together; see folds and decisions"
    )
    near_duplicates: float | None = Field(
        None, gt=0, le=1, description="keep texts with at least this Jaccard similarity in one fold"
    )
    only: int | None = Field(None, ge=0, description="hold-out: train without and score only this fold")
    reuse: str | None = Field(
        None, description="a run whose folds are used again, so that scores align, instead of count and method"
    )


class DecisionSettings(Choices):
    """How scores become labels; chosen on out-of-fold scores."""

    metric: Metric | None = Field(None, description="what to optimise and headline; none: the task's own")
    thresholds: Literal["sweep", "grid", "common"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "sweep", description="per label by exact sweep, on the published 101-point grid, one for all, or a number"
    )
    shrinkage: float | None = Field(
        None, ge=0, le=1e9, description="positive rows at which a label's own threshold weighs half; none: the default"
    )
    calibration: Literal["none", "temperature", "isotonic"] = Field(
        "none",
        description="what makes probabilities honest before thresholds: "
        "nothing, a temperature a target, or a monotone curve a logit",
    )
    tree: Literal["consistent", "free"] = Field("consistent", description="consistent: only valid paths")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen thresholds don't read."""
        return {} if self.thresholds in ("sweep", "grid") else {f"thresholds {self.thresholds}": ("shrinkage",)}


class Recipe(Settings):
    """A whole fit: data, task, folds, model, objective, decision."""

    name: str = Field("fivefold", description="title of the report and the model card")
    description: str = Field("", description="anything; kept with the run")
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="seed of folds, solvers, bootstrap and everything else that is drawn"
    )
    data: DataSettings = DataSettings()
    task: TaskSettings = TaskSettings()
    folds: FoldSettings = FoldSettings()
    enrichment: EnrichmentSettings | None = Field(None, description="none: rows are read as they are")
    model: ModelSettings = LinearSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings | None = Field(None, description="none: defaults; linear models have no such section")
    pretraining: PretrainingSettings | None = Field(None, description="none: the backbone is taken as it is")
    ensemble: EnsembleSettings | None = Field(None, description="none: one model")
    decision: DecisionSettings = DecisionSettings()

    @model_validator(mode="before")
    @classmethod
    def _family(cls, value: object) -> object:
        """A section `model` that names no family is a linear one; a network always has a section `training`."""
        if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
            return value
        model = {"family": "linear"} | value["model"]
        trained: dict[str, object] = {} if model["family"] == "linear" or value.get("training") else {"training": {}}
        return {**value, "model": model, **trained}

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if problems := conflicts(self):
            raise ValueError("; ".join(problems))
        return self

    @property
    def unread(self) -> tuple[str, ...]:
        """Sections that every member of the ensemble replaces or doesn't read; none without an ensemble."""
        if self.ensemble is None:
            return ()
        members = list(self.ensemble.members.values())
        own_family = self.model.family
        return tuple(
            section
            for section in MemberSettings.model_fields
            if all(not reads(member, section, own_family) for member in members)
        )

    def member(self, name: str) -> Recipe:
        """The recipe of one member of the ensemble.

        Raises
        ------
        KeyError
            If there is no such member.
        """
        assert self.ensemble is not None
        own = self.ensemble.members[name].model_dump(exclude_unset=True)
        sections = member_sections(self.model_dump(exclude_unset=True), own)
        return Recipe.model_validate(sections | {"name": f"{self.name}: {name}"})
