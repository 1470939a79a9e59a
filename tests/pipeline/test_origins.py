"""What a run is made from, as one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fivefold.models.backbones.contents import ENDS
from fivefold.pipeline.origins import fingerprint, local_weights
from fivefold.recipe import build_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors").write_bytes(bytes(3 * ENDS))
    return folder


def made_from(**model: Any) -> str:
    return fingerprint(build_recipe({"model": {"family": "encoder", **model}, "training": {"epochs": 1}}))


@pytest.mark.parametrize("key", ["backbone", "tokenizer"])
def test_other_weights_under_the_same_name_are_another_origin(folder: Path, key: str) -> None:
    before = made_from(**{key: str(folder)})
    (folder / "README.md").write_text("A note.", "utf-8")
    assert made_from(**{key: str(folder)}) == before
    for place in (0, 3 * ENDS - 1):
        with (folder / "model.safetensors").open("r+b") as weights:
            weights.seek(place)
            weights.write(b"\x01")
        assert made_from(**{key: str(folder)}) != before
        before = made_from(**{key: str(folder)})


def test_members_shots_and_enrichment_name_weights_too(folder: Path) -> None:
    (other := folder.parent / "other").mkdir()
    members = {"a": {"model": {"family": "encoder", "backbone": str(folder)}, "training": {"epochs": 1}}, "b": {}}
    whole = build_recipe({"ensemble": {"members": members}, "enrichment": {"backbone": str(other)}})
    assert local_weights(whole) == [folder, other]
    generator = {"family": "generator", "backbone": "an/id", "shots": {"count": 1, "take": "nearest"}}
    generator["shots"]["backbone"] = str(folder)
    asked = build_recipe({"model": generator, "training": {"epochs": 0}})
    assert local_weights(asked) == [folder]


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
