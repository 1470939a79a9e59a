"""Which pictures a report has, and their files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fivefold.report.bars import class_imbalance, label_bars
from fivefold.report.canvas import Drawing, Picture, calm_style, save
from fivefold.report.confusion import MOST_MATRICES, confusion_matrix
from fivefold.report.content import ReportContent
from fivefold.report.curves import threshold_curves
from fivefold.report.dots import fold_spread, metric_intervals
from fivefold.report.learning import learning_curves
from fivefold.report.reliability import reliability_diagram


def save_pictures(content: ReportContent, folder: Path) -> tuple[Picture, ...]:
    """Draw every picture that applies to the task into `folder`, each as PNG and SVG.

    The same content gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with calm_style():
        return tuple(save(drawing, folder) for drawing in _drawings(content))


def _drawings(content: ReportContent) -> Iterator[Drawing]:
    if any(math.isfinite(estimate.value) for estimate in content.evaluation.estimates.values()):
        yield metric_intervals(content)
    if sum(math.isfinite(value) for value in content.folds) > 1:
        yield fold_spread(content)
    if content.evaluation.labels:
        yield label_bars(content)
    if content.task.binaries:
        yield threshold_curves(content)
    yield reliability_diagram(content)
    for number, target in enumerate(content.task.categoricals[:MOST_MATRICES], start=1):
        yield confusion_matrix(content, target, f"confusion_{number}")
    yield class_imbalance(content)
    for number, (member, curves) in enumerate(content.learning.items(), start=1):
        if any(len(curve.checked) or len(curve.epochs) for curve in curves):
            yield learning_curves(curves, content.evaluation.metric, member, f"learning_{number}")
