from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.pipeline.test_enrichment import Heard

from fivefold.data.demo import demo
from fivefold.errors import DataError, RecipeError, RunError
from fivefold.pipeline.fit import fit_unpublished as fit
from fivefold.pipeline.generate import ABOUT, DRAFT, FOR_FOLD, PARENTS, ROWS, generate
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe

MODEL = {"char_ngrams": None, "min_df": 1}


def goods(rows: int = 90) -> pl.DataFrame:
    """Products of which each title ends with a word of its own."""
    frame = demo("products", rows, seed=2).select("id", "title", "supergroup")
    own = pl.Series([f"token{row:03d}x" for row in range(rows)])
    dear = pl.Series([row % 2 for row in range(rows)])
    return frame.with_columns(title=frame["title"] + " " + own, dear=dear)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("teachers")
    goods().write_csv(folder / "train.csv")
    recipe = {
        "model": MODEL,
        "folds": {"count": 3},
        "data": {"train": str(folder / "train.csv"), "text": ["title"], "id": "id"},
        "task": {"binary": ["dear"], "categorical": ["supergroup"]},
    }
    return fit(recipe, out=folder / "run")


def parrot(examples: Sequence[Sequence[str]], seed: int) -> list[str]:
    """A writer that puts its examples one behind the other, and says one of them as it is now and then."""
    return [some[0] if (n + seed) % 5 == 0 else " and ".join(some) for n, some in enumerate(examples)]


def students(teachers: Run, rows: Path, out: Path, **changes: Any) -> Run:
    plain = teachers.recipe.model_dump(exclude_unset=True)
    data = {**plain["data"], "extra": str(rows), "extra_fold": FOR_FOLD}
    return fit({**plain, "data": data, "folds": {"reuse": str(teachers.folder)}, **changes}, out=out)


def test_no_parent_and_no_label_of_a_held_out_row_is_trained_on(
    teachers: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = generate(teachers.folder, tmp_path / "made", parrot, count=30, shots=2)
    assert found.records == 30
    assert found.rows == 60
    assert found.dropped >= 5
    heard = Heard(monkeypatch)
    run = students(teachers, tmp_path / "made" / ROWS, tmp_path / "run")
    monkeypatch.undo()
    parents = {row["id"]: row for row in pl.read_parquet(tmp_path / "made" / PARENTS).to_dicts()}
    titles = dict(goods().select("id", "title").iter_rows())
    assert run.folds.fold[: len(titles)].tolist() == teachers.folds.fold.tolist()
    for fold, train in enumerate(heard.fits):
        own = np.array([str(name).startswith("generated") for name in train.ids])
        assert own.sum() == sum(row["fold"] != fold for row in parents.values())
        held_out = {str(name) for name in teachers.rows["id"].to_numpy()[teachers.folds.held_out(fold)]}
        barred = {titles[name].split()[-1] for name in held_out}
        made = train.take(np.flatnonzero(own))
        for name, text in zip(made.ids, made.texts("title"), strict=True):
            record = parents[str(name).removesuffix(f"-{fold}")]
            assert not held_out & set(record["parents"])
            assert {titles[parent].split()[-1] for parent in record["parents"]} <= set(text.split())
            assert not barred & set(text.split())
        said = teachers.models[fold].score(made).probabilities()
        np.testing.assert_allclose(made.labels.soft["dear"][:, 0], said[:, 0], atol=1e-6)
        np.testing.assert_allclose(made.labels.soft["supergroup"], said[:, 1:], atol=1e-6)


def test_an_ensemble_teaches_fold_by_fold(teachers: Run, tmp_path: Path) -> None:
    plain = teachers.recipe.model_dump(exclude_unset=True)
    ensemble = {"members": {name: {"model": {**MODEL, "C": c}} for name, c in (("a", 1.0), ("b", 10.0))}}
    both = fit({**{k: v for k, v in plain.items() if k != "model"}, "ensemble": ensemble}, out=tmp_path / "both")
    found = generate(both.folder, tmp_path / "made", parrot, count=6, shots=2)
    rows = pl.read_parquet(found.folder / ROWS)
    assert sorted(rows[FOR_FOLD].unique()) == [0, 1, 2]
    names = [name for name in rows.columns if name.startswith("supergroup=")]
    np.testing.assert_allclose(rows.select(names).sum_horizontal(), 1, atol=1e-5)
    assert students(both, found.folder / ROWS, tmp_path / "run").out_of_fold.scores.logits.shape[0] == 90


def test_a_killed_command_goes_on(teachers: Run, tmp_path: Path) -> None:
    asked = {"count": 150, "shots": 2, "seed": 3}
    seeds: list[int] = []

    def killed(examples: Sequence[Sequence[str]], seed: int) -> list[str]:
        seeds.append(seed)
        if len(seeds) == 3:
            raise KeyboardInterrupt
        return parrot(examples, seed)

    def counted(examples: Sequence[Sequence[str]], seed: int) -> list[str]:
        all_seeds.append(seed)
        return parrot(examples, seed)

    all_seeds: list[int] = []
    whole = generate(teachers.folder, tmp_path / "whole", counted, **asked)
    with pytest.raises(KeyboardInterrupt):
        generate(teachers.folder, tmp_path / "made", killed, **asked)
    with (tmp_path / "made" / DRAFT).open("a") as file:
        file.write('["half a li')
    with pytest.raises(DataError, match="another command"):
        generate(teachers.folder, tmp_path / "made", killed, **{**asked, "shots": 3})
    again = generate(teachers.folder, tmp_path / "made", killed, **asked)
    assert seeds == [*all_seeds[:3], *all_seeds[2:]]
    assert (again.records, again.dropped) == (whole.records, whole.dropped)
    for name in (ROWS, PARENTS, ABOUT):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert not (again.folder / DRAFT).exists()


def test_several_fields_are_written_and_read(tmp_path: Path) -> None:
    frame = goods(30).with_columns(price=pl.lit("9 pounds"))
    recipe = {
        "model": MODEL,
        "folds": {"count": 2},
        "data": {"text": ["title", "price"], "id": "id"},
        "task": {"binary": ["dear"]},
    }
    frame.write_csv(tmp_path / "train.csv")
    recipe["data"]["train"] = str(tmp_path / "train.csv")  # type: ignore[index]
    run = fit(recipe, out=tmp_path / "run")

    def write(examples: Sequence[Sequence[str]], seed: int) -> list[str]:
        assert all(text.split("\n")[1] == "price: 9 pounds" for some in examples for text in some)
        return [f"title: new {seed + n}\nprice: 3 pounds" if n % 2 else "title: no price" for n in range(len(examples))]

    found = generate(run.folder, tmp_path / "made", write, count=4, shots=2)
    rows = pl.read_parquet(found.folder / ROWS)
    assert set(rows["price"]) == {"3 pounds"}
    assert rows["title"].str.starts_with("new ").all()


def test_what_cannot_be_kept_apart_is_refused(teachers: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing usable"):
        generate(teachers.folder, tmp_path / "none", lambda some, seed: [""] * len(some), count=2, shots=2)
    tags = goods(30).with_columns(tags=pl.Series(["a;b", "b", "a"] * 10)).drop("dear", "supergroup")
    tags.write_csv(tmp_path / "tags.csv")
    data = {"train": str(tmp_path / "tags.csv"), "text": ["title"], "id": "id"}
    plain = {"model": MODEL, "folds": {"count": 2}, "data": data, "task": {"label_list": "tags"}}
    with pytest.raises(RunError, match="lists its labels"):
        generate(fit(plain, out=tmp_path / "tags").folder, tmp_path / "made", parrot, count=2, shots=2)
    one = fit(teachers.recipe.model_dump(exclude_unset=True) | {"folds": {"only": 0}}, out=tmp_path / "one")
    with pytest.raises(RunError, match="no two folds"):
        generate(one.folder, tmp_path / "made", parrot, count=2, shots=2)
    with pytest.raises(RecipeError, match=r"folds\.reuse or data\.fold"):
        build_recipe({"data": {"extra": "made.parquet", "extra_fold": FOR_FOLD}})


@pytest.mark.parametrize(("cell", "message"), [(7, "folds that aren't there"), (0, None)])
def test_a_row_for_a_fold_that_is_not_there(teachers: Run, tmp_path: Path, cell: int, message: str | None) -> None:
    extra = goods(3).with_columns(
        pl.Series(FOR_FOLD, [cell] * 3), id="more" + pl.col("id"), title="new " + pl.col("title")
    )
    extra.write_parquet(tmp_path / "extra.parquet")
    if message is None:
        students(teachers, tmp_path / "extra.parquet", tmp_path / "run")
        return
    with pytest.raises(DataError, match=message):
        students(teachers, tmp_path / "extra.parquet", tmp_path / "run")
