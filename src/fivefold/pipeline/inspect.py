"""Check the data that a recipe names, before anything is trained."""

from __future__ import annotations

import logging

import polars as pl

from fivefold.data.check import check
from fivefold.data.findings import CheckReport
from fivefold.data.layout import normalise
from fivefold.pipeline.prepare import MARK, complete, layout_of, read_labelled, read_optional, task_of
from fivefold.recipe import Recipe
from fivefold.task import Task

log = logging.getLogger("fivefold")


def check_data(recipe: Recipe) -> CheckReport:
    """Everything worth knowing of data.train, and of data.test beside it.

    Raises
    ------
    RecipeError, DataError
        If the data can't be read as the recipe says.
    """
    raw = read_labelled(recipe)
    test = read_optional(recipe.data.test)
    whole, sentences = complete(recipe, raw, test)
    for sentence in sentences:
        log.info("  %s", sentence)
    layout = layout_of(whole, raw)
    frame = normalise(raw.drop(MARK), layout)
    return check_frame(whole, task_of(whole.task, layout, frame), frame, test)


def check_frame(recipe: Recipe, task: Task, frame: pl.DataFrame, test: pl.DataFrame | None) -> CheckReport:
    """The findings of a labelled table with one column a target, and of the table to predict beside it."""
    return check(
        frame,
        text=recipe.data.text,
        task=task,
        id=recipe.data.id,
        group=recipe.data.group,
        test_frame=test,
        folds=recipe.folds.count,
        threshold=recipe.folds.near_duplicates or 0.8,
        seed=recipe.seed,
    )
