"""Families of networks end to end: fit, score, save and load, on tiny backbones drawn from a config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.models.tiny import EMOTIONS, TINY, unfitted

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.errors import FivefoldError, RecipeError
from fivefold.models.backbones import vocabulary
from fivefold.models.base import Classifier, Cost
from fivefold.models.networks.material import Activations
from fivefold.models.networks.network import watched_rows
from fivefold.task import Swap, Task
from fivefold.training import loop
from fivefold.training.precision import SCORING_TOKENS

pytestmark = pytest.mark.usefixtures("no_cache")


def tweets(rows: int = 160) -> tuple[Task, Corpus]:
    frame = demo("tweets", rows, seed=3)
    task = learn_task(frame, binary=EMOTIONS, categorical={}, tree=(), swap=None)
    return task, build_corpus(frame, text=["text"], id="id", task=task)


def made(task: Task, model: dict[str, Any], training: dict[str, Any] | None = None, **objective: Any) -> Classifier:
    quick = {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16}
    metric = "f1_macro" if task.swap is None else "log_loss"
    return unfitted(task, metric, model=model, training=quick | (training or {}), objective=objective)


def encoder(tokenizer: Path, **model: Any) -> dict[str, Any]:
    return {"family": "encoder", "architecture": TINY, "tokenizer": str(tokenizer), **model}


def test_chosen_rows_are_whole_groups() -> None:
    _, corpus = tweets()
    grouped = replace(corpus, groups=np.arange(160, dtype=np.int32) // 8).rows()
    inner = watched_rows(grouped, seed=0)
    assert 8 <= len(inner) <= 24
    assert not set(inner // 8) & set(np.setdiff1d(np.arange(160), inner) // 8)
    assert len(watched_rows(replace(corpus, groups=np.zeros(160, dtype=np.int32)).rows(), seed=0)) == 16


def reloaded(fitted: Classifier, again: Classifier, folder: Path) -> Classifier:
    folder.mkdir(exist_ok=True)
    fitted.save(folder)
    again.load(folder)
    return again


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "mlp, attention pooling, layer-wise rates": (
        {"head": "mlp", "pooling": "attention"}, {"layer_decay": 0.8, "head_learning_rate": 1e-2}, {},
    ),
    "in bf16": ({"dropout": 0.1, "attention_dropout": 0.1}, {"precision": "bf16"}, {}),
    "windows": ({"windows": "max", "window_tokens": 12, "window_overlap": 2}, {}, {}),
    "frozen": ({"unfrozen_layers": 0}, {}, {}),
    "top layer": ({"unfrozen_layers": 1}, {"ema": 0.9}, {"binary": "focal", "class_weights": "positive"}),
    "R-Drop": ({}, {"keep": "best", "evaluations_per_epoch": 2}, {"rdrop_alpha": 1.0, "rdrop_start_step": 3}),
    "R-Drop, checkpointed": (
        {}, {"gradient_checkpointing": True}, {"rdrop_alpha": 1.0, "rdrop_start_step": 3},
    ),
    "prompted": ({"head": "prompted", "yes": "good", "no": "bad"}, {}, {}),
    "head and tail": (
        {"max_tokens": 12, "truncation": "head_tail", "head_share": 0.25}, {}, {"binary": "lovasz_labels"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_an_encoder_fits_scores_saves_and_loads(name: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    model, training, objective = VARIANTS[name]
    task, corpus = tweets()
    train, held_out = corpus.rows(np.arange(120)), corpus.rows(np.arange(120, 160))
    make = lambda: made(task, encoder(tokenizer_folder, **model), training, **objective)  # noqa: E731
    fitted = make()
    history = fitted.fit(train, held_out, tmp_path)
    scores = fitted.score(held_out)
    assert scores.logits.shape == (40, 11)
    assert np.isfinite(scores.logits).all()
    assert history.figures["steps"] == (14 if training.get("keep") == "best" else 16)
    again = reloaded(fitted, make(), tmp_path / "model")
    np.testing.assert_allclose(again.score(held_out).logits, scores.logits, atol=1e-5)


def test_tokens_that_do_not_occur_need_not_learn(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, corpus = tweets()
    train, held_out = corpus.rows(np.arange(120)), corpus.rows(np.arange(120, 160))
    sizes, logits, begin = [], [], loop.train

    def begun_again(trainee: Any, *how: Any, **more: Any) -> Any:
        sizes.append(len(trainee.module.backbone.get_input_embeddings().weight))
        trainee.restart(7)  # as after a divergence
        return begin(trainee, *how, **more)

    monkeypatch.setattr(loop, "train", begun_again)
    for most in (0.0, 1.0):
        monkeypatch.setattr(vocabulary, "MOST", most)
        fitted = made(task, encoder(tokenizer_folder), {"weight_decay": 0.0})
        fitted.fit(train, held_out)
        logits.append(fitted.score(held_out).logits)
    assert 20 < sizes[1] < sizes[0]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "windows", "frozen"])
def test_a_rows_score_depends_on_the_row_alone(name: str, tokenizer_folder: Path) -> None:
    model, training, objective = VARIANTS[name]
    task, corpus = tweets()
    fitted = made(task, encoder(tokenizer_folder, **model), training, **objective)
    fitted.fit(corpus.rows(np.arange(120)), None)
    whole = fitted.score(corpus.rows(np.arange(120, 160)))
    few = fitted.score(corpus.rows(np.array([150, 121])))
    np.testing.assert_allclose(few.logits, whole.logits[[30, 1]], atol=1e-5)


BIG_BIRD = {"model_type": "big_bird", "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 64}


@pytest.mark.parametrize("name", ["plain", "windows", "frozen", "prompted", "BigBird"])
def test_scores_are_the_same_on_any_number_of_cores(
    name: str, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORING_TOKENS, "cpu", 64)
    task, corpus = tweets()
    model = {"architecture": TINY | BIG_BIRD} if name == "BigBird" else VARIANTS[name][0]
    fitted = made(task, encoder(tokenizer_folder) | model)
    fitted.fit(corpus.rows(np.arange(120)), None)
    threads, scores = torch.get_num_threads(), []
    try:
        for cores in (1, 2, 2, 2):
            torch.set_num_threads(cores)
            fresh = build_corpus(demo("tweets", 160, seed=3), text=["text"], id="id", task=task)
            scores.append(fitted.score(fresh.rows(np.arange(160))).logits)
    finally:
        torch.set_num_threads(threads)
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-5)


def test_a_frozen_trunk_is_paid_for_once(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every pass takes a second, so that time counts passes.
    monkeypatch.setattr("fivefold.training.timing._seconds", lambda work, _: (work(), 1.0)[1])
    task, corpus = tweets()
    train = corpus.rows(np.arange(120))

    def cost(**model: Any) -> Cost:
        return made(task, encoder(tokenizer_folder, **model), {"epochs": 5}).cost(train)

    whole, top, frozen = cost(), cost(unfrozen_layers=1), cost(unfrozen_layers=0)
    assert whole.shared_seconds == top.shared_seconds == 0
    assert frozen.shared_seconds > 0
    assert frozen.bytes < whole.bytes


def test_a_feed_forward_net_learns_the_demo(tmp_path: Path) -> None:
    task, corpus = tweets(600)
    train, held_out = corpus.rows(np.arange(500)), corpus.rows(np.arange(500, 600))
    model = {"family": "feedforward", "embedding": 16, "hidden": [32]}
    make = lambda: made(task, model, {"epochs": 12, "learning_rate": 1e-2})  # noqa: E731
    fitted = make()
    fitted.fit(train, held_out, tmp_path)
    scores = fitted.score(held_out)
    truth = held_out.labels.binary_codes == 1
    assert scores.logits[truth].mean() > scores.logits[~truth].mean() + 1.5
    again = reloaded(fitted, make(), tmp_path / "model")
    np.testing.assert_allclose(again.score(held_out).logits, scores.logits, atol=1e-6)
    assert again.score(held_out).logits.tobytes() == again.score(held_out).logits.tobytes()


def test_a_feed_forward_net_takes_a_vocabulary_and_its_embeddings(tokenizer_folder: Path, tmp_path: Path) -> None:
    task, corpus = tweets()
    backbone = made(task, encoder(tokenizer_folder))
    backbone.fit(corpus.rows(np.arange(32)), None)
    (tmp_path / "backbone").mkdir()
    backbone.save(tmp_path / "backbone")
    model = {"family": "feedforward", "vocabulary": str(tmp_path / "backbone"), "pretrained_embeddings": True}
    fitted = made(task, model)
    fitted.fit(corpus.rows(np.arange(120)), None)
    assert fitted.score(corpus.rows()).logits.shape == (160, 11)


def test_an_untrained_model_says_the_label_rates(tokenizer_folder: Path) -> None:
    task, corpus = tweets()
    fitted = made(task, encoder(tokenizer_folder), {"learning_rate": 1e-9, "epochs": 0.1})
    train = corpus.rows()
    fitted.fit(train, None)
    rates = (train.labels.binary_codes == 1).mean(axis=0)
    np.testing.assert_allclose(fitted.score(train).probabilities().mean(axis=0), rates, atol=0.03)


def test_the_frozen_trunk_is_run_once_for_all_folds(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, corpus = tweets()
    first, second = (made(task, encoder(tokenizer_folder, unfrozen_layers=0)) for _ in range(2))
    first.fit(corpus.rows(np.arange(80)), None)
    built = dict(corpus.built)
    second.fit(corpus.rows(np.arange(80, 160)), None)
    kept = [value for value in corpus.built.values() if isinstance(value, Activations)]
    assert len(kept) == 1
    assert corpus.built == built


def test_another_attention_makes_other_activations(tokenizer_folder: Path) -> None:
    task, corpus = tweets(60)
    config = TINY | {"model_type": "big_bird", "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 128}
    said = []
    for attention in ("sparse", "full"):
        model = encoder(tokenizer_folder, unfrozen_layers=0, attention=attention) | {"architecture": config}
        fitted = made(task, model, {"epochs": 1})
        fitted.fit(corpus.rows(), None)
        said.append(fitted.score(corpus.rows()).logits)
    kept = [value for value in corpus.built.values() if isinstance(value, Activations)]
    assert len(kept) == 2
    assert not np.array_equal(kept[0].vectors, kept[1].vectors)
    assert not np.array_equal(*said)


def test_frozen_activations_come_from_the_cache(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", str(tmp_path))
    results = []
    for _ in range(2):
        task, corpus = tweets()
        fitted = made(task, encoder(tokenizer_folder, unfrozen_layers=0))
        fitted.fit(corpus.rows(np.arange(120)), None)
        results.append(fitted.score(corpus.rows()).logits)
        files = list(tmp_path.glob("activations-*.npy"))
        assert len(files) == 1
    assert results[0].tobytes() == results[1].tobytes()
    files[0].write_bytes(b"damaged")
    task, corpus = tweets()
    fitted = made(task, encoder(tokenizer_folder, unfrozen_layers=0))
    fitted.fit(corpus.rows(np.arange(120)), None)
    assert fitted.score(corpus.rows()).logits.tobytes() == results[0].tobytes()


def pairs() -> tuple[Task, Corpus]:
    frame = demo("preferences", 120, seed=3)
    swap = Swap((("response_a", "response_b"),), "winner", {"a": "b", "b": "a"})
    task = learn_task(frame, binary=(), categorical={"winner": ["a", "b", "tie"]}, tree=(), swap=swap)
    return task, build_corpus(frame, text=["prompt", "response_a", "response_b"], task=task)


@pytest.mark.parametrize("fields", ["joined", "mean", "max"])
def test_swapping_a_pair_swaps_its_scores(fields: str, tokenizer_folder: Path) -> None:
    task, corpus = pairs()
    fitted = made(task, encoder(tokenizer_folder, fields=fields, max_tokens=48), {"epochs": 1})
    fitted.fit(corpus.rows(np.arange(100)), None)
    names = {"prompt": "prompt", "response_a": "response_b", "response_b": "response_a"}
    turned = Corpus(corpus.ids, {name: corpus.fields[other] for name, other in names.items()})
    scores, swapped = fitted.score(corpus.rows()), fitted.score(turned.rows())
    np.testing.assert_allclose(scores.logits, swapped.logits[:, task.swap_order], atol=1e-5)


def test_pairs_read_in_one_order_only(tokenizer_folder: Path) -> None:
    task, corpus = pairs()
    model, rows = encoder(tokenizer_folder, max_tokens=48), corpus.rows(np.arange(100))
    both = made(task, model, {"epochs": 1})
    steps = both.fit(rows, None).figures["steps"]
    once = made(task, model, {"epochs": 1, "swapped_training": False, "swapped_scoring": False})
    assert once.fit(rows, None).figures["steps"] == -(-100 // 16) < steps == -(-200 // 16)
    names = {"prompt": "prompt", "response_a": "response_b", "response_b": "response_a"}
    turned = Corpus(corpus.ids, {name: corpus.fields[other] for name, other in names.items()})
    there, back = once.score(corpus.rows()).logits, once.score(turned.rows()).logits[:, task.swap_order]
    assert np.abs(there - back).max() > 1e-3
    once.training["swapped_scoring"] = True
    mean = (there + back) / 2
    averaged = mean - np.logaddexp.reduce(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(once.score(corpus.rows()).logits, averaged, atol=1e-5)


def test_a_task_without_a_swap_has_no_orders(tokenizer_folder: Path) -> None:
    with pytest.raises(RecipeError, match="the task has none"):
        made(tweets(10)[0], encoder(tokenizer_folder), {"swapped_training": False})


def test_mixed_heads_learn_in_one_model(tokenizer_folder: Path) -> None:
    frame = demo("narratives", 80, seed=3)
    binary = ["ladder", "vehicle", "fatigue", "hurry"]
    categorical: dict[str, list[str]] = {"place": [], "cause": []}
    task = learn_task(frame, binary=binary, categorical=categorical, tree=(), swap=None)
    corpus = build_corpus(frame, text=["text_le", "text_me"], task=task)
    fitted = made(task, encoder(tokenizer_folder, fields="max", max_tokens=64), {"epochs": 1}, label_smoothing=0.1)
    fitted.fit(corpus.rows(np.arange(64)), corpus.rows(np.arange(64, 80)))
    probabilities = fitted.score(corpus.rows()).probabilities()
    for target in task.categoricals:
        np.testing.assert_allclose(probabilities[:, task.slices[target.name]].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"fields": "max"}, "there is one: text"),
        ({"field_tokens": {"body": 3}}, "which are no text columns"),
        ({"max_tokens": 4096}, "reads 512 tokens at most"),
        ({"unfrozen_layers": 9}, "has 2 layers"),
        ({"head": "prompted", "yes": "antidisestablishmentarianism"}, "isn't one token"),
    ],
)
def test_what_a_backbone_cannot_do_is_said(model: dict[str, Any], message: str, tokenizer_folder: Path) -> None:
    task, corpus = tweets(60)
    with pytest.raises(FivefoldError, match=message):
        made(task, encoder(tokenizer_folder, **model)).fit(corpus.rows(), None)


def test_a_tracker_that_is_not_installed_is_named(tokenizer_folder: Path) -> None:
    task, _ = tweets(60)
    with pytest.raises(FivefoldError, match="wandb"):
        made(task, encoder(tokenizer_folder), {"trackers": ["wandb"]})


def test_fp16_needs_a_gpu(tokenizer_folder: Path) -> None:
    task, corpus = tweets(60)
    with pytest.raises(RecipeError, match="needs a GPU"):
        made(task, encoder(tokenizer_folder), {"precision": "fp16"}).fit(corpus.rows(), None)


def test_long_texts_are_told(tokenizer_folder: Path) -> None:
    frame = pl.DataFrame({"text": ["so good " * 40, "bad"] * 10, "joy": [1, 0] * 10})
    task = learn_task(frame, binary=["joy"], categorical={}, tree=(), swap=None)
    corpus = build_corpus(frame, text=["text"], task=task)
    history = made(task, encoder(tokenizer_folder, max_tokens=16)).fit(corpus.rows(), None)
    assert any(remark.startswith("Truncated: 50.0% of the rows") for remark in history.remarks)
