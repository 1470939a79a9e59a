"""What can be found: the distinct texts of some rows, and which rows have each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fivefold.data.duplicates import duplicate_groups, folded
from fivefold.data.groups import merge_groups
from fivefold.task import IntArray

NOBODY = -1
"""Entry of a row without text, and group of a query that bars nobody."""


@dataclass(frozen=True)
class Entries:
    """Distinct texts, letter case and white space aside.

    Parameters
    ----------
    texts
        As they were first written, (entries,).
    of_row
        The entry of each row, int32 (rows,).
    groups
        Entries that may not find each other share a number, int32 (entries,).
    """

    texts: Sequence[str]
    of_row: IntArray
    groups: IntArray

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def places(self) -> dict[str, int]:
        """Folded text to its entry."""
        return {folded(text): place for place, text in enumerate(self.texts)}

    def held_by(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which entries some of these rows have, (entries,)."""
        held: npt.NDArray[np.bool_] = np.zeros(len(self), dtype=bool)
        held[self.of_row[rows & (self.of_row != NOBODY)]] = True
        return held

    def barred_for(self, texts: Sequence[str]) -> IntArray:
        """The group that each text belongs to, and therefore may not find, (texts,)."""
        places = np.array([self.places.get(folded(text), NOBODY) for text in texts], dtype=np.int32)
        return np.where(places == NOBODY, NOBODY, np.append(self.groups, NOBODY)[places]).astype(np.int32)


def entries_of(texts: Sequence[str], groups: IntArray | None = None) -> Entries:
    """The entries of rows with these texts, (rows,); rows of one group, or with one text, may not find each other."""
    alike = duplicate_groups(texts)
    together = alike if groups is None else merge_groups(alike, groups)
    filled = np.array([bool(text.strip()) for text in texts], dtype=bool)
    kept, first, number = np.unique(alike[filled], return_index=True, return_inverse=True)
    of_row = np.full(len(texts), NOBODY, dtype=np.int32)
    of_row[filled] = number
    rows = np.flatnonzero(filled)[first] if len(kept) else np.zeros(0, dtype=np.int64)
    return Entries([texts[row] for row in rows], of_row, together[rows])
