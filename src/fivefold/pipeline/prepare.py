"""From a recipe to rows: read, infer what the recipe leaves out, label and split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.columns import require_columns
from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus, field_texts, row_ids
from fivefold.data.demo import demo
from fivefold.data.duplicates import folded
from fivefold.data.groups import number_groups
from fivefold.data.infer import Inferred, infer
from fivefold.data.labels import learn_task
from fivefold.data.layout import Layout, learn_layout, normalise
from fivefold.data.load import read_table
from fivefold.errors import LabelError, RecipeError
from fivefold.models.pairs import outcomes_of
from fivefold.objectives.weights import check_heads
from fivefold.pipeline.decide import headline_metric
from fivefold.pipeline.origins import fingerprint, single_recipes
from fivefold.pipeline.overlap import purged
from fivefold.recipe import Recipe
from fivefold.recipe.conflicts import conflicts
from fivefold.recipe.settings import DataSettings, TaskSettings
from fivefold.task import Categorical, IntArray, Swap, Task, Tree

log = logging.getLogger("fivefold")

DEMO = "demo://"
"""Sources that start so are made by a generator: demo://tweets."""

ROLES = ("id", "group", "weight", "fold")
"""What a column may be beside text and label."""

MARK = "__extra__"
"""Column that tells extra rows while train and extra are one table."""


@dataclass(frozen=True, kw_only=True)
class Understood:
    """A recipe made whole, and the tables that it goes with.

    Parameters
    ----------
    recipe
        With everything inferred written out.
    task, layout
        The targets, and how the training file spells their labels.
    raw, frame
        Train rows, then extra rows: as they are read, the column `MARK` telling them apart, and with a column a target.
    test
        Rows to predict at the end, or None.
    """

    recipe: Recipe
    task: Task
    layout: Layout
    raw: pl.DataFrame
    frame: pl.DataFrame
    test: pl.DataFrame | None

    @property
    def always_training(self) -> npt.NDArray[np.bool_]:
        """bool (rows,): the extra rows."""
        return self.raw[MARK].to_numpy().astype(bool)


@dataclass(frozen=True, kw_only=True)
class Prepared(Understood):
    """Everything that a fit needs to know before its first stage.

    Parameters
    ----------
    corpus
        The rows of `frame` for models.
    unlabelled, test_texts
        Texts of data.unlabelled and data.test for pretraining, where the recipe pretrains on them.
    catalogue
        The table of enrichment.catalogue, or None.
    fingerprint
        Digest of recipe and contents; a run continues only with its own.
    """

    corpus: Corpus
    unlabelled: Sequence[str]
    test_texts: Sequence[str]
    catalogue: pl.DataFrame | None
    fingerprint: str

    @property
    def groups(self) -> IntArray | None:
        """Number of each row's group, or None."""
        return self.corpus.groups


def understand(recipe: Recipe, data: Any = None, test: Any = None) -> Understood:
    """Read what the recipe names, say what is inferred, and refuse what doesn't go together.

    Parameters
    ----------
    data, test
        Tables to use instead of data.train and data.test.

    Raises
    ------
    RecipeError, DataError
        If the recipe names no data, or what can't be read as it says.
    """
    raw = read_labelled(recipe, data)
    unseen = read_optional(recipe.data.test if test is None else test)
    whole, sentences = complete(recipe, raw, unseen)
    for sentence in sentences:
        log.info("  %s", sentence)
    given = {name: named(source) for name, source in (("train", data), ("test", test)) if source is not None}
    whole = whole.model_copy(update={"data": whole.data.model_copy(update=given)})
    if problems := [problem for each in (whole, *single_recipes(whole)) for problem in conflicts(each)]:
        raise RecipeError("\n".join(dict.fromkeys(problems)), next_step="mend the recipe")
    if unseen is not None:
        require_columns(unseen, whole.data.text, "text (in data.test)")
        row_ids(unseen, whole.data.id if whole.data.id in unseen.columns else None)
    raw = without_leaks(raw, whole, unseen)
    layout = layout_of(whole, raw)
    frame = normalise(raw.drop(MARK), layout)
    task = task_of(whole.task, layout, frame)
    for single in single_recipes(whole):
        check_heads(task, single.objective.head_weights)
        if getattr(single.model, "head", None) == "reward":
            outcomes_of(task)
    headline_metric(whole.decision, task)
    return Understood(recipe=whole, task=task, layout=layout, raw=raw, frame=frame, test=unseen)


def prepare(recipe: Recipe, data: Any = None, test: Any = None) -> Prepared:
    """Everything that a fit needs to know before the first stage; parameters and errors as of `understand`."""
    found = understand(recipe, data, test)
    whole, frame, source = found.recipe, found.frame, found.recipe.data
    catalogue = read_optional(whole.enrichment.catalogue if whole.enrichment else None)
    corpus = build_corpus(
        frame, text=source.text, id=source.id, weight=source.weight, task=found.task, replace=source.replace
    )
    if source.group is not None:
        corpus = replace(corpus, groups=number_groups(frame[source.group]))
    unlabelled = unlabelled_texts(whole)
    return Prepared(
        **{each.name: getattr(found, each.name) for each in fields(found)},
        corpus=corpus,
        unlabelled=unlabelled,
        test_texts=texts_of_test(whole, found.test),
        catalogue=catalogue,
        fingerprint=fingerprint(whole, [found.raw, found.test, catalogue], unlabelled),
    )


def named(source: Any) -> Any:
    """What a recipe says of a source: paths as they are, None for tables."""
    parts = source if isinstance(source, list) else [source]
    if not all(isinstance(part, str | Path) for part in parts):
        return None
    return [str(part) for part in parts] if isinstance(source, list) else str(source)


def unlabelled_texts(recipe: Recipe) -> list[str]:
    """The texts of data.unlabelled, empty where no model is pretrained.

    Raises
    ------
    DataError
        If the table has none of the text columns.
    """
    source = recipe.data.unlabelled
    if source is None:
        return []
    if all(single.pretraining is None for single in single_recipes(recipe)):
        log.warning("  data.unlabelled isn't read: only the section pretraining of an encoder does.")
        return []
    return not_excluded(texts_in(read_source(source), recipe.data, "data.unlabelled"), recipe)


def texts_of_test(recipe: Recipe, test: pl.DataFrame | None) -> list[str]:
    """The texts of data.test, empty where pretraining may not read them.

    Raises
    ------
    RecipeError
        If it may, and there is no data.test.
    """
    if not any(single.pretraining and single.pretraining.test_texts for single in single_recipes(recipe)):
        return []
    if test is None:
        raise RecipeError(
            "pretraining.test_texts reads the texts of data.test, and there is none.",
            next_step="add --set data.test=FILE, or leave pretraining.test_texts out",
        )
    return not_excluded(texts_in(test, recipe.data, "data.test"), recipe)


def not_excluded(texts: list[str], recipe: Recipe) -> list[str]:
    """Texts without those of data.exclude, letter case and white space aside."""
    exclude = read_optional(recipe.data.exclude)
    if exclude is None:
        return texts
    barred = set(map(folded, texts_in(exclude, recipe.data, "data.exclude")))
    return [text for text in texts if folded(text) not in barred]


def texts_in(frame: pl.DataFrame, data: DataSettings, origin: str) -> list[str]:
    """The cells of the text columns that a table has, column by column, missing ones left out.

    Raises
    ------
    DataError
        If it has none of them.
    """
    present = [name for name in data.text if name in frame.columns]
    if not present:
        require_columns(frame, data.text, f"text (in {origin})")
    return [cell for name in present for cell in field_texts(frame[name], data.replace) if cell]


def read_labelled(recipe: Recipe, data: Any = None) -> pl.DataFrame:
    """Train rows, then extra rows, which the column `MARK` tells apart.

    Raises
    ------
    RecipeError
        If the recipe names no training data.
    """
    if data is None and recipe.data.train is None:
        raise RecipeError("The recipe names no training data.", next_step="add --set data.train=FILE")
    train = read_source(recipe.data.train if data is None else data)
    if train.is_empty():
        raise LabelError("The training data has no rows.", next_step="point data.train at labelled rows")
    extra = read_optional(recipe.data.extra)
    frame = train if extra is None else read_table([train, extra])
    return frame.with_columns(pl.Series(MARK, np.arange(frame.height) >= train.height))


def without_leaks(frame: pl.DataFrame, recipe: Recipe, test: pl.DataFrame | None) -> pl.DataFrame:
    """What `read_labelled` gave, less extra rows that train or test rows have too, and what data.exclude names.

    Raises
    ------
    LabelError
        If no row is left.
    """
    left = frame.filter(purged(frame, frame[MARK].to_numpy(), recipe, test, read_optional(recipe.data.exclude)))
    if left.is_empty():
        raise LabelError("No training row is left.", got="data.exclude has all of them")
    return left


def read_source(source: Any) -> pl.DataFrame:
    """The table of a source; demo://SHAPE is generated."""
    if isinstance(source, list):
        return read_table([read_source(part) for part in source]) if len(source) > 1 else read_source(source[0])
    if isinstance(source, str) and source.startswith(DEMO):
        return demo(source.removeprefix(DEMO))
    return read_table(source)


def read_optional(source: Any) -> pl.DataFrame | None:
    """The table of a source, None where there is none."""
    return None if source is None else read_source(source)


def complete(recipe: Recipe, frame: pl.DataFrame, test: pl.DataFrame | None = None) -> tuple[Recipe, Sequence[str]]:
    """The recipe with columns and task filled in from the table, and a sentence for every decision taken.

    Columns that `test` has as well can't be labels.
    """
    data, task = recipe.data, recipe.task
    named = [*task.binary, *task.categorical, *([task.label_list] if task.label_list else [])]
    found = infer(
        _trained(frame),
        text=data.text,
        id=data.id,
        group=data.group,
        weight=data.weight,
        fold=data.fold,
        labels=_present(named, frame) if named else None,
        test_columns=() if test is None else test.columns,
    )
    roles, refused = {role: getattr(found, role) for role in ROLES}, refused_roles(data)
    chosen = {"text": list(found.text), **roles, **dict.fromkeys(refused)}
    whole = recipe.model_copy(update={"data": data.model_copy(update=chosen)})
    if not named:
        whole = whole.model_copy(update={"task": inferred_task(found)})
    said = [sentence for sentence in found.sentences if sentence.partition(":")[0].lower() not in refused]
    return whole, said


def refused_roles(data: DataSettings) -> list[str]:
    """Roles that the recipe says no column has."""
    return [role for role in ROLES if role in data.model_fields_set and getattr(data, role) is None]


def _trained(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not extra, without the columns that only extra ones fill."""
    train = frame.filter(~pl.col(MARK)) if MARK in frame.columns else frame
    known = [c.name for c in train if c.null_count() < len(c) or frame[c.name].null_count() == frame.height]
    return train.select(known).drop(MARK, strict=False)


def inferred_task(found: Inferred) -> TaskSettings:
    """The task section that says what was inferred."""
    plain: dict[str, Any] = {
        "binary": list(found.binaries),
        "label_list": found.label_list,
        "categorical": {name: [] for name in found.categoricals},
        "tree": list(found.tree),
    }
    if found.swap is not None:
        swap = found.swap
        plain["swap"] = {"fields": list(swap.fields), "target": swap.target, "classes": dict(swap.classes)}
    return TaskSettings.model_validate(plain)


def _present(named: Sequence[str], frame: pl.DataFrame) -> list[str]:
    """The named label columns as the table spells them: a winner may be spread over three columns."""
    spread = [name for name in frame.columns if name.startswith("winner_")]
    soft = {name: [c for c in frame.columns if c.startswith(f"{name}=")] for name in named}
    columns = []
    for name in named:
        if name in frame.columns or not (soft[name] or (name == "winner" and spread)):
            columns.append(name)
        else:
            columns += soft[name] or spread
    return columns


def layout_of(recipe: Recipe, frame: pl.DataFrame) -> Layout:
    """How the labels of `frame` are spelt."""
    spread = [f"winner_{side}" for side in ("model_a", "model_b", "tie")]
    winner = spread if "winner" in recipe.task.categorical and "winner" not in frame.columns else []
    winner = [name for name in winner if name in frame.columns]
    return learn_layout(frame, label_list=recipe.task.label_list, winner=winner)


def task_of(settings: TaskSettings, layout: Layout, frame: pl.DataFrame) -> Task:
    """The task that the recipe's section and the training rows describe."""
    given = settings.swap
    swap = None if given is None else Swap(tuple(given.fields), given.target, given.classes)
    task = learn_task(
        frame,
        binary=(*settings.binary, *layout.classes),
        categorical=settings.categorical,
        tree=() if settings.tree_paths else settings.tree,
        swap=swap,
    )
    if not settings.tree_paths:
        return task
    return Task(task.targets, given_tree(settings, task), swap)


def given_tree(settings: TaskSettings, task: Task) -> Tree:
    """The tree whose paths the recipe lists.

    Raises
    ------
    LabelError
        If a path names a class that isn't there.
    """
    levels = [target for name in settings.tree if isinstance(target := task.target(name), Categorical)]
    strange = sorted(
        {label for path in settings.tree_paths for t, label in zip(levels, path, strict=True) if label not in t.classes}
    )
    if strange:
        raise LabelError(
            f"task.tree_paths names classes that aren't there: {strange[:5]}.",
            next_step="correct them, or leave tree_paths out: paths are then those of the training rows",
        )
    paths = {tuple(t.classes.index(c) for t, c in zip(levels, path, strict=True)) for path in settings.tree_paths}
    return Tree(tuple(settings.tree), tuple(sorted(paths)))


def source_name(source: Any) -> str:
    """What to call a source in a sentence."""
    if isinstance(source, list):
        return ", ".join(source_name(part) for part in source)
    return str(source) if isinstance(source, str | Path) else "a table given in Python"
