"""The prefix of a template is computed once in scoring, and scores are as if it were computed every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.models.test_decoder import made
from tests.models.tiny import EMOTIONS
from tests.models.tiny_decoders import COMMON, DECODERS, bytes_tokenizer
from tests.models.tiny_encoders import batch_of
from torch import nn

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.models.backbones.adapters import Adapter, attach
from fivefold.models.backbones.backbone import Origin, load_decoder
from fivefold.models.backbones.prefix import FEWEST, continues
from fivefold.models.decoder import net as decoder_net
from fivefold.models.decoder.classifier import DecoderClassifier
from fivefold.models.decoder.net import DecoderNet
from fivefold.models.pooled.net import PooledNet
from fivefold.task import Task

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

INSTRUCTION = "You are a careful reader. Name the emotions of this tweet, one or several. Tweet: "
TEMPLATES = {"words behind": INSTRUCTION + "{text}\nEmotions:", "nothing behind": INSTRUCTION + "{text}"}

CASES = [(name, adapted, "last") for name in DECODERS for adapted in (True, False)]
CASES += [(name, True, pooling) for name in ("qwen2", "gemma3") for pooling in ("mean", "max", "attention", "cls")]


def backbone(architecture: dict[str, Any], adapted: bool) -> Any:
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model = load_decoder(Origin(architecture=architecture), tokenizer, seed=1).model
    if adapted:
        attach(model, Adapter(rank=4), 3, "default")
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(len(key)))
    return model


@contextmanager
def tokens_computed(model: Any) -> Iterator[list[int]]:
    """Tokens of each pass through a backbone, padding included."""
    counts: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, args, __: counts.append(args[0].numel()))
    yield counts
    handle.remove()


@contextmanager
def no_prefix() -> Iterator[None]:
    """Nets that are made now compute every token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_net, "FEWEST", 10**6)
        yield


@pytest.mark.parametrize(("name", "adapted", "pooling"), CASES)
@pytest.mark.parametrize("known", [FEWEST, 45])
def test_logits_are_those_of_the_whole(name: str, adapted: bool, pooling: Any, known: int) -> None:
    generator = np.random.default_rng(2)
    prefix = [0, *generator.integers(1, 300, known - 1).tolist()]
    # From one token behind the prefix on, which is longer than the sliding window of 16 once; id 1 is also the pad.
    rows = [[*prefix, *generator.integers(1, 300, length - 1).tolist(), 1] for length in (1, 40, 3, 20, 1, 90)]
    model = backbone(DECODERS[name], adapted)
    whole = PooledNet(model, width=5, seed=0, pooling=pooling).eval()
    net = DecoderNet(model, prefix=prefix, width=5, seed=0, pooling=pooling).eval()
    if whole.token_attention is not None and net.token_attention is not None:
        nn.init.normal_(whole.token_attention.scores.weight, std=0.05, generator=torch.Generator().manual_seed(1))
        net.token_attention = whole.token_attention
    with torch.inference_mode(), tokens_computed(model) as counts:
        alone = torch.cat([whole(**batch_of([row])) for row in rows])
        assert pooling == "cls" or alone.std(dim=0).min() > 0.01, "rows must differ for this test to mean anything"
        counts.clear()
        for side in ("right", "left"):
            for extra, pad in ((0, 0), (19, 77)):
                assert (net(**batch_of(rows, side, extra, pad)) - alone).abs().max() < 1e-4, (side, extra, pad)
        for row, expected in zip(rows, alone, strict=True):
            assert (net(**batch_of([row]))[0] - expected).abs().max() < 1e-4
    assert counts[:2] == [known, 6 * 90], "the prefix once, then what follows it"
    assert counts.count(known) == 1
    assert counts[-6:] == [len(row) - known for row in rows]


def some_empty(rows: int = 24) -> tuple[Task, Corpus]:
    frame = demo("tweets", rows, seed=3)
    texts = ["" if i % 5 == 0 else text for i, text in enumerate(frame["text"])]
    frame = frame.with_columns(text=pl.Series(texts))
    task = learn_task(frame, binary=EMOTIONS, categorical={}, tree=(), swap=None)
    return task, build_corpus(frame, text=["text"], id="id", task=task)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("variant", [{"adapter": {"rank": 4}}, {"adapter": {"rank": 4, "dora": True}}, {}])
def test_a_classifier_scores_as_without_it(
    name: str, template: str, variant: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    task, corpus = some_empty()
    rows, settings = corpus.rows(), {**variant, "template": TEMPLATES[template]}
    fitted = made(task, folders[name], **settings)
    overhead = int(fitted.sequences(corpus).lengths.min())
    fitted.fit(rows, None)
    fitted.save(tmp_path)
    again, whole = (made(task, folders[name], **settings) for _ in range(2))
    again.load(tmp_path)
    with no_prefix():
        whole.load(tmp_path)
    assert len(again.net.prefix) >= FEWEST
    assert not len(whole.net.prefix)
    for most in (128, overhead + 1):  # of the whole text, and of one token
        scores = []
        for classifier in (again, whole):
            classifier.reading = replace(classifier.reading, max_tokens=most)
            with tokens_computed(classifier.net.backbone) as counts:
                scores.append(classifier.score(rows).logits)
            assert (len(again.net.prefix) in counts) == (classifier is again and most == 128)
        assert scores[1].std(axis=0).min() > 1e-4
        np.testing.assert_allclose(*scores, atol=1e-4)


def test_a_prefix_goes_with_its_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = some_empty()
    rows, settings = corpus.rows(), {"adapter": {"rank": 4}, "template": TEMPLATES["words behind"]}
    learning = ({"learning_rate": 1e-2, "epochs": 3}, {"learning_rate": 3e-2, "epochs": 3, "ema": 0.9})
    first, second = (made(task, folders["qwen3"], how, **settings) for how in learning)
    for number, classifier in enumerate((first, second)):
        classifier.fit(rows, rows)
        kept, expected_there = classifier.score(rows).logits, classifier.net.prefix
        classifier.net.prefix = expected_there[:0]
        np.testing.assert_allclose(kept, classifier.score(rows).logits, atol=1e-4)
        classifier.net.prefix = expected_there
        (tmp_path / str(number)).mkdir()
        classifier.save(tmp_path / str(number))
    first, second = (made(task, folders["qwen3"], **settings) for _ in range(2))
    first.load(tmp_path / "0")
    second.load(tmp_path / "1")
    assert first.net.backbone is second.net.backbone
    prefix = len(first.net.prefix)

    def expected(classifier: DecoderClassifier) -> Any:
        known, classifier.net.prefix = classifier.net.prefix, classifier.net.prefix[:0]
        scores = classifier.score(rows).logits
        classifier.net.prefix = known
        return scores

    def computed(classifier: DecoderClassifier) -> int:
        """How often the prefix was computed; what was scored is right."""
        whole = expected(classifier)
        with tokens_computed(classifier.net.backbone) as counts:
            np.testing.assert_allclose(classifier.score(rows).logits, whole, atol=1e-4)
        return counts.count(prefix)

    assert np.abs(expected(first) - expected(second)).max() > 1e-2
    assert [computed(each) for each in (first, second, first, second)] == [1, 1, 0, 0]
    first.net.load_adapter(tmp_path / "1")
    assert [computed(first), computed(first)] == [1, 0]
    first.fit(rows, rows)  # scored as it learns, by a fused optimiser, whose changes torch doesn't count
    assert computed(first) <= 1
    assert computed(first) == 0
    first.fresh_weights(rows.labels, 11)
    assert [computed(first), computed(first), computed(second)] == [1, 0, 0]
    optimiser = torch.optim.AdamW(second.net.parameters(), lr=0.1)
    second.net(**second.sequences(corpus).batch(rows.index)).sum().backward()
    optimiser.step()
    assert [computed(second), computed(second)] == [1, 0]


def test_threads_share_a_prefix(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    task, corpus = some_empty(96)
    fitted = made(task, folders["gemma2"], template=TEMPLATES["words behind"], adapter={"rank": 4})
    monkeypatch.setattr(DecoderClassifier, "scoring_tokens", 256)
    fitted.fit(corpus.rows(), None)
    one = fitted.score(corpus.rows()).logits
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        fitted.net._kept = None
        np.testing.assert_allclose(fitted.score(corpus.rows()).logits, one, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    "architecture",
    [
        DECODERS["gemma3"] | {"use_bidirectional_attention": True},
        DECODERS["llama"] | {"rope_parameters": LONG_ROPE},
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "vocab_size": 512},
        {"model_type": "phi3", **COMMON},
    ],
)
def test_other_backbones_compute_everything(architecture: dict[str, Any]) -> None:
    model = backbone(architecture, adapted=False)
    assert not continues(model)
    assert not len(DecoderNet(model, prefix=range(40), width=5, seed=0, pooling="last").prefix)


def test_gradients_reach_the_prefix_and_short_ones_are_left(folders: dict[str, Path]) -> None:
    model = backbone(DECODERS["llama"], adapted=True)
    short = DecoderNet(model, prefix=range(FEWEST - 1), width=5, seed=0, pooling="last")
    assert not len(short.prefix)
    net = DecoderNet(model, prefix=range(3, 43), width=5, seed=0, pooling="last").eval()
    rows = [[*range(3, 43), 7, 8], [*range(3, 43), 9]]
    with tokens_computed(model) as counts:
        net(**batch_of(rows)).sum().backward()
        net.train()(**batch_of(rows))
        with torch.no_grad():
            net.eval()(**batch_of([*rows, [3, 4]]))
            net(**batch_of([[5, *row] for row in rows]))
            net(**batch_of(rows))
    assert counts == [84, 84, 126, 86, 40, 4]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_frozen_trunk_computes_it_once(pooling: str, folders: dict[str, Path]) -> None:
    settings = {"unfrozen_layers": 0, "pooling": pooling, "template": TEMPLATES["nothing behind"]}
    task, corpus = some_empty()
    classifier = made(task, folders["mistral"], **settings)
    vectors = classifier.material(corpus).vectors
    assert len(classifier.net.prefix) >= FEWEST
    with no_prefix():
        whole = made(task, folders["mistral"], **settings).material(some_empty()[1]).vectors
    assert whole.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(vectors, whole, atol=1e-4)
