from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from fivefold.errors import FivefoldError
from fivefold.retrieval import embeddings
from fivefold.retrieval.embeddings import Embedder

TEXTS = ["what a happy day", "", "so angry", "what a happy day", "a day that is long and sad, and then longer", "  "]


def test_vectors_are_scaled_means_of_hidden_states(sentence_encoder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(sentence_encoder), AutoModel.from_pretrained(sentence_encoder)
    found = Embedder(str(sentence_encoder))(TEXTS)
    with torch.inference_mode():
        hidden = model.eval()(**tokenizer(TEXTS[4], return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(found[4], hidden / np.linalg.norm(hidden), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float32), axis=1), [1, 0, 1, 1, 1, 0], atol=1e-3)


def test_a_text_is_asked_for_once(sentence_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    inner = embeddings.frozen_activations

    def counted(*arguments: object) -> object:
        asked.append(arguments[1].rows)  # type: ignore[attr-defined]
        return inner(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(embeddings, "frozen_activations", counted)
    Embedder(str(sentence_encoder))(TEXTS)
    assert asked == [3]


def test_a_vector_depends_on_its_text_alone(sentence_encoder: Path) -> None:
    embed = Embedder(str(sentence_encoder))
    alone = np.concatenate([embed([text]) for text in TEXTS])
    np.testing.assert_allclose(alone.astype(np.float32), embed(TEXTS).astype(np.float32), atol=1e-3)


def test_vectors_are_kept_between_fits(sentence_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", str(tmp_path))
    first = Embedder(str(sentence_encoder))(TEXTS)
    assert list(tmp_path.glob("activations-*.npy"))
    monkeypatch.setattr("fivefold.models.pooled.activations._computed", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(Embedder(str(sentence_encoder))(TEXTS), first)


def test_a_backbone_that_is_not_there() -> None:
    with pytest.raises(FivefoldError, match="isn't a folder"):
        Embedder("./nowhere")(["a"])


def test_the_packaged_encoder_puts_alike_titles_together() -> None:
    tea, black, rice = Embedder()(["Green tea bags", "black tea, 25 bags", "basmati rice 5 kg"]).astype(np.float32)
    assert tea @ black > 0.5 > tea @ rice
