"""From queries to the neighbours that each may have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fivefold.retrieval.entries import NOBODY
from fivefold.retrieval.index import Found, HalfArray, Index
from fivefold.task import FloatArray, IntArray

SPARE = 16
"""Candidates beyond twice those wanted: enough where a fifth of the rows is held out, and few are barred."""


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of many rows, nearest first.

    Parameters
    ----------
    entries
        int32 (rows, most), -1 where there is none.
    similarity
        Cosine to each, float32 (rows, most), 0 where there is none.
    """

    entries: IntArray
    similarity: FloatArray

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, index: npt.NDArray[np.int64]) -> Neighbours:
        """Those of the rows at `index`."""
        return Neighbours(self.entries[index], self.similarity[index])

    @property
    def best(self) -> FloatArray:
        """Similarity of the nearest, (rows,), 0 for a row that has none."""
        return self.similarity[:, 0]


def candidates(index: Index, queries: HalfArray, most: int) -> Found:
    """What `neighbours` chooses from at first; for several choices it is searched once."""
    return index.search(queries, 2 * most + SPARE)


def neighbours(
    index: Index,
    queries: HalfArray,
    most: int,
    least: float,
    *,
    allowed: npt.NDArray[np.bool_],
    groups: IntArray,
    barred: IntArray,
    first: Found | None = None,
) -> Neighbours:
    """The nearest allowed entries of each query that are at least so similar.

    Where too few of the candidates are allowed, more are asked for, up to all of them.

    Parameters
    ----------
    most, least
        Neighbours of a query, and the cosine that each must have.
    allowed
        Which entries may be found at all, (entries,).
    groups, barred
        Group of each entry, (entries,), and the one that each query must not find, (queries,); -1: none.
    first
        What `candidates` found for these queries.
    """
    entries = np.full((len(queries), most), NOBODY, dtype=np.int32)
    similarity = np.zeros((len(queries), most), dtype=np.float32)
    pending, found = np.arange(len(queries)), first or candidates(index, queries, most)
    while len(pending):
        fits = allowed[found.entries] & (groups[found.entries] != barred[pending, None])
        fits &= (found.similarity >= least) & (found.entries != NOBODY)
        chosen = np.argsort(~fits, axis=1, kind="stable")[:, :most]
        kept, width = np.take_along_axis(fits, chosen, axis=1), chosen.shape[1]
        for into, values, nothing in ((entries, found.entries, NOBODY), (similarity, found.similarity, 0)):
            into[pending, :width] = np.where(kept, np.take_along_axis(values, chosen, axis=1), nothing)
        asked = found.entries.shape[1]
        if asked >= len(index):
            break
        short = (fits.sum(axis=1) < most) & (found.similarity[:, -1] >= least)
        pending = pending[short]
        found = index.search(queries[pending], 4 * asked)
    return Neighbours(entries, similarity)
