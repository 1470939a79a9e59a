"""What a run is made from, as one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fivefold.models.backbones.contents import ENDS
from fivefold.pipeline.origins import fingerprint, local_weights
from fivefold.recipe import build_recipe


def made_from(**model: Any) -> str:
    return fingerprint(build_recipe({"model": {"family": "encoder", **model}, "training": {"epochs": 1}}))


@pytest.mark.parametrize("key", ["backbone", "tokenizer"])
def test_other_weights_under_the_same_name_are_another_origin(weights: Path, key: str) -> None:
    before = made_from(**{key: str(weights)})
    (weights / "README.md").write_text("A note.", "utf-8")
    assert made_from(**{key: str(weights)}) == before
    for place in (0, 3 * ENDS - 1):
        with (weights / "model.safetensors").open("r+b") as file:
            file.seek(place)
            file.write(b"\x01")
        assert made_from(**{key: str(weights)}) != before
        before = made_from(**{key: str(weights)})


def test_members_shots_and_enrichment_name_weights_too(weights: Path) -> None:
    (other := weights.parent / "other").mkdir()
    members = {"a": {"model": {"family": "encoder", "backbone": str(weights)}, "training": {"epochs": 1}}, "b": {}}
    whole = build_recipe({"ensemble": {"members": members}, "enrichment": {"backbone": str(other)}})
    assert local_weights(whole) == [weights, other]
    generator = {"family": "generator", "backbone": "an/id", "shots": {"count": 1, "take": "nearest"}}
    generator["shots"]["backbone"] = str(weights)
    asked = build_recipe({"model": generator, "training": {"epochs": 0}})
    assert local_weights(asked) == [weights]


def test_tables_and_texts_count() -> None:
    recipe, frame = build_recipe({}), pl.DataFrame({"a": ["x"]})
    found = {
        fingerprint(recipe),
        fingerprint(recipe, [frame]),
        fingerprint(recipe, [None, frame]),
        fingerprint(recipe, texts=["x"]),
        fingerprint(recipe, beside="pretraining"),
    }
    assert len(found) == 5
