"""A report's files in one folder: the page, the model card and the pictures."""

from __future__ import annotations

from pathlib import Path

from fivefold.report.card import render_card
from fivefold.report.content import ReportContent
from fivefold.report.page import render_page
from fivefold.report.plots import save_pictures


def write_report(content: ReportContent, folder: Path) -> Path:
    """Write report.html, README.md (the model card) and pictures/ into `folder`; returns the page's path."""
    pictures = save_pictures(content, folder / "pictures")
    page = folder / "report.html"
    page.write_text(render_page(content, pictures), encoding="utf-8")
    (folder / "README.md").write_text(render_card(content, pictures, folder), encoding="utf-8")
    return page
