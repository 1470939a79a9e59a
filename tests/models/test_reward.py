"""Reward heads of encoders and decoders: what is read, learnt, kept and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tests.models.tiny import TINY, unfitted
from tests.models.tiny_decoders import save_decoder
from transformers import AutoModelForSequenceClassification

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.labels import learn_task
from fivefold.errors import RecipeError
from fivefold.models.networks.material import Activations
from fivefold.models.pooled.classifier import PooledClassifier
from fivefold.pipeline.prepare import prepare
from fivefold.recipe import build_recipe
from fivefold.task import Swap, Task

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

SWAP = Swap((("a", "b"),), "winner", {"left": "right", "right": "left"})
SECTION = {"fields": [["a", "b"]], "target": "winner", "classes": {"left": "right", "right": "left"}}


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


def comparisons(rows: int = 200, ties: bool = True) -> pl.DataFrame:
    """Answers are good or bad; the good one wins, and two of a kind tie, or are left to a coin."""
    generator = np.random.default_rng(4)
    good = generator.integers(0, 2, (rows, 2))
    words = [[f"{'good' if each else 'bad'} {'so ' * generator.integers(1, 6)}" for each in pair] for pair in good]
    even = "tie" if ties else "left"
    winner = [even if first == second else ("left" if first else "right") for first, second in good.tolist()]
    return pl.DataFrame(
        {"prompt": ["what now"] * rows, "a": [p[0] for p in words], "b": [p[1] for p in words], "winner": winner}
    )


def corpus_of(frame: pl.DataFrame) -> tuple[Task, Corpus]:
    task = learn_task(frame, binary=(), categorical={"winner": []}, tree=(), swap=SWAP)
    return task, build_corpus(frame, text=["prompt", "a", "b"], task=task)


def turned(corpus: Corpus) -> Corpus:
    return Corpus(corpus.ids, {"prompt": corpus.fields["prompt"], "a": corpus.fields["b"], "b": corpus.fields["a"]})


def made(task: Task, model: dict[str, Any], **training: Any) -> PooledClassifier:
    quick = {"epochs": 6, "learning_rate": 1e-2, "batch_size": 16, "validation": "held_out"}
    classifier = unfitted(task, "log_loss", model={"head": "reward"} | model, training=quick | training)
    assert isinstance(classifier, PooledClassifier)
    return classifier


def encoder(tokenizer: Path, **model: Any) -> dict[str, Any]:
    return {"family": "encoder", "architecture": TINY, "tokenizer": str(tokenizer), **model}


def decoder(folder: Path, **model: Any) -> dict[str, Any]:
    return {"family": "decoder", "backbone": str(folder), "adapter": {"rank": 4}, **model}


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention pooling": {"pooling": "attention"},
    "windows": {"windows": "mean", "window_tokens": 12, "window_overlap": 2},
    "frozen": {"unfrozen_layers": 0},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_encoder_learns_what_is_better(name: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    task, corpus = corpus_of(comparisons())
    train, held_out = corpus.rows(np.arange(160)), corpus.rows(np.arange(160, 200))
    longer = {"epochs": 40, "learning_rate": 0.1} if name == "frozen" else {"epochs": 6}
    make = lambda: made(task, encoder(tokenizer_folder, **VARIANTS[name]), **longer)  # noqa: E731
    fitted = make()
    history = fitted.fit(train, held_out)
    assert history.figures["steps"] == 10 * longer["epochs"], "no row is read in two orders"
    assert isinstance(fitted.material(corpus), Activations) == (name == "frozen")
    scores = fitted.score(held_out)
    truth = held_out.labels.column("winner")
    assert (scores.logits.argmax(axis=1) == truth).mean() > 0.85
    back = fitted.score(turned(corpus).rows(held_out.index))
    np.testing.assert_allclose(back.logits[:, task.swap_order], scores.logits, atol=1e-5)
    again = make()
    fitted.save(tmp_path)
    again.load(tmp_path)
    np.testing.assert_allclose(again.score(held_out).logits, scores.logits, atol=1e-6)


def test_without_ties_there_is_no_band(tokenizer_folder: Path) -> None:
    task, corpus = corpus_of(comparisons(ties=False))
    fitted = made(task, encoder(tokenizer_folder), epochs=3)
    fitted.fit(corpus.rows(), None)
    assert set(fitted.net.scores()) == {"score.weight"}
    uneven = np.array(
        [("good" in a) != ("good" in b) for a, b in zip(corpus.fields["a"], corpus.fields["b"], strict=True)]
    )
    right = fitted.score(corpus.rows()).logits.argmax(axis=1) == corpus.rows().labels.column("winner")
    assert right[uneven].mean() > 0.85


@pytest.mark.parametrize("ties", [True, False])
def test_an_adapted_decoder_learns_and_is_kept(ties: bool, decoder_folder: Path, tmp_path: Path) -> None:
    task, corpus = corpus_of(comparisons(ties=ties))
    model = decoder(decoder_folder, template="Q: {prompt}\nA: {a}")
    fitted = made(task, model, epochs=3)
    fitted.fit(corpus.rows(np.arange(160)), None)
    rows = corpus.rows(np.arange(160, 200))
    scores = fitted.score(rows)
    if ties:
        assert (scores.logits.argmax(axis=1) == rows.labels.column("winner")).mean() > 0.85
    fitted.save(tmp_path)
    again = made(task, model)
    again.load(tmp_path)
    np.testing.assert_allclose(again.score(rows).logits, scores.logits, atol=1e-5)
    back = again.score(turned(corpus).rows(rows.index))
    np.testing.assert_allclose(back.logits[:, task.swap_order], scores.logits, atol=1e-5)


def test_peft_alone_reads_the_rewards(decoder_folder: Path, tmp_path: Path) -> None:
    task, corpus = corpus_of(comparisons(24))
    fitted = made(task, decoder(decoder_folder), epochs=1)
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(decoder_folder, num_labels=1)
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    batch = fitted.sequences(corpus).batch(np.arange(24))
    lengths = batch["attention_mask"].sum(dim=1)
    with torch.no_grad():
        rewards = [model(ids[None, :n]).logits for ids, n in zip(batch["input_ids"], lengths, strict=True)]
        logits = fitted.net.comparison(torch.cat(rewards))
    np.testing.assert_allclose(logits.numpy(), fitted.score(corpus.rows()).logits, atol=1e-4)


def test_soft_labels_train_the_band(tokenizer_folder: Path) -> None:
    frame = (
        comparisons()
        .drop("winner")
        .with_columns(
            (pl.lit(0.2).alias("winner=left")), pl.lit(0.2).alias("winner=right"), pl.lit(0.6).alias("winner=tie")
        )
    )
    task = learn_task(frame, binary=(), categorical={"winner": ["tie", "left", "right"]}, tree=(), swap=SWAP)
    corpus = build_corpus(frame, text=["prompt", "a", "b"], task=task)
    fitted = made(task, encoder(tokenizer_folder), epochs=2)
    fitted.fit(corpus.rows(), None)
    np.testing.assert_allclose(fitted.score(corpus.rows()).probabilities(), [[0.6, 0.2, 0.2]] * 200, atol=0.05)


def test_each_side_is_read_alone_in_the_first_ones_place(decoder_folder: Path) -> None:
    frame = comparisons(6).with_columns(a=pl.lit("one two three"), b=pl.lit("four five six seven"))
    task, corpus = corpus_of(frame)
    model = decoder(decoder_folder, template="Q: {prompt}! A: {a}?", field_words={"a": 3, "b": 3})
    inputs = made(task, model).sequences(corpus).inputs
    tokenizer = made(task, model).tokenizer
    said = [tokenizer.decode(inputs.tokens.row(i)) for i in range(2)]
    assert said == ["<s>Q: what now! A: one two three?", "<s>Q: what now! A: four five six?"]
    assert inputs.owner.tolist() == np.repeat(np.arange(6), 2).tolist()
    assert list(inputs.fields) == ["prompt", "a", "b"]
    assert inputs.fields["prompt"].truncated == inputs.fields["a"].truncated == 0
    assert inputs.fields["b"].lost == pytest.approx(1 - len("four five six") / len("four five six seven"), abs=0.1)


def test_heads_that_read_otherwise_share_a_corpus(tokenizer_folder: Path) -> None:
    task, corpus = corpus_of(comparisons(24))
    reward, linear = made(task, encoder(tokenizer_folder)), made(task, encoder(tokenizer_folder, head="linear"))
    assert reward.sequences(corpus).rows == 24
    assert linear.sequences(corpus).rows == 48, "in both orders"


@pytest.mark.parametrize(
    ("task", "training", "said"),
    [
        ({"categorical": ["winner"]}, {}, "needs task.swap"),
        ({"categorical": ["winner", "other"], "swap": SECTION}, {}, "no target but its own"),
        (
            {"categorical": ["winner"], "swap": SECTION},
            {"swapped_scoring": False},
            "doesn't use training.swapped_scoring",
        ),
    ],
)
def test_recipes_that_can_not_be(task: dict[str, Any], training: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build_recipe({"task": task, "model": {"family": "encoder", "head": "reward"}, "training": training})


def test_fields_are_no_choice_of_a_reward() -> None:
    for model in ({"family": "encoder"}, {"family": "decoder", "backbone": "some/model"}):
        with pytest.raises(RecipeError, match="head 'reward' doesn't use fields"):
            build_recipe({"model": {**model, "head": "reward", "fields": "mean"}})


def test_classes_that_are_no_comparison_are_refused_before_anything_is_fitted() -> None:
    frame = pl.concat([comparisons(20), comparisons(20).with_columns(winner=pl.lit("neither"))])
    recipe = build_recipe(
        {
            "data": {"text": ["prompt", "a", "b"]},
            "task": {"categorical": ["winner"], "swap": SECTION},
            "model": {"family": "encoder", "head": "reward"},
        }
    )
    with pytest.raises(RecipeError, match="at most one that stays"):
        prepare(recipe, frame)


def test_a_template_of_both_sides_is_refused(tokenizer_folder: Path) -> None:
    task, corpus = corpus_of(comparisons(8))
    with pytest.raises(RecipeError, match="must name each text column once"):
        made(task, encoder(tokenizer_folder, template="{prompt} {a} {b}")).sequences(corpus)
    with pytest.raises(RecipeError, match="field_words names"):
        made(task, encoder(tokenizer_folder, field_words={"c": 3})).sequences(corpus)
    with pytest.raises(RecipeError, match="field_tokens doesn't cut a and b alike"):
        made(task, encoder(tokenizer_folder, field_tokens={"a": 3, "b": 4})).sequences(corpus)
