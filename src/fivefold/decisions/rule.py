"""The decision rule: from a model's scores to decisions, fitted on out-of-fold scores, kept as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.decisions import thresholds as tuning
from fivefold.decisions.calibration import FITS, Calibration, from_json
from fivefold.decisions.decode import decide_consistently, decide_freely
from fivefold.evaluation.intervals import Predictions
from fivefold.evaluation.sums import Values
from fivefold.scores import Scores
from fivefold.task import IntArray, Labels

Thresholds: TypeAlias = Literal["sweep", "grid", "common"] | float
Calibrations: TypeAlias = Literal["none", "temperature", "isotonic"]
Consistency: TypeAlias = Literal["consistent", "free"]

DECIDE = {"consistent": decide_consistently, "free": decide_freely}


@dataclass(frozen=True)
class DecisionRule:
    """Calibration, then thresholds for binaries and the best class or path for categoricals.

    Parameters
    ----------
    calibration
        From the model's scores to honest ones.
    thresholds
        Binary name to the calibrated probability above which it is predicted.
    tree
        "consistent": categoricals of a tree take its most probable valid path; "free": each its
        most probable class. The same for a task without a tree.
    """

    calibration: Calibration
    thresholds: Mapping[str, float]
    tree: Consistency

    def calibrate(self, scores: Scores) -> Scores:
        """Calibrated scores in memory; map scores that don't fit there by their chunks."""
        return self.calibration.apply(scores)

    def decide(self, scores: Scores) -> IntArray:
        """Decisions from the model's own (uncalibrated) scores, int32 (rows, targets)."""
        parts = [self.decide_calibrated(self.calibrate(chunk)) for chunk in scores.chunks()]
        return np.concatenate([np.zeros((0, len(scores.task.targets)), dtype=np.int32), *parts])

    def decide_calibrated(self, scores: Scores) -> IntArray:
        """Decisions from scores that `calibrate` gave, int32 (rows, targets)."""
        cuts = np.array([self.thresholds[target.name] for target in scores.task.binaries])
        return DECIDE[self.tree](scores, cuts)

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back, every float exactly."""
        return {
            "calibration": self.calibration.to_json(),
            "thresholds": dict(self.thresholds),
            "tree": self.tree,
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> DecisionRule:
        """The rule that `to_json` described."""
        return DecisionRule(from_json(plain["calibration"]), dict(plain["thresholds"]), plain["tree"])


def fit_rule(
    scores: Scores,
    labels: Labels,
    *,
    metric: str,
    thresholds: Thresholds = "sweep",
    shrinkage: float = tuning.SHRINKAGE,
    calibration: Calibrations = "none",
    tree: Consistency = "consistent",
) -> DecisionRule:
    """Fit a rule on out-of-fold scores and the labels of the same rows.

    Parameters
    ----------
    metric
        What the thresholds maximise, a key of `METRICS`. Metrics that don't look at the binaries'
        decisions (log loss, ROC AUC, item accuracy) leave them at .5.
    thresholds
        "sweep" all cuts of each label, the published "grid" of 101, one "common" cut, or a number for all.
    shrinkage
        How strongly "sweep" and "grid" pull labels' thresholds to their curves'; see `thresholds.shrink`.
    calibration, tree
        See `DecisionRule`.
    """
    fitted = FITS[calibration](scores, labels)
    cuts = _cuts(fitted.apply(scores), labels, metric, thresholds, shrinkage)
    names = [target.name for target in labels.task.binaries]
    return DecisionRule(fitted, dict(zip(names, cuts.tolist(), strict=True)), tree)


def cross_fitted(
    scores: Scores,
    labels: Labels,
    folds: npt.NDArray[Any],
    fit: Callable[[Scores, Labels], DecisionRule],
    *,
    seed: int = 0,
) -> Predictions:
    """Calibrated scores and decisions in which no row chose the rule that decides it.

    For every value in `folds` the rule is fitted on the rows of the others and applied to its rows.
    With one value only (a single hold-out) the rows are split at random into two halves instead,
    each decided by the rule of the other.

    Parameters
    ----------
    scores, labels
        Out-of-fold scores and the labels of the same rows.
    folds
        Fold of each row, (rows,).
    fit
        Scores and labels to a rule, such as `functools.partial(fit_rule, metric="f1_macro")`.
    seed
        Of the halves.
    """
    parts = folds if len(np.unique(folds)) > 1 else halves(len(scores), seed)
    logits = np.empty(scores.logits.shape, dtype=np.float32)
    decisions = np.empty(labels.codes.shape, dtype=np.int32)
    for part in np.unique(parts):
        inside = parts == part
        rule = fit(scores.take(~inside), labels.take(~inside))
        calibrated = rule.calibrate(scores.take(inside))
        logits[inside], decisions[inside] = calibrated.logits, rule.decide_calibrated(calibrated)
    return Predictions(decisions, Scores(scores.task, scores.ids, logits))


def halves(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """0 or 1 for each row, half of each at random, (rows,)."""
    return np.random.default_rng(seed).permutation(rows) % 2


def _cuts(scores: Scores, labels: Labels, metric: str, thresholds: Thresholds, shrinkage: float) -> Values:
    match thresholds:
        case "sweep":
            return tuning.sweep(scores, labels, metric, shrinkage)
        case "grid":
            return tuning.grid(scores, labels, metric, shrinkage)
        case "common":
            return tuning.common(scores, labels, metric)
        case _:
            return tuning.fixed(labels, float(thresholds))
