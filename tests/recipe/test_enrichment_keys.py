from __future__ import annotations

from typing import Any

import pytest

from fivefold import cli
from fivefold.errors import RecipeError
from fivefold.recipe import build_recipe
from fivefold.recipe.conflicts import conflicts
from fivefold.recipe.enrichment import EnrichmentSettings

CATALOGUE = {"catalogue": "c.csv", "match": ["name"], "take": "text"}
PAIR = {
    "data": {"text": ["prompt", "a", "b"]},
    "task": {"categorical": ["w"], "swap": {"fields": [["a", "b"]], "target": "w", "classes": {"x": "y", "y": "x"}}},
}


def test_all_mistakes_of_the_section_are_told_with_their_keys() -> None:
    section = {"neighbors": 3, "neighbours": 0, "similarity": 2, "index": "tree"}
    with pytest.raises(RecipeError) as caught:
        build_recipe({"enrichment": section, "folds": {"count": 1}})
    text = str(caught.value)
    assert "5 problems" in text
    for key in ("neighbors", "neighbours", "similarity", "index"):
        assert f"- enrichment.{key}: " in text
    assert "did you mean 'neighbours'?" in text


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "match without a catalogue": ({"enrichment": {"match": ["name"]}}, "without 'catalogue' doesn't use match"),
    "nothing to match": ({"enrichment": {"catalogue": "c.csv", "take": "text"}}, "a catalogue needs 'match'"),
    "votes of a catalogue": (
        {"enrichment": {**CATALOGUE, "take": "labels"}},
        "take 'labels' are the votes of training",
    ),
    "both": ({"enrichment": {"catalogue": "c.csv"}}, "needs 'match'.*; take 'labels'"),
    "a query that is no text": (
        {"data": {"text": ["title"]}, "enrichment": {"query": ["titel"]}},
        r"enrichment.query: \['titel'\] aren't among the text columns",
    ),
    "a field that is a text": ({"data": {"text": ["t"]}, "enrichment": {"field": "t"}}, "enrichment.field: 't'"),
    "a field that is a label": ({"task": {"binary": ["y"]}, "enrichment": {"field": "y"}}, "enrichment.field: 'y'"),
    "a field that is an id": ({"data": {"id": "t"}, "enrichment": {"field": "t"}}, "enrichment.field: 't'"),
    "a label that is given away": ({"task": {"binary": ["y"]}, "enrichment": {"take": "y"}}, "'y' is a label"),
    "a label that is matched": (
        {"task": {"binary": ["y"]}, "enrichment": {**CATALOGUE, "match": ["y"]}},
        r"enrichment.match: \['y'\] are labels",
    ),
    "votes on pairs": ({**PAIR, "enrichment": {"query": ["prompt"]}}, "enrichment.take: votes depend on the order"),
    "a query that trades places": (
        {**PAIR, "enrichment": CATALOGUE},
        r"enrichment.query: \['a', 'b'\] trade places",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_a_mistake(case: str) -> None:
    plain, message = WRONG[case]
    with pytest.raises(RecipeError, match=message):
        build_recipe(plain)


def test_pairs_are_enriched_by_what_they_share() -> None:
    recipe = build_recipe({**PAIR, "enrichment": {**CATALOGUE, "query": ["prompt"]}})
    assert conflicts(recipe) == []


def test_members_of_an_ensemble_have_the_section() -> None:
    members = {"one": {"model": {"C": 1}}, "two": {"model": {"C": 2}}}
    recipe = build_recipe({"enrichment": {"neighbours": 3}, "ensemble": {"members": members}})
    found = recipe.member("two").enrichment
    assert found is not None
    assert found.neighbours == 3


def test_the_command_knows_the_kinds_of_index() -> None:
    annotation = EnrichmentSettings.model_fields["index"].annotation
    assert annotation.__args__ == cli.INDEXES  # type: ignore[union-attr]
