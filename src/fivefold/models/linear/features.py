"""Rows to sparse TF-IDF features: one text, or a pair with the difference of its sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from fivefold.data.compose import Corpus, Rows
from fivefold.models.base import threads
from fivefold.models.linear.ngrams import Counts, NGrams, count_known_ngrams, count_ngrams
from fivefold.models.linear.tfidf import Tfidf, TfidfSettings, fit_tfidf, transform
from fivefold.task import Swap

Fields = Mapping[str, Sequence[str]]

STATISTIC_SCALE = 3.0
"""Of the pair statistics beside TF-IDF rows of length one; on human preferences 1 lost .015 of log loss (LOG.md)."""


@dataclass
class Features:
    """Turns rows into one sparse matrix, learning vocabulary and frequencies from training rows only.

    Without a swap the text fields are joined into one document. With one, a row has up to three
    documents of a shared vocabulary: side A, side B, and the fields that don't trade places; its
    features are those of each, the difference A - B, and `pair_statistics`.

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
    counted: Corpus | None = field(default=None, repr=False)

    def fit(self, rows: Rows) -> None:
        """Learn from `rows`; all rows of their corpus are counted once, shared by every fold."""
        self.counted = rows.corpus
        counts = self._shared_counts(rows.corpus)
        positions = self._positions(rows, counts)
        self.tfidf = fit_tfidf([counts], np.concatenate(positions), self.settings)

    def transform(self, rows: Rows) -> csr_array:
        """float32 CSR (rows, features)."""
        return self._join(self._weighted(rows))

    def transform_swapped(self, rows: Rows) -> csr_array:
        """The features of `rows` with their sides exchanged."""
        first, second, *shared = self._weighted(rows)
        return self._join([second, first, *shared])

    def _join(self, documents: list[csr_array]) -> csr_array:
        if self.swap is None:
            return documents[0]
        first, second, *shared = documents
        statistics = pair_statistics(first, second, *shared)
        parts = [first, second, first - second, *shared, statistics]
        return csr_array(hstack(parts, format="csr", dtype=np.float32))

    def _weighted(self, rows: Rows) -> list[csr_array]:
        assert self.tfidf is not None
        if rows.corpus is self.counted:
            counts = self._shared_counts(rows.corpus)
            return [transform(self.tfidf, counts, place) for place in self._positions(rows, counts)]
        fields = {name: rows.texts(name) for name in rows.corpus.fields}
        texts = documents(fields, self.swap)
        counts = count_known_ngrams(stacked(texts), self.blocks, self.tfidf.vocabularies, threads=threads())
        size = len(rows)
        return [transform(self.tfidf, counts, np.arange(i * size, (i + 1) * size)) for i in range(len(texts))]

    def _shared_counts(self, corpus: Corpus) -> Counts:
        key = f"n-grams of {self.blocks} in {self.settings.min_df} texts, {self.swap}"
        return corpus.once(
            key,
            lambda fields: count_ngrams(
                stacked(documents(fields, self.swap)), self.blocks, min_df=self.settings.min_df, threads=threads()
            ),
        )

    def _positions(self, rows: Rows, counts: Counts) -> list[npt.NDArray[np.int64]]:
        """Where each document of the rows stands among the counted ones."""
        size = len(rows.corpus)
        return [rows.index + start for start in range(0, counts.matrix.shape[0], size)]


def pair_statistics(first: csr_array, second: csr_array, shared: csr_array | None = None) -> csr_array:
    """What n-grams can't say of a pair: which side is longer, and which is nearer to what both share.

    Parameters
    ----------
    first, second, shared
        float32 (rows, features) with rows of length one a block; `shared` may be missing.

    Returns
    -------
    float32 (rows, 4 or 6): difference and absolute difference of the sides' log lengths (in distinct
    n-grams), the shorter log length, the sides' similarity, and difference and absolute difference of
    their similarities to `shared`; times `STATISTIC_SCALE`.
    """
    lengths = [np.log1p(np.diff(side.indptr)) for side in (first, second)]
    columns = [
        lengths[0] - lengths[1],
        np.abs(lengths[0] - lengths[1]),
        np.minimum(*lengths),
        similarity(first, second),
    ]
    if shared is not None:
        nearer = similarity(first, shared) - similarity(second, shared)
        columns += [nearer, np.abs(nearer)]
    return csr_array(np.stack(columns, axis=1).astype(np.float32) * np.float32(STATISTIC_SCALE))


def similarity(first: csr_array, second: csr_array) -> npt.NDArray[np.float32]:
    """Dot product of each row with its counterpart, (rows,)."""
    return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float32).ravel()


def documents(fields: Fields, swap: Swap | None) -> list[list[str]]:
    """The documents of each row: one, or side A, side B and, if any field is left, what both share."""
    if swap is None:
        return [joined(fields, list(fields))]
    sides = [[pair[side] for pair in swap.fields] for side in (0, 1)]
    shared = [name for name in fields if not any(name in side for side in sides)]
    return [joined(fields, names) for names in (*sides, *([shared] if shared else []))]


def joined(fields: Fields, names: Sequence[str]) -> list[str]:
    """Several fields of each row as one text."""
    if len(names) == 1:
        return list(fields[names[0]])
    return ["\n".join(parts) for parts in zip(*(fields[name] for name in names), strict=True)]


def stacked(texts: Sequence[list[str]]) -> list[str]:
    """Documents of several kinds one below the other, so that they share one vocabulary."""
    return [text for kind in texts for text in kind]
