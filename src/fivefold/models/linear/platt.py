"""Margins of a linear SVM to log-odds and log-probabilities."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from fivefold.scores import log_softmax
from fivefold.task import MISSING, Binary, FloatArray, IntArray, Labels

FALLBACK = 2.0
"""Scale where the rows can't teach one: a margin of 1 then says a probability of .88."""


def fit_scales(margins: FloatArray, labels: Labels, names: Collection[str]) -> FloatArray:
    """Scale and shift of each logit.

    A binary gets Platt's sigmoid with his smoothed targets (Platt 1999, section 2.2); a categorical
    one scale for all classes, which minimises the log loss of the softmax.

    Parameters
    ----------
    margins
        float32 (rows, width), of rows that did not train the SVM.
    names
        The targets to learn from these rows; the others get the scale `FALLBACK`.

    Returns
    -------
    float32 (2, width).
    """
    scales = np.zeros((2, labels.task.width), dtype=np.float32)
    for target in labels.task.targets:
        place, codes = labels.task.slices[target.name], labels.column(target.name)
        known = codes != MISSING
        block = margins[known, place]
        if target.name not in names:
            scales[0, place] = FALLBACK
        elif isinstance(target, Binary):
            scales[:, place.start] = _sigmoid(block[:, 0], codes[known])
        else:
            scales[0, place] = _temperature(block, codes[known])
    return scales


def _sigmoid(margins: npt.NDArray[np.float32], codes: IntArray) -> tuple[float, float]:
    positives = int(codes.sum())
    negatives = len(codes) - positives
    if not (positives and negatives):
        return FALLBACK, 0.0
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    chance = np.where(codes == 1, high, low)
    # A soft target is a positive and a negative row with weights that sum to one.
    twice = np.concatenate([margins, margins])[:, None]
    outcome = np.repeat([1, 0], len(codes))
    model = LogisticRegression(C=1e6).fit(twice, outcome, sample_weight=np.concatenate([chance, 1 - chance]))
    slope = float(model.coef_[0, 0])
    return (slope, float(model.intercept_[0])) if slope > 0 else (FALLBACK, 0.0)


def _temperature(margins: npt.NDArray[np.float32], codes: IntArray) -> float:
    if not len(codes):
        return FALLBACK

    def loss(log_scale: float) -> float:
        predicted = log_softmax(np.asarray(margins * np.exp(log_scale), dtype=np.float32))
        return float(-predicted[np.arange(len(codes)), codes].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))
