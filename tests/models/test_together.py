"""Several adapters in one pass say what each says alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.test_decoder import made, tweets
from tests.models.test_prefix import TEMPLATES, tokens_computed
from tests.models.tiny_decoders import DECODERS, save_decoder

from fivefold.models.decoder.classifier import DecoderClassifier
from fivefold.models.families import scores_of

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")


def folds(backbone: Path, folder: Path, **settings: Any) -> tuple[list[DecoderClassifier], Any]:
    """Three fitted models, loaded again, and their corpus."""
    task, corpus = tweets(24)
    models = []
    for fold in range(3):
        (folder / str(fold)).mkdir()
        fitted = made(task, backbone, {"learning_rate": 1e-2 * (fold + 1)}, **settings)
        fitted.fit(corpus.rows(), None)
        fitted.save(folder / str(fold))
        del fitted
    for fold in range(3):
        models.append(made(task, backbone, **settings))
        models[-1].load(folder / str(fold))
    return models, corpus


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("settings", [{}, {"weights": "nf4"}, {"pooling": "mean", "head": "mlp"}])
def test_scores_are_those_of_each_alone(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    if settings and name not in ("llama", "gemma3"):
        pytest.skip("one of each kind is enough")
    options = {"rank": 4, "options": {"lora_bias": True}}
    models, corpus = folds(save_decoder(name, tmp_path / "backbone"), tmp_path, adapter=options, **settings)
    rows = corpus.rows(np.array([3, 11, 7]))
    expected = [model.score(rows).logits for model in models]
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    with tokens_computed(models[0].net.backbone) as counts:
        found = scores_of(models, rows)
    assert len(counts) == 1
    for each, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.logits, alone, atol=1e-5)
        assert list(each.ids) == list(rows.ids)
    for model, alone in zip(models, expected, strict=True):
        np.testing.assert_allclose(model.score(rows).logits, alone, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": {"rank": 4, "dora": True}},
        {"adapter": {"rank": 4}, "weights": "int8"},
        {"adapter": {"rank": 4, "targets": ["embed_tokens", "q_proj"]}},
        {"adapter": {"rank": 4}, "template": TEMPLATES["words behind"]},
        {},
    ],
)
def test_others_score_one_by_one(settings: dict[str, Any], tmp_path: Path) -> None:
    models, corpus = folds(save_decoder("llama", tmp_path / "backbone"), tmp_path, **settings)
    rows = corpus.rows(np.array([3, 11]))
    assert DecoderClassifier.score_together(models, rows) is None
    assert len(scores_of(models, rows)) == 3


def test_many_rows_and_one_model_score_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, corpus = folds(save_decoder("qwen2", tmp_path / "backbone"), tmp_path, adapter={"rank": 4})
    rows = corpus.rows(np.array([3, 11, 7]))
    assert DecoderClassifier.score_together(models[:1], rows) is None
    assert DecoderClassifier.score_together(models, corpus.rows(np.arange(0))) is None
    assert DecoderClassifier.score_together(models, rows) is not None
    monkeypatch.setattr(DecoderClassifier, "scoring_tokens", 64)
    assert DecoderClassifier.score_together(models, rows) is None
