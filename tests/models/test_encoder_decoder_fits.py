"""Encoder-decoders from a recipe's section to files and back, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tests.models.test_generator import goods, made
from tests.models.tiny import TINY, unfitted, word_pieces
from tests.models.tiny_encoder_decoders import BERT, ENCODER_DECODERS, T5, pieces_tokenizer
from transformers import AutoConfig, AutoModelForSeq2SeqLM, ByT5Tokenizer

from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.errors import FivefoldError, RecipeError
from fivefold.models.backbones import resident
from fivefold.models.backbones.architectures import position_limit
from fivefold.models.backbones.backbone import (
    Origin,
    load_config,
    load_masked_lm,
    load_tokenizer,
    load_writer_config,
    save_backbone,
)
from fivefold.models.backbones.byte_tokenizer import as_fast
from fivefold.models.generator.writing import closed
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe
from fivefold.training.tokens import tokenise

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

BYTES = (ByT5Tokenizer(), as_fast(ByT5Tokenizer()))
"""As transformers reads bytes, and as we do."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("flan", {"write": "path"}),
    "top": ("t5", {"unfrozen_layers": 1}),
    "lora": ("byt5", {"adapter": {"rank": 4}, "write": "path"}),
    "nf4": ("t5", {"adapter": {"rank": 4}, "weights": "nf4"}),
    "scores": ("bart", {"loss": "scores", "beams": 1}),
    "lora on two": ("joined", {"adapter": {"rank": 4}, "loss": "scores", "choices": "letters"}),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model, which may read and may write."""
    folder, tokenizer = tmp_path_factory.mktemp("bert"), word_pieces()
    save_backbone(load_masked_lm(Origin(architecture=TINY), tokenizer, seed=1).model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_saved_scores_alike(variant: str, encoder_decoders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods()
    name, model = VARIANTS[variant]
    fitted = made(task, encoder_decoders[name], **model)
    assert fitted.fit(corpus.rows(), None).figures["steps"] == 5
    fitted.save(tmp_path)
    expected = fitted.score(corpus.rows()).logits
    resident._residents.clear()  # as in another process
    again = made(task, encoder_decoders[name], **model)
    again.load(tmp_path)
    np.testing.assert_allclose(again.score(corpus.rows()).logits, expected, atol=1e-5)
    for target in task.categoricals:
        np.testing.assert_allclose(np.exp(expected[:, task.slices[target.name]]).sum(axis=1), 1, atol=1e-4)
    assert (tmp_path / "adapter_config.json").exists() == ("adapter" in model)


def test_two_models_learn_to_write_together(bert: Path, tmp_path: Path) -> None:
    task, corpus = goods(60)
    fitted = made(task, bert, {"epochs": 40, "learning_rate": 5e-3}, decoder=str(bert), write="path")
    said = fitted.fit(corpus.rows(), None).remarks
    assert any("crossattention" in each for each in said)
    assert not any(".encoder.embeddings" in each for each in said)
    scores, labels = fitted.score(corpus.rows()).logits, corpus.labels
    assert labels is not None
    for target in task.categoricals:
        assert (scores[:, task.slices[target.name]].argmax(axis=1) == labels.column(target.name)).mean() > 0.9
    fitted.save(tmp_path)
    again = made(task, bert, decoder=str(bert), write="path")
    again.load(tmp_path)
    np.testing.assert_allclose(again.score(corpus.rows()).logits, scores, atol=1e-5)


def test_it_learns_to_list(encoder_decoders: dict[str, Path]) -> None:
    random = np.random.default_rng(1)
    known = random.integers(0, 2, (60, 3))
    said = [" ".join(w for w, k in zip(("aa", "zz", "kk"), row, strict=True) if k) for row in known]
    frame = pl.DataFrame({"text": said}).with_columns(**{n: known[:, at] for at, n in enumerate(("a", "ab", "k"))})
    task = learn_task(frame, binary=["a", "ab", "k"], categorical={}, tree=(), swap=None)
    corpus = build_corpus(frame, text=["text"], task=task)
    fitted = made(task, encoder_decoders["byt5"], {"epochs": 20, "learning_rate": 1e-2}, write="list")
    fitted.fit(corpus.rows(), None)
    assert ((fitted.score(corpus.rows()).logits > 0) == known).mean() > 0.9


def test_labels_of_a_list_are_closed_where_line_breaks_are_nothing() -> None:
    def plain(tokenizer: Any, text: str) -> tuple[int, ...]:
        return tuple(tokenise([text], tokenizer, None).ids.tolist())

    pieces, letters = partial(plain, word_pieces()), partial(plain, BYTES[1])
    assert pieces("\n") == ()
    assert closed(pieces) == pieces(";") != ()
    assert closed(letters) == letters("\n") == (13,)


@pytest.mark.parametrize("name", ["flan", "bart", "joined"])
def test_peft_alone_reads_the_adapter(name: str, encoder_decoders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods(24)
    fitted = made(task, encoder_decoders[name], adapter={"rank": 4}, normalise="sequence")
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)
    whole = AutoModelForSeq2SeqLM.from_pretrained(encoder_decoders[name])
    model = PeftModel.from_pretrained(whole, str(tmp_path)).eval()
    assert model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    batch = fitted.sequences(corpus).batch(np.arange(4))
    scores = fitted.score(corpus.rows(np.arange(4))).logits[:, task.slices["good"].start]
    for row in range(4):
        text = batch["input_ids"][row, : batch["attention_mask"][row].sum()]
        before, sums = [fitted.config.decoder_start_token_id, *fitted.plain("good?")], []
        for answer in (list(fitted.plain(" No")), list(fitted.plain(" Yes"))):
            with torch.no_grad():
                said = model(input_ids=text[None], decoder_input_ids=torch.tensor([before + answer])).logits[0]
            steps = said[len(before) - 1 : -1].log_softmax(1)
            sums.append(float(steps[torch.arange(len(answer)), answer].sum()))
        assert sums[1] - sums[0] == pytest.approx(scores[row], abs=1e-4)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_texts_spell_no_special_token_and_end_as_the_tokenizer_says(
    name: str, encoder_decoders: dict[str, Path]
) -> None:
    frame = pl.DataFrame({"title": ["a </s> <pad> <extra_id_0>", "b <s> [SEP] [CLS] c", ""], "good": [1, 0, 1]})
    task = learn_task(frame, binary=["good"], categorical={}, tree=(), swap=None)
    read = made(task, encoder_decoders[name])
    special = set(read.tokenizer.all_special_ids) - {read.tokenizer.unk_token_id}
    batch = read.sequences(build_corpus(frame, text=["title"], task=task)).batch(np.arange(3))
    around = read.tokenizer.encode("")
    for ids, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        found = [token for token, real in zip(ids, mask, strict=True) if real]
        assert [token for token in found if token in special] == around
        assert found[-1] == around[-1] or name == "bart"
    assert read.script.tokens > 0


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_bytes_are_read_as_byt5_does(text: str) -> None:
    slow, fast = BYTES
    assert tokenise([text], fast, None).ids.tolist() == [byte + 3 for byte in text.encode()]
    assert len(fast) == len(slow) == 384
    assert fast.convert_tokens_to_ids("<extra_id_0>") == slow.convert_tokens_to_ids("<extra_id_0>")
    if not any(token in text for token in slow.all_special_tokens):
        assert fast(text, "b")["input_ids"] == slow(text, "b")["input_ids"]


def test_gradients_are_the_same_with_activations_computed_again(encoder_decoders: dict[str, Path]) -> None:
    task, corpus = goods(16)
    for name in ("t5", "bart"):
        scores = []
        for again in (False, True):
            fitted = made(task, encoder_decoders[name], {"gradient_checkpointing": again})
            fitted.fit(corpus.rows(), None)
            scores.append(fitted.score(corpus.rows()).logits)
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_a_run_predicts(encoder_decoders: dict[str, Path], tmp_path: Path) -> None:
    recipe = {
        "data": {"text": ["title"], "id": "id"},
        "task": {"categorical": ["supergroup", "group"], "tree": ["supergroup", "group"]},
        "folds": {"count": 2},
        "model": {"family": "generator", "backbone": str(encoder_decoders["t5"]), "write": "path"},
        "training": {"epochs": 1, "learning_rate": 3e-3, "batch_size": 16},
        "decision": {"tree": "consistent"},
    }
    run = fit_unpublished(recipe, demo("products", 60, seed=3), out=tmp_path / "run")
    fresh = demo("products", 10, seed=11)
    paths = {tuple(path) for path in demo("products", 60, seed=3).select("supergroup", "group").rows()}
    predicted = Run.load(tmp_path / "run").predict(fresh)
    assert {tuple(path) for path in predicted.select("supergroup", "group").rows()} <= paths
    assert run.evaluation.rows == 60


def test_limits_are_those_of_the_stack_that_reads(tokenizer_folder: Path) -> None:
    assert not position_limit(AutoConfig.for_model("t5", **T5)).hard
    short = ENCODER_DECODERS["joined"] | {"decoder": BERT | {"max_position_embeddings": 6}}
    assert position_limit(load_writer_config(Origin(architecture=short), word_pieces())).tokens == 512
    task, corpus = goods(3)
    asked: Any = unfitted(
        task, model={"family": "generator", "architecture": short, "tokenizer": str(tokenizer_folder), "write": "path"}
    )
    with pytest.raises(RecipeError, match="longest answer"):
        asked.sequences(corpus)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"chat": "yes"}, "no conversations"),
        ({"system": "Be brief."}, "no conversations"),
    ],
)
def test_conversations_are_refused(model: dict[str, Any], said: str, encoder_decoders: dict[str, Path]) -> None:
    task, corpus = goods(3)
    with pytest.raises(RecipeError, match=said):
        made(task, encoder_decoders["t5"], **model).sequences(corpus)


def test_examples_are_refused(encoder_decoders: dict[str, Path]) -> None:
    task, corpus = goods(12)
    with pytest.raises(RecipeError, match="never shown examples"):
        made(task, encoder_decoders["t5"], training={"epochs": 0}, shots={"count": 2}).fit(corpus.rows(), None)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ({"model_type": "pegasus"}, "got: pegasus|pegasus"),
        ({"model_type": "encoder-decoder", "encoder": BERT, "decoder": {"model_type": "gpt2"}}, "gpt2"),
        ({"model_type": "encoder-decoder", "encoder": BERT}, "doesn't make"),
    ],
)
def test_others_can_not_write(architecture: dict[str, Any], said: str) -> None:
    with pytest.raises(FivefoldError, match=said):
        load_writer_config(Origin(architecture=architecture), pieces_tokenizer())


def test_other_families_say_who_takes_an_encoder_decoder(encoder_decoders: dict[str, Path]) -> None:
    folder = str(encoder_decoders["t5"])
    with pytest.raises(FivefoldError, match="encoder-decoder") as refused:
        load_config(Origin(folder), load_tokenizer(folder))
    assert "generator" in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"backbone": None, "architecture": BERT, "tokenizer": "a/b"}}, "name it in 'backbone'"),
        ({"model": {"adapter": {}}}, "leave adapter"),
        ({"model": {"unfrozen_layers": 1}}, "leave adapter"),
        ({"training": {"epochs": 0}}, "random"),
    ],
)
def test_a_decoder_over_an_encoder_learns_whole(sections: dict[str, Any], said: str) -> None:
    model = {"family": "generator", "backbone": "a/b", "decoder": "a/c"} | sections.get("model", {})
    with pytest.raises(RecipeError, match=said):
        build_recipe({**sections, "model": model})
