from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fivefold.data.demo import demo
from fivefold.pipeline.fit import fit
from fivefold.pipeline.run import Run

ROOT = Path(__file__).parents[1]

SHARED = ROOT.parent / "shared/data"

QUICK = {"model": {"char_ngrams": [2, 3]}, "folds": {"count": 3}}
"""Sections of a recipe that fits in a second."""


@pytest.fixture(scope="session")
def tweets() -> pl.DataFrame:
    return demo("tweets", 300, seed=1)


@pytest.fixture(scope="session")
def tweets_run(tweets: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on 300 tweets with eleven labels and a test table."""
    test = tweets.select("id", "text").head(20)
    return fit(QUICK | {"name": "tweets"}, tweets, test=test, out=tmp_path_factory.mktemp("runs") / "tweets")


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared data folder isn't here")
    return SHARED
