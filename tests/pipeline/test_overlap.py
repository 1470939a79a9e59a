from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fivefold.errors import DataError, LabelError
from fivefold.pipeline.overlap import overlap
from fivefold.pipeline.prepare import prepare
from fivefold.recipe import Recipe, build_recipe

SWAP = {"fields": [["left", "right"]], "target": "winner", "classes": {"a": "b", "b": "a"}}


def pairs(near: float | None = None) -> Recipe:
    task = {"categorical": {"winner": ["a", "b"]}, "swap": SWAP}
    return build_recipe(
        {"data": {"text": ["prompt", "left", "right"]}, "task": task, "folds": {"near_duplicates": near}}
    )


def table(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["prompt", "left", "right"], orient="row").with_columns(winner=pl.lit("a"))


def test_pairs_are_the_same_in_either_order() -> None:
    frame = table(("q", "one", "two"), ("Q ", "TWO", "one"), ("q", "one", "three"), ("one", "q", "two"), ("", "", ""))
    assert overlap(frame, table(("q", "two", "one"), ("", " ", "")), pairs()).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_near_duplicates_count_where_the_folds_say_so() -> None:
    long = "a rather long answer about how bread is baked in a wood oven, at home"
    frame, other = table(("q", long, "two")), table(("q", long + "!", "two"))
    assert not overlap(frame, other, pairs()).any()
    assert overlap(frame, other, pairs(0.8)).all()


def test_a_table_without_the_texts_is_named() -> None:
    with pytest.raises(DataError, match=r"data\.exclude"):
        overlap(table(("q", "a", "b")), pl.DataFrame({"prompt": ["q"]}), pairs(), "data.exclude")


def recipe(folder: Path, **data: Any) -> Recipe:
    frames = {
        "train": [("first", "x"), ("second", "y"), ("third", "x")],
        "extra": [("FIRST", "x"), ("tested", "y"), ("new", "y")],
        "test": [("tested", "x")],
        "exclude": [("third", "y"), ("new", "x")],
    }
    for name, rows in frames.items():
        pl.DataFrame(rows, schema=["text", "label"], orient="row").write_csv(folder / f"{name}.csv")
    named = {name: str(folder / f"{name}.csv") for name in ("train", "extra", "test")} | data
    return build_recipe({"data": {"text": ["text"], **named}, "task": {"categorical": {"label": []}}})


def test_extra_rows_of_train_and_test_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare(recipe(tmp_path))
    assert prepared.corpus.fields["text"] == ["first", "second", "third", "new"]
    np.testing.assert_array_equal(prepared.always_training, [False, False, False, True])
    assert "Left out: 2 rows of data.extra" in caplog.text


def test_excluded_rows_are_left_out(tmp_path: Path) -> None:
    prepared = prepare(recipe(tmp_path, exclude=str(tmp_path / "exclude.csv")))
    assert prepared.corpus.fields["text"] == ["first", "second"]
    with pytest.raises(LabelError, match="No training row is left"):
        prepare(recipe(tmp_path, exclude=str(tmp_path / "train.csv"), extra=None))
