"""Rows of bars: how well each label is found, and how often it occurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from fivefold.evaluation.summary import LabelReport
from fivefold.report.canvas import BLUE, MUTED, RED, ROW, YELLOW, Drawing, name_rows, titled_figure
from fivefold.report.content import ReportContent
from fivefold.report.wording import line_name, shorten
from fivefold.task import MISSING, Labels

MOST_ROWS = 90
"""Most labels drawn in one picture; the most frequent ones."""

COLUMN_ROWS = 45
"""Most rows below one another; more are set in two columns."""

MOST_PANELS = 12
"""Most groups of labels drawn; the binaries are one, each categorical is one."""

LOG_RATIO = 50
"""Counts that differ by more than this factor are drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Counts:
    """How often each label or class occurs, most frequent first."""

    title: str
    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    def parts(self, most: int) -> list[Counts]:
        """The `most` most frequent, in columns that are short enough to read."""
        title, total = shorten(self.title, 40), len(self.names)
        if total > most:
            title += f", {most} most frequent of {total:,} (median {np.median(self.counts):,.0f} rows)"
        starts = range(0, min(most, total), COLUMN_ROWS)
        ends = [min(start + COLUMN_ROWS, most) for start in starts]
        return [
            Counts(title if start == 0 else "", self.names[start:end], self.counts[start:end])
            for start, end in zip(starts, ends, strict=True)
        ]


def label_bars(content: ReportContent) -> Drawing:
    """Precision, recall and F1 of each label, best first."""
    lines = sorted(content.evaluation.labels, key=lambda line: -line.support)[:MOST_ROWS]
    lines.sort(key=lambda line: -np.nan_to_num(line.f1))
    columns = [lines[start : start + COLUMN_ROWS] for start in range(0, len(lines), COLUMN_ROWS)]
    title = "How well each label is found"
    figure = titled_figure(title, 1.1 + ROW * len(columns[0]))
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _draw_label_bars(axes, column, [shorten(line_name(line, content.task), 30) for line in column])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    cut = len(content.evaluation.labels) - len(lines)
    caption = "Bars show F1, best label first; the numbers at the right are rows with the label."
    if cut:
        caption += f" The {len(lines)} most frequent of {cut + len(lines):,} labels are drawn."
    return Drawing("label_bars", title, caption, figure)


def class_imbalance(content: ReportContent) -> Drawing:
    """How many rows have each label or class, every panel on one scale."""
    panels = label_counts(content.labels)
    most = max(10, MOST_ROWS // len(panels))
    shown = [part for panel in panels[:MOST_PANELS] for part in panel.parts(most)]
    pairs = [shown[start : start + 2] for start in range(0, len(shown), 2)]
    heights = [max(len(panel.names) for panel in pair) + 4.0 for pair in pairs]
    title = "How often each label occurs"
    figure = titled_figure(title, 0.5 + ROW * sum(heights))
    grid = figure.subplots(len(pairs), min(2, len(shown)), squeeze=False, height_ratios=heights)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    counts = np.concatenate([panel.counts for panel in shown]).clip(min=1)
    set_scale = _logarithmic if counts.max() > LOG_RATIO * counts.min() else _linear
    for axes, panel in zip(grid.flat, shown, strict=False):
        set_scale(axes, int(counts.max()))
        _draw_counts(axes, panel)
    caption = "Labels with few rows are hard to learn and to measure."
    if len(panels) > MOST_PANELS:
        caption += f" The first {MOST_PANELS} of {len(panels)} groups are drawn."
    return Drawing("imbalance", title, caption, figure)


def label_counts(labels: Labels) -> list[Counts]:
    """Rows with each binary's label together, then rows of each categorical's classes."""
    names = [target.name for target in labels.task.binaries]
    panels = [_ranked("Labels", names, (labels.binary_codes == 1).sum(axis=0))] if names else []
    for target in labels.task.categoricals:
        codes = labels.column(target.name)
        counts = np.bincount(codes[codes != MISSING], minlength=target.width)
        panels.append(_ranked(target.name, target.classes, counts))
    return panels


def _ranked(title: str, names: Sequence[str], counts: npt.NDArray[np.int64]) -> Counts:
    order = np.argsort(-counts, kind="stable")
    return Counts(title, tuple(names[i] for i in order), counts[order])


def _draw_label_bars(axes: Axes, lines: Sequence[LabelReport], names: Sequence[str]) -> None:
    rows = np.arange(len(lines))
    axes.barh(rows, [line.f1 for line in lines], height=0.66, color=BLUE, alpha=0.5, label="F1")
    for marker, color, part in (("<", YELLOW, "precision"), (">", RED, "recall")):
        values = [getattr(line, part) for line in lines]
        axes.plot(values, rows, marker, color=color, markersize=6, clip_on=False, label=part)
    # Left-aligned beside the axes, so that the layout makes room for counts of any length.
    beside = axes.get_yaxis_transform()
    for row, text in [(-0.9, "rows"), *((row, f"{line.support:,}") for row, line in enumerate(lines))]:
        axes.text(1.03, row, text, transform=beside, color=MUTED, va="center", fontsize=7.5)
    name_rows(axes, names)
    axes.set_xlim(0, 1)
    axes.set_xlabel("precision, recall, F1")


def _logarithmic(axes: Axes, largest: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(0.7, largest * 4)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("rows, logarithmic scale")


def _linear(axes: Axes, largest: int) -> None:
    axes.set_xlim(0, largest * 1.15)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("rows")


def _draw_counts(axes: Axes, panel: Counts) -> None:
    axes.barh(np.arange(len(panel.names)), panel.counts, height=0.66, color=BLUE, alpha=0.75)
    left = axes.get_xlim()[0]
    style: dict[str, Any] = {"textcoords": "offset points", "color": MUTED, "va": "center", "fontsize": 7.5}
    for row, value in enumerate(panel.counts):
        axes.annotate(f"{value:,}", (max(value, left), row), xytext=(4, 0), **style)
    name_rows(axes, [shorten(name, 30) for name in panel.names])
    axes.set_title(panel.title)
