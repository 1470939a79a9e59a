"""Build, weigh and multiply sparse rows; compiled where it loops over entries."""

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.sparse import csr_array


def build_rows(
    data: npt.NDArray, indices: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], width: int
) -> csr_array:
    """Join CSR parts to ``(rows, width)``; 64-bit ``starts`` would make scipy copy all indices to 64 bits."""
    if starts[-1] <= np.iinfo(np.int32).max:
        starts = starts.astype(np.int32)
    return csr_array((data, indices, starts), shape=(len(starts) - 1, width))


@njit(nogil=True, cache=True)
def add_occurrences(indptr, indices, counts, rows, documents, total):
    """Add to each column in how many of ``rows`` it stands, and how often."""
    for row in rows:
        for entry in range(indptr[row], indptr[row + 1]):
            documents[indices[entry]] += 1
            total[indices[entry]] += counts[entry]


@njit(nogil=True, cache=True)
def row_starts(indptr, indices, rows, columns, starts):
    """Fill ``starts`` ``(rows + 1,)`` with where each row starts once entries whose column is -1 are dropped."""
    for place in range(len(rows)):
        starts[place + 1] = starts[place]
        for entry in range(indptr[rows[place]], indptr[rows[place] + 1]):
            starts[place + 1] += columns[indices[entry]] >= 0


@njit(nogil=True, cache=True)
def _scale(data, start, stop, squares):
    if squares > 0:
        data[start:stop] *= np.float32(1 / np.sqrt(squares))


@njit(nogil=True, cache=True)
def weigh(indptr, indices, counts, rows, columns, idf, sublinear, edges, starts, out_indices, out_data):
    """Write TF-IDF of ``rows`` to CSR parts; blocks end at ``edges`` and get length 1 each."""
    logarithms = (1 + np.log(np.arange(1, 257))).astype(np.float32)
    for place in range(len(rows)):
        at = first = starts[place]
        block, squares = 0, 0.0
        for entry in range(indptr[rows[place]], indptr[rows[place] + 1]):
            column = columns[indices[entry]]
            if column < 0:
                continue
            while column >= edges[block]:  # a row's entries stand block after block
                _scale(out_data, first, at, squares)
                block, squares, first = block + 1, 0.0, at
            count = counts[entry]
            weight = np.float32(count)
            if sublinear:
                weight = logarithms[count - 1] if count <= 256 else np.float32(1 + np.log(count))
            weight *= idf[column]
            out_indices[at] = column
            out_data[at] = weight
            squares += weight * weight
            at += 1
        _scale(out_data, first, at, squares)


@njit(nogil=True, cache=True, fastmath=True)
def fill_scores(indptr, indices, data, weights, bias, scores, first, last):
    """Fill ``scores[first:last]`` with ``x @ weights + bias`` for dense weights ``(features, labels)``."""
    for row in range(first, last):
        scores[row] = bias
        for entry in range(indptr[row], indptr[row + 1]):
            value, of_feature = data[entry], weights[indices[entry]]
            for label in range(len(bias)):
                scores[row, label] += value * of_feature[label]


@njit(nogil=True, cache=True, fastmath=True)
def fill_pruned_scores(indptr, indices, data, starts, labels, weights, bias, scores, first, last):
    """Fill ``scores[first:last]`` as `fill_scores` does, for weights that are CSR themselves."""
    for row in range(first, last):
        scores[row] = bias
        for entry in range(indptr[row], indptr[row + 1]):
            feature = indices[entry]
            for place in range(starts[feature], starts[feature + 1]):
                scores[row, labels[place]] += data[entry] * weights[place]
