"""A table's text columns, ids, weights and labels as a `Corpus`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import polars as pl

from fivefold.data.columns import as_number, as_text, counted, listing, require_columns
from fivefold.data.compose import Corpus
from fivefold.data.labels import read_labels
from fivefold.errors import DataError
from fivefold.task import FloatArray, Task

TURN_BREAK = "\n\n"

Replacements: TypeAlias = Sequence[tuple[str, str]]
"""Regular expressions of Python and what each match becomes, applied one after the other."""


def build_corpus(
    frame: pl.DataFrame,
    *,
    text: Sequence[str],
    id: str | None = None,  # noqa: A002
    weight: str | None = None,
    task: Task | None = None,
    replace: Replacements = (),
) -> Corpus:
    """The rows of a table, ready for models; labels where the table has them.

    Parameters
    ----------
    text
        Columns to read as text. Missing is "", numbers are as written, and the turns of a list of
        texts (also one written as JSON) are joined by blank lines.
    id
        Column that names a row; none: the row's number, from 0.
    weight
        Column of how much a row counts in training.
    task
        What to read labels for; None: none.
    replace
        What is replaced in every text.

    Raises
    ------
    DataError
        If a column is missing, ids are missing or repeat, a weight is missing or no number from 0,
        or all weights are 0.
    LabelError
        If labels don't fit the task.
    """
    require_columns(frame, text, "text")
    return Corpus(
        ids=row_ids(frame, id),
        fields={name: field_texts(frame[name], replace) for name in text},
        labels=read_labels(frame, task, required=False) if task else None,
        weights=_weights(frame, weight) if weight else None,
    )


def field_texts(column: pl.Series, replace: Replacements = ()) -> list[str]:
    """Cells as the text that models read, after replacements, (rows,); see `plain_texts`."""
    texts = plain_texts(column)
    for pattern, text in replace:
        compiled = re.compile(pattern)
        texts = [compiled.sub(text, cell) for cell in texts]
    return texts


def plain_texts(column: pl.Series) -> list[str]:
    """Cells as the text that models read, (rows,).

    A cell's text depends on the cell alone, so a row reads the same in a table and when served.

    Raises
    ------
    DataError
        If cells are objects, or lists of anything but text.
    """
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        turns = column.cast(pl.List(pl.String)).list.eval(pl.element().fill_null(""))
        return turns.list.join(TURN_BREAK).fill_null("").to_list()
    if column.dtype.is_nested():
        raise DataError(
            f"The column '{column.name}' can't be read as text.",
            allowed="text, numbers, or lists of texts",
            got=str(column.dtype),
            next_step="write its parts as columns of their own",
        )
    texts: list[str] = as_text(column).fill_null("").to_list()
    if column.dtype != pl.String:
        return texts
    return [_joined_turns(cell) if cell.startswith('["') and cell.endswith("]") else cell for cell in texts]


def row_ids(frame: pl.DataFrame, column: str | None) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Ids as strings, (rows,): a column's cells, or the rows' numbers from 0.

    Raises
    ------
    DataError
        If the column is missing, or a cell is empty or occurs twice.
    """
    if column is None:
        return np.array([str(row) for row in range(frame.height)], dtype=object)
    require_columns(frame, [column], "id")
    ids = as_text(frame[column])
    if ids.null_count():
        raise DataError(
            f"The id column '{column}' has {counted(ids.null_count(), 'empty cell')}.",
            got=f"rows {ids.is_null().arg_true().head(5).to_list()}, counted from 0",
            next_step="fill them, in data.extra too if it has no such column; "
            "or set data.id to null: rows are then numbered",
        )
    repeated = ids.filter(ids.is_duplicated())
    if repeated.len():
        raise DataError(
            f"The id column '{column}' repeats {counted(repeated.n_unique(), 'id')}, in {repeated.len()} rows.",
            got=listing(repeated.unique(maintain_order=True).head(5).to_list()),
            next_step="make ids unique, or set data.id to null: rows are then numbered",
        )
    return ids.to_numpy().astype(object)


def _joined_turns(cell: str) -> str:
    """Turns of a JSON list of texts; any other cell as it is."""
    try:
        turns = json.loads(cell)
    except json.JSONDecodeError:
        return cell
    if not all(turn is None or isinstance(turn, str) for turn in turns):
        return cell
    text = TURN_BREAK.join(turn or "" for turn in turns)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _weights(frame: pl.DataFrame, column: str) -> FloatArray:
    require_columns(frame, [column], "weight")
    # The check comes after the cast: 1e39 is finite as float64 only.
    weights = as_number(frame[column]).cast(pl.Float32, strict=False)
    wrong = weights.is_null() | ~weights.is_finite() | (weights < 0)
    if wrong.any():
        raise DataError(
            f"The weight column '{column}' has {counted(int(wrong.sum()), 'cell')} without a weight.",
            allowed="numbers from 0 to 3e38 in every row",
            got=f"{frame[column].filter(wrong).head(3).to_list()} in rows {wrong.arg_true().head(3).to_list()}, from 0",
            next_step="mend them, or set data.weight to null",
        )
    if not (weights > 0).any():
        raise DataError(
            f"The weight column '{column}' is 0 in every row, so there is nothing to train on.",
            next_step="give some rows a weight above 0, or set data.weight to null",
        )
    return weights.to_numpy()
