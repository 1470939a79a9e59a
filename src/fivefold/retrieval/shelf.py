"""What stands on the shelf: entries, which fold may find which, and what each gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fivefold.data.compose import Corpus, Figures
from fivefold.retrieval.entries import Entries
from fivefold.retrieval.given import Given, texts_given, votes_given
from fivefold.retrieval.neighbours import Neighbours
from fivefold.task import IntArray, Labels


@dataclass(frozen=True)
class Shelf:
    """Entries of some rows, and what their rows have to give.

    Parameters
    ----------
    entries
        What can be found.
    offered
        A text of each row, or the rows' labels; (rows,).
    folds
        The fold that holds each row out, int32 (rows,); None: the rows are of a catalogue, which everybody may see.
    """

    entries: Entries
    offered: Sequence[str] | Labels
    folds: IntArray | None = None
    made: dict[int | None, Given] = field(default_factory=dict, compare=False, repr=False)

    def view(self, fold: int) -> int | None:
        """The fold whose rows must not be seen by its model; None where it may see all."""
        return None if self.folds is None else fold

    def rows(self, view: int | None) -> npt.NDArray[np.bool_]:
        """Which rows may be seen, (rows,)."""
        if self.folds is None or view is None:
            return np.ones(len(self.entries.of_row), dtype=bool)
        seen: npt.NDArray[np.bool_] = self.folds != view
        return seen

    def given(self, view: int | None) -> Given:
        """What entries give to those who see these rows; nothing of any other row is in it."""
        if view not in self.made:
            rows, offered = self.rows(view), self.offered
            make = votes_given if isinstance(offered, Labels) else texts_given
            self.made[view] = make(self.entries, offered, rows)  # type: ignore[arg-type]
        return self.made[view]

    def extended(self, corpus: Corpus, name: str, found: Neighbours, view: int | None) -> Corpus:
        """The rows of `corpus` with what their neighbours give, as a field `name` and figures."""
        given = self.given(view)
        fields = {**corpus.fields, name: given.texts(found)}
        values = given.figures(found)
        figures = None if values is None else Figures(values, name)
        return replace(corpus, fields=fields, figures=figures, built={})
