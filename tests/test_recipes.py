"""The repository's recipes on a few rows of the data they are for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fivefold.data.load import read_table
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.run import Run
from fivefold.recipe import load_recipe
from tests.conftest import ROOT

FILES = {
    "emotions/linear.yaml": "semeval2018_ec/train.csv",
    "narratives/contracts-linear.yaml": "cuad/train.jsonl.gz",
    "preference/linear.yaml": "pref_qafeedback/train.jsonl.gz",
    "products/linear.yaml": "bigbasket/train.csv",
    "products/small/enriched.yaml": "bigbasket/train.csv",
}


def fitted(name: str, shared_data: Path, out: Path) -> Run:
    frame = read_table(shared_data / FILES[name])
    few = frame.head(60).with_columns(pl.col(pl.String).str.head(3000))
    recipe = load_recipe(ROOT / "recipes" / name, ["folds.count=2"])
    return fit_unpublished(recipe, few, out=out)


@pytest.mark.data
@pytest.mark.parametrize("name", FILES)
def test_a_recipe_fits_its_data(name: str, shared_data: Path, tmp_path: Path) -> None:
    run = fitted(name, shared_data, tmp_path / "run")
    assert run.evaluation.rows == 60
    assert (ROOT / "recipes" / name).read_text("utf-8").count("\n") <= 30


@pytest.mark.data
def test_equal_titles_share_a_fold(shared_data: Path, tmp_path: Path) -> None:
    run = fitted("products/linear.yaml", shared_data, tmp_path / "run")
    titles = read_table(shared_data / FILES["products/linear.yaml"]).head(60)["description"].str.head(3000)
    folds = pl.DataFrame({"title": titles, "fold": run.folds.fold}).group_by("title").agg(pl.col("fold").n_unique())
    assert folds["fold"].max() == 1
