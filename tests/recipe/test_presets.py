from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.cli import PRESET_NAMES
from fivefold.errors import RecipeError
from fivefold.recipe import build_recipe, load_recipe
from fivefold.recipe.presets import PRESETS


def test_the_command_line_knows_the_presets() -> None:
    assert tuple(PRESETS) == PRESET_NAMES


@pytest.mark.parametrize(
    ("name", "families"),
    [("fast", ["linear"]), ("balanced", ["linear", "encoder"]), ("best", ["linear", "encoder", "encoder", "encoder"])],
)
def test_a_preset_is_a_sound_recipe(name: str, families: list[str]) -> None:
    recipe = build_recipe({}, preset=name)
    members = [recipe.member(member) for member in recipe.ensemble.members] if recipe.ensemble else [recipe]
    assert [member.model.family for member in members] == families


def test_recipe_and_overrides_lie_on_top_of_a_preset(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("seed: 5\n", "utf-8")
    changes = ["ensemble.members.linear.model.C=9", "ensemble.members.minilm.training.epochs=1"]
    recipe = load_recipe(tmp_path / "r.yaml", changes, preset="balanced")
    assert recipe.seed == recipe.member("linear").seed == 5
    assert recipe.member("linear").model.C == 9
    assert recipe.member("minilm").training.epochs == 1
    assert (
        recipe.member("minilm").training.learning_rate
        == PRESETS["balanced"].sections["ensemble"]["members"]["minilm"]["training"]["learning_rate"]
    )
    assert build_recipe({}, preset="balanced").member("minilm").training.epochs != 1


@pytest.mark.parametrize("section", ["model", "ensemble"])
def test_a_recipe_that_chooses_its_models_needs_no_preset(section: str) -> None:
    with pytest.raises(RecipeError, match=f"so does the recipe's section '{section}'"):
        build_recipe({section: {"C": 2}}, preset="fast")


def test_a_preset_fills_sections_that_are_null() -> None:
    assert build_recipe({"ensemble": None, "model": None}, preset="balanced").ensemble is not None


def test_a_preset_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match="no preset 'slow'"):
        build_recipe({}, preset="slow")


def test_the_guide_says_what_a_preset_is_and_needs() -> None:
    page = (Path(__file__).parents[2] / "docs/ensembles.md").read_text("utf-8").replace("`", "")
    for name, preset in PRESETS.items():
        assert f"| {name} | {preset.meaning} | {preset.needs} |" in page
