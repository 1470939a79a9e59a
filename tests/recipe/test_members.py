from __future__ import annotations

import pytest
import yaml

from fivefold.errors import RecipeError
from fivefold.recipe import build_recipe, dump_recipe

LINEAR = {"model": {"C": 2}}
ENCODER = {"model": {"family": "encoder"}}


def ensemble(**members: dict) -> dict:
    return {"members": members}


def test_members_take_the_recipes_sections_unless_they_have_their_own() -> None:
    recipe = build_recipe(
        {
            "seed": 3,
            "training": {"epochs": 7},
            "objective": {"class_weights": "balanced"},
            "ensemble": ensemble(a=LINEAR, b=ENCODER, c=ENCODER | {"training": {"clip": 2}, "objective": {}}),
        }
    )
    a, b, c = (recipe.member(name) for name in "abc")
    assert (a.model.C, a.training, a.objective.class_weights, a.seed) == (2, None, "balanced", 3)
    assert (b.model.family, b.training.epochs, b.training.clip) == ("encoder", 7, 1)
    assert (c.training.epochs, c.training.clip, c.objective.class_weights) == (3, 2, "none")
    assert a.ensemble is b.ensemble is c.ensemble is None


def test_members_that_differ_in_one_section_share_the_model() -> None:
    recipe = build_recipe(
        {"model": {"C": 9}, "ensemble": ensemble(a={}, b={"objective": {"class_weights": "balanced"}})}
    )
    assert recipe.member("a").model == recipe.member("b").model == recipe.model
    assert recipe.unread == ("training", "pretraining")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"ensemble": ensemble(a={})}, "ensemble.members: an ensemble needs at least two members"),
        ({"ensemble": {}}, "ensemble.members: is required"),
        ({"ensemble": ensemble(a=5, b={})}, "ensemble.members.a: should be a section, with keys such as model"),
        ({"ensemble": {"members": {"a": {}, "../b": {}}}}, r"names become folders.*unlike \['../b'\]"),
        ({"ensemble": {"members": {"a": {}, "A": {}}}}, "differ in more than capitals"),
        ({"ensemble": ensemble(a=LINEAR, b=ENCODER), "model": {"C": 3}}, "no member of the ensemble reads model"),
        ({"ensemble": ensemble(a={}, b=LINEAR), "training": {}}, "no member of the ensemble reads training"),
        ({"ensemble": ensemble(a={}, b={"training": {}})}, "ensemble.members.b: .*'linear' doesn't use training"),
        ({"ensemble": ensemble(a={}, b={"modl": {}})}, "ensemble.members.b.modl: no such key; did you mean 'model'"),
        ({"ensemble": ensemble(a={}, model={"model": {"C": -1}})}, "ensemble.members.model.model.C: input should be"),
        ({"ensemble": ensemble(a={}, b={"model": {"family": "x"}})}, "ensemble.members.b.model.family: should be one"),
        (
            {"ensemble": ensemble(a={}, b=ENCODER | {"model": {"family": "encoder", "pol": 1}})},
            "did you mean 'pooling'",
        ),
        ({"ensemble": ensemble(a={}, b=ENCODER), "objective": {"binary": "focal"}}, "ensemble.members.a: .*objective"),
    ],
)
def test_mistakes(plain: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_recipe(plain)


def test_a_dumped_ensemble_loads_as_itself_without_what_nobody_reads() -> None:
    recipe = build_recipe({"ensemble": ensemble(a=LINEAR, b=ENCODER)})
    dumped = dump_recipe(recipe)
    again = build_recipe(yaml.safe_load(dumped))
    assert dump_recipe(again) == dumped
    assert "model" not in yaml.safe_load(dumped)
    assert [again.member(name).model for name in "ab"] == [recipe.member(name).model for name in "ab"]


def test_overrides_reach_a_member() -> None:
    recipe = build_recipe({"ensemble": ensemble(a=LINEAR, b={})}, ["ensemble.members.b.model.C=5"])
    assert recipe.member("b").model.C == 5
