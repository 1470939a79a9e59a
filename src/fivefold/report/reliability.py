"""Whether a probability of 70 % is right in 70 of 100 rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, SubFigure

from fivefold.report.canvas import BLUE, MUTED, PAPER, WIDTH, Drawing, titled_figure
from fivefold.report.content import ReportContent
from fivefold.report.wording import number, shorten
from fivefold.scores import CHUNK, Scores, log_softmax, sigmoid
from fivefold.task import MISSING, Labels

BINS = 15
"""Equally wide bins of probability."""

MOST_PANELS = 9
"""Most panels drawn; the binaries share one, each categorical has its own."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Answers binned by the probability they were given.

    Parameters
    ----------
    title
        Whose answers.
    counts, probability, right
        Of each bin: answers, their summed probabilities, and how many were right; (bins,).
    """

    title: str
    counts: Array
    probability: Array
    right: Array

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' mean distance from the diagonal (Guo et al. 2017)."""
        return float(np.abs(self.probability - self.right).sum() / max(self.counts.sum(), 1))


def pooled_binaries(scores: Scores, labels: Labels) -> Reliability:
    """All binaries together: the probability of the label, and whether it is there."""
    codes, sums = labels.binary_codes, np.zeros((3, BINS))
    for start in range(0, len(scores), CHUNK):
        rows = slice(start, start + CHUNK)
        probability, code = sigmoid(scores.logits[rows, scores.task.binary_columns]), codes[rows]
        known = code != MISSING
        sums += _binned(probability[known], code[known] == 1)
    return Reliability("All labels" if codes.shape[1] > 1 else scores.task.binaries[0].name, *sums)


def top_class(scores: Scores, labels: Labels, name: str) -> Reliability:
    """One categorical: the probability of the most probable class, and whether it is true."""
    codes, block, sums = labels.column(name), scores.block(name), np.zeros((3, BINS))
    for start in range(0, len(scores), CHUNK):
        logits, code = np.asarray(block[start : start + CHUNK]), codes[start : start + CHUNK]
        probability, known = np.exp(log_softmax(logits).max(axis=1)), code != MISSING
        sums += _binned(probability[known], logits.argmax(axis=1)[known] == code[known])
    return Reliability(name, *sums)


def reliability_diagram(content: ReportContent) -> Drawing:
    """Observed frequency against probability, with a histogram of the probabilities below."""
    task = content.task
    pooled = [pooled_binaries(content.scores, content.labels)] if task.binaries else []
    names = [target.name for target in task.categoricals][: MOST_PANELS - len(pooled)]
    panels = pooled + [top_class(content.scores, content.labels, name) for name in names]
    title = "How far probabilities can be trusted"
    figure = _draw_panels(title, panels)
    caption = (
        "Dots (larger for more answers) on the diagonal mean that probabilities hold what they say; below it the model"
        " is too sure, above it too cautious. A categorical is judged by its most probable class."
    )
    if len(names) < len(task.categoricals):
        caption += f" The first {len(names)} of {len(task.categoricals)} categoricals are drawn."
    return Drawing("reliability", title, caption, figure)


def _binned(probability: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> Array:
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    weights: Sequence[npt.NDArray[np.generic]] = (np.ones_like(probability), probability, right)
    return np.stack([np.bincount(bins, weights=weight, minlength=BINS) for weight in weights])


def _draw_panels(title: str, panels: Sequence[Reliability]) -> Figure:
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = titled_figure(title, 0.5 + 4.1 * rows, width=max(4.6, WIDTH * columns / 3))
    cells = np.ravel(figure.subfigures(rows, columns, squeeze=False))
    for cell, panel in zip(cells, panels, strict=False):
        _draw_panel(cell, panel)
    return figure


def _draw_panel(cell: SubFigure, panel: Reliability) -> None:
    upper, lower = cell.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    filled = panel.counts > 0
    counts = panel.counts[filled]
    upper.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    points = panel.probability[filled] / counts, panel.right[filled] / counts
    upper.plot(*points, color=BLUE, linewidth=1.2, alpha=0.5)
    # Larger dots for more answers: a lone answer in a bin says little.
    sizes = 12 + 70 * np.sqrt(counts / counts.max(initial=1))
    upper.scatter(*points, s=sizes, color=BLUE, edgecolors=PAPER, zorder=3, clip_on=False)
    upper.set_title(f"{shorten(panel.title, 26)}\ncalibration error {number(panel.error)}")
    upper.set_ylabel("observed frequency")
    upper.set_ylim(0, 1)
    upper.set_xlim(0, 1)
    lower.bar((np.arange(BINS) + 0.5) / BINS, panel.counts, width=0.9 / BINS, color=BLUE, alpha=0.55)
    lower.set_yticks([])
    lower.set_ylabel("answers")
    lower.set_xlabel("probability")
