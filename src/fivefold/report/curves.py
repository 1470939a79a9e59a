"""What another threshold would have given: F1 of each binary against its threshold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from fivefold.report.canvas import BLUE, MUTED, RED, WIDTH, Drawing, titled_figure
from fivefold.report.content import ReportContent
from fivefold.report.wording import number, shorten
from fivefold.scores import CHUNK, Scores, sigmoid
from fivefold.task import IntArray, Labels

MOST_CURVES = 24
"""Most labels drawn; the most frequent ones."""

STEPS = 200
"""Thresholds tried between 0 and 1."""


def f1_by_threshold(scores: Scores, labels: Labels) -> npt.NDArray[np.float64]:
    """F1 of every binary when it is predicted from probability t/STEPS on: (binaries, STEPS)."""
    positives = np.zeros((len(scores.task.binaries), STEPS))
    others = np.zeros_like(positives)
    codes = labels.binary_codes
    for start in range(0, len(scores), CHUNK):
        rows = slice(start, start + CHUNK)
        steps = _steps(scores.logits[rows, scores.task.binary_columns])
        for label, (step, code) in enumerate(zip(steps.T, codes[rows].T, strict=True)):
            positives[label] += np.bincount(step[code == 1], minlength=STEPS)
            others[label] += np.bincount(step[code == 0], minlength=STEPS)
    found = positives[:, ::-1].cumsum(axis=1)[:, ::-1]
    predicted = found + others[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.asarray(2 * found / np.maximum(predicted + positives.sum(axis=1, keepdims=True), 1))


def threshold_curves(content: ReportContent) -> Drawing:
    """F1 against threshold, one small panel a label."""
    support = (content.labels.binary_codes == 1).sum(axis=0)
    chosen = np.argsort(-support, kind="stable")[:MOST_CURVES]
    curves = f1_by_threshold(content.scores, content.labels)
    columns = min(4, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    title = "F1 against threshold"
    figure = titled_figure(title, 0.9 + 1.55 * rows, width=max(4.5, WIDTH * columns / 4))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, label in zip(grid.flat, chosen, strict=False):
        name = content.task.binaries[label].name
        _draw_curve(axes, name, curves[label], content.thresholds.get(name))
    figure.supxlabel("threshold (probability from which on the label is predicted)", fontsize=9, color=MUTED)
    figure.supylabel("F1", fontsize=9, color=MUTED)
    caption = "The red line is the threshold in use; a flat curve around it means that its exact place matters little."
    if len(chosen) < len(support):
        caption += f" The {len(chosen)} most frequent of {len(support):,} labels are drawn."
    return Drawing("thresholds", title, caption, figure)


def _steps(logits: npt.NDArray[np.float32]) -> IntArray:
    return np.minimum((sigmoid(logits) * STEPS).astype(np.int32), STEPS - 1)


def _draw_curve(axes: Axes, name: str, curve: npt.NDArray[np.float64], threshold: float | None) -> None:
    axes.plot(np.arange(STEPS) / STEPS, curve, color=BLUE, linewidth=1.6)
    axes.fill_between(np.arange(STEPS) / STEPS, curve, color=BLUE, alpha=0.12, linewidth=0)
    axes.set_title(shorten(name, 24))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    if threshold is not None:
        axes.axvline(threshold, color=RED, linewidth=1.4)
        left = threshold > 0.6
        axes.annotate(
            number(threshold),
            (threshold, 0.06),
            xytext=(-4 if left else 4, 0),
            color=RED,
            textcoords="offset points",
            fontsize=7.5,
            ha="right" if left else "left",
        )
