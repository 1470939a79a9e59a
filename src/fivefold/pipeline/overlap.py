"""Rows whose texts are elsewhere too, where training on them would leak or count twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.columns import counted, require_columns
from fivefold.data.corpus import field_texts
from fivefold.data.duplicates import duplicate_groups, folded, near_duplicate_groups
from fivefold.recipe import Recipe

log = logging.getLogger("fivefold")

Mask: TypeAlias = npt.NDArray[np.bool_]


def overlap(
    frame: pl.DataFrame,
    others: pl.DataFrame,
    recipe: Recipe,
    origin: str = "the other table",
    others_recipe: Recipe | None = None,
) -> Mask:
    """Which rows of a table have the texts of a row of another, (rows,).

    Letter case and white space aside; with a swap also in the other order; and near duplicates where
    folds.near_duplicates says from which similarity on. Rows without any text have no like.

    Raises
    ------
    DataError
        If a table lacks a text column; `origin` names the other one, which is read by its own recipe if it has one.
    """
    texts = [*row_texts(frame, recipe, "the training data"), *row_texts(others, others_recipe or recipe, origin)]
    threshold = recipe.folds.near_duplicates
    groups = duplicate_groups(texts) if threshold is None else near_duplicate_groups(texts, threshold)
    return np.isin(groups[: frame.height], groups[frame.height :])


def row_texts(frame: pl.DataFrame, recipe: Recipe, origin: str) -> list[str]:
    """All texts of each row as one, those that trade places in an order of their own; "" where there is none."""
    data, swap = recipe.data, recipe.task.swap
    require_columns(frame, data.text, f"text (in {origin})")
    fields = {name: [folded(cell or "") for cell in field_texts(frame[name], data.replace)] for name in data.text}
    pairs = swap.fields if swap else []
    sides = [[fields.pop(pair[side]) for pair in pairs] for side in (0, 1)]
    first, second = (_joined(side, frame.height) for side in sides)
    shared = _joined(list(fields.values()), frame.height)
    rows = ([own, *sorted(pair)] for own, *pair in zip(shared, first, second, strict=True))
    return ["\n".join(parts) if any(part.strip() for part in parts) else "" for parts in rows]


def purged(
    frame: pl.DataFrame, extra: Mask, recipe: Recipe, test: pl.DataFrame | None, exclude: pl.DataFrame | None
) -> Mask:
    """Which rows stay: not the extra ones that train or test rows have too, and none that `exclude` has, (rows,).

    Parameters
    ----------
    frame, extra
        Train rows and extra rows, and which these are.
    """
    stays: Mask = np.ones(frame.height, dtype=bool)
    if extra.any():
        again = overlap(frame, frame.filter(~extra), recipe, "data.train")
        again |= np.zeros_like(again) if test is None else overlap(frame, test, recipe, "data.test")
        again &= extra
        stays &= ~again
        _say(again, "of data.extra that train or test have too")
    if exclude is not None:
        named = overlap(frame, exclude, recipe, "data.exclude")
        _say(named & stays, "of the training data that data.exclude has too")
        stays &= ~named
    return stays


def _say(left_out: Mask, which: str) -> None:
    if left_out.any():
        log.warning("  Left out: %s %s.", counted(int(left_out.sum()), "row"), which)


def _joined(columns: Sequence[Sequence[str]], rows: int) -> list[str]:
    joined: list[Any] = ["\n".join(parts) for parts in zip(*columns, strict=True)] if columns else [""] * rows
    return joined
