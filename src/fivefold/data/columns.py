"""Columns of a table: finding them by name, and reading their cells as text or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import polars as pl

from fivefold.errors import DataError

TRUE = ("1", "1.0", "true", "yes")
FALSE = ("0", "0.0", "false", "no")
SHOWN = 30


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`, letter case aside, or None if none is alike."""
    by_lower = {other.lower(): other for other in names}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def listing(names: Sequence[str]) -> str:
    """Names for a message, shortened when there are many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 row, 2 rows, 3 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def require_columns(frame: pl.DataFrame, names: Sequence[str], role: str) -> None:
    """Raise unless the table has all columns `names`, wanted as `role`.

    Raises
    ------
    DataError
        Naming every missing column with the nearest one that exists.
    """
    present = frozenset(frame.columns)
    missing = [name for name in names if name not in present]
    if not missing:
        return
    alike = {name: nearest(name, frame.columns) for name in missing}
    hints = [f"'{near}' instead of '{name}'" for name, near in alike.items() if near]
    raise DataError(
        f"The table has no column {listing(missing)}, wanted as {role}.",
        allowed=listing(frame.columns),
        next_step=f"did you mean {', '.join(hints)}?" if hints else f"name an existing column as {role} in the recipe",
    )


def as_text(column: pl.Series) -> pl.Series:
    """Cells as text, numbers as they are written (169.0 stays 169.0), NaN as missing; (rows,)."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
    return column.cast(pl.String)


def as_class_names(column: pl.Series) -> pl.Series:
    """Cells as names of classes; (rows,).

    A float column of whole numbers gives 1 rather than 1.0: libraries turn integers into floats
    where a cell is missing.
    """
    if column.dtype.is_float():
        column = column.fill_nan(None)
        whole = bool(((column == column.floor()) & (column.abs() < 2**53)).fill_null(True).all())
        column = column.cast(pl.Int64) if whole else column
    return column.cast(pl.String)


def as_number(column: pl.Series) -> pl.Series:
    """Cells as float64, missing where they are no number; (rows,)."""
    if column.dtype.is_nested() or column.dtype.is_temporal():
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    elif not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        column = column.cast(pl.String)
    return column.cast(pl.Float64, strict=False).fill_nan(None)


def as_flag(column: pl.Series) -> pl.Series:
    """Cells as 1.0 and 0.0 (1/0, true/false, yes/no), missing where they are neither; (rows,)."""
    plain = as_text(column).str.strip_chars().str.to_lowercase()
    return plain.replace_strict([*TRUE, *FALSE], [1.0] * len(TRUE) + [0.0] * len(FALSE), default=None)
