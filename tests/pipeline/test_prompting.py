from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.models.tiny_decoders import save_decoder

from fivefold.errors import RecipeError
from fivefold.models.generator.prompted import PromptedClassifier
from fivefold.pipeline.fit import fit_unpublished as fit
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe, load_recipe
from fivefold.retrieval.shelf import Shelf

pytestmark = pytest.mark.usefixtures("quiet_cache")


@pytest.fixture
def quiet_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


def planted(rows: int = 24) -> pl.DataFrame:
    """Rows each with a text and a class that no other row has; row 0 has the text of row 1, rows 2 and 3 a group."""
    titles = [f"text{row:03d}x" for row in range(rows)]
    titles[0] = titles[1].upper()
    return pl.DataFrame(
        {
            "id": [str(row) for row in range(rows)],
            "title": titles,
            "group": ["both" if row in (2, 3) else f"alone{row}" for row in range(rows)],
            "brand": [f"brand{row:03d}x" for row in range(rows)],
            "good": [row % 2 for row in range(rows)],
        }
    )


def recipe_for(writer: Path, encoder: Path, take: str) -> dict[str, Any]:
    shots = {"count": 3, "take": take} | ({"backbone": str(encoder)} if take == "nearest" else {})
    return {
        "data": {"text": ["title"], "id": "id", "group": "group"},
        "task": {"binary": ["good"], "categorical": ["brand"]},
        "folds": {"count": 3},
        "model": {"family": "generator", "backbone": str(writer), "max_tokens": 240, "shots": shots},
        "training": {"epochs": 0},
    }


class Read:
    """All prompts that are made, and the rows that each classifier was fitted on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[tuple[PromptedClassifier, str, str]] = []
        inner_fit, inner_prompts = PromptedClassifier.fit, PromptedClassifier.prompts

        def fit_(model: Any, train: Any, *others: Any) -> Any:
            model.trained_on = frozenset(train.ids)
            return inner_fit(model, train, *others)

        def prompts_(model: Any, corpus: Any, index: Any, *others: Any) -> Any:
            made = inner_prompts(model, corpus, index, *others)
            texts = [model.tokenizer.decode(made.inputs.tokens.row(row)) for row in range(len(index))]
            self.prompts += [(model, corpus.ids[row], text) for row, text in zip(index, texts, strict=True)]
            return made

        monkeypatch.setattr(PromptedClassifier, "fit", fit_)
        monkeypatch.setattr(PromptedClassifier, "prompts", prompts_)

    def leaks(self, run: Run, take: str, frame: pl.DataFrame, fold_of: dict[int, int]) -> list[str]:
        """What prompts say of rows that their model must not know, or of the record itself."""
        said, texts, groups = [], frame["title"].str.to_lowercase().to_list(), frame["group"].to_list()
        for model, name, text in self.prompts:
            fold = fold_of.get(id(model))
            own = int(name)
            *examples, record = text.split("\n\n")[:-1]
            shown = " ".join(examples).replace("TEXT001X", "text000x")
            known = {int(number) for number in re.findall(r"(?:text|brand)(\d{3})x", shown)}
            assert known, "every record has examples here"
            assert texts[own] in record.lower()
            if fold is not None:
                said += [f"held out: {row} for {own}" for row in known if run.folds.fold[row] == fold]
            if take == "nearest":
                said += [
                    f"itself: {row} for {own}"
                    for row in known
                    if texts[row] == texts[own] or groups[row] == groups[own]
                ]
        return said


def break_barrier(take: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if take == "nearest":
        monkeypatch.setattr(Shelf, "rows", lambda shelf, view: np.ones(len(shelf.entries.of_row), dtype=bool))
    else:
        inner = PromptedClassifier._draw
        monkeypatch.setattr(PromptedClassifier, "_draw", lambda model, train: inner(model, train.corpus.rows()))


@pytest.mark.parametrize("barrier", ["stands", "broken"])
@pytest.mark.parametrize("take", ["balanced", "nearest"])
def test_what_a_fold_holds_out_reaches_no_prompt(
    take: str, barrier: str, writer: Path, sentence_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = planted()
    if barrier == "broken":
        break_barrier(take, monkeypatch)
    read = Read(monkeypatch)
    run = fit(recipe_for(writer, sentence_encoder, take), frame, out=tmp_path / "run")
    folds = {frozenset(map(str, run.folds.training(fold))): fold for fold in range(3)}
    fold_of = {id(m): folds[m.trained_on] for m, _, _ in read.prompts if hasattr(m, "trained_on")}
    assert set(fold_of.values()) == {0, 1, 2}
    fold_of |= {id(model): fold for fold, model in enumerate(run.models)}
    expected = run.out_of_fold.scores.logits
    run.scores(frame)  # as new rows, with every fold's model
    assert {fold_of.get(id(model)) for model, _, _ in read.prompts} >= {0, 1, 2}
    assert bool(read.leaks(run, take, frame, fold_of)) == (barrier == "broken")
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("take", ["balanced", "nearest"])
def test_the_run_alone_predicts(take: str, writer: Path, sentence_encoder: Path, tmp_path: Path) -> None:
    recipe, frame = recipe_for(writer, sentence_encoder, take), planted()
    frame.write_csv(tmp_path / "train.csv")
    run = fit(recipe, str(tmp_path / "train.csv"), out=tmp_path / "run")
    (tmp_path / "train.csv").unlink()
    new = pl.DataFrame({"id": ["a", "b"], "title": ["text005x again", "nothing"]})
    expected = run.scores(new).logits
    (tmp_path / "run").rename(tmp_path / "moved")
    np.testing.assert_allclose(Run.load(tmp_path / "moved").scores(new).logits, expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 0
    suffixes = {path.suffix for path in (tmp_path / "moved").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".npy", ".parquet", ".safetensors", ".yaml", ".txt", ""}


def test_inferred_columns_are_checked(writer: Path, sentence_encoder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(writer, sentence_encoder, "nearest")
    recipe["data"] = {"id": "id"}
    recipe["model"]["shots"]["query"] = ["name"]
    with pytest.raises(RecipeError, match=r"model.shots.query: \['name'\] aren't among"):
        fit(recipe, planted().select("id", "title", "brand", "good"), out=tmp_path / "run")


def test_templates_lie_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "long.txt").write_text("A tweet:\n{text}\n", "utf-8")
    words = "training: {epochs: 0}\nmodel: {family: generator, backbone: a/b, prompts: [long.txt, 'Said: {text}']}"
    (folder / "recipe.yaml").write_text(words, "utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.model.prompts == ["A tweet:\n{text}", "Said: {text}"]  # type: ignore[union-attr]
    member = {"model": {"family": "generator", "backbone": "a/b", "prompts": ["recipes/long.txt"]}}
    training = {"training": {"epochs": 0}}
    both = build_recipe({**training, "ensemble": {"members": {"one": member, "two": member}}})
    assert both.member("one").model.prompts == ["A tweet:\n{text}"]  # type: ignore[union-attr]
    (folder / "recipe.yaml").write_text(words.replace("long.txt", "lost.txt"), "utf-8")
    with pytest.raises(RecipeError, match=r"lost\.txt.*names? the text columns in braces") as caught:
        load_recipe(folder / "recipe.yaml")
    assert str(folder / "lost.txt") in str(caught.value)
