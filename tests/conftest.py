from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def fp32() -> Iterator[None]:
    """A chip that doesn't compute in bf16, so that what two ways give can be compared to the last digits."""
    from fivefold.training import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "computes_bf16", lambda device: False)
        yield


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of made-up weights, so large that their middle isn't read."""
    from fivefold.models.backbones.contents import ENDS

    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors").write_bytes(bytes(3 * ENDS))
    return folder


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random encoder whose texts differ widely."""
    from transformers import AutoConfig, AutoModel, set_seed

    from tests.models.tiny import TINY, word_pieces

    folder, tokenizer = tmp_path_factory.mktemp("sentence-encoder"), word_pieces()
    set_seed(0)
    settings = {**TINY, "initializer_range": 1.0, "vocab_size": len(tokenizer)}
    AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
