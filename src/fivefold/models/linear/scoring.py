"""Score rows with linear weights, whole or pruned."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.models.linear.sparse_rows import build_rows, fill_pruned_scores, fill_scores

Floats = npt.NDArray[np.float32]


def score_rows(features: csr_array, weights: Floats, bias: Floats, *, threads: int = 1) -> Floats:
    """Compute ``features @ weights + bias``.

    Parameters
    ----------
    features : csr_array of float32, shape (rows, features)
    weights : array of float32, shape (features, labels)
    bias : array of float32, shape (labels,)

    Returns
    -------
    array of float32, shape (rows, labels)
        The logits.
    """
    scores = np.empty((features.shape[0], len(bias)), np.float32)
    parts = (features.indptr, features.indices, features.data, weights, bias, scores)
    _in_stretches(lambda start, stop: fill_scores(*parts, start, stop), len(scores), threads)
    return scores


def prune_weights(weights: Floats, threshold: float) -> csr_array:
    """Keep the weights whose size is at least ``threshold``, as CSR ``(features, labels)``.

    Scores of the pruned weights differ from those of the whole ones: threshold and calibrate what is stored.
    """
    kept = np.abs(weights) >= threshold
    indptr = np.zeros(len(weights) + 1, np.int64)
    np.cumsum(kept.sum(1), out=indptr[1:])
    return build_rows(weights[kept], np.nonzero(kept)[1].astype(np.int32), indptr, weights.shape[1])


def score_rows_pruned(features: csr_array, weights: csr_array, bias: Floats, *, threads: int = 1) -> Floats:
    """Compute `score_rows` with pruned weights, CSR ``(features, labels)``."""
    scores = np.empty((features.shape[0], len(bias)), np.float32)
    parts = (features.indptr, features.indices, features.data)
    pruned = (weights.indptr, weights.indices, weights.data)
    _in_stretches(
        lambda start, stop: fill_pruned_scores(*parts, *pruned, bias, scores, start, stop), len(scores), threads
    )
    return scores


def _in_stretches(work: Callable[[int, int], None], size: int, threads: int) -> None:
    edges = np.linspace(0, size, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda edge: work(*edge), pairwise(edges)))
