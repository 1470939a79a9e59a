"""How training went: the validation metric and the loss by epoch, all folds in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fivefold.evaluation.sums import Values
from fivefold.report.canvas import BLUE, YELLOW, Drawing, titled_figure
from fivefold.report.content import LearningCurve
from fivefold.report.wording import metric_title, shorten

SMOOTHED = 20
"""A smoothed loss is the mean over a twentieth of the training."""

MOST_POINTS = 400
"""Most points of a line; more would only make the file larger."""

Line = tuple[Values, Values]


def learning_curves(curves: Sequence[LearningCurve], metric: str, member: str, name: str) -> Drawing:
    """The validation metric above the training loss; folds as thin lines, their mean bold.

    Parameters
    ----------
    curves
        One a fold.
    metric
        What the folds' values are.
    member
        The ensemble's member they belong to, "" for a single model.
    name
        Of the file.
    """
    title = "Learning curves" + (f" of {shorten(member, 40)}" if member else "")
    checks = [(curve.checked, curve.values) for curve in curves if len(curve.checked)]
    losses = [smoothed(curve.epochs, curve.losses) for curve in curves if len(curve.epochs)]
    panels = [
        (label, color, lines)
        for label, color, lines in (
            (f"{metric_title(metric)} (validation)", BLUE, checks),
            ("training loss, smoothed", YELLOW, losses),
        )
        if lines
    ]
    figure = titled_figure(title, 0.9 + 2.2 * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (label, color, lines) in zip(grid, panels, strict=True):
        _draw(axes, lines, color)
        axes.set_ylabel(label)
    grid[-1].set_xlabel("epoch")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    caption = (
        "A metric that falls while the loss still does says that training was too long. "
        "Folds differ by chance: so may two recipes whose curves lie no further apart."
    )
    return Drawing(name, title, caption, figure)


def smoothed(epochs: Values, losses: Values) -> Line:
    """The mean of each point and those around it, over a twentieth of all; thinned to what a picture shows."""
    width = max(1, len(losses) // SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    start = np.maximum(np.arange(len(losses)) - width // 2, 0)
    end = np.minimum(np.arange(len(losses)) + width - width // 2, len(losses))
    shown = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), MOST_POINTS)).astype(np.int64))
    return epochs[shown], ((sums[end] - sums[start]) / (end - start))[shown]


def mean_line(lines: Sequence[Line]) -> Line:
    """The lines' mean at the epochs that all of them reach; between its points a line is straight."""
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    epochs = np.unique(np.concatenate([np.round(x, 4) for x, _ in lines] + [[first, last]]))
    epochs = epochs[(epochs >= first) & (epochs <= last)]
    return epochs, np.mean([np.interp(epochs, x, y) for x, y in lines], axis=0)


def _draw(axes: Axes, lines: Sequence[Line], color: str) -> None:
    """A single evaluation is a dot: a line needs two."""
    for number, (x, y) in enumerate(lines):
        label = "one fold" if number == 0 else None
        axes.plot(x, y, color=color, alpha=0.45, linewidth=0.9, marker="o" if len(x) == 1 else None, label=label)
    x, y = mean_line(lines)
    axes.plot(x, y, color=color, linewidth=2.4, marker="o" if len(x) == 1 else None, label="mean of the folds")
