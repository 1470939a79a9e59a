"""The report as one HTML file that opens offline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import jinja2
from markupsafe import Markup

from fivefold.evaluation.summary import LabelReport
from fivefold.report import wording
from fivefold.report.canvas import BLUE, GRID, INK, MUTED, PAPER, RED, YELLOW, Picture
from fivefold.report.content import ReportContent
from fivefold.report.mistakes import worst_mistakes
from fivefold.task import Task

MOST_LINES = 400
"""Most labels in the table; the most frequent ones."""

MOST_EXPLAINED = 60
"""Most labels whose strongest features are shown."""

MOST_FEATURES = 12
"""Strongest features shown of a label."""

THEME = {INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", BLUE: "blue", YELLOW: "yellow", RED: "red"}
"""Colours of a picture that follow the page's light or dark theme."""


@dataclass(frozen=True)
class InlinePicture:
    """A picture as lines of the page itself."""

    name: str
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Feature:
    """An n-gram, its weight, and its size relative to the label's strongest."""

    text: str
    weight: float
    share: float


def render_page(content: ReportContent, pictures: Sequence[Picture]) -> str:
    """The whole page, with `pictures` in it; it loads nothing from anywhere."""
    inline = {picture.name: _inline(picture) for picture in pictures}
    template = _environment(content.task).get_template("report.html.j2")
    return template.render(
        content=content,
        evaluation=content.evaluation,
        folds=[value for value in content.folds if math.isfinite(value)],
        pictures=inline,
        confusions=[picture for name, picture in inline.items() if name.startswith("confusion_")],
        learning=[picture for name, picture in inline.items() if name.startswith("learning_")],
        lines=most_frequent(content.evaluation.labels),
        mistakes=worst_mistakes(content),
        explanations=_explanations(content),
    )


def most_frequent(lines: Sequence[LabelReport], most: int = MOST_LINES) -> list[LabelReport]:
    """The lines of the `most` labels with most rows, in that order."""
    return sorted(lines, key=lambda line: -line.support)[:most]


def themed(svg: str) -> str:
    """The lines of an SVG file, its colours those of the page's theme."""
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for color, name in THEME.items():
        body = re.sub(rf"\b(fill|stroke): {color}\b", rf"\1: var(--{name})", body)
    return body


def _inline(picture: Picture) -> InlinePicture:
    svg = themed(picture.svg.read_text(encoding="utf-8"))
    described = svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(picture.title), 1)
    return InlinePicture(picture.name, picture.title, picture.caption, Markup(described))


def _explanations(content: ReportContent) -> Mapping[str, list[Feature]]:
    shown = islice(content.explanations.items(), MOST_EXPLAINED)
    return {label: _features(list(pairs)[:MOST_FEATURES]) for label, pairs in shown}


def _features(pairs: Sequence[tuple[str, float]]) -> list[Feature]:
    largest = max((abs(weight) for _, weight in pairs), default=0) or 1.0
    return [Feature(text, weight, abs(weight) / largest) for text, weight in pairs]


def _environment(task: Task) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=wording.number,
        interval=wording.interval,
        percent=wording.percent,
        metric_title=wording.metric_title,
        line_name=lambda line: wording.line_name(line, task),
        sortable=lambda value: value if value is not None and math.isfinite(value) else -1,
    )
    return environment
