from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.models.tiny import TINY

from fivefold.data.compose import Rows
from fivefold.data.demo import demo
from fivefold.errors import ArtefactError, DataError, RecipeError, RunError
from fivefold.models.linear.classifier import LinearClassifier
from fivefold.pipeline import fit as fit_module
from fivefold.pipeline.average import check_unenriched
from fivefold.pipeline.enrichment import Retriever
from fivefold.pipeline.fit import fit_unpublished as fit
from fivefold.pipeline.run import Run, load

WORDS = {"model": {"char_ngrams": None, "min_df": 1}, "folds": {"count": 3}, "data": {"text": ["title"], "id": "id"}}
TARGETS = {"task": {"categorical": ["supergroup", "brand"]}}


@pytest.fixture(scope="module")
def products() -> pl.DataFrame:
    return demo("products", 180, seed=0)


@pytest.fixture
def near(sentence_encoder: Path) -> dict[str, Any]:
    """A section enrichment whose neighbours are many, however far."""
    return {"backbone": str(sentence_encoder), "similarity": 1e-6}


def planted(rows: int) -> pl.DataFrame:
    """Rows that are told apart by their labels alone: each has a token of its own as a class, and as a note.

    Rows 0 to 9 have the texts of rows 10 to 19; rows 20 to 29 share a group with rows 30 to 39.
    """
    titles = demo("products", rows, seed=1)["title"].to_list()
    titles[:10] = [title.upper() for title in titles[10:20]]
    own = [f"token{row:04d}x" for row in range(rows)]
    groups = [f"g{row % 10}" if 20 <= row < 40 else f"alone{row}" for row in range(rows)]
    return pl.DataFrame(
        {
            "id": [str(row) for row in range(rows)],
            "title": titles,
            "group": groups,
            "brand": own,
            "note": own,
            "kind": [f"kind{row % 3}" for row in range(rows)],
        }
    )


class Heard:
    """What every linear model trains on and scores; a model that was fitted here knows the ids of its training rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fits: list[Rows] = []
        self.scores: list[tuple[Any, Rows]] = []
        inner_fit, inner_score = LinearClassifier.fit, LinearClassifier.score

        def fit_(model: Any, train: Rows, valid: Rows | None, scratch: Path | None = None) -> Any:
            self.fits.append(train)
            model.trained_on = frozenset(train.ids)
            return inner_fit(model, train, valid, scratch)

        def score_(model: Any, rows: Rows) -> Any:
            self.scores.append((model, rows))
            return inner_score(model, rows)

        monkeypatch.setattr(LinearClassifier, "fit", fit_)
        monkeypatch.setattr(LinearClassifier, "score", score_)


def tokens_in(rows: Rows, run: Run, take: str) -> list[set[str]]:
    """The planted tokens that each row's neighbours give it, as text and as votes."""
    given = [set(re.findall(r"token\d{4}x", text)) for text in rows.texts("neighbours")]
    if take == "labels":
        classes, block = run.task.target("brand").classes, run.task.slices["brand"]
        for own, votes in zip(given, rows.figures.toarray()[:, block], strict=True):
            own |= {classes[place] for place in np.flatnonzero(votes)}
    return given


@pytest.mark.parametrize("take", ["labels", "note"])
def test_what_a_fold_holds_out_never_reaches_its_training_or_scoring(
    take: str, near: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, frame = Heard(monkeypatch), planted(90)
    recipe = {
        **WORDS,
        "data": {"text": ["title"], "id": "id", "group": "group"},
        "task": {"categorical": ["kind", "brand"]},
        "enrichment": near | {"take": take, "neighbours": 4},
    }
    run = fit(recipe, frame, test=frame.select("id", "title").head(30), out=tmp_path / "run")
    places = {token: place for place, token in enumerate(frame["note"])}
    groups, texts = frame["group"].to_list(), [title.lower() for title in frame["title"]]

    def check(rows: Rows, fold: int) -> None:
        for name, given in zip(rows.ids, tokens_in(rows, run, take), strict=True):
            own, found = int(name), [places[token] for token in given]
            assert found, "every row has neighbours here"
            assert all(run.folds.fold[place] != fold for place in found)
            assert all(groups[place] != groups[own] and texts[place] != texts[own] for place in found)

    folds = {frozenset(map(str, run.folds.training(fold))): fold for fold in range(3)}
    assert [folds[frozenset(train.ids)] for train in heard.fits] == [0, 1, 2]
    for fold, train in enumerate(heard.fits):
        check(train, fold)
    scored = [(folds[model.trained_on], rows) for model, rows in heard.scores if hasattr(model, "trained_on")]
    assert {fold for fold, _ in scored} == {0, 1, 2}
    for fold, rows in scored:
        check(rows, fold)
    heard.scores.clear()
    run.scores(frame)
    assert [model for model, _ in heard.scores] == list(run.models)
    for fold, (_, rows) in enumerate(heard.scores):
        check(rows, fold)


def test_a_row_reads_as_in_the_fit_when_it_is_predicted(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    run = fit({**WORDS, **TARGETS, "enrichment": near}, products, out=tmp_path / "run")
    rows = run.out_of_fold
    for fold, model in enumerate(run.models):
        alone = Run(run.store)
        alone.__dict__.update(models=(model,), folds=run.folds)
        alone.folds.__dict__["only"] = fold
        held_out = rows.folds == fold
        said = alone.raw(rows_of(alone, products.filter(pl.Series(held_out))))
        alone.folds.__dict__["only"] = None
        np.testing.assert_allclose(said.logits, rows.scores.logits[held_out], atol=1e-3)


def rows_of(run: Run, frame: pl.DataFrame) -> Rows:
    from fivefold.data.corpus import build_corpus

    return build_corpus(frame, text=run.recipe.data.text, id=run.recipe.data.id).rows()


def test_a_loaded_run_predicts_the_same_and_a_row_alone_as_among_others(
    products: pl.DataFrame, near: Any, tmp_path: Path
) -> None:
    run = fit({**WORDS, **TARGETS, "enrichment": near}, products.head(150), out=tmp_path / "run")
    new = products.tail(12)
    together = run.scores(new).logits
    np.testing.assert_array_equal(load(run.folder).scores(new).logits, together)
    alone = np.concatenate([run.scores(new[row]).logits for row in range(12)])
    np.testing.assert_allclose(alone, together, atol=1e-3)
    assert run.predict(["green tea", ""]).height == 2


def test_a_stopped_run_continues_to_the_same_scores(
    products: pl.DataFrame, near: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**WORDS, **TARGETS, "enrichment": near}
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "fit_folds", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, products, out=tmp_path / "a")
    monkeypatch.setattr(Retriever, "find", lambda *_: pytest.fail("found again"))
    stopped = fit(recipe, products, out=tmp_path / "a")
    assert fit(recipe, products, out=tmp_path / "b").out_of_fold.scores.logits.tobytes() == (
        stopped.out_of_fold.scores.logits.tobytes()
    )
    suffixes = {path.suffix for path in (tmp_path / "a/enrichment").iterdir()}
    assert suffixes <= {".json", ".npy", ".parquet", ".safetensors"}


def test_another_recipe_takes_the_place_of_one_that_fitted_nothing(
    products: pl.DataFrame, near: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "fit_folds", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit({**WORDS, **TARGETS, "enrichment": near}, products, out=tmp_path / "run")
    run = fit({**WORDS, **TARGETS}, products, out=tmp_path / "run")
    assert not (run.folder / "enrichment").exists()


def test_near_duplicates_do_not_find_each_other(near: Any, tmp_path: Path) -> None:
    frame = planted(60)
    twins = frame.with_columns(pl.col("title") + " !", pl.col("id") + "-twin", brand=pl.col("brand").str.slice(0, 9))
    both = pl.concat([frame, twins.with_columns(note=pl.col("note") + "y")])
    settings = {"count": 2, "near_duplicates": 0.6}
    recipe = {**WORDS, "folds": settings, "task": {"categorical": ["kind"]}, "enrichment": near | {"take": "note"}}
    run = fit(recipe, both, out=tmp_path / "run")
    assert run.retriever is not None
    groups = run.retriever.shelf.entries.groups[run.retriever.shelf.entries.of_row]
    np.testing.assert_array_equal(groups[:60], groups[60:])


def test_folds_side_by_side_say_the_same(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    recipe = {**WORDS, **TARGETS, "enrichment": near}
    one = fit(recipe, products, out=tmp_path / "one")
    two = fit(recipe, products, out=tmp_path / "two", folds_at_once=2)
    np.testing.assert_allclose(one.out_of_fold.scores.logits, two.out_of_fold.scores.logits, atol=1e-4)


def test_an_encoder_reads_the_field(products: pl.DataFrame, near: Any, sentence_encoder: Path, tmp_path: Path) -> None:
    recipe = {
        **WORDS,
        **TARGETS,
        "folds": {"count": 2},
        "enrichment": near | {"field": "alike"},
        "model": {
            "family": "encoder",
            "architecture": TINY,
            "tokenizer": str(sentence_encoder),
            "template": "{title} like: {alike}",
            "field_tokens": {"alike": 24},
        },
        "training": {"epochs": 1},
    }
    run = fit(recipe, products.head(60), out=tmp_path / "run")
    assert run.predict(products.tail(3)).height == 3


def test_members_of_an_ensemble_share_what_was_found(
    products: pl.DataFrame, near: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"words": {"model": {"char_ngrams": None}}, "letters": {"model": {"word_ngrams": None}}}
    recipe = {"data": WORDS["data"], "folds": {"count": 2}, **TARGETS, "enrichment": near}
    run = fit(recipe | {"ensemble": {"members": members}}, products, out=tmp_path / "run")
    asked: list[int] = []
    inner = Retriever.find
    monkeypatch.setattr(Retriever, "find", lambda self, texts, views: asked.append(1) or inner(self, texts, views))
    assert run.predict(products.head(4)).height == 4
    assert len(asked) == 1
    names = [(member.folder / "enrichment/manifest.json").read_bytes() for member in run.members.values()]
    assert names == [(run.folder / "enrichment/manifest.json").read_bytes()] * 2


def catalogue_of(products: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.csv"
    products.select(name=pl.col("title") + " extra", text="supergroup").write_csv(path)
    return path


def test_a_catalogue_gives_its_texts_to_every_fold(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    path = catalogue_of(products, tmp_path)
    section = near | {"catalogue": str(path), "match": ["name"], "take": "text", "neighbours": 1}
    run = fit({**WORDS, **TARGETS, "enrichment": section}, products, test=products.head(5), out=tmp_path / "run")
    assert run.retriever is not None
    read = run.retriever.readings(rows_of(run, products), run.folds.evaluated)
    assert len(read) == 1
    assert set(read[0].texts("neighbours")) <= set(products["supergroup"])
    assert read[0].figures is None
    found = json.loads((run.folder / "enrichment/found.json").read_text())
    assert found["found"] == found["rows"] == products.height
    again = fit({**WORDS, **TARGETS, "enrichment": section}, products, test=products.head(5), out=tmp_path / "run")
    assert again.folder == run.folder
    pl.read_csv(path).head(100).write_csv(path)
    with pytest.raises(RunError, match="another recipe, data or backbone"):
        fit({**WORDS, **TARGETS, "enrichment": section}, products, out=tmp_path / "run")


def test_rows_that_are_in_the_catalogue_are_told(
    products: pl.DataFrame, near: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "catalogue.csv"
    products.head(50).write_csv(path)
    section = near | {"catalogue": str(path), "match": ["title"], "take": "retailer"}
    fit({**WORDS, **TARGETS, "enrichment": section}, products, out=tmp_path / "run")
    assert "have their own text in the catalogue: its column 'retailer' must not come from their labels" in caplog.text


WRONG = {
    "no column to match": ({"match": ["nam"], "take": "text"}, DataError, "did you mean 'name' instead of 'nam'"),
    "no column to take": ({"match": ["name"], "take": "texts"}, DataError, "did you mean 'text' instead of 'texts'"),
    "the labels of rows": ({"match": ["name"], "take": "brand"}, RecipeError, "'brand' is a label, and would be"),
    "the field is taken": ({"match": ["name"], "take": "text", "field": "title"}, RecipeError, "enrichment.field"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_catalogues_are_refused(case: str, products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    keys, kind, message = WRONG[case]
    section = near | {"catalogue": str(catalogue_of(products, tmp_path))} | keys
    with pytest.raises(kind, match=message):
        fit({**WORDS, "enrichment": section, **TARGETS}, products, out=tmp_path / "run")


def test_inferred_columns_are_checked_too(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    section = near | {"query": ["name"]}
    with pytest.raises(RecipeError, match=r"enrichment.query: \['name'\] aren't among the text columns"):
        fit({"enrichment": section}, products, out=tmp_path / "run")


@pytest.mark.parametrize("content", ["name,text\n", "name,text\n,a\n ,b\n"])
def test_a_catalogue_without_texts(content: str, products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(content)
    section = near | {"catalogue": str(tmp_path / "c.csv"), "match": ["name"], "take": "text"}
    with pytest.raises(DataError, match=r"but no rows|has no text in name"):
        fit({**WORDS, **TARGETS, "enrichment": section}, products, out=tmp_path / "run")


def test_a_column_to_take_that_training_rows_lack(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'notes', wanted as enrichment.take"):
        fit({**WORDS, **TARGETS, "enrichment": near | {"take": "notes"}}, products, out=tmp_path / "run")


def test_a_changed_index_is_refused(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    run = fit({**WORDS, **TARGETS, "enrichment": near}, products, out=tmp_path / "run")
    with (run.folder / "enrichment/entries.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtefactError, match="changed after it was written"):
        load(run.folder)


def test_folds_with_neighbours_are_not_averaged(products: pl.DataFrame, near: Any, tmp_path: Path) -> None:
    run = fit({**WORDS, **TARGETS, "enrichment": near}, products, out=tmp_path / "run")
    with pytest.raises(RunError, match="an average doesn't find"):
        check_unenriched(run)
