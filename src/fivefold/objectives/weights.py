"""Class weights: how much each side of a label counts; and where its logit starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.errors import RecipeError
from fivefold.task import MISSING, FloatArray, Labels, Task

ClassWeights: TypeAlias = Literal["none", "balanced", "positive"]

BINARY_HEAD = "binary"
"""What all binaries together are called among the head weights."""


def side_weights(labels: Labels, class_weights: ClassWeights, cap: float | None = None) -> FloatArray | None:
    """Weights of the sides of every logit, where each class of a categorical is set against the rest.

    Returns
    -------
    float32 (width, 2): weight of the negative and of the positive side; None where all count alike.
    """
    return _chosen(labels, class_weights, balanced_weights, cap)


def loss_weights(labels: Labels, class_weights: ClassWeights, cap: float | None = None) -> FloatArray | None:
    """As `side_weights`, where a categorical is one softmax, in which only the true class's weight counts.

    "balanced" is then rows / (classes x rows of the class), so that the mean row weighs 1 however many classes
    there are; against the rest it would weigh half the number of classes.
    """
    return _chosen(labels, class_weights, _balanced_softmax, cap)


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
    return _capped(np.where(counts > 0, totals / (2 * np.maximum(counts, 1)), 1.0), cap)


def positive_weights(labels: Labels, cap: float | None = None) -> FloatArray:
    """Weights that lift the positive side of every binary to its negative side: rows without / max(rows with, 1).

    Everything else weighs 1, also a binary that every row has, whose only side would else count for nothing.

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
    weights = np.ones((labels.task.width, 2), dtype=np.float32)
    for target in labels.task.binaries:
        ((without, having),) = _side_counts(labels, target.name)
        weights[labels.task.slices[target.name], 1] = without / max(having, 1) if without else 1
    return _capped(weights, cap)


def label_biases(labels: Labels) -> FloatArray:
    """Logits of the frequencies in `labels`, from which a head starts: log-odds and log-priors.

    Half a row is added to each side or class (Jeffreys' prior), so that all are finite; missing cells don't count.

    Returns
    -------
    float32 (width,).
    """
    biases = [_prior_logits(labels.probabilities(name)) for name in labels.task.names]
    return np.concatenate(biases).astype(np.float32)


def _chosen(
    labels: Labels,
    class_weights: ClassWeights,
    balanced: Callable[[Labels, float | None], FloatArray],
    cap: float | None,
) -> FloatArray | None:
    if class_weights == "none":
        return None
    return balanced(labels, cap) if class_weights == "balanced" else positive_weights(labels, cap)


def _balanced_softmax(labels: Labels, cap: float | None) -> FloatArray:
    weights = balanced_weights(labels)
    for target in labels.task.categoricals:
        counts = _side_counts(labels, target.name)[:, 1]
        # Classes that no row has weigh 1 and take no share, as in scikit-learn.
        seen = int((counts > 0).sum())
        weights[labels.task.slices[target.name], 1] *= np.where(counts > 0, 2 / max(seen, 1), 1.0).astype(np.float32)
    return _capped(weights, cap)


def _side_counts(labels: Labels, name: str) -> FloatArray:
    target = labels.task.target(name)
    codes = labels.column(name)
    seen = codes[codes != MISSING]
    by_class = np.bincount(seen, minlength=len(target.classes)).astype(np.float32)
    positives = by_class[1:] if target.width == 1 else by_class
    return np.stack([len(seen) - positives, positives], axis=1)


def _capped(weights: npt.NDArray[np.floating], cap: float | None) -> FloatArray:
    return np.asarray(np.minimum(weights, np.inf if cap is None else cap), dtype=np.float32)


def _prior_logits(probabilities: FloatArray) -> npt.NDArray[np.float64]:
    """(rows, 1) or (rows, classes) to log-odds (1,) or log-priors (classes,)."""
    seen = probabilities[~np.isnan(probabilities[:, 0])].astype(np.float64)
    mass = seen.sum(axis=0) + 0.5
    rest = len(seen) + 1 - mass if len(mass) == 1 else mass.sum()
    return np.asarray(np.log(mass / rest))


def check_heads(task: Task, head_weights: Mapping[str, float]) -> None:
    """Refuse weights of heads that the task doesn't have; all its binaries are one, "binary".

    Raises
    ------
    RecipeError
        If `head_weights` names what is neither "binary" nor a categorical of the task.
    """
    heads = [*([BINARY_HEAD] if task.binaries else []), *(target.name for target in task.categoricals)]
    strange = [name for name in head_weights if name not in heads]
    if strange:
        raise RecipeError(
            "objective.head_weights names heads that the task doesn't have.",
            allowed=", ".join(heads),
            got=", ".join(strange),
            next_step="weigh single binaries by objective.class_weights, or mend the names",
        )
