"""What n-grams with weights of their own can't say of a pair: which side is longer, and which is nearer to what both
share. Every figure is of one row alone, so that words which training rows don't have count like any others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.models.linear.ngrams import NGrams, count_ngrams
from fivefold.task import FloatArray

KINDS = (NGrams("words", 1, 1), NGrams("words", 2, 2))
"""Words, and pairs of neighbours."""

SCALE = 3.0
"""Spread of a statistic beside TF-IDF rows of length one. On human preferences 1 lost .015 of log loss (LOG.md)."""


@dataclass(frozen=True)
class Standard:
    """Mean and spread of each statistic over a fold's training rows, float32 (statistics,) both."""

    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, statistics: FloatArray) -> Standard:
        """That of statistics (rows, statistics); a spread of 0 becomes 1."""
        spread = statistics.std(axis=0)
        return cls(statistics.mean(axis=0), np.where(spread > 0, spread, np.float32(1)))

    def __call__(self, statistics: FloatArray) -> csr_array:
        """Statistics of mean 0 and spread `SCALE` on the training rows, CSR of the same shape."""
        return csr_array((statistics - self.mean) / self.spread * np.float32(SCALE))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as arrays, for safetensors."""
        return {"statistics.mean": self.mean, "statistics.spread": self.spread}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Standard:
        """The reverse of `state`."""
        return cls(state["statistics.mean"], state["statistics.spread"])


@dataclass(frozen=True)
class Sets:
    """The distinct n-grams of one document a row: ones in a float32 CSR (rows, n-grams)."""

    present: csr_array

    @property
    def size(self) -> FloatArray:
        """How many each row has, (rows,)."""
        return _floats(np.diff(self.present.indptr))

    def common(self, other: Sets) -> FloatArray:
        """How many n-grams each row and its counterpart both have, (rows,)."""
        return _floats(self.present.multiply(other.present).sum(axis=1))

    def share_in(self, other: Sets) -> FloatArray:
        """Share of each row's n-grams that its counterpart has as well, (rows,)."""
        return _floats(self.common(other) / np.maximum(self.size, 1))

    def cosine(self, other: Sets) -> FloatArray:
        """Between each row's set and its counterpart's, (rows,)."""
        return _floats(self.common(other) / np.sqrt(np.maximum(self.size, 1) * np.maximum(other.size, 1)))


def pair_statistics(texts: Sequence[Sequence[str]], threads: int) -> tuple[FloatArray, FloatArray]:
    """Figures of the two sides of each row, and those of the row with its sides exchanged.

    Parameters
    ----------
    texts
        The first sides, the second sides, and the texts of each field that doesn't trade places, (rows,) each.

    Returns
    -------
    Two float32 (rows, statistics). First the log lengths in words: how much longer `first` is, the shorter one, that
    of each shared field. Then for words and for pairs of words: how alike the sides are, how much more of `first` the
    sides have in common; and for each shared field how much nearer `first` is to it, how much more of `first` is in
    it, and how much more of it is in `first`. What tells the sides apart stands there with its size after it.
    """
    counts = count_ngrams([text for column in texts for text in column], KINDS, threads=threads)
    size = len(texts[0])
    documents = [counts.matrix[start : start + size] for start in range(0, size * len(texts), size)]
    edges = np.cumsum([0, *(len(hashes) for hashes in counts.vocabularies)]).tolist()
    kinds = list(pairwise(edges))
    words = [_log_lengths(each[:, kinds[0][0] : kinds[0][1]]) for each in documents]
    sets = [[_sets(each[:, start:stop]) for each in documents] for start, stop in kinds]
    turned = [1, 0, *range(2, len(texts))]
    return _statistics(words, sets), _statistics(
        [words[i] for i in turned], [[kind[i] for i in turned] for kind in sets]
    )


def _statistics(words: Sequence[FloatArray], sets: Sequence[Sequence[Sets]]) -> FloatArray:
    first, second, *shared = words
    columns = [*_apart(first - second), np.minimum(first, second), *shared]
    for kind in sets:
        columns += _of_kind(*kind)
    return np.stack(columns, axis=1).astype(np.float32)


def _of_kind(first: Sets, second: Sets, *shared: Sets) -> list[FloatArray]:
    columns = [first.cosine(second), *_apart(first.share_in(second) - second.share_in(first))]
    for field in shared:
        columns += [
            *_apart(first.cosine(field) - second.cosine(field)),
            *_apart(first.share_in(field) - second.share_in(field)),
            *_apart(field.share_in(first) - field.share_in(second)),
        ]
    return columns


def _apart(difference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A difference of the sides, and its size."""
    return difference, np.abs(difference)


def _floats(values: Any) -> FloatArray:
    return np.asarray(values, dtype=np.float32).ravel()


def _log_lengths(counts: csr_array) -> FloatArray:
    return _floats(np.log1p(counts.sum(axis=1)))


def _sets(counts: csr_array) -> Sets:
    ones = np.ones(counts.nnz, dtype=np.float32)
    return Sets(csr_array((ones, counts.indices, counts.indptr), shape=counts.shape))
