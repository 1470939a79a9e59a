"""Maps from scores to scores that make the probabilities honest, fitted on out-of-fold scores.

Every map works row by row, so scores too large for memory are mapped chunk by chunk. Rows whose
label is missing don't take part in fitting the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from fivefold.errors import ArtefactError, LabelError
from fivefold.evaluation.sums import Values
from fivefold.scores import CHUNK, Scores, log_softmax, to_logits
from fivefold.task import MISSING, Binary, FloatArray, Labels

TEMPERATURES = (0.05, 20.0)
"""Bounds of the search for a temperature."""

CELLS = 2**17
"""Logits worked on at once while fitting: 512 KiB stay in the cache, which halves the search where wide."""


class Calibration(Protocol):
    """A map from scores to scores of the same rows."""

    def apply(self, scores: Scores) -> Scores:
        """The calibrated scores, a new block."""
        ...

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        ...


@dataclass(frozen=True)
class Uncalibrated:
    """Scores as the model gave them."""

    def apply(self, scores: Scores) -> Scores:
        """The scores themselves."""
        return scores

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return {"kind": "none"}


@dataclass(frozen=True)
class Temperature:
    """Logits divided by one temperature a target: Guo et al. 2017, arXiv 1706.04599, section 4.2.

    Parameters
    ----------
    temperatures
        Target name to its temperature; above 1 makes the target less sure.
    """

    temperatures: Mapping[str, float]

    def apply(self, scores: Scores) -> Scores:
        """The calibrated scores, a new block."""
        task, logits = scores.task, np.empty(scores.logits.shape, dtype=np.float32)
        for start in range(0, len(scores), CHUNK):
            rows = slice(start, start + CHUNK)
            for target in task.targets:
                columns = task.slices[target.name]
                scaled = scores.logits[rows, columns] / np.float32(self.temperatures[target.name])
                logits[rows, columns] = scaled if isinstance(target, Binary) else log_softmax(scaled)
        return Scores(task, scores.ids, logits)

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return {"kind": "temperature", "temperatures": dict(self.temperatures)}


@dataclass(frozen=True)
class Curve:
    """From a logit (log-odds or log-probability) x to a probability y: straight between points, level beyond."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, logits: FloatArray) -> FloatArray:
        """Probabilities in the shape of `logits`."""
        return np.interp(logits, self.x, self.y).astype(np.float32)


@dataclass(frozen=True)
class Isotonic:
    """A monotone curve a column; a categorical's columns, each against the rest, are then renormalised.

    Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass probability
    estimates". Renormalising gives up the promise that log loss can't rise where it was fitted.

    Parameters
    ----------
    curves
        One for each of `task.columns`.
    """

    curves: tuple[Curve, ...]

    def apply(self, scores: Scores) -> Scores:
        """The calibrated scores, a new block; a row whose classes all fall to zero keeps its own."""
        logits = np.empty(scores.logits.shape, dtype=np.float32)
        for start in range(0, len(scores), CHUNK):
            rows = slice(start, start + CHUNK)
            logits[rows] = self._map(Scores(scores.task, scores.ids[rows], scores.logits[rows]))
        return Scores(scores.task, scores.ids, logits)

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        return {"kind": "isotonic", "curves": [asdict(curve) for curve in self.curves]}

    def _map(self, scores: Scores) -> FloatArray:
        task, mapped = scores.task, scores.probabilities()
        for target in task.targets:
            columns = task.slices[target.name]
            block, curves = scores.logits[:, columns], self.curves[columns]
            if isinstance(target, Binary):
                mapped[:, columns] = curves[0](block)
            else:
                logs = log_softmax(block)
                each = np.stack([curve(logs[:, i]) for i, curve in enumerate(curves)], axis=1)
                total = each.sum(axis=1, keepdims=True)
                np.divide(each, total, out=mapped[:, columns], where=total > 0)
        return to_logits(task, mapped)


def uncalibrated(scores: Scores, labels: Labels) -> Uncalibrated:
    """Leave the scores alone."""
    return Uncalibrated()


def fit_temperature(scores: Scores, labels: Labels) -> Temperature:
    """The temperature of each target that minimises its log loss; 1 where none is better."""
    return Temperature({name: _temperature(scores, labels, name) for name in scores.task.names})


def fit_isotonic(scores: Scores, labels: Labels) -> Isotonic:
    """The monotone curve of each column that is closest to its labels.

    Raises
    ------
    LabelError
        If a target has no labelled row.
    """
    bare = [name for name in scores.task.names if (labels.column(name) == MISSING).all()]
    if bare:
        raise LabelError(
            "Isotonic calibration needs labelled rows of every target.",
            got=f"none for {', '.join(bare)}",
            next_step="calibrate by temperature, or drop these targets",
        )
    return Isotonic(tuple(curve for name in scores.task.names for curve in _curves(scores, labels, name)))


FITS: Mapping[str, Callable[[Scores, Labels], Calibration]] = {
    "none": uncalibrated,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}


def from_json(plain: Mapping[str, Any]) -> Calibration:
    """The calibration that `to_json` described.

    Raises
    ------
    ArtefactError
        If its kind is unknown.
    """
    match plain.get("kind"):
        case "none":
            return Uncalibrated()
        case "temperature":
            return Temperature(dict(plain["temperatures"]))
        case "isotonic":
            return Isotonic(tuple(Curve(tuple(c["x"]), tuple(c["y"])) for c in plain["curves"]))
    raise ArtefactError("Unknown calibration.", allowed=", ".join(FITS), got=str(plain.get("kind")))


def _temperature(scores: Scores, labels: Labels, name: str) -> float:
    observed = np.flatnonzero(labels.column(name) != MISSING)
    block = scores.block(name)
    agreement = _agreement(block, labels, name, observed)

    def loss(log_temperature: float) -> float:
        scale = np.float32(np.exp(-log_temperature))
        total = sum(float(_normaliser(block[rows] * scale).sum()) for rows in _pieces(observed, block.shape[1]))
        return (total - float(scale) * agreement) / max(len(observed), 1)

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _agreement(block: FloatArray, labels: Labels, name: str, observed: npt.NDArray[np.int64]) -> float:
    """Sum over rows of the logits, weighted by the labels' probabilities: log loss is normaliser minus this."""
    target = labels.task.target(name)
    total = 0.0
    for rows in _pieces(observed, block.shape[1]):
        logits = block[rows].astype(np.float64)
        if isinstance(target, Binary) or name in labels.soft:
            total += float((labels.take(rows).probabilities(name) * logits).sum())
        else:
            total += float(logits[np.arange(len(rows)), labels.column(name)[rows]].sum())
    return total


def _normaliser(logits: FloatArray) -> Values:
    """log(1 + exp) of a binary's logit, log-sum-exp of a categorical's; (rows,) in float64."""
    if logits.shape[1] == 1:
        return np.asarray(np.logaddexp(0, logits[:, 0].astype(np.float64)))
    top = logits.max(axis=1, keepdims=True)
    shifted = logits - top
    np.exp(shifted, out=shifted)
    return np.asarray(np.log(shifted.sum(axis=1, dtype=np.float64)) + top[:, 0])


def _curves(scores: Scores, labels: Labels, name: str) -> Iterator[Curve]:
    codes, block, target = labels.column(name), scores.block(name), scores.task.target(name)
    observed = np.flatnonzero(codes != MISSING)
    shift = _shift(block, observed)
    for index in range(target.width):
        if name in labels.soft:
            outcomes = labels.soft[name][observed, index]
        else:
            outcomes = codes[observed] == (1 if isinstance(target, Binary) else index)
        yield _curve(block[observed, index] - shift, outcomes)


def _shift(block: FloatArray, observed: npt.NDArray[np.int64]) -> FloatArray:
    """What turns a categorical's logits into log-probabilities, (observed,); 0 for a binary."""
    if block.shape[1] == 1:
        return np.zeros(len(observed), dtype=np.float32)
    parts = [_normaliser(block[rows]) for rows in _pieces(observed, block.shape[1])]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def _curve(logits: FloatArray, outcomes: npt.NDArray[Any]) -> Curve:
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, outcomes)
    return Curve(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


def _pieces(rows: npt.NDArray[np.int64], width: int) -> Iterator[npt.NDArray[np.int64]]:
    step = max(1, CELLS // width)
    return (rows[start : start + step] for start in range(0, len(rows), step))
