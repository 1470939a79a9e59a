"""Rows ready for a model: ids, text fields and labels, as views of one shared corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.task import FloatArray, IntArray, Labels

Built = TypeVar("Built")


@dataclass(frozen=True)
class Figures:
    """Numbers of each row, float32 CSR (rows, figures), that say what its text `field` says in words."""

    values: csr_array
    field: str


@dataclass(frozen=True)
class Near:
    """Labelled rows like others: of each, `places` in a `pool`, int64 (rows, most), nearest first, -1 for none."""

    places: npt.NDArray[np.int64]
    pool: Corpus


@dataclass(frozen=True)
class Corpus:
    """All rows of a table, held once.

    Parameters
    ----------
    ids
        Row ids as strings, (rows,).
    fields
        Field name to its texts, (rows,) each; missing text is "".
    labels
        Labels of the rows, or None where there are none.
    weights
        float32 (rows,), how much each row counts in training, or None for all alike.
    figures
        Numbers that linear models read instead of a text field, or None.
    groups
        int32 (rows,): rows of one number belong together, also where a model parts its training rows; or None.
    near
        Training rows that are like each row, which models may show as examples, or None.
    """

    ids: npt.NDArray[Any]
    fields: Mapping[str, Sequence[str]]
    labels: Labels | None = None
    weights: FloatArray | None = None
    figures: Figures | None = None
    near: Near | None = None
    groups: IntArray | None = None
    built: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def worded(self) -> tuple[str, ...]:
        """The fields that no figures stand for."""
        return tuple(name for name in self.fields if self.figures is None or name != self.figures.field)

    def once(self, key: str, build: Callable[[Mapping[str, Sequence[str]]], Built]) -> Built:
        """What `build` makes of the fields, made once and shared by all folds.

        `build` sees text only, never labels, so nothing of a held-out row's label can reach a model through it.
        """
        if key not in self.built:
            self.built[key] = build(self.fields)
        made: Built = self.built[key]
        return made

    def rows(self, index: npt.NDArray[Any] | None = None) -> Rows:
        """A view of the rows at `index` (positions), or of all."""
        return Rows(self, np.arange(len(self)) if index is None else np.asarray(index, dtype=np.int64))


@dataclass(frozen=True)
class Rows:
    """A view of some rows of a corpus, at the positions `index`, int64 (rows,)."""

    corpus: Corpus
    index: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> npt.NDArray[Any]:
        """Row ids as strings, (rows,)."""
        return self.corpus.ids[self.index]

    @property
    def labels(self) -> Labels:
        """Labels of these rows.

        Raises
        ------
        ValueError
            If the corpus has none.
        """
        if self.corpus.labels is None:
            raise ValueError("these rows have no labels")
        return self.corpus.labels.take(self.index)

    @property
    def weights(self) -> FloatArray:
        """float32 (rows,); ones where none were given."""
        if self.corpus.weights is None:
            return np.ones(len(self), dtype=np.float32)
        return self.corpus.weights[self.index]

    @property
    def groups(self) -> IntArray | None:
        """int32 (rows,), the same number for rows that belong together; None where none were named."""
        return None if self.corpus.groups is None else self.corpus.groups[self.index]

    @property
    def figures(self) -> csr_array | None:
        """float32 CSR (rows, figures); None where the corpus has none."""
        return None if self.corpus.figures is None else self.corpus.figures.values[self.index]

    def texts(self, name: str) -> list[str]:
        """The texts of one field, (rows,)."""
        column = self.corpus.fields[name]
        return [column[i] for i in self.index]

    def take(self, positions: npt.NDArray[Any]) -> Rows:
        """The rows at `positions` of this view."""
        return Rows(self.corpus, self.index[positions])
