"""One look for every picture, and files whose bytes depend on the picture alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2a37"
MUTED = "#64748b"
GRID = "#e2e8f0"
PAPER = "#ffffff"
ON_BLUE = "#fefefe"
# Paul Tol's high-contrast scheme, with its blue lightened: told apart by every kind of colour vision and in grey.
BLUE = "#4477aa"
YELLOW = "#ddaa33"
RED = "#bb5566"

WIDTH = 9.0
"""Inches a full-width picture is wide."""

ROW = 0.23
"""Inches a named row is high."""

OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Emoji")


@dataclass(frozen=True)
class Drawing:
    """A picture not yet written: a file name without ending, a title, and one sentence on how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Picture:
    """A picture on disk, once as pixels and once as lines."""

    name: str
    title: str
    caption: str
    png: Path
    svg: Path


@contextmanager
def calm_style() -> Iterator[None]:
    """Fonts, colours and fixed SVG ids for everything drawn and written inside."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings())
        # Label names may be in any script; a glyph no installed font has shows as a box in the PNG only.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def titled_figure(title: str, height: float, width: float = WIDTH) -> Figure:
    """An empty figure with its title at the top left."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.002, ha="left", fontsize=12, fontweight="bold")
    return figure


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """One named row a line, the first at the top."""
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def save(drawing: Drawing, folder: Path) -> Picture:
    """Write a drawing into `folder` as PNG and SVG."""
    # The layout takes most of the time; found once, it holds for both files.
    layout = drawing.figure.get_layout_engine()
    if layout is not None:
        layout.execute(drawing.figure)
        drawing.figure.set_layout_engine("none")
    png, svg = folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"
    drawing.figure.savefig(png, dpi=144, metadata={"Software": None})
    drawing.figure.savefig(svg, metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    return Picture(drawing.name, drawing.title, drawing.caption, png, svg)


def _settings() -> dict[Any, Any]:
    installed = set(font_manager.get_font_names())
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": GRID,
        "axes.grid": True,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.titlecolor": INK,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "font.family": ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)],
        "font.size": 9,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "fivefold",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": GRID,
        "xtick.labelcolor": MUTED,
        "xtick.labelsize": 8,
        "ytick.color": GRID,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 8,
    }
