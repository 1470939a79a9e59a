"""TF-IDF of each fold from counts that all folds share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.errors import DataError
from fivefold.models.linear.ngram_table import columns_of, fill_table
from fivefold.models.linear.ngrams import Counts
from fivefold.models.linear.sparse_rows import add_occurrences, build_rows, row_starts, weigh


@dataclass(frozen=True)
class TfidfSettings:
    """Which features a fold keeps and how they are weighted; every block is treated by itself.

    Parameters
    ----------
    min_df
        Fewest training texts of the fold that hold a kept feature.
    max_features
        Most features of a block, those with the most occurrences; None keeps all.
    sublinear
        Weigh ``1 + log(count)`` instead of the count.
    """

    min_df: int = 2
    max_features: int | None = None
    sublinear: bool = True


@dataclass(frozen=True)
class Tfidf:
    """What a fold has learned.

    Attributes
    ----------
    vocabularies : tuple of arrays of uint64
        Hashes of the kept n-grams, block by block, in the order of the columns.
    idf : array of float32, shape (features,)
        Inverse document frequency of each column.
    sublinear : bool
        Whether counts are damped.
    """

    vocabularies: tuple[npt.NDArray[np.uint64], ...]
    idf: npt.NDArray[np.float32]
    sublinear: bool

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as arrays, for safetensors."""
        blocks = {f"vocabulary.{block}": hashes for block, hashes in enumerate(self.vocabularies)}
        return {"idf": self.idf, "sublinear": np.array([self.sublinear]), **blocks}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Tfidf:
        """The reverse of `state`."""
        blocks = sum(name.startswith("vocabulary.") for name in state)
        vocabularies = tuple(np.asarray(state[f"vocabulary.{block}"], np.uint64) for block in range(blocks))
        return cls(vocabularies, np.asarray(state["idf"], np.float32), bool(state["sublinear"][0]))


def fit_tfidf(fields: Sequence[Counts], rows: npt.ArrayLike, settings: TfidfSettings) -> Tfidf:
    """Learn vocabulary and inverse document frequencies from some rows.

    Parameters
    ----------
    fields
        Counts with one vocabulary: one for plain texts, several where a row has several texts, each then a document.
    rows : array of int, shape (training rows,)
        The rows that may be learned from.

    Raises
    ------
    DataError
        No feature is left in any block.
    """
    rows = np.asarray(rows, np.int64)
    width = fields[0].matrix.shape[1]
    documents, total = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for field in fields:
        add_occurrences(field.matrix.indptr, field.matrix.indices, field.matrix.data, rows, documents, total)
    kept = _kept(fields[0], documents, total, len(rows) * len(fields), settings)
    # Smooth: as if one more document held every feature (scikit-learn's TfidfTransformer).
    idf = np.log((1 + len(rows) * len(fields)) / (1 + documents[kept])) + 1
    starts = np.cumsum([len(hashes) for hashes in fields[0].vocabularies])[:-1]
    masks = np.split(kept, starts)
    vocabularies = tuple(hashes[mask] for hashes, mask in zip(fields[0].vocabularies, masks, strict=True))
    return Tfidf(vocabularies, idf.astype(np.float32), settings.sublinear)


def transform(tfidf: Tfidf, counts: Counts, rows: npt.ArrayLike) -> csr_array:
    """Weigh some rows of counts whose vocabulary holds the fold's.

    Returns
    -------
    csr_array of float32, shape (rows, features)
        Each block of a row has length 1, or 0 where it holds no feature, as in scikit-learn's FeatureUnion of
        TfidfVectorizers.
    """
    rows = np.asarray(rows, np.int64)
    columns = _columns(tfidf, counts)
    indptr = np.zeros(len(rows) + 1, np.int64)
    matrix = counts.matrix
    row_starts(matrix.indptr, matrix.indices, rows, columns, indptr)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    edges = np.cumsum([len(hashes) for hashes in tfidf.vocabularies])
    weigh(
        matrix.indptr, matrix.indices, matrix.data, rows, columns,
        tfidf.idf, tfidf.sublinear, edges, indptr, indices, data,
    )  # fmt: skip
    return build_rows(data, indices, indptr, len(tfidf.idf))


def _kept(
    counts: Counts, documents: npt.NDArray[np.int64], total: npt.NDArray[np.int64], size: int, settings: TfidfSettings
) -> npt.NDArray[np.bool_]:
    kept = documents >= settings.min_df
    start = 0
    for hashes in counts.vocabularies:
        block = slice(start, start + len(hashes))
        kept[block] = _most_frequent(kept[block], total[block], settings.max_features)
        start = block.stop
    if not kept.any():
        raise DataError(
            "No n-gram is left to learn from.",
            allowed=f"held by {settings.min_df} texts or more",
            got=f"{size} training texts",
            next_step="lower model.min_df, or bring more text",
        )
    return kept


def _most_frequent(
    kept: npt.NDArray[np.bool_], total: npt.NDArray[np.int64], limit: int | None
) -> npt.NDArray[np.bool_]:
    if limit is None or kept.sum() <= limit:
        return kept
    order = np.argsort(np.where(kept, -total, 1), kind="stable")
    chosen = np.zeros_like(kept)
    chosen[order[:limit]] = True
    return chosen


def _columns(tfidf: Tfidf, counts: Counts) -> npt.NDArray[np.int32]:
    """For each column of the counts the fold's column, or -1 where the fold dropped it."""
    columns, start = [], 0
    for known, kept in zip(counts.vocabularies, tfidf.vocabularies, strict=True):
        keys, integers = fill_table(kept)
        columns.append(columns_of(known, keys, integers, start))
        start += len(kept)
    return np.concatenate(columns)
