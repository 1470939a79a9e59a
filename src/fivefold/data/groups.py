"""Rows that must stay together: group numbers, and several reasons merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fivefold.errors import DataError
from fivefold.task import IntArray


def number_groups(values: Sequence[Any] | npt.NDArray[Any] | pl.Series) -> IntArray:
    """Group numbers in the order of first appearance, int32 (rows,).

    Rows without a value (null, NaN, "", negative) are each a group of their own.

    Raises
    ------
    DataError
        If cells are lists or objects.
    """
    numbers: dict[Any, int] = {}
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    _refuse_nested(values, plain)
    keys = (("alone", row) if _is_missing(value) else value for row, value in enumerate(plain))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def merge_groups(first: Sequence[Any] | npt.NDArray[Any], second: Sequence[Any] | npt.NDArray[Any]) -> IntArray:
    """Groups that keep together what either keeps together: the connected components of both.

    Parameters
    ----------
    first, second
        Values as `split` takes them, (rows,) each.

    Returns
    -------
    int32 (rows,), numbered in the order of first appearance.
    """
    left, right = number_groups(first), number_groups(second)
    if len(left) != len(right):
        raise DataError(
            "Groups to merge must be of the same rows.",
            got=f"{len(left)} and {len(right)} rows",
            next_step="give a value a row in both",
        )
    lefts = int(left.max(initial=-1)) + 1
    size = lefts + int(right.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right + lefts)), shape=(size, size))
    return number_groups(connected_components(edges, directed=False)[1][left])


def _refuse_nested(values: Sequence[Any] | npt.NDArray[Any] | pl.Series, plain: list[Any]) -> None:
    nested = next((value for value in plain if isinstance(value, list | dict | set | pl.Series)), None)
    if nested is not None:
        column = f"The group column '{values.name}'" if isinstance(values, pl.Series) else "The group column"
        raise DataError(
            f"{column} holds lists or objects, so rows can't be grouped by it.",
            allowed="text, numbers or dates",
            got=str(values.dtype) if isinstance(values, pl.Series) else f"{type(nested).__name__}: {nested!r}"[:80],
            next_step="write one plain value a row, or set data.group to null",
        )


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value or (isinstance(value, int | float) and value < 0)
