"""Class weights: how much each side of a label counts."""

from __future__ import annotations

import numpy as np

from fivefold.task import MISSING, FloatArray, Labels


def balanced_weights(labels: Labels, cap: float | None = None) -> FloatArray:
    """Weights that give both sides of every logit the same total.

    For each column of the task, rows / (2 x rows of that side), as scikit-learn's "balanced"
    (King & Zeng, 2001); 1 for a side that no row has. A categorical counts one class against the rest.

    Parameters
    ----------
    labels
        Training labels; missing cells don't count.
    cap
        No weight above this.

    Returns
    -------
    float32 (width, 2): weight of the negative and of the positive side of each logit.
    """
    counts = np.concatenate([_side_counts(labels, name) for name in labels.task.names])
    totals = counts.sum(axis=1, keepdims=True)
    weights = np.where(counts > 0, totals / (2 * np.maximum(counts, 1)), 1.0)
    return np.minimum(weights, np.inf if cap is None else cap).astype(np.float32)


def _side_counts(labels: Labels, name: str) -> FloatArray:
    target = labels.task.target(name)
    codes = labels.column(name)
    seen = codes[codes != MISSING]
    by_class = np.bincount(seen, minlength=len(target.classes)).astype(np.float32)
    positives = by_class[1:] if target.width == 1 else by_class
    return np.stack([len(seen) - positives, positives], axis=1)
