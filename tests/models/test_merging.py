"""An adapter merged into the weights under it, for every architecture, on texts that say special tokens aloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.test_decoder import made, tweets
from tests.models.tiny_decoders import DECODERS

from fivefold.models.decoder.merging import merged

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("weights", ["fp32", "nf4"])
def test_merged_weights_say_what_the_adapter_says(
    name: str, weights: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders[name], adapter={"rank": 4}, weights=weights, training={"learning_rate": 0.03})
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path / "adapter")
    loaded = made(task, folders[name], adapter={"rank": 4}, weights=weights)
    loaded.load(tmp_path / "adapter")
    expected = fitted.score(corpus.rows()).logits
    np.testing.assert_allclose(loaded.score(corpus.rows()).logits, expected, atol=1e-5)
    whole = merged(loaded, "fp32")
    np.testing.assert_allclose(whole.score(corpus.rows()).logits, expected, atol=1e-4)
    whole.save(tmp_path / "whole")
    again = made(task, tmp_path / "whole", unfrozen_layers=0)
    again.load(tmp_path / "whole")
    np.testing.assert_allclose(again.score(corpus.rows()).logits, expected, atol=1e-4)
    untouched = made(task, folders[name], unfrozen_layers=0)
    untouched.begin(corpus.rows().labels)
    assert np.abs(untouched.score(corpus.rows()).logits - expected).max() > 1e-2
