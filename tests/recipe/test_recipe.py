import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fivefold import task
from fivefold.errors import RecipeError
from fivefold.recipe import Recipe, build_recipe, dump_recipe, load_recipe, settings
from fivefold.recipe.load import sections_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    assert load_recipe(path).name


def test_five_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "data: {trian: a.csv}\nfolds: {count: 1}\nmodel: {C: -1, solvr: svm}\ndecision: {metric: f1}\n", "utf-8"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert "5 problems" in text
    for key in ("data.trian", "folds.count", "model.solvr", "model.C", "decision.metric"):
        assert f"- {key}: " in text
    assert "did you mean 'train'" in text
    assert "Got 'f1'" in text


ENCODER = {"family": "encoder"}
SWAP = {"fields": [["a", "b"]], "target": "w", "classes": {"a": "b"}}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"task": {"categorical": ["a"], "tree": ["a", "b"]}}, "task: tree names"),
        ({"task": {"categorical": ["a", "b"], "tree": ["a", "b"], "tree_paths": [["x"]]}}, "one class a level"),
        ({"task": {"swap": {"fields": [["a", "b"]], "target": "w", "classes": {"a": "b"}}}}, "swap.target"),
        ({"folds": {"only": 5}}, "must be below folds.count"),
        ({"decision": {"thresholds": "common", "shrinkage": 3}}, "thresholds common doesn't use shrinkage"),
        ({"model": ENCODER, "pretraining": {"objective": "causal", "masked_share": 0.2}}, "doesn't use masked_share"),
        ({"model": {"word_ngrams": None, "char_ngrams": None}}, "can't both be null"),
        ({"model": {"word_ngrams": [2, 1]}}, "low <= high"),
        ({"model": {"trees": 10}}, "doesn't use trees"),
        ({"model": {"solver": "boosting", "C": 2}}, "doesn't use C"),
        ({"decision": {"thresholds": 1.5}}, "decision.thresholds: "),
        ({"task": {"binary": ["a"], "categorical": ["a"]}}, r"task: \['a'\] named more than once"),
        ({"task": {"binary": ["a"], "label_list": "a"}}, r"task: \['a'\] named more than once"),
        ({"task": {"binary": ["fold", "b"]}}, r"can't be called \['fold'\]"),
        ({"task": {"categorical": ["a"], "tree": ["a", "a"]}}, "tree names"),
        ({"data": {"text": ["t", "y"]}, "task": {"binary": ["y"]}}, "data.text and task.binary both name 'y'"),
        ({"data": {"fold": "y"}, "task": {"label_list": "y"}}, "data.fold and task.label_list both name 'y'"),
        ({"task": {"swap": {"fields": [["a", "a"]], "target": "w", "classes": {"a": "b"}}}}, "more than once"),
        ({"task": {"swap": {"fields": [["a", "b"], ["b", "c"]], "target": "w", "classes": {"a": "b"}}}}, "than once"),
        (
            {"data": {"text": ["a"]}, "task": {"categorical": ["w"], "swap": SWAP}},
            r"task.swap.fields names \['b'\], which data.text doesn't",
        ),
        ({"model": {"C": float("inf")}}, "model.C: input should be a finite number"),
        ({"model": {"C": 1e308}}, "model.C: input should be less than or equal to 1000000"),
        ({"model": {"word_ngrams": [1, 1000]}}, "high <= 100"),
        (
            {"task": {"categorical": {"y": [True, False]}}},
            r"y.0: should be text. Got True \(YAML .*: write it in quotes",
        ),
        ({"task": {"categorical": {"y": [1, 2]}}}, "Got 1: write it in quotes"),
        ({"folds": 5}, "folds: should be a section, with keys such as count and method. Got 5"),
        ({"task": {"swap": 5}}, "task.swap: should be a section, with keys such as fields and target. Got 5"),
        ({"task": {"swap": {"field": [], **SWAP}}}, "task.swap.field: no such key; did you mean 'fields'"),
        ({"task": {"categorical": 5}}, "should be a section with a line a name"),
        ({"task": {"categorical": {"strength": [1]}}}, "task.categorical.strength.0: should be text"),
        ({"model": 5}, "model: should be a section, with keys such as family and solver. Got 5"),
        (
            {"model": {"family": "encodr"}},
            "model.family: should be one of 'linear', 'feedforward', 'encoder', 'decoder', 'generator'. Got 'encodr'",
        ),
        ({"model": {**ENCODER, "poolng": "cls"}}, "model.poolng: no such key; did you mean 'pooling'"),
        ({"model": {**ENCODER, "C": 2}}, "model.C: no such key; allowed: family, backbone"),
        ({"model": {**ENCODER, "field_tokens": {"title": -1}}}, "model.field_tokens.title: input should be greater"),
        ({"model": {**ENCODER, "max_windows": 3}}, "windows 'none' doesn't use max_windows"),
        ({"model": {**ENCODER, "windows": "mean", "truncation": "tail"}}, "windows 'mean' doesn't use truncation"),
        ({"model": {**ENCODER, "windows": "max", "window_overlap": 200}}, "at most half of window_tokens"),
        ({"model": {**ENCODER, "head_share": 0.3}}, "truncation 'head' doesn't use head_share"),
        ({"model": {**ENCODER, "yes": "ja"}}, "head 'linear' doesn't use yes"),
        (
            {
                "model": {**ENCODER, "unfrozen_layers": 0},
                "training": {"layer_decay": 0.9, "gradient_checkpointing": True},
            },
            "unfrozen_layers 0 doesn't use training.layer_decay, training.gradient_checkpointing",
        ),
        ({"model": {**ENCODER, "head": "prompted", "pooling": "cls"}}, "head 'prompted' doesn't use pooling"),
        ({"model": {**ENCODER, "head": "prompted", "prompt": "{label}"}}, "must hold {mask} once"),
        ({"model": {**ENCODER, "architecture": {"model_type": "bert"}}}, "architecture needs 'tokenizer'"),
        ({"model": {**ENCODER, "architecture": {}, "backbone": "x"}}, "name one"),
        ({"model": {"family": "feedforward", "vocabulary": "x", "words": 9}}, "'vocabulary' doesn't use words"),
        ({"model": {"family": "feedforward", "pretrained_embeddings": True}}, "needs 'vocabulary'"),
        ({"model": {"family": "feedforward", "hidden": [0]}}, "model.hidden.0: "),
        ({"objective": {"focal_gamma": 3}}, "objective: binary 'bce' doesn't use focal_gamma"),
        ({"objective": {"weight_cap": 3}}, "class_weights 'none' doesn't use weight_cap"),
        ({"objective": {"binary": "focal"}}, "'linear' doesn't use objective.binary"),
        ({"objective": {"class_weights": "positive"}}, "'linear' doesn't use objective.class_weights: positive"),
        ({"training": {"epochs": 2}}, "'linear' doesn't use training"),
        (
            {
                "model": {"family": "generator", "backbone": "an/id", "adapter": {"rank": 4}},
                "training": {"epochs": 1, "head_learning_rate": 1e-3},
            },
            "'generator' doesn't use training.head_learning_rate",
        ),
        ({"model": {"family": "feedforward"}, "pretraining": {}}, "'feedforward' doesn't use pretraining"),
        ({"model": ENCODER, "training": 5}, "training: should be a section, with keys such as epochs and batch_size"),
        ({"model": ENCODER, "training": {"epoch": 2}}, "training.epoch: no such key; did you mean 'epochs'"),
        ({"model": ENCODER, "pretraining": {"training": {"clipp": 2}}}, "pretraining.training.clipp: no such key"),
        ({"model": ENCODER, "training": {"warmup": "3 days"}}, "training.warmup: must be a share such as 0.1"),
        ({"model": ENCODER, "training": {"warmup": 1.5}}, "training.warmup: input should be less than 1"),
    ],
)
def test_keys_that_contradict_each_other(plain: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_recipe(plain)


def test_conflicts_between_sections_are_told_together() -> None:
    plain = {"data": {"text": ["a"], "extra_fold": "f"}, "task": {"binary": ["a"]}, "training": {"epochs": 2}}
    with pytest.raises(RecipeError) as caught:
        build_recipe(plain)
    for said in ("data.text and task.binary both name 'a'", "needs folds.reuse", "'linear' doesn't use training"):
        assert said in str(caught.value)


def test_a_model_that_names_no_family_is_linear() -> None:
    assert build_recipe({"model": {"C": 2}}).model.family == "linear"
    assert build_recipe({}).model == build_recipe({"model": {}}).model
    assert build_recipe({}).training is None


@pytest.mark.parametrize("family", ["feedforward", "encoder"])
def test_a_network_is_trained_by_defaults(family: str) -> None:
    recipe = build_recipe({"model": {"family": family}})
    assert recipe.training is not None
    assert (recipe.training.epochs, recipe.training.warmup, recipe.training.keep) == (3, 0.1, "last")
    assert recipe.pretraining is None


@pytest.mark.parametrize("warmup", [0, 0.06, "200 steps", "2 epochs", "0.5 epochs"])
def test_warmup_is_a_share_or_says_its_unit(warmup: float | str) -> None:
    recipe = build_recipe({"model": ENCODER}, [f"training.warmup={warmup}"])
    assert recipe.training is not None
    assert recipe.training.warmup == warmup


def test_overrides_choose_a_family() -> None:
    recipe = build_recipe({}, ["model.family=encoder", "model.pooling=cls", "training.epochs=1"])
    assert (recipe.model.family, recipe.model.pooling) == ("encoder", "cls")


def test_overrides_read_yaml_and_collect_repeated_keys() -> None:
    changes = ["data.train=a.csv", "data.train=b.csv", "model.C=2", "task.binary=[x, y]", "model.char_ngrams=null"]
    recipe = build_recipe({"data": {"text": ["t"]}}, changes)
    assert recipe.data.train == ["a.csv", "b.csv"]
    assert (recipe.model.C, recipe.task.binary, recipe.model.char_ngrams) == (2, ["x", "y"], None)
    assert build_recipe({}, ["data.train=[a.csv, b.csv]"]).data.train == ["a.csv", "b.csv"]


@pytest.mark.parametrize("change", ["nonsense", "=3", "seed.deep=1"])
def test_overrides_that_make_no_sense(change: str) -> None:
    with pytest.raises(RecipeError):
        build_recipe({"seed": 1}, [change])


def test_names_alone_mean_classes_to_be_learnt() -> None:
    assert build_recipe({"task": {"categorical": ["a", "b"]}}).task.categorical == {"a": [], "b": []}


def test_a_section_that_is_null_takes_keys() -> None:
    recipe = build_recipe({"training": None, "enrichment": None}, ["model.family=encoder", "training.epochs=1"])
    assert recipe.training is not None
    assert recipe.training.epochs == 1


def test_a_single_column_needs_no_brackets() -> None:
    recipe = build_recipe({"data": {"text": "title"}}, overrides=["task.binary=good"])
    assert recipe.data.text == ["title"]
    assert recipe.task.binary == ["good"]
    with pytest.raises(RecipeError, match=r"data\.text: should be a list"):
        build_recipe({"data": {"text": {"title": 1}}})


@pytest.mark.parametrize("model", [{"solver": "boosting", "leaves": 7}, ENCODER | {"windows": "mean"}])
def test_dumped_recipe_loads_as_itself(model: dict, tmp_path: Path) -> None:
    recipe = build_recipe({"name": "naïve", "model": model, "data": {"train": "x.csv"}})
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), "utf-8")
    assert load_recipe(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize("content", ["- a list", "{unclosed", "\tx: 1"])
def test_a_file_that_is_no_recipe(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.yaml").write_text(content, "utf-8")
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="can't be read"):
        load_recipe(tmp_path)


def test_a_text_may_be_the_group_too() -> None:
    recipe = build_recipe({"data": {"text": ["title"], "group": "title"}, "task": {"categorical": ["kind"]}})
    assert recipe.data.group == "title"


def test_overrides_leave_the_mapping_as_it_was() -> None:
    plain = {"task": {"categorical": ["w"], "swap": {**SWAP}}}
    assert build_recipe(plain, ["task.swap.fields=[[c, d]]"]).task.swap.fields == [("c", "d")]
    assert plain["task"]["swap"] == SWAP


def test_names_of_our_own_columns_are_known_to_recipe_and_task() -> None:
    assert settings.RESERVED == task.RESERVED


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value, and those of the sections below, of every family."""
    for name, info in section.model_fields.items():
        inner = sections_of(info.annotation)
        if not inner or info.description:
            yield prefix + name, info
        for each in inner:
            yield from keys(each, f"{prefix}{name}.")


def test_every_key_says_what_it_means() -> None:
    found = dict(keys(Recipe))
    known = {"seed", "data.train", "task.swap", "task.swap.classes", "model.C", "model.pooling", "decision.tree"}
    known |= {"training.warmup", "pretraining.training.epochs", "ensemble.members"}
    assert known <= found.keys()
    assert [key for key, info in found.items() if not info.description] == []


def test_checking_a_recipe_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\n", "utf-8")
    program = (
        "import sys; from fivefold.cli import main; code = main(['check', sys.argv[1]]);"
        "print([m for m in ('torch', 'sklearn', 'numpy', 'polars', 'numba') if m in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "r.yaml")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_a_net_without_layers_has_no_gradient_checkpoints() -> None:
    with pytest.raises(RecipeError, match=r"'feedforward' doesn't use training\.gradient_checkpointing"):
        build_recipe({"model": {"family": "feedforward"}, "training": {"gradient_checkpointing": True}})


@pytest.mark.parametrize("pair", [["(", ""], ["a", r"\1"], ["[", "x"]])
def test_a_replacement_that_is_none_is_said(pair: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"data\.replace: .*is no replacement"):
        build_recipe({"data": {"replace": [pair]}})
