import subprocess
import sys
from pathlib import Path

import pytest

from fivefold.errors import RecipeError
from fivefold.recipe import Recipe, build_recipe, dump_recipe, load_recipe

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


def test_every_key_says_what_it_means_or_is_named_plainly() -> None:
    assert set(Recipe.model_fields) == {
        "name",
        "description",
        "seed",
        "data",
        "task",
        "folds",
        "model",
        "objective",
        "decision",
    }


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
