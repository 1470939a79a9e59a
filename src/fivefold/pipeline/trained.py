"""The rows that a run was trained on, read again from its files."""

from __future__ import annotations

import polars as pl

from fivefold.data.corpus import row_ids
from fivefold.data.labels import read_labels, same_labels
from fivefold.data.layout import normalise
from fivefold.errors import RunError
from fivefold.pipeline.prepare import MARK, read_labelled, read_optional, without_leaks
from fivefold.pipeline.run import Run


def trained_rows(run: Run) -> pl.DataFrame:
    """The table as it was given, in the order of the run's rows.

    Raises
    ------
    FivefoldError
        If its files can't be read any more.
    RunError
        If they hold other rows or labels by now, or the table never was a file.
    """
    recipe = run.recipe
    if recipe.data.train is None:
        raise RunError(f"{run.folder} was fitted on a table given in Python, which can't be read again.")
    frame = without_leaks(read_labelled(recipe), recipe, read_optional(recipe.data.test)).drop(MARK)
    labels, known = read_labels(normalise(frame, run.layout), run.task), read_labels(run.rows, run.task)
    same = row_ids(frame, recipe.data.id).tolist() == run.rows["id"].to_list()
    if not (same and same_labels(labels, known)):
        raise RunError(f"The training rows of {run.folder} aren't those of its files any more.")
    return frame
