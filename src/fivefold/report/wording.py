"""How figures and names read, the same in pictures, page and card."""

from __future__ import annotations

import math
import re

from fivefold.evaluation.summary import Estimate, LabelReport
from fivefold.task import Binary, Task

CAPITALS = ("auc", "ece", "f1", "iou", "mae", "map", "mcc", "ndcg", "pr", "rmse", "roc")


def number(value: float | None) -> str:
    """A metric with three decimals; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def interval(estimate: Estimate) -> str:
    """The two ends of an estimate's interval."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "–"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def percent(probability: float) -> str:
    """A probability in per cent, never rounded to certainty."""
    if 0 < probability < 0.01:
        return "<1 %"
    if 0.99 < probability < 1:
        return ">99 %"
    return f"{probability:.0%}".replace("%", " %")


def metric_title(name: str) -> str:
    """A metric's key as a reader knows it: `macro_f1` is Macro F1."""
    words = [word.upper() if word.lower() in CAPITALS else word for word in re.split(r"[_\s]+", name)]
    title = " ".join(words)
    return title[:1].upper() + title[1:]


def shorten(text: str, length: int) -> str:
    """The text on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def line_name(line: LabelReport, task: Task) -> str:
    """What a line of the evaluation is about: a binary's name, or a class and whose it is."""
    if isinstance(task.target(line.target), Binary):
        return line.target
    return line.label if len(task.targets) == 1 else f"{line.target}: {line.label}"


def code_name(task: Task, target: str, code: int) -> str:
    """What a code of a target says."""
    owner = task.target(target)
    if code < 0:
        return "–"
    if isinstance(owner, Binary):
        return ("no", "yes")[code]
    return owner.classes[code]
