"""How a file spells labels that are not one column a target, and how to write them so again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from fivefold.data.columns import as_number, counted, listing, require_columns
from fivefold.data.labels import labels_frame, learn_classes
from fivefold.data.profile import list_cells, list_spelling
from fivefold.errors import LabelError
from fivefold.task import FloatArray, IntArray, Task

OUTCOMES = ("a", "b", "tie")
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Layout:
    """Where labels of a file are spread or packed.

    Parameters
    ----------
    label_list
        A column that lists the labels present, or None.
    classes
        Every label that may be listed; each becomes a binary of that name.
    spelling
        "list", "json", or the separator between labels.
    winner
        Three columns that say who won (a, b, tie), which become the categorical "winner"; or ().
    """

    label_list: str | None = None
    classes: tuple[str, ...] = ()
    spelling: str = "list"
    winner: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> Layout:
        """The layout that `to_json` described."""
        return Layout(plain["label_list"], tuple(plain["classes"]), plain["spelling"], tuple(plain["winner"]))


def learn_layout(frame: pl.DataFrame, *, label_list: str | None = None, winner: Sequence[str] = ()) -> Layout:
    """The layout of a training file, with every label that its list column holds.

    Raises
    ------
    LabelError
        If the list holds fewer than two labels, or `winner` isn't three columns.
    DataError
        If a column doesn't exist.
    """
    if winner and len(winner) != len(OUTCOMES):
        raise LabelError(
            "The winner is spread over the wrong number of columns.",
            allowed="three, for a, b and a tie",
            got=listing(list(winner)),
            next_step="name all three, or one column with the winner",
        )
    require_columns(frame, list(winner), "the winner")
    if label_list is None:
        return Layout(winner=tuple(winner))
    require_columns(frame, [label_list], "a list of labels")
    spelling = list_spelling(frame[label_list])
    labels = list_cells(frame[label_list], spelling).explode().drop_nulls().alias(label_list)
    return Layout(label_list, learn_classes(labels.to_frame(), label_list), spelling, tuple(winner))


def normalise(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """The table with one column a target; label columns that it hasn't, or that are empty, give none (rows to predict).

    Raises
    ------
    LabelError
        If listed labels are unknown or named like another column, or a row has not one winner.
    """
    if layout.label_list in frame.columns:
        frame = _spread(frame, str(layout.label_list), layout)
    if layout.winner and set(layout.winner) <= set(frame.columns):
        frame = _gather(frame, layout.winner)
    return frame


def submission_frame(layout: Layout, task: Task, codes: IntArray) -> pl.DataFrame:
    """Decided labels in the columns of the training file.

    Parameters
    ----------
    codes
        int32 (rows, targets), as in `Labels.codes`.
    """
    frame = labels_frame(task, codes)
    if layout.winner:
        flags = [
            (pl.col("winner") == name).cast(pl.Int8).alias(c) for c, name in zip(layout.winner, OUTCOMES, strict=True)
        ]
        frame = frame.with_columns(flags).drop("winner")
    if layout.label_list is None:
        return frame
    present = pl.concat_list(pl.when(pl.col(name) == 1).then(pl.lit(name)) for name in layout.classes).list.drop_nulls()
    known = pl.any_horizontal(pl.col(name).is_not_null() for name in layout.classes)
    listed = frame.select(pl.when(known).then(present).alias(layout.label_list))
    packed = _packed(listed.to_series(), layout.spelling)
    return frame.drop(layout.classes).with_columns(packed)


def probability_frame(layout: Layout, task: Task, probabilities: FloatArray) -> pl.DataFrame:
    """Probabilities, a column each: a binary's name, `name=class`, or the training file's winner columns.

    Parameters
    ----------
    probabilities
        float32 (rows, task.width), in the order of `task.columns`.
    """
    names = dict(zip([f"winner={name}" for name in OUTCOMES], layout.winner, strict=bool(layout.winner)))
    return pl.DataFrame([pl.Series(names.get(c, c), probabilities[:, i]) for i, c in enumerate(task.columns)])


def join_lists(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with its list columns as text, as CSV can't hold lists.

    Labels are joined by semicolons; JSON lists where a label wouldn't survive that.
    """
    lists = [column for column in frame if column.dtype == pl.List(pl.String)]
    return frame.with_columns(_packed(column, ";" if _joinable(column) else "json") for column in lists)


def _joinable(listed: pl.Series) -> bool:
    """Whether joined labels are read back as they are: none has a separator, space around it, or looks like JSON."""
    labels = listed.explode().drop_nulls()
    return not labels.str.contains(r"[;|]|^\s|\s$|^\[|^$").any()


def _packed(listed: pl.Series, spelling: str) -> pl.Series:
    """Lists of labels as the training file spells them."""
    if spelling == "list":
        return listed
    if spelling == "json":
        cells = [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in listed.to_list()]
        return pl.Series(listed.name, cells, dtype=pl.String)
    return listed.list.join(spelling)


def _spread(frame: pl.DataFrame, column: str, layout: Layout) -> pl.DataFrame:
    taken = sorted(set(layout.classes) & set(frame.columns) - {column})
    if taken:
        raise LabelError(
            f"Labels listed in '{column}' are named like other columns: {listing(taken)}.",
            next_step="rename those columns, or those labels",
        )
    if frame[column].null_count() == frame.height:
        return frame.drop(column)
    cells = _cells(frame[column], layout)
    unknown = cells.explode().drop_nulls().value_counts(sort=True).filter(~pl.col(column).is_in(layout.classes))
    if unknown.height:
        counts = ", ".join(f"{name!r} ({counted(count, 'time')})" for name, count in unknown.head(10).rows())
        raise LabelError(
            f"The column '{column}' lists {counted(unknown.height, 'label')} not known to the task: {counts}.",
            allowed=listing(layout.classes),
            next_step="correct them, or add rows with them to the training file",
        )
    flags = (cells.list.contains(name).cast(pl.Int8).alias(name) for name in layout.classes)
    return frame.drop(column).with_columns(flags)


def _cells(column: pl.Series, layout: Layout) -> pl.Series:
    """The lists of a file, whose spelling may differ from the training file's."""
    own = list_spelling(column)
    return list_cells(
        column, own if "list" in (own, layout.spelling) or "json" in (own, layout.spelling) else layout.spelling
    )


def _gather(frame: pl.DataFrame, winner: Sequence[str]) -> pl.DataFrame:
    """One column `winner`; columns `winner=class` where cells are probabilities."""
    values = np.stack([as_number(frame[name]).to_numpy() for name in winner], axis=1).astype(np.float64)
    blank = np.isnan(values).all(axis=1)
    wrong = np.flatnonzero(~blank & ~(np.abs(np.nan_to_num(values).sum(axis=1) - 1) <= TOLERANCE))
    if len(wrong):
        raise LabelError(
            f"{counted(len(wrong), 'row')} without one winner in {listing(list(winner))}.",
            allowed="one 1 and two 0, or probabilities that sum to 1",
            got="; ".join(f"row {i}: {values[i].tolist()}" for i in wrong[:5]),
            next_step="correct these rows (counted from 0)",
        )
    frame = frame.drop(winner)
    if np.isin(values[~blank], (0, 1)).all():
        first = [OUTCOMES[code] for code in np.nan_to_num(values).argmax(axis=1)]
        return frame.with_columns(winner=pl.when(pl.Series(~blank)).then(pl.Series(first, dtype=pl.String)))
    return frame.with_columns(
        pl.Series(f"winner={name}", values[:, i]).fill_nan(None) for i, name in enumerate(OUTCOMES)
    )
