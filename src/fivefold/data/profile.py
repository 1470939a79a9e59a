"""What a column looks like: a flag, numbers, names of classes, lists of labels, or free text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from fivefold.data.columns import as_flag, as_number, as_text

Kind: TypeAlias = Literal["empty", "constant", "flag", "number", "list", "names", "prose", "other"]

NAME_WORDS = 8.0
"""Names of classes have at most so many words on average; free text mostly has more."""

NAME_SHARE = 0.25
"""Names of classes repeat: so many distinct values a row at most."""

SMALL = 40
"""In tables with fewer rows, half of the rows may be distinct."""

SEPARATORS = (";", "|")


@dataclass(frozen=True)
class Profile:
    """A column at a glance.

    Parameters
    ----------
    name, kind
        The column and what it looks like.
    filled, distinct
        Rows that aren't missing, and different values among them (different labels for a list).
    words
        Words a cell on average, 0 where the cells are no text.
    spelling
        How a list column is written: "list", "json", or the separator between labels; "" for others.
    """

    name: str
    kind: Kind
    filled: int
    distinct: int
    words: float = 0.0
    spelling: str = ""

    @property
    def share(self) -> float:
        """Distinct values a filled row."""
        return self.distinct / max(self.filled, 1)

    def describe(self) -> str:
        """The figures that decided, for a sentence."""
        words = f", {self.words:.1f} words a cell" if self.words else ""
        return f"{self.distinct} distinct in {self.filled} rows{words}"


def profile(column: pl.Series) -> Profile:
    """What a column looks like, from all of its cells."""
    if isinstance(column.dtype, pl.List):
        return _list_profile(column, "list", column)
    if column.dtype.is_nested() or column.dtype.is_temporal():
        return Profile(column.name, "other", column.len() - column.null_count(), 0)
    texts = as_text(column).drop_nulls()
    filled, distinct = texts.len(), texts.n_unique()
    if filled == 0:
        return Profile(column.name, "empty", 0, 0)
    if not as_flag(texts).has_nulls():
        return Profile(column.name, "flag", filled, distinct)
    if distinct == 1 and filled > 1:
        return Profile(column.name, "constant", filled, distinct)
    if not as_number(texts).has_nulls():
        return Profile(column.name, "number", filled, distinct)
    return _text_profile(texts, distinct)


def list_cells(column: pl.Series, spelling: str) -> pl.Series:
    """Cells as lists of labels, List(String), (rows,).

    A missing cell stays missing in "list" and "json"; between separators it means no label, as a
    CSV file can write no label in no other way.
    """
    if spelling == "list":
        return column.cast(pl.List(pl.String))
    if spelling == "json":
        cells = [None if cell is None else [str(label) for label in json.loads(cell)] for cell in column.to_list()]
        return pl.Series(column.name, cells, dtype=pl.List(pl.String))
    parts = column.fill_null("").str.split(spelling).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def list_spelling(column: pl.Series) -> str:
    """How a list column is written: "list", "json", or the separator that most cells use (";" if none)."""
    if isinstance(column.dtype, pl.List):
        return "list"
    texts = as_text(column).drop_nulls()
    if texts.len() and _is_json_lists(texts):
        return "json"
    return max(SEPARATORS, key=lambda separator: int(texts.str.contains(separator, literal=True).sum()))


def _text_profile(texts: pl.Series, distinct: int) -> Profile:
    words = float(texts.str.count_matches(r"\S+").mean() or 0.0)  # type: ignore[arg-type]
    listed = _joined_profile(texts) if words <= 4 * NAME_WORDS else None
    if listed is not None:
        return listed
    limit = 0.5 if texts.len() < SMALL else NAME_SHARE
    repeats = distinct <= limit * texts.len() and words <= NAME_WORDS
    return Profile(texts.name, "names" if repeats else "prose", texts.len(), distinct, words)


def _joined_profile(texts: pl.Series) -> Profile | None:
    """A profile as a list, if cells hold JSON lists or labels that recombine around a separator."""
    if _is_json_lists(texts):
        return _list_profile(texts, "json", texts)
    separator = list_spelling(texts)
    if not texts.str.contains(separator, literal=True).any():
        return None
    found = _list_profile(texts, separator, texts)
    cells = list_cells(texts.unique(), separator)
    # Lists recombine the same labels and vary in length; a class such as "Food|Drinks" does neither.
    recombine = int(cells.list.n_unique().sum()) > found.distinct and cells.list.len().n_unique() > 1
    return found if found.kind == "list" and recombine else None


def _list_profile(cells: pl.Series, spelling: str, column: pl.Series) -> Profile:
    filled = column.len() - column.null_count()
    if spelling == "list" and (column.dtype.inner.is_nested() if isinstance(column.dtype, pl.List) else False):
        return Profile(column.name, "other", filled, 0)
    labels = list_cells(cells, spelling).explode().drop_nulls()
    words = float(labels.str.count_matches(r"\S+").mean() or 0.0)  # type: ignore[arg-type]
    few = labels.n_unique() <= max(0.5 * labels.len(), 2) and words <= NAME_WORDS
    return Profile(column.name, "list" if few else "prose", filled, labels.n_unique(), words, spelling if few else "")


def _is_json_lists(texts: pl.Series) -> bool:
    if not texts.str.contains(r"^\s*\[.*\]\s*$").all():
        return False
    try:
        return all(_is_plain_list(json.loads(cell)) for cell in texts.to_list())
    except json.JSONDecodeError:
        return False


def _is_plain_list(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(item, (str, int, float)) for item in value)
