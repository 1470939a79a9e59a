"""Metrics of decisions against labels: F1 in its averages, Jaccard, accuracy, hierarchical F1.

Each function takes labels and decisions, codes (rows, targets), and gives the metric as a function
of row weights. Cells whose label is missing count nowhere. A ratio without a denominator is 0,
scikit-learn's `zero_division=0`: a label that never occurs and is never predicted has F1 0, a row
without true and predicted labels has Jaccard 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fivefold.evaluation.sums import (
    Average,
    Sums,
    Values,
    Weighted,
    column_means,
    divide,
    exact_match,
    f1,
    jaccard,
)
from fivefold.scores import Scores
from fivefold.task import MISSING, IntArray, Labels, Tree


def f1_macro(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Mean F1 over the binaries; without any, over the classes seen or predicted of each categorical."""
    if labels.task.binaries:
        return Sums(binary_counts(labels, decisions), _mean_f1)
    parts = [Sums(class_counts(labels, decisions, t.name), _mean_f1_of_seen) for t in labels.task.categoricals]
    return Average(parts, [1.0] * len(parts))


def f1_micro(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """F1 of the pooled counts of the binaries; without any, accuracy, which micro-averaged F1 then is."""
    if labels.task.binaries:
        return Sums(binary_counts(labels, decisions), _pooled_f1)
    return categorical_accuracy(labels, decisions)


def f1_samples(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Mean over rows of the F1 between the row's true and predicted binaries."""
    return _row_mean(labels, decisions, f1)


def jaccard_samples(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Mean over rows of the Jaccard index between the row's true and predicted binaries."""
    return _row_mean(labels, decisions, jaccard)


def accuracy(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Mean accuracy over the categoricals; without any, the share of rows with all binaries right."""
    if labels.task.categoricals:
        return categorical_accuracy(labels, decisions)
    return _row_mean(labels, decisions, exact_match)


def categorical_accuracy(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Mean over the categoricals of the share of their observed rows that are right."""
    truth, decided = _categorical_codes(labels, labels.codes), _categorical_codes(labels, decisions)
    return column_means(truth == decided, truth != MISSING)


def item_accuracy(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """Share of rows whose observed categoricals are all right; rows that observe none are left out."""
    truth, decided = _categorical_codes(labels, labels.codes), _categorical_codes(labels, decisions)
    observed = truth != MISSING
    return column_means(((truth == decided) | ~observed).all(axis=1)[:, None], observed.any(axis=1)[:, None])


def mixed_mean(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """(B * macro-F1 of the B binaries + the sum of C categorical accuracies) / (B + C)."""
    parts = [f1_macro(labels, decisions), categorical_accuracy(labels, decisions)]
    return Average(parts, [len(labels.task.binaries), len(labels.task.categoricals)])


def hierarchical_f1(labels: Labels, decisions: IntArray, scores: Scores | None = None) -> Weighted:
    """F1 between the sets of true and predicted (level, class) nodes, each with its ancestors in the tree.

    hP = sum |P & T| / sum |P| and hR = sum |P & T| / sum |T| over rows: Kiritchenko, Matwin,
    Nock and Famili 2006, "Learning and evaluation in the presence of class hierarchies", section 4.
    Levels whose label is missing give no node to either set.
    """
    tree = labels.task.tree
    if tree is None:
        raise ValueError("hierarchical_f1 needs a task with a tree.")
    decided = np.where(labels.codes == MISSING, MISSING, decisions)
    true_nodes, decided_nodes = _nodes(tree, labels), _nodes(tree, Labels(labels.task, decided))
    sizes = [nodes.sum(axis=1) for nodes in (true_nodes * decided_nodes, decided_nodes, true_nodes)]
    return Sums(np.stack(sizes, axis=1).astype(np.float64), _pooled_f1)


def binary_counts(labels: Labels, decisions: IntArray) -> Any:
    """Sparse (rows, 3 * binaries): true positive, predicted and positive, each for all binaries."""
    positive, predicted = _binary_cells(labels, decisions)
    return sparse.csr_array(np.hstack([positive & predicted, predicted, positive])).astype(np.float64)


def class_counts(labels: Labels, decisions: IntArray, name: str) -> Any:
    """Sparse (rows, 3 * classes) of one categorical: true positive, predicted and positive."""
    truth, width = labels.column(name), labels.task.target(name).width
    decided = np.where(truth == MISSING, MISSING, Labels(labels.task, decisions).column(name))
    blocks = [np.where(truth == decided, truth, MISSING), decided, truth]
    return sparse.hstack([_one_hot(codes, width) for codes in blocks], format="csr")


def _binary_cells(labels: Labels, decisions: IntArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    truth = labels.binary_codes
    return truth == 1, (Labels(labels.task, decisions).binary_codes == 1) & (truth != MISSING)


def _categorical_codes(labels: Labels, codes: IntArray) -> IntArray:
    return codes[:, [labels.task.names.index(target.name) for target in labels.task.categoricals]]


def _row_mean(labels: Labels, decisions: IntArray, value: Any) -> Weighted:
    positive, predicted = _binary_cells(labels, decisions)
    counts = [cells.sum(axis=1) for cells in (positive & predicted, predicted, positive)]
    observed = (labels.binary_codes != MISSING).any(axis=1)
    return column_means(value(*counts)[:, None], observed[:, None])


def _one_hot(codes: IntArray, width: int) -> Any:
    rows = np.flatnonzero(codes != MISSING)
    return sparse.csr_array((np.ones(len(rows)), (rows, codes[rows])), shape=(len(codes), width))


def _nodes(tree: Tree, labels: Labels) -> Any:
    """Sparse 0/1 (rows, nodes): the nodes of each row's codes and all their ancestors."""
    widths = [labels.task.target(name).width for name in tree.levels]
    starts = np.cumsum([0, *widths[:-1]])
    nodes = np.array(tree.paths, dtype=np.int64).reshape(-1, len(widths)) + starts
    total = sparse.csr_array((len(labels), sum(widths)))
    for level, name in enumerate(tree.levels):
        above = [(nodes[:, level], nodes[:, upper]) for upper in range(level)]
        own = starts[level] + np.arange(widths[level])
        pairs = np.hstack([np.stack([own, own]), *(np.stack(pair) for pair in above)])
        lineage = sparse.csr_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(sum(widths), sum(widths)))
        codes = labels.column(name)
        total += _one_hot(np.where(codes == MISSING, MISSING, codes + starts[level]), sum(widths)) @ lineage
    total.data[:] = 1
    return total


def _mean_f1(totals: Values) -> Values:
    return np.asarray(f1(*np.split(totals, 3, axis=1)).mean(axis=1))


def _mean_f1_of_seen(totals: Values) -> Values:
    hits, predicted, positive = np.split(totals, 3, axis=1)
    return divide(f1(hits, predicted, positive).sum(axis=1), (predicted + positive > 0).sum(axis=1))


def _pooled_f1(totals: Values) -> Values:
    pooled = np.stack([part.sum(axis=1) for part in np.split(totals, 3, axis=1)])
    return f1(*pooled)
