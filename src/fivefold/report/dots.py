"""Dots with whiskers: each metric with its interval, and the folds beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from fivefold.evaluation.summary import Estimate
from fivefold.report.canvas import BLUE, PAPER, ROW, YELLOW, Drawing, name_rows, titled_figure
from fivefold.report.content import ReportContent
from fivefold.report.wording import metric_title, number


def metric_intervals(content: ReportContent) -> Drawing:
    """Every metric as a dot with its interval; those outside 0..1 below, on a scale of their own."""
    finite = {name: e for name, e in content.evaluation.estimates.items() if math.isfinite(e.value)}
    unit = {name: estimate for name, estimate in finite.items() if estimate.low >= 0 and estimate.high <= 1}
    groups = [group for group in (unit, {n: e for n, e in finite.items() if n not in unit}) if group]
    title = "Metrics with 95 % intervals"
    heights = [len(group) + 2.0 for group in groups]
    figure = titled_figure(title, 0.6 + 1.3 * ROW * sum(heights))
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        _draw_estimates(axes, group, content.evaluation.tuned)
    if groups and groups[0] is unit:
        panels[0].set_xlim(0, 1)
    # The panel with the most kinds of dots explains them all.
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    caption = "Dots are cross-fitted figures and whiskers their bootstrap intervals."
    return Drawing("metrics", title, caption, figure)


def fold_spread(content: ReportContent) -> Drawing:
    """The headline metric of each fold, around the figure of all folds together."""
    headline, name = content.evaluation.headline, metric_title(content.evaluation.metric)
    title = f"{name} from fold to fold"
    folds = {fold: value for fold, value in enumerate(content.folds, start=1) if math.isfinite(value)}
    figure = titled_figure(title, 1.3 + 1.4 * ROW * len(folds))
    axes = figure.subplots()
    if math.isfinite(headline.low) and math.isfinite(headline.high):
        axes.axvspan(headline.low, headline.high, color=BLUE, alpha=0.14, linewidth=0, label="95 % interval")
    axes.axvline(headline.value, color=BLUE, linewidth=1.4, label="all folds together")
    rows, values = range(len(folds)), list(folds.values())
    axes.plot(values, rows, "o", color=YELLOW, markersize=8, markeredgecolor=PAPER, label="one fold")
    for row, value in zip(rows, values, strict=True):
        axes.annotate(number(value), (value, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7.5)
    name_rows(axes, [f"fold {fold}" for fold in folds])
    axes.margins(x=0.12)
    axes.set_xlabel(name)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    caption = f"Standard deviation over the folds: {number(float(np.std(values, ddof=1)))}."
    return Drawing("folds", title, caption, figure)


def _draw_estimates(axes: Axes, group: Mapping[str, Estimate], tuned: Mapping[str, float]) -> None:
    estimates, rows = list(group.values()), range(len(group))
    axes.hlines(rows, [e.low for e in estimates], [e.high for e in estimates], color=BLUE, linewidth=2.4, alpha=0.6)
    axes.plot(
        [e.value for e in estimates], rows, "o", color=BLUE, markeredgecolor=PAPER, markersize=7.5, label="cross-fitted"
    )
    optimistic = _points(group, tuned)
    if optimistic:
        axes.plot(
            *zip(*optimistic, strict=True),
            "D",
            markerfacecolor="none",
            color=YELLOW,
            markersize=5.5,
            markeredgewidth=1.5,
            label="tuned on the same rows (optimistic)",
        )
    for row, estimate in zip(rows, estimates, strict=True):
        axes.annotate(
            number(estimate.value),
            (estimate.value, row),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    name_rows(axes, [metric_title(name) for name in group])


def _points(group: Mapping[str, Estimate], tuned: Mapping[str, float]) -> Sequence[tuple[float, int]]:
    return [(tuned[name], row) for row, name in enumerate(group) if math.isfinite(tuned.get(name, math.nan))]
