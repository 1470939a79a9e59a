"""Which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from fivefold.report.canvas import BLUE, GRID, INK, MUTED, ON_BLUE, PAPER, WIDTH, Drawing, titled_figure
from fivefold.report.content import ReportContent
from fivefold.report.wording import shorten
from fivefold.task import Categorical, IntArray

MOST_CLASSES = 25
"""Most classes drawn; the rarer ones are counted together as 'other'."""

MOST_MATRICES = 8
"""Most categoricals drawn."""

OTHER = "(other)"


@dataclass(frozen=True)
class Confusion:
    """Rows by true class (down) and predicted class (across): int64 (classes, classes)."""

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Counts as fractions of the rows of the true class."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1))


def count_confusion(target: Categorical, codes: IntArray, decisions: IntArray) -> Confusion:
    """Counts of the most frequent classes and of all others together, most frequent first; codes are (rows,)."""
    known = (codes >= 0) & (decisions >= 0)
    frequency = np.bincount(codes[known], minlength=target.width)
    top = np.argsort(-frequency, kind="stable")[:MOST_CLASSES]
    classes = tuple(target.classes[i] for i in top) + ((OTHER,) if len(top) < target.width else ())
    place = np.full(target.width, len(top))
    place[top] = np.arange(len(top))
    cells = place[codes[known]] * len(classes) + place[decisions[known]]
    counts = np.bincount(cells, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
    return Confusion(classes, counts)


def confusion_matrix(content: ReportContent, target: Categorical, name: str) -> Drawing:
    """The confusion of one categorical as a shaded square."""
    place = content.task.names.index(target.name)
    confusion = count_confusion(target, content.labels.codes[:, place], content.decisions[:, place])
    size = len(confusion.classes)
    title = f"What is taken for what: {shorten(target.name, 40)}"
    side = 1.9 + 0.46 * size if size < 12 else WIDTH - 0.4
    figure = titled_figure(title, side, width=max(4.8, side + 0.4))
    _draw_matrix(figure.subplots(), confusion)
    caption = "Of 100 rows of the true class at the left, so many were predicted as the class below."
    if target.width > MOST_CLASSES:
        caption += f" The {MOST_CLASSES} most frequent of {target.width:,} classes are drawn, the others together."
    return Drawing(name, title, caption, figure)


def _draw_matrix(axes: Axes, confusion: Confusion) -> None:
    shares, size = confusion.shares, len(confusion.classes)
    cells = [Rectangle((column - 0.47, row - 0.47), 0.94, 0.94) for row in range(size) for column in range(size)]
    # Opacity instead of a colour map: an empty cell stays the colour of the page, dark or light.
    colors = [(*to_rgb(BLUE), share) for share in shares.flat]
    axes.add_collection(PatchCollection(cells, facecolors=colors, edgecolors=GRID, linewidths=0.5))
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            axes.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=8.5 if size < 12 else 7,
                color=ON_BLUE if share > 0.55 else INK,
            )
    names = [shorten(name, 22) for name in confusion.classes]
    axes.set_xticks(range(size), labels=names, rotation=90 if size > 5 or max(map(len, names)) > 9 else 0, color=INK)
    axes.set_yticks(range(size), labels=names)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", facecolor=PAPER)
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
