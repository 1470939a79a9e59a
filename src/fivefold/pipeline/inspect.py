"""Check the data that a recipe names, before anything is trained."""

from __future__ import annotations

import logging

from fivefold.data.check import check
from fivefold.data.findings import CheckReport
from fivefold.data.layout import normalise
from fivefold.pipeline.prepare import MARK, complete, layout_of, read_labelled, read_optional, task_of
from fivefold.recipe import Recipe

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
    return check(
        frame,
        text=whole.data.text,
        task=task_of(whole.task, layout, frame),
        id=whole.data.id,
        group=whole.data.group,
        test_frame=test,
        folds=whole.folds.count,
        threshold=whole.folds.near_duplicates or 0.8,
        seed=whole.seed,
    )
