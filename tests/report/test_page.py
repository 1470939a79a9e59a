from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser

import pytest

from fivefold.report.mistakes import worst_mistakes
from fivefold.report.page import most_frequent, render_page, themed
from fivefold.report.plots import save_pictures
from fivefold.report.wording import interval, metric_title, number, percent, shorten
from fivefold.report.write import write_report
from fivefold.task import Categorical, Task

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Which elements a page has, what they refer to, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_loads_nothing_from_anywhere(written):
    page = Page(written.page)
    assert [r for r in page.references if not r.startswith(("#", "data:"))] == []
    assert "@import" not in written.page
    assert set(re.findall(r"url\(([^)]{1})", written.page)) <= {"#"}
    assert "default-src 'none'" in written.page


def test_page_is_well_formed_and_its_contents_lead_somewhere(written):
    page = Page(written.page)
    assert page.open == []
    sections = re.findall(r'<li><a href="#([a-z]+)"', written.page)
    assert {"learnt", "metrics", "labels", "reliability", "imbalance", "mistakes", "features"} <= set(sections)
    assert set(sections) <= set(page.ids)
    assert ("confusion" in sections) == bool(written.content.task.categoricals)
    assert ("thresholds" in sections) == bool(written.content.task.binaries)


def test_text_from_outside_is_escaped(written):
    assert Page(written.page).elements.count("script") == 1
    assert "<script>alert" not in written.page
    assert "<i>you" not in written.page
    assert "<b>more" not in written.page
    assert "&lt;script&gt;alert" in written.page
    assert "&lt;b&gt;more&lt;/b&gt; &amp; more" in written.page


def test_figures_and_facts_appear(written):
    text, content = html.unescape(written.page), written.content
    for fact in (*content.learnt.values(), *content.warnings, content.title, "0.813", "0.780 to 0.840", "0.835"):
        assert fact in text
    for line in content.evaluation.labels:
        assert line.label in text
        assert f'data-value="{line.support}"' in text
    for mistake in worst_mistakes(content):
        assert mistake.id in text
        assert mistake.excerpt in text


def test_pictures_follow_the_theme(written):
    assert "var(--blue)" in written.page
    assert not re.search(r"(fill|stroke): #4477aa", written.page)
    assert themed('<?xml?><svg><style>*{}</style><g id="a" style="fill: #1f2a37"/></svg>') == (
        '<svg><g style="fill: var(--ink)"/></svg>'
    )


def test_thousands_of_classes_stay_small_and_say_what_is_left_out(make, tmp_path):
    content = make(Task((Categorical("product", tuple(f"class {i}" for i in range(2313))),)), rows=3000)
    page = write_report(content, tmp_path).read_text()
    assert len(page) < 5_000_000
    assert "Of the 2,313 classes of product, the 200 most frequent are measured" in page
    assert "25 most frequent of 2,313 classes" in page


def test_page_without_extras(make, tasks, tmp_path):
    content = dataclasses.replace(
        make(tasks["mixed"]), texts=(), explanations={}, warnings=(), folds=(), learnt={}, thresholds={}
    )
    content = dataclasses.replace(content, evaluation=dataclasses.replace(content.evaluation, labels=(), tuned={}))
    content.decisions[:] = content.labels.codes
    page = render_page(content, save_pictures(content, tmp_path))
    assert "every decision was right" in page
    assert 'id="features"' not in page
    assert "tuned" not in page
    assert Page(page).open == []


def test_most_frequent_lines_come_first(written):
    lines = most_frequent(written.content.evaluation.labels, 2)
    assert len(lines) == 2
    assert lines[0].support == max(line.support for line in written.content.evaluation.labels)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(float("nan")), "–"),
        (number(None), "–"),
        (number(1234.56), "1,234.6"),
        (percent(0.001), "<1 %"),
        (percent(0.9999), ">99 %"),
        (percent(1.0), "100 %"),
        (metric_title("macro_f1"), "Macro F1"),
        (metric_title("roc_auc"), "ROC AUC"),
        (shorten("a\n b" * 3, 5), "a ba…"),
    ],
)
def test_wording(said, expected):
    assert said == expected


def test_interval_without_ends(written):
    assert interval(written.content.evaluation.estimates["roc_auc"]) == "–"
