"""Every key of a recipe: its type, unit, default and meaning. Pure data; nothing heavy is imported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

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

LONGEST = 100
"""No n-gram is longer."""


class Settings(BaseModel):
    """A section of the recipe: unknown keys are mistakes, values don't change once read, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= span[0] <= span[1] <= LONGEST:
        raise ValueError(f"must be [low, high] with 1 <= low <= high <= {LONGEST}")
    return span


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


Span = Annotated[tuple[int, int], AfterValidator(_ordered)]
Source = str | list[str] | None


class DataSettings(Settings):
    """Which files, and which of their columns. Paths are relative to where the command runs."""

    train: Source = Field(None, description="labelled file or files, hf:// id, or demo://SHAPE")
    test: Source = Field(None, description="rows to predict at the end of the fit")
    unlabelled: Source = Field(None, description="text without labels, for domain pretraining")
    extra: Source = Field(None, description="labelled rows that are always in training and never scored")
    text: list[str] = Field([], description="text columns; empty: inferred and said aloud")
    id: str | None = Field(None, description="column that names a row; none: the row's number")
    group: str | None = Field(None, description="column of rows that must stay in one fold")
    weight: str | None = Field(None, description="column of how much a row counts in training")
    fold: str | None = Field(None, description="column with given folds")


class SwapSettings(Settings):
    """Fields that trade places and the classes that follow, for pairs."""

    fields: list[tuple[str, str]] = Field(min_length=1, description="pairs of text columns that trade places")
    target: str = Field(description="the categorical whose classes follow")
    classes: dict[str, str] = Field(
        min_length=1, description="class to class, both ways; those left out stay themselves"
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

    binary: list[str] = Field([], description="0/1 columns, one label each")
    label_list: str | None = Field(None, description="a column that lists the labels present; each becomes a binary")
    categorical: dict[str, list[str]] = Field({}, description="column: its classes; empty: learnt from training rows")
    tree: list[str] = Field([], description="categoricals from root to leaf")
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
    reuse: str | None = Field(None, description="a run whose folds are used again, so that scores align")

    @model_validator(mode="after")
    def _within(self) -> FoldSettings:
        if self.only is not None and self.only >= self.count:
            raise ValueError(f"'only' must be below count = {self.count}")
        return self


BOOSTING_KEYS = ("trees", "leaves", "learning_rate")


class LinearSettings(Settings):
    """TF-IDF over words and characters with a linear model or boosted trees."""

    family: Literal["linear"] = Field("linear", description="the only family so far")
    solver: Literal["logistic", "svm", "boosting"] = Field(
        "logistic", description="logistic regression, linear SVM with calibrated scores, or LightGBM"
    )
    tokens: Literal["words", "social"] = Field("words", description="what a word is; social keeps emoji, # and @")
    word_ngrams: Span | None = Field((1, 2), description="[low, high] words; null: none")
    char_ngrams: Span | None = Field((2, 5), description="[low, high] characters within word bounds; null: none")
    min_df: int = Field(2, ge=1, description="drop n-grams in fewer training rows of the fold")
    max_features: int | None = Field(
        None, ge=1, le=2**31 - 1, description="keep the most frequent n-grams of each kind"
    )
    sublinear_tf: bool = Field(True, description="1 + log(count) instead of the count")
    C: float = Field(4.0, gt=0, le=1e6, description="inverse strength of the L2 penalty")
    max_epochs: int = Field(30, ge=1, le=1_000_000, description="passes over the rows at most")
    tolerance: float = Field(1e-2, gt=0, le=1, description="stop when no dual variable moves further than this")
    prune: float = Field(0.01, ge=0, le=1e6, description="drop smaller weights of categoricals with over 128 classes")
    trees: int = Field(200, ge=1, le=100_000, description="boosting: rounds")
    leaves: int = Field(31, ge=2, le=131_072, description="boosting: leaves a tree")
    learning_rate: float = Field(0.1, gt=0, le=10, description="boosting: shrinkage")

    @model_validator(mode="after")
    def _some_features(self) -> LinearSettings:
        if self.word_ngrams is None and self.char_ngrams is None:
            raise ValueError("word_ngrams and char_ngrams can't both be null")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> LinearSettings:
        """A key that the chosen solver doesn't read is a mistake, not a silent no-op."""
        changed = [key for key in self.idle_keys if getattr(self, key) != type(self).model_fields[key].default]
        if changed:
            raise ValueError(f"solver '{self.solver}' doesn't use {', '.join(changed)}")
        return self

    @property
    def idle_keys(self) -> tuple[str, ...]:
        """Keys that the chosen solver doesn't read."""
        return ("C", "max_epochs", "tolerance", "prune") if self.solver == "boosting" else BOOSTING_KEYS


ModelSettings = LinearSettings


class ObjectiveSettings(Settings):
    """What training minimises."""

    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: n_rows / (2 n_rows_of_side)")
    weight_cap: float | None = Field(None, gt=0, le=1e6, description="no class weight above this")


class DecisionSettings(Settings):
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
    model: ModelSettings = LinearSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    decision: DecisionSettings = DecisionSettings()

    @model_validator(mode="after")
    def _labels_have_one_role(self) -> Recipe:
        """A label among the texts leaks, and as an id, group, weight or fold it is nonsense."""
        data, labels = self.data, self.task.named
        single = {"id": data.id, "group": data.group, "weight": data.weight, "fold": data.fold}
        roles = {"text": data.text} | {key: [name] for key, name in single.items() if name is not None}
        shared = [
            f"data.{role} and {labels[name]} both name '{name}'"
            for role, names in roles.items()
            for name in names
            if name in labels
        ]
        if shared:
            raise ValueError(f"{'; '.join(shared)}: a label has no other role; take it out of one of them")
        return self

    @model_validator(mode="after")
    def _swap_exchanges_texts(self) -> Recipe:
        pairs = self.task.swap.fields if self.task.swap else []
        strange = [name for pair in pairs for name in pair if self.data.text and name not in self.data.text]
        if strange:
            raise ValueError(f"task.swap.fields names {strange}, which data.text doesn't; name them in both or neither")
        return self
