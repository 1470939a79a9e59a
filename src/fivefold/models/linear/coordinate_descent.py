"""Fit linear classifiers of many labels together, by dual coordinate descent on one shared sparse matrix."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from fivefold.errors import DataError
from fivefold.models.linear import coordinate_kernels as kernels

Loss = Literal["logistic", "squared_hinge", "softmax"]
Intercept = Literal["penalised", "free", "none"]
Floats = npt.NDArray[np.float32]

_LOSSES = {name: code for code, name in enumerate(get_args(Loss))}


@dataclass(frozen=True)
class LinearSettings:
    """How linear classifiers are fitted.

    Parameters
    ----------
    loss
        ``logistic`` and ``squared_hinge`` solve each label for itself; ``softmax`` solves the classes of a categorical
        together.
    C
        Weight of the losses against half the squared length of the weights, as in scikit-learn.
    intercept
        ``penalised`` as in liblinear, the weight of a constant feature; ``free`` as in scikit-learn's other solvers.
    intercept_scale
        Value of the constant feature.
    tolerance
        Stop when no visit of an epoch moved its row by more than this: in probability, for ``squared_hinge`` in margin.
    max_epochs
        Stop after this many passes over the rows in any case.
    seed
        Order of the rows.
    """

    loss: Loss = "logistic"
    C: float = 1.0
    intercept: Intercept = "penalised"
    intercept_scale: float = 1.0
    tolerance: float = 0.01
    max_epochs: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in _LOSSES:
            raise DataError("unknown loss of a linear model", allowed=", ".join(_LOSSES), got=repr(self.loss))
        if not self.C > 0:
            raise DataError("C of a linear model is out of range", allowed="C > 0", got=str(self.C))


@dataclass(frozen=True)
class LinearWeights:
    """Fitted weights.

    Attributes
    ----------
    weights : array of float32, shape (features, labels)
    bias : array of float32, shape (labels,)
    epochs : int
        Passes over the rows that the slowest label took.
    """

    weights: Floats
    bias: Floats
    epochs: int


def fit_linear(
    features: csr_array,
    targets: npt.ArrayLike,
    settings: LinearSettings,
    *,
    class_weights: npt.ArrayLike | None = None,
    row_weights: npt.ArrayLike | None = None,
    threads: int = 1,
) -> LinearWeights:
    """Fit every label.

    Parameters
    ----------
    features : csr_array of float32, shape (rows, features)
    targets : array, shape (rows, labels)
        Labels in [0, 1], soft ones for the logistic and softmax losses; NaN where unknown, which then teaches nothing.
    class_weights : array, shape (labels, 2)
        Weights of negative and positive rows; a soft label gets a mixture.
    row_weights : array, shape (rows,) or (rows, labels)
    threads
        Tiles of 16 labels solved at the same time; ``softmax`` uses one. The result does not depend on it.

    Raises
    ------
    DataError
        Shapes do not fit, or a target is outside [0, 1].
    """
    targets = _checked(features, targets)
    squares: Floats = kernels.squared_lengths(features.indptr, features.data)
    costs = _costs(targets, settings, class_weights, row_weights)
    weights = np.zeros((features.shape[1], targets.shape[1]), np.float32)
    bias = np.zeros(targets.shape[1], np.float32)
    groups = _groups(targets, settings)

    def solve(labels: npt.NDArray[np.intp]) -> int:
        tiles, offset, epochs = _solve(features, squares, targets[:, labels], costs(labels), settings)
        for tile, values in enumerate(tiles):
            chosen = labels[tile * kernels.LANES : (tile + 1) * kernels.LANES]
            weights[:, chosen] = values[:, : len(chosen)]
        bias[labels] = offset[: len(labels)]
        return epochs

    with ThreadPoolExecutor(threads) as pool:
        epochs = max(pool.map(solve, groups), default=0)
    return LinearWeights(weights, bias, epochs)


def _checked(features: csr_array, targets: npt.ArrayLike) -> Floats:
    targets = np.asarray(targets, np.float32)
    if targets.ndim != 2 or len(targets) != features.shape[0]:
        raise DataError(
            "targets do not fit the features", allowed=f"({features.shape[0]}, labels)", got=str(targets.shape)
        )
    if np.nanmin(targets, initial=0) < 0 or np.nanmax(targets, initial=1) > 1:
        raise DataError("a target is out of range", allowed="0 to 1, or NaN where unknown")
    return targets


def _groups(targets: Floats, settings: LinearSettings) -> list[npt.NDArray[np.intp]]:
    """Labels that are solved together: all for softmax, else tiles of labels that are about as frequent.

    A row rests only when it is settled for the whole tile, and for rare labels most rows are settled early.
    """
    order = np.argsort(-np.nansum(targets, 0), kind="stable")
    if settings.loss == "softmax":
        return [np.arange(len(order))]
    return [order[start : start + kernels.LANES] for start in range(0, len(order), kernels.LANES)]


def _costs(
    targets: Floats, settings: LinearSettings, class_weights: npt.ArrayLike | None, row_weights: npt.ArrayLike | None
) -> Callable[[npt.NDArray[np.intp]], Floats]:
    """A function that gives the costs ``(rows, chosen labels)``: C times the weights, 0 where the label is unknown."""
    per_class = np.ones((targets.shape[1], 2), np.float32) if class_weights is None else np.asarray(class_weights)
    per_row = np.ones((len(targets), 1), np.float32) if row_weights is None else np.asarray(row_weights)
    per_row = per_row.reshape(len(targets), -1)

    def costs(labels: npt.NDArray[np.intp]) -> Floats:
        y = targets[:, labels]
        negative, positive = per_class[labels].T
        rows = per_row if per_row.shape[1] == 1 else per_row[:, labels]
        if settings.loss == "softmax":
            values = np.broadcast_to(settings.C * rows[:, :1] * (y @ positive)[:, None], y.shape)
        else:
            values = settings.C * rows * (negative + y * (positive - negative))
        known: Floats = np.nan_to_num(values).astype(np.float32)
        return known

    return costs


def _whole_tiles(labels: int) -> int:
    return -(-labels // kernels.LANES)


def _padded(values: Floats) -> Floats:
    """Copy with zeros for the lanes that fill the last tile."""
    padded = np.zeros((len(values), _whole_tiles(values.shape[1]) * kernels.LANES), np.float32)
    padded[:, : values.shape[1]] = values
    return padded


def _aligned_zeros(*shape: int) -> Floats:
    """Zeros that start at a cache line; rows that straddle two lines double the memory traffic."""
    raw = np.zeros(np.prod(shape) + kernels.LANES, np.float32)
    start = -raw.ctypes.data % 64 // raw.itemsize
    return raw[start : start + np.prod(shape)].reshape(shape)


def _solve(
    features: csr_array, squares: Floats, targets: Floats, costs: Floats, settings: LinearSettings
) -> tuple[Floats, Floats, int]:
    """Descend until the tolerance holds; returns tiles of weights, the bias in logits, and the epochs."""
    constant = np.float32(0 if settings.intercept == "none" else settings.intercept_scale)
    tiles = _whole_tiles(targets.shape[1])
    targets = np.nan_to_num(targets)
    if settings.loss != "softmax":  # whose empty lanes would draw probability
        targets, costs = _padded(targets), _padded(costs)
    duals = np.zeros_like(targets)
    weights = _aligned_zeros(tiles, features.shape[1], kernels.LANES)
    bias = np.zeros(tiles * kernels.LANES, np.float32)
    quiet, rest = np.zeros(len(targets), np.uint8), np.zeros(len(targets), np.uint8)
    random = np.random.default_rng(settings.seed)
    squares = squares + constant**2
    epochs = 0
    while epochs < settings.max_epochs:
        epochs += 1
        largest = kernels.descend(
            _LOSSES[settings.loss], features.indptr, features.indices, features.data, random.permutation(len(targets)),
            squares, targets, costs, duals, weights, bias, constant,
            np.float32(settings.tolerance / 10), quiet, rest,
        )  # fmt: skip
        if largest <= settings.tolerance:
            break
        if settings.intercept == "free":
            # Method of multipliers: the penalty pulls towards the last bias instead of 0, until the duals sum to 0.
            bias[: duals.shape[1]] += constant * duals.sum(0)
    return weights, constant * bias, epochs
