"""Which labels imply others: parents among categoricals, and binaries that come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fivefold.data.columns import as_class_names

PARENT_SHARE = 0.95
"""Rows in their class's most frequent parent. Measured: bigbasket type > sub_category .963, brand > category .898."""

PARENT_GAIN = 0.9
"""The share of what always guessing the most frequent parent leaves open."""


@dataclass(frozen=True)
class Parent:
    """How far one categorical decides another.

    Parameters
    ----------
    child, parent
        The two columns.
    share
        Rows in the most frequent parent of their child class, among child classes of two rows or more.
    straying
        Child classes that occur under several parents.
    classes
        Child classes in all.
    gain
        `share` beyond the most frequent parent's own share, scaled to at most 1.
    """

    child: str
    parent: str
    share: float
    straying: int
    classes: int
    gain: float

    @property
    def holds(self) -> bool:
        """Whether the child decides the parent, but for a few rows."""
        return self.share >= PARENT_SHARE and self.gain >= PARENT_GAIN


@dataclass(frozen=True)
class Implication:
    """A binary that (nearly) always comes with another: `rows` of those with `first` have `second` in `share`."""

    first: str
    second: str
    rows: int
    share: float


def parents(frame: pl.DataFrame, columns: Sequence[str]) -> list[Parent]:
    """How far each categorical decides each one with fewer classes."""
    plain = pl.DataFrame([as_class_names(frame[name]) for name in columns])
    sizes = {name: plain[name].drop_nulls().n_unique() for name in columns}
    pairs = [(child, parent) for child in columns for parent in columns if sizes[child] > sizes[parent] > 1]
    return [_parent(plain, child, parent) for child, parent in pairs]


def longest_chain(found: Sequence[Parent]) -> tuple[str, ...]:
    """Columns, root first, of which each decides the one before; the longest such chain, () if none."""
    above: dict[str, list[str]] = {}
    for link in found:
        if link.holds:
            above.setdefault(link.child, []).append(link.parent)

    def chain(leaf: str) -> tuple[str, ...]:
        return (*max((chain(parent) for parent in above.get(leaf, [])), key=len, default=()), leaf)

    return max((chain(leaf) for leaf in above), key=len, default=())


def implications(
    codes: npt.NDArray[np.int32], names: Sequence[str], *, share: float = 0.99, rows: int = 10
) -> list[Implication]:
    """Pairs of binaries of which the first (nearly) always comes with the second.

    Parameters
    ----------
    codes
        int32 (rows, labels): 0/1, -1 where missing.
    share, rows
        Report pairs with at least this share, and at least so many rows that have the first.
    """
    present = (codes == 1).astype(np.float32)
    together = present.T @ present
    known = present.T @ (codes >= 0).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = together / known
    usual = present.mean(axis=0)
    hits = (shares >= share) & (known >= rows) & (usual[None, :] < 0.9) & ~np.eye(len(names), dtype=bool)
    return [Implication(names[i], names[j], int(known[i, j]), float(shares[i, j])) for i, j in np.argwhere(hits)]


def _parent(frame: pl.DataFrame, child: str, parent: str) -> Parent:
    counts = frame.select(child=child, parent=parent).drop_nulls().group_by("child", "parent").len("rows")
    classes = counts.group_by("child").agg(total=pl.col("rows").sum(), top=pl.col("rows").max(), parents=pl.len())
    totals, tops = classes["total"].to_numpy(), classes["top"].to_numpy()
    repeated = totals > 1
    share = float(tops[repeated].sum() / max(totals[repeated].sum(), 1))
    usual = counts.group_by("parent").agg(pl.col("rows").sum())["rows"].to_numpy().max(initial=0) / max(totals.sum(), 1)
    straying = int((classes["parents"] > 1).sum())
    return Parent(child, parent, share, straying, classes.height, float((share - usual) / max(1 - usual, 1e-9)))
