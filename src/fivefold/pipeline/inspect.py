"""The data that a recipe names, checked, and the recipe that it suggests, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import yaml

from fivefold.data.check import check
from fivefold.data.findings import CheckReport
from fivefold.data.layout import normalise
from fivefold.pipeline.prepare import (
    MARK,
    complete,
    layout_of,
    read_labelled,
    read_optional,
    refused_roles,
    source_name,
    task_of,
    understand,
)
from fivefold.recipe import Recipe, build_recipe
from fivefold.task import Task


def check_data(recipe: Recipe) -> CheckReport:
    """Everything worth knowing of data.train, and of data.test beside it.

    Raises
    ------
    RecipeError, DataError
        If the data can't be read as the recipe says, or a fit would refuse it.
    """
    found = understand(recipe)
    return check_frame(found.recipe, found.task, found.frame, found.test)


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


def describe_recipe(recipe: Recipe) -> str:
    """The recipe inferred for its data as YAML, the reasons as comments on top."""
    frame = read_labelled(recipe)
    whole, sentences = complete(recipe, frame, read_optional(recipe.data.test))
    task_of(whole.task, (layout := layout_of(whole, frame)), normalise(frame.drop(MARK), layout))
    written = short(whole, refused_roles(recipe.data))
    reasons = "\n".join(f"# {sentence}" for sentence in sentences)
    return f"# Inferred from {source_name(recipe.data.train)}; correct what is wrong.\n{reasons}\n{written}"


def short(recipe: Recipe, refused: Sequence[str]) -> str:
    """The recipe without what is default anyway, but with the sections a user changes first, and the roles refused."""
    plain = recipe.model_dump(mode="json", exclude_defaults=True)
    plain["data"] = plain.get("data", {}) | dict.fromkeys(refused)
    plain["folds"] = recipe.folds.model_dump(mode="json", include={"count", "method"}) | plain.get("folds", {})
    if "model" not in recipe.unread:
        plain["model"] = {"family": recipe.model.family} | plain.get("model", {})
    for name, member in plain.get("ensemble", {}).get("members", {}).items():
        if "model" in member:
            member["model"] = {"family": recipe.member(name).model.family} | member["model"]
    build_recipe(plain)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
