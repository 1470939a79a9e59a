from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from fivefold.report.canvas import Picture
from fivefold.report.card import front_matter, plain, render_card


def read_front_matter(card):
    _, front, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(front)


def test_front_matter_parses_and_holds_the_metrics(written):
    front = read_front_matter(written.card)
    assert front["license"] == "unknown"
    assert {"fivefold", "text-classification"} <= set(front["tags"])
    assert "language" not in front
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    metrics = {metric["type"]: metric for metric in result["metrics"]}
    assert metrics["macro_f1"]["value"] == 0.8126
    assert "cross-fitted" in metrics["macro_f1"]["name"]
    assert metrics["macro_f1"]["args"]["interval_95"] == [0.78, 0.84]
    assert "roc_auc" not in metrics


@pytest.mark.parametrize(
    "title", ["a: [b] # c", "---\nlicense: mit", "'\"\\ %@`", "日本語 🎉", "- x", "null", "\x07\x85"]
)
def test_any_title_and_tag_survive(make, tasks, tmp_path, title):
    content = dataclasses.replace(
        make(tasks["mixed"]), title=title, dataset=title, tags=(title, "fivefold"), license="mit", language="en"
    )
    picture = Picture("reliability", "", "", tmp_path / "pictures" / "x.png", tmp_path / "x.svg")
    front = read_front_matter(render_card(content, [picture], tmp_path))
    assert front["model-index"][0]["name"] == title
    assert front["tags"] == ["fivefold", "text-classification", title]
    assert (front["license"], front["language"]) == ("mit", "en")
    assert front == front_matter(content)


def test_card_says_what_it_predicts_and_how_to_load_it(written, strange):
    card = written.card
    for heading in (
        "What it predicts",
        "Data and training",
        "Evaluation",
        "Decision rule",
        "Intended use",
        "How to load",
    ):
        assert f"## {heading}" in card
    for name in written.content.task.names:
        assert plain(name) in card
    assert "fivefold predict RUN DATA --out predictions.csv" in card
    assert 'fivefold.load("RUN").predict(texts)' in card
    assert ("path of the tree" in card) == (written.content.task.tree is not None)
    assert ("threshold |" in card) == bool(written.content.task.binaries)


def test_python_of_the_card_compiles_for_any_run(make, tasks, tmp_path):
    content = dataclasses.replace(make(tasks["tree"]), run='my "run" $1')
    picture = Picture("reliability", "", "", tmp_path / "x.png", tmp_path / "x.svg")
    card = render_card(content, [picture], tmp_path)
    compile(re.search(r"```python\n(.*?)```", card, flags=re.DOTALL).group(1), "card", "exec")
    assert "fivefold predict 'my \"run\" $1' DATA" in card


def test_tables_keep_their_columns_and_html_stays_out(written):
    assert "<script" not in written.card
    for table in re.findall(r"(?:^\|.*\n)+", written.card, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table


def test_linked_pictures_exist(written):
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", written.card)
    assert len(links) == 2
    assert all((written.folder / link).is_file() for link in links)


def test_plain_text_is_shown_as_it_is(strange):
    assert plain("a|b\n*c* <d> & `e`") == r"a\|b \*c\* &lt;d&gt; &amp; \`e\`"
    assert "<" not in plain(strange)
