"""The model card: what the Hub and a person read before using the model."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from fivefold.report import wording
from fivefold.report.canvas import Picture
from fivefold.report.content import ReportContent
from fivefold.report.page import most_frequent

TAGS = ("fivefold", "text-classification")

MOST_NAMES = 30
"""Most labels named or tabled in the card; the report has them all."""


def render_card(content: ReportContent, pictures: Sequence[Picture], folder: Path) -> str:
    """The card as Markdown with YAML front matter; `pictures` are linked relative to `folder`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        # Markdown is no HTML: every text from outside passes through `plain` instead.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        plain=plain,
        shell_quoted=shlex.quote,
        number=wording.number,
        interval=wording.interval,
        metric_title=wording.metric_title,
        line_name=lambda line: wording.line_name(line, content.task),
    )
    return environment.get_template("card.md.j2").render(
        content=content,
        evaluation=content.evaluation,
        front_matter=yaml.safe_dump(front_matter(content), sort_keys=False, allow_unicode=True),
        lines=most_frequent(content.evaluation.labels, MOST_NAMES),
        most=MOST_NAMES,
        pictures={picture.name: picture.png.relative_to(folder).as_posix() for picture in pictures},
    )


def front_matter(content: ReportContent) -> dict[str, Any]:
    """The card's metadata in the Hub's format; metrics without a value are left out."""
    language = {"language": content.language} if content.language else {}
    return language | {
        "license": content.license,
        "library_name": "fivefold",
        "pipeline_tag": "text-classification",
        "tags": list(dict.fromkeys((*TAGS, *content.tags))),
        "model-index": [
            {
                "name": content.title,
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "Text classification"},
                        "dataset": {"type": "custom", "name": content.dataset, "split": "out-of-fold"},
                        "metrics": _metrics(content),
                    }
                ],
            }
        ],
    }


def plain(text: object) -> str:
    """Text on one line that Markdown and HTML show as it is, also within a table."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _metrics(content: ReportContent) -> list[dict[str, Any]]:
    return [
        {
            "type": name,
            "name": f"{wording.metric_title(name)} (cross-fitted, out-of-fold)",
            "value": float(estimate.value),
            "args": {"interval_95": [float(end) for end in (estimate.low, estimate.high) if math.isfinite(end)]},
        }
        for name, estimate in content.evaluation.estimates.items()
        if math.isfinite(estimate.value)
    ]
