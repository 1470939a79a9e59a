import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fivefold import task
from fivefold.errors import RecipeError
from fivefold.recipe import Recipe, build_recipe, dump_recipe, load_recipe, settings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    assert load_recipe(path).name


def test_five_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "data: {trian: a.csv}\nfolds: {count: 1}\nmodel: {family: linaer, C: -1}\ndecision: {metric: f1}\n", "utf-8"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert "5 problems" in text
    for key in ("data.trian", "folds.count", "model.family", "model.C", "decision.metric"):
        assert f"- {key}: " in text
    assert "did you mean 'train'" in text
    assert "Got 'linaer'" in text


SWAP = {"fields": [["a", "b"]], "target": "w", "classes": {"a": "b"}}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"task": {"categorical": ["a"], "tree": ["a", "b"]}}, "task: tree names"),
        ({"task": {"categorical": ["a", "b"], "tree": ["a", "b"], "tree_paths": [["x"]]}}, "one class a level"),
        ({"task": {"swap": {"fields": [["a", "b"]], "target": "w", "classes": {"a": "b"}}}}, "swap.target"),
        ({"folds": {"only": 5}}, "must be below count"),
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
    ],
)
def test_keys_that_contradict_each_other(plain: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_recipe(plain)


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


def test_dumped_recipe_loads_as_itself(tmp_path: Path) -> None:
    recipe = build_recipe({"name": "naïve", "model": {"solver": "boosting", "leaves": 7}, "data": {"train": "x.csv"}})
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
    """Every key that holds a value, and those of the sections below."""
    for name, info in section.model_fields.items():
        kinds = (info.annotation, *get_args(info.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None or info.description:
            yield prefix + name, info
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def test_every_key_says_what_it_means() -> None:
    found = dict(keys(Recipe))
    assert {"seed", "data.train", "task.swap", "task.swap.classes", "model.C", "decision.tree"} <= found.keys()
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
