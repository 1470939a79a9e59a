"""Rows to sparse TF-IDF features: one text, or a pair with the difference of its sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from fivefold.data.compose import Corpus, Rows
from fivefold.models.base import threads
from fivefold.models.linear.ngrams import Counts, NGrams, count_known_ngrams, count_ngrams
from fivefold.models.linear.pair_statistics import Standard, pair_statistics
from fivefold.models.linear.tfidf import Tfidf, TfidfSettings, fit_tfidf, transform
from fivefold.task import FloatArray, Swap

Fields = Mapping[str, Sequence[str]]

FIGURES = 0.5
"""How much the figures of rows count beside TF-IDF rows of length one. Of products' votes, 1 won less and 3 lost
(LOG.md)."""


@dataclass
class Features:
    """Turns rows into one sparse matrix, learning vocabulary and frequencies from training rows only.

    Without a swap the text fields are joined into one document. With one, a row has up to three
    documents of a shared vocabulary: side A, side B, and the fields that don't trade places; its
    features are those of each, the difference A - B, and `pair_statistics` of its fields. Figures of the rows
    stand beside the n-grams, and the field that they stand for isn't counted.

    Parameters
    ----------
    blocks
        Kinds of n-grams, side by side.
    settings
        Which n-grams are kept and how they are weighted.
    swap
        The fields that trade places.
    """

    blocks: tuple[NGrams, ...]
    settings: TfidfSettings
    swap: Swap | None = None
    tfidf: Tfidf | None = None
    standard: Standard | None = None
    counted: Corpus | None = field(default=None, repr=False)

    def fit(self, rows: Rows) -> None:
        """Learn from `rows`; all rows of their corpus are counted once, shared by every fold."""
        self.counted = rows.corpus
        counts = self._shared_counts(rows.corpus)
        positions = self._positions(rows, counts)
        self.tfidf = fit_tfidf([counts], np.concatenate(positions), self.settings)
        if self.swap is not None:
            self.standard = Standard.of(np.concatenate(self._statistics(rows)))

    def transform(self, rows: Rows) -> csr_array:
        """float32 CSR (rows, features)."""
        if self.standard is None:
            return beside(self._weighted(rows)[0], rows)
        first, second, *shared = self._weighted(rows)
        return beside(_pair(first, second, shared, self.standard(self._statistics(rows)[0])), rows)

    def transform_swapped(self, rows: Rows) -> csr_array:
        """The features of pairs with their sides exchanged."""
        assert self.standard is not None
        first, second, *shared = self._weighted(rows)
        return beside(_pair(second, first, shared, self.standard(self._statistics(rows)[1])), rows)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What was learnt as arrays, for safetensors."""
        assert self.tfidf is not None
        return self.tfidf.state() | ({} if self.standard is None else self.standard.state())

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The reverse of `state`."""
        self.tfidf = Tfidf.from_state(state)
        self.standard = None if self.swap is None else Standard.from_state(state)

    def _statistics(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """`pair_statistics` of the rows; those of the corpus that was fitted on are shared by every fold."""
        if rows.corpus is self.counted:
            first, second = rows.corpus.once(f"statistics of {self.swap}", self._of_fields)
            return first[rows.index], second[rows.index]
        return self._of_fields({name: rows.texts(name) for name in rows.corpus.fields})

    def _of_fields(self, fields: Fields) -> tuple[FloatArray, FloatArray]:
        assert self.swap is not None
        return pair_statistics([*sides(fields, self.swap), *shared_fields(fields, self.swap).values()], threads())

    def _weighted(self, rows: Rows) -> list[csr_array]:
        assert self.tfidf is not None
        if rows.corpus is self.counted:
            counts = self._shared_counts(rows.corpus)
            return [transform(self.tfidf, counts, place) for place in self._positions(rows, counts)]
        fields = {name: rows.texts(name) for name in rows.corpus.worded}
        texts = documents(fields, self.swap)
        counts = count_known_ngrams(stacked(texts), self.blocks, self.tfidf.vocabularies, threads=threads())
        size = len(rows)
        return [transform(self.tfidf, counts, np.arange(i * size, (i + 1) * size)) for i in range(len(texts))]

    def _shared_counts(self, corpus: Corpus) -> Counts:
        key = f"n-grams of {self.blocks} in {self.settings.min_df} texts, {self.swap}"
        return corpus.once(
            key,
            lambda fields: count_ngrams(
                stacked(documents({name: fields[name] for name in corpus.worded}, self.swap)),
                self.blocks,
                min_df=self.settings.min_df,
                threads=threads(),
            ),
        )

    def _positions(self, rows: Rows, counts: Counts) -> list[npt.NDArray[np.int64]]:
        """Where each document of the rows stands among the counted ones."""
        size = len(rows.corpus)
        return [rows.index + start for start in range(0, counts.matrix.shape[0], size)]


def _pair(first: csr_array, second: csr_array, shared: list[csr_array], statistics: csr_array) -> csr_array:
    return csr_array(hstack([first, second, first - second, *shared, statistics], format="csr", dtype=np.float32))


def beside(features: csr_array, rows: Rows) -> csr_array:
    """The features, and the rows' figures behind them if there are any; CSR (rows, both)."""
    if rows.figures is None:
        return features
    return csr_array(hstack([features, rows.figures * np.float32(FIGURES)], format="csr", dtype=np.float32))


def documents(fields: Fields, swap: Swap | None) -> list[list[str]]:
    """The documents of each row: one, or side A, side B and, if any field is left, what both share."""
    if swap is None:
        return [joined(fields, list(fields))]
    shared = shared_fields(fields, swap)
    return [*sides(fields, swap), *([joined(fields, list(shared))] if shared else [])]


def sides(fields: Fields, swap: Swap) -> list[list[str]]:
    """Side A and side B of each row."""
    return [joined(fields, [pair[side] for pair in swap.fields]) for side in (0, 1)]


def shared_fields(fields: Fields, swap: Swap) -> dict[str, Sequence[str]]:
    """The fields that don't trade places."""
    traded = {name for pair in swap.fields for name in pair}
    return {name: texts for name, texts in fields.items() if name not in traded}


def joined(fields: Fields, names: Sequence[str]) -> list[str]:
    """Several fields of each row as one text."""
    if len(names) == 1:
        return list(fields[names[0]])
    return ["\n".join(parts) for parts in zip(*(fields[name] for name in names), strict=True)]


def stacked(texts: Sequence[list[str]]) -> list[str]:
    """Documents of several kinds one below the other, so that they share one vocabulary."""
    return [text for kind in texts for text in kind]
