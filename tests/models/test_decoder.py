"""The decoder family on tiny random backbones: adapters, quantised weights, reloading by PEFT alone."""

from __future__ import annotations

import gc
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tests.models.test_invariance import assert_rows_stand_alone
from tests.models.tiny import EMOTIONS, unfitted
from tests.models.tiny_decoders import DECODERS, bytes_tokenizer, save_decoder, write_gguf
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.errors import ArtefactError, FivefoldError, RecipeError
from fivefold.models.backbones.adapters import Adapter, attach, redraw, row_norms
from fivefold.models.backbones.backbone import Origin, load_causal_lm, load_decoder, load_tokenizer, save_backbone
from fivefold.models.backbones.places import Place, resolve
from fivefold.models.decoder.classifier import DecoderClassifier
from fivefold.models.pooled.net import PooledNet
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe
from fivefold.task import Task
from fivefold.training.loop import Training

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

LENGTHS = [3, 60, 9, 29, 1, 61, 128, 9]
"""Below and beyond the sliding window of 16 tokens."""

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"rank": 4}},
    "dora": {"adapter": {"rank": 4, "dora": True, "rslora": True}},
    "named": {"adapter": {"rank": 2, "targets": ["q_proj", "v_proj"], "options": {"lora_bias": True}}},
    "nf4": {"adapter": {"rank": 4}, "weights": "nf4"},
    "int8": {"adapter": {"rank": 4}, "weights": "int8"},
    "bf16": {"adapter": {"rank": 4}, "weights": "bf16"},
    "mlp": {"adapter": {"rank": 4}, "head": "mlp"},
    "whole": {},
    "top": {"unfrozen_layers": 1},
    "frozen": {"unfrozen_layers": 0, "pooling": "mean"},
}


def tweets(rows: int = 48) -> tuple[Task, Corpus]:
    """Every third text says a special token aloud."""
    frame = demo("tweets", rows, seed=3)
    said = ["</s> so what", "<s> and <pad>", ""]
    texts = [f"{text} {said[i % 3]}" for i, text in enumerate(frame["text"])]
    frame = frame.with_columns(text=np.array(texts, dtype=object).astype(str))
    task = learn_task(frame, binary=EMOTIONS, categorical={}, tree=(), swap=None)
    return task, build_corpus(frame, text=["text"], id="id", task=task)


def made(task: Task, backbone: Path, training: dict[str, Any] | None = None, **model: Any) -> DecoderClassifier:
    quick = {"epochs": 1, "learning_rate": 3e-3, "batch_size": 16}
    section = {"family": "decoder", "backbone": str(backbone), **model}
    classifier = unfitted(task, model=section, training=quick | (training or {}))
    assert isinstance(classifier, DecoderClassifier)
    return classifier


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_neighbours_order_and_padding_leave_logits_alone(name: str, pooling: Any, folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders[name]))
    model = load_decoder(Origin(str(folders[name])), tokenizer, seed=0).model
    attach(model, Adapter(rank=4, options={"init_lora_weights": "gaussian"}), 3, "default")
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(len(key)))
    net = PooledNet(model, width=5, seed=0, pooling=pooling).eval()
    generator = np.random.default_rng(2)
    # Id 1 is both the end and the pad token; it also stands inside of texts.
    assert_rows_stand_alone(net, [[0, *generator.integers(1, 300, length).tolist(), 1] for length in LENGTHS])


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_saved_scores_alike(variant: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets()
    settings = VARIANTS[variant]
    fitted = made(task, folders["llama"], **settings)
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)
    again = made(task, folders["llama"], **settings)
    again.load(tmp_path)
    expected = fitted.score(corpus.rows()).logits
    assert expected.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(again.score(corpus.rows()).logits, expected, atol=1e-5)
    whole = variant in {"whole", "top", "frozen"}
    assert (tmp_path / "adapter_config.json").exists() != whole
    assert (tmp_path / "config.json").exists() == whole


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("variant", ["lora", "dora", "mlp"])
def test_peft_alone_reads_adapter_and_head(name: str, variant: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders[name], **VARIANTS[variant])
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)

    base = AutoModelForSequenceClassification.from_pretrained(folders[name], num_labels=task.width)
    hidden = base.config.hidden_size
    base.score = nn.Linear(hidden, task.width)
    if variant == "mlp":
        base.score = nn.Sequential(
            nn.Dropout(), nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(), nn.Linear(hidden, task.width)
        )
    model = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    rows = corpus.rows()
    batch = fitted.sequences(corpus).batch(rows.index)
    lengths = batch["attention_mask"].sum(dim=1)
    # One by one and without padding, as transformers looks for the pad token, which some of these texts end with.
    with torch.no_grad():
        logits = [model(ids[None, :length]).logits for ids, length in zip(batch["input_ids"], lengths, strict=True)]
    np.testing.assert_allclose(torch.cat(logits).numpy(), fitted.score(rows).logits, atol=1e-4)


def test_only_adapter_and_head_learn(folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders["llama"], **VARIANTS["lora"])
    fitted.fit(corpus.rows(), None)
    learnt = {name for name, p in fitted.net.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 2)[0].rsplit(".", 1)[-1] for name in learnt if "lora" in name} == {"lora_A", "lora_B"}
    assert {name for name in learnt if "lora" not in name} == {"head.1.weight", "head.1.bias"}
    fresh = load_decoder(Origin(str(folders["llama"])), fitted.tokenizer, seed=0).model
    held = {name.replace(".base_layer", ""): p for name, p in fitted.net.backbone.named_parameters()}
    assert all(torch.equal(held[name], p) for name, p in fresh.named_parameters())


@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_quantised_weights_are_small(weights: str, folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders["llama"], **VARIANTS[weights])
    fitted.fit(corpus.rows(), None)
    fitted.score(corpus.rows())  # after which bitsandbytes would have packed four bits otherwise on some chips
    linear = fitted.net.backbone.layers[0].mlp.up_proj.base_layer.weight
    assert not getattr(getattr(linear, "quant_state", None), "packing_format_for_cpu", False)
    assert linear.element_size() == 1
    assert linear.numel() == (32 * 64 // 2 if weights == "nf4" else 32 * 64)
    assert fitted.net.head[1].weight.dtype == torch.float32


def test_a_restart_draws_adapter_and_head_anew(folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders["llama"], **VARIANTS["dora"])
    fitted.fit(corpus.rows(), None)
    fresh = fitted.fresh_weights(corpus.rows().labels, 11)
    for name, weight in fresh.items():
        if "lora_B" in name:
            assert not weight.any(), name
    layer = fitted.net.backbone.layers[0].self_attn.q_proj
    (magnitude,) = layer.lora_magnitude_vector.values()
    torch.testing.assert_close(magnitude.weight.detach(), row_norms(layer))
    before = {name: weight for name, weight in fresh.items() if "lora_A" in name or name == "head.1.weight"}
    other = fitted.fresh_weights(corpus.rows().labels, 12)
    assert before
    assert all(not torch.equal(weight, other[name]) for name, weight in before.items())


def test_a_redrawn_adapter_adds_nothing(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["qwen2"]))
    plain = load_decoder(Origin(str(folders["qwen2"])), tokenizer, seed=0).model.eval()
    adapted = load_decoder(Origin(str(folders["qwen2"])), tokenizer, seed=0).model.eval()
    adapter = Adapter(rank=4, dora=True)
    attach(adapted, adapter, 1, "a")
    redraw(adapted, adapter, 2, "a")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).last_hidden_state, plain(ids).last_hidden_state, atol=1e-5, rtol=0)


def test_special_tokens_in_a_text_are_text(folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    batch = made(task, folders["llama"], **VARIANTS["lora"]).sequences(corpus).batch(np.arange(24))
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    assert (ids[:, 0] == 0).all()
    assert not ((ids[:, 1:] < 3) & (mask[:, 1:] == 1)).any()


def test_an_adapter_of_another_backbone_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders["llama"], **VARIANTS["lora"])
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)
    with pytest.raises(ArtefactError, match="can't be read"):
        made(task, folders["llama"], adapter={"rank": 8}).load(tmp_path)
    with pytest.raises(ArtefactError, match="can't be read"):
        made(task, folders["llama"], adapter={"rank": 4, "targets": ["q_proj"]}).load(tmp_path)
    with pytest.raises(ArtefactError, match="other settings"):
        made(task, folders["llama"], adapter={"rank": 4}, head="mlp").load(tmp_path)
    with pytest.raises(ArtefactError, match="isn't the one"):
        made(task, folders["mistral"], **VARIANTS["lora"]).load(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"backbone": None}, "a decoder needs 'backbone'"),
        ({"weights": "nf4"}, "can't be trained themselves"),
        ({"adapter": {}, "unfrozen_layers": 1}, "name one"),
        ({"backbone": None, "architecture": DECODERS["llama"], "tokenizer": "x", "adapter": {}}, "trained weights"),
        ({"adapter": {"rank": 0}}, "model.adapter.rank"),
        ({"adapter": {"ranks": 4}}, "did you mean 'rank'"),
    ],
)
def test_recipes_that_can_not_be(model: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build_recipe({"model": {"family": "decoder", "backbone": "some/model", **model}})


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"targets": ["nowhere_proj"]}, "can't take model.adapter"),
        ({"options": {"no_such_key": 1}}, "PEFT doesn't take"),
        ({"options": {"init_lora_weights": "pissa"}}, "init_lora_weights can't be used"),
        ({"options": {"modules_to_save": ["norm"]}}, "modules_to_save can't be used"),
        ({"options": {"bias": "all"}}, "bias can't be used"),
    ],
)
def test_adapters_that_can_not_be(adapter: dict[str, Any], said: str, folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    with pytest.raises(FivefoldError, match=said):
        made(task, folders["llama"], adapter=adapter).fit(corpus.rows(), None)


def test_a_tokenizer_without_pad_token_is_given_one(tmp_path: Path) -> None:
    bytes_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1


def test_folds_stand_on_one_backbone(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets(24)
    rows, settings = corpus.rows(), VARIANTS["dora"]
    expected = []
    for fold in range(3):
        fitted = made(task, folders["qwen3"], {"learning_rate": 1e-2 * (fold + 1)}, **settings)
        fitted.fit(rows, None)
        (tmp_path / str(fold)).mkdir()
        fitted.save(tmp_path / str(fold))
        expected.append(fitted.score(rows).logits)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    loaded = [made(task, folders["qwen3"], **settings) for _ in range(3)]
    for fold, classifier in enumerate(loaded):
        classifier.load(tmp_path / str(fold))
    assert len({id(classifier.net.backbone) for classifier in (*loaded, fitted)}) == 1
    for fold in (2, 0, 1, 0, 2):
        np.testing.assert_allclose(loaded[fold].score(rows).logits, expected[fold], atol=1e-5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del loaded, classifier
        gc.collect()
    assert not said
    np.testing.assert_allclose(fitted.score(rows).logits, expected[2], atol=1e-5)


def test_an_adapter_goes_with_its_net(folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    fitted = made(task, folders["mistral"], **VARIANTS["lora"])
    fitted.fit(corpus.rows(), None)
    backbone = fitted.net.backbone
    assert any("lora_A.default" in name for name, _ in backbone.named_parameters())
    del fitted
    gc.collect()
    assert not any("lora_A" in name for name, _ in backbone.named_parameters())


def test_a_loaded_adapter_is_trained_on_and_others_stay(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets(24)
    rows, settings = corpus.rows(), VARIANTS["lora"]
    first = made(task, folders["gemma2"], **settings)
    first.fit(rows, None)
    first.save(tmp_path)
    before = first.score(rows).logits
    second = made(task, folders["gemma2"], {"learning_rate": 1e-9, "head_learning_rate": 1e-9}, **settings)
    second.load(tmp_path)
    second.fit(rows, None)
    np.testing.assert_allclose(second.score(rows).logits, before, atol=1e-5)
    third = made(task, folders["gemma2"], {"learning_rate": 1e-2}, **settings)
    third.load(tmp_path)
    third.fit(rows, None)
    assert np.abs(third.score(rows).logits - before).max() > 1e-2
    np.testing.assert_allclose(first.score(rows).logits, before, atol=1e-5)


def test_a_killed_fit_goes_on_exactly(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = tweets(24)
    rows, settings = corpus.rows(), {"epochs": 3, "batch_size": 8, "checkpoint_minutes": 0}
    whole = made(task, folders["llama"], settings, **VARIANTS["dora"])
    (tmp_path / "whole").mkdir()
    whole.fit(rows, None, tmp_path / "whole")
    for stop in (1, 4, 8):
        killed = made(task, folders["llama"], settings, **VARIANTS["dora"])
        scratch = tmp_path / str(stop)
        scratch.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Training, "checkpoint_due", property(lambda self, at=stop: interrupted(self, at)))
            with pytest.raises(KeyboardInterrupt):
                killed.fit(rows, None, scratch)
        again = made(task, folders["llama"], settings, **VARIANTS["dora"])
        again.fit(rows, None, scratch)
        np.testing.assert_array_equal(again.score(rows).logits, whole.score(rows).logits)


def interrupted(training: Training, at: int) -> bool:
    """Whether to write a checkpoint: each time, until one is asked for at step `at`, when the process dies."""
    if training.progress.step == at:
        raise KeyboardInterrupt
    return True


@pytest.mark.parametrize("start", [True, "gaussian"])
def test_a_restart_knows_every_way_to_begin(start: Any, tmp_path: Path) -> None:
    gpt = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "vocab_size": 512}
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    save_backbone(load_causal_lm(Origin(architecture=gpt), tokenizer, seed=1).model, tokenizer, tmp_path)
    task, corpus = tweets(24)
    adapter = {"rank": 4, "dora": True, "options": {"init_lora_weights": start, "fan_in_fan_out": True}}
    fitted = made(task, tmp_path, adapter=adapter)
    fitted.fit(corpus.rows(), None)
    fresh = fitted.fresh_weights(corpus.rows().labels, 3)
    layer = fitted.net.backbone.h[0].mlp.c_fc
    torch.testing.assert_close(fresh["backbone.h.0.mlp.c_fc.lora_magnitude_vector.default.weight"], row_norms(layer))


def test_a_backbone_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    save_decoder("llama", tmp_path)
    task, corpus = tweets(24)
    first = made(task, tmp_path, **VARIANTS["lora"])
    first.fit(corpus.rows(), None)
    tokenizer = first.tokenizer
    save_backbone(load_causal_lm(Origin(architecture=DECODERS["llama"]), tokenizer, seed=9).model, tokenizer, tmp_path)
    second = made(task, tmp_path, **VARIANTS["lora"])
    second.fit(corpus.rows(), None)
    weights = [fitted.net.backbone.layers[0].mlp.up_proj.base_layer.weight for fitted in (first, second)]
    assert not torch.equal(*weights)


def test_checkpointing_of_gradients_stays_with_who_asked(folders: dict[str, Path]) -> None:
    task, corpus = tweets(24)
    first = made(task, folders["llama"], {"gradient_checkpointing": True}, **VARIANTS["lora"])
    first.fit(corpus.rows(), None)
    assert first.net.backbone.is_gradient_checkpointing
    backbone, home = first.net.backbone, first.home
    first.net = None
    gc.collect()
    second = made(task, folders["llama"], **VARIANTS["lora"])
    second.fit(corpus.rows(), None)
    assert second.net.backbone is backbone, home
    assert not backbone.is_gradient_checkpointing


def test_what_reads_more_than_text_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("gemma3").save_pretrained(tmp_path)
    bytes_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(FivefoldError, match="reads more than text"):
        load_decoder(Origin(str(tmp_path)), load_tokenizer(str(tmp_path)), seed=0)


def test_adapters_on_a_backbone_that_was_pretrained_within_the_run(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = {
        "data": {"text": ["text"], "id": "id"},
        "folds": {"count": 2},
        "model": {"family": "decoder", "backbone": str(folders["qwen2"]), "adapter": {"rank": 4}},
        "training": {"epochs": 1, "learning_rate": 3e-3},
        "pretraining": {"objective": "causal", "block_tokens": 32, "training": {"epochs": 1, "learning_rate": 1e-2}},
    }
    frame = demo("tweets", 40, seed=3)
    fitted = fit_unpublished(recipe, frame, out=tmp_path / "there")
    expected = fitted.out_of_fold
    moved = (tmp_path / "there").rename(tmp_path / "here")
    run = Run.load(moved)
    for fold, model in enumerate(run.models):
        alone = Run(run.store)
        alone.__dict__["models"] = (model,)
        held_out = expected.folds == fold
        scores = alone.scores(run.read(frame.filter(pl.Series(held_out))))
        np.testing.assert_allclose(scores.logits, expected.scores.logits[held_out], atol=1e-4)
    again = {**recipe, "pretraining": None, "folds": {"reuse": str(moved)}}
    again["training"] = {"epochs": 1, "continue_from": str(moved)}
    with pytest.raises(RecipeError, match=r"another backbone(.|\n)*here/backbone/model"):
        fit_unpublished(again, frame, out=tmp_path / "wrong")
    again["model"] = {**recipe["model"], "backbone": str(moved / "backbone" / "model")}  # type: ignore[dict-item]
    assert fit_unpublished(again, frame, out=tmp_path / "further").evaluation.rows == 40


def test_a_gguf_file_is_a_backbone(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model = load_causal_lm(Origin(architecture=DECODERS["llama"]), tokenizer, seed=1).model
    path = write_gguf(model, tokenizer, tmp_path / "tiny.gguf")
    ids = torch.arange(5, 25)[None]
    loaded = load_decoder(Origin(str(path)), load_tokenizer(str(path)), seed=0)
    with torch.no_grad():
        expected = model.base_model(ids).last_hidden_state
        torch.testing.assert_close(loaded.model(ids).last_hidden_state, expected, atol=1e-5, rtol=0)
    task, corpus = tweets(24)
    fitted = made(task, path, **VARIANTS["lora"])
    fitted.fit(corpus.rows(), None)
    (tmp_path / "saved").mkdir()
    fitted.save(tmp_path / "saved")
    again = made(task, path, **VARIANTS["lora"])
    again.load(tmp_path / "saved")
    np.testing.assert_allclose(again.score(corpus.rows()).logits, fitted.score(corpus.rows()).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("org/name", Place("org/name")),
        ("org/name/file-Q4_K_M.gguf", Place("org/name", "file-Q4_K_M.gguf")),
        ("org/name/folder/file.gguf", Place("org/name", "folder/file.gguf")),
    ],
)
def test_names_on_the_hub(name: str, place: Place) -> None:
    assert resolve(name) == place


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FivefoldError, match=r"a \.gguf file"):
        resolve(str(tmp_path / "nowhere.gguf"))
