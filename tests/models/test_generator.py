from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tests.models.tiny import unfitted
from tests.models.tiny_decoders import DECODERS, bytes_tokenizer
from transformers import AutoModelForCausalLM

from fivefold.data.compose import Corpus
from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.errors import ArtefactError, RecipeError
from fivefold.models.families import scores_of
from fivefold.models.generator.classifier import GeneratorClassifier
from fivefold.models.generator.net import WriterNet
from fivefold.models.generator.prompts import format_of
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe
from fivefold.task import Swap, Task

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}</s>{% endfor %}<|assistant|>"

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"rank": 4}},
    "path": {"adapter": {"rank": 4}, "write": "path"},
    "nf4": {"adapter": {"rank": 4}, "weights": "nf4"},
    "whole": {},
    "top": {"unfrozen_layers": 1},
    "scores": {"adapter": {"rank": 4}, "loss": "scores", "beams": 1},
    "letters": {"adapter": {"rank": 4}, "choices": "letters", "normalise": "length"},
}


def goods(rows: int = 40, swap: Swap | None = None) -> tuple[Task, Corpus]:
    """Products whose kind shows in the first word; every third title says a special token aloud."""
    random = np.random.default_rng(1)
    kinds = random.integers(0, 3, rows)
    said = ["</s> so what", "<s> and <pad>", ""]
    frame = pl.DataFrame(
        {
            "id": [f"r{row}" for row in range(rows)],
            "title": [f"{('aa', 'zz', 'kk')[kind]} thing {said[row % 3]}" for row, kind in enumerate(kinds)],
            "group": [("tea", "tea", "wine")[kind] for kind in kinds],
            "module": [("green", "black", "red wine")[kind] for kind in kinds],
            "good": [int(kind == 1) for kind in kinds],
        }
    )
    task = learn_task(
        frame, binary=["good"], categorical={"group": (), "module": ()}, tree=("group", "module"), swap=swap
    )
    return task, build_corpus(frame, text=["title"], id="id", task=task)


def made(task: Task, backbone: Path, training: dict[str, Any] | None = None, **model: Any) -> GeneratorClassifier:
    quick = {"epochs": 1, "learning_rate": 3e-3, "batch_size": 8}
    section = {"family": "generator", "backbone": str(backbone), **model}
    classifier = unfitted(task, model=section, training=quick | (training or {}))
    assert isinstance(classifier, GeneratorClassifier)
    return classifier


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_saved_scores_alike(variant: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods()
    fitted = made(task, folders["llama"], **VARIANTS[variant])
    history = fitted.fit(corpus.rows(), None)
    assert history.figures["steps"] == 5
    fitted.save(tmp_path)
    again = made(task, folders["llama"], **VARIANTS[variant])
    again.load(tmp_path)
    expected = fitted.score(corpus.rows())
    np.testing.assert_allclose(again.score(corpus.rows()).logits, expected.logits, atol=1e-4)
    for target in task.categoricals:
        np.testing.assert_allclose(np.exp(expected.logits[:, task.slices[target.name]]).sum(axis=1), 1, atol=1e-4)
    assert (tmp_path / "adapter_config.json").exists() == ("adapter" in VARIANTS[variant])


@pytest.mark.parametrize("variant", ["lora", "path", "scores"])
def test_it_learns(variant: str, folders: dict[str, Path]) -> None:
    task, corpus = goods(60)
    fitted = made(task, folders["llama"], {"epochs": 20, "learning_rate": 2e-2}, **VARIANTS[variant])
    fitted.fit(corpus.rows(), None)
    scores = fitted.score(corpus.rows())
    labels = corpus.labels
    assert labels is not None
    for target in task.categoricals:
        found = scores.logits[:, task.slices[target.name]].argmax(axis=1)
        assert (found == labels.column(target.name)).mean() > 0.9
    assert ((scores.logits[:, task.slices["good"].start] > 0) == labels.column("good")).mean() > 0.9


def test_it_learns_to_list(folders: dict[str, Path], tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    known = random.integers(0, 2, (60, 3))
    frame = pl.DataFrame(
        {"text": [" ".join(w for w, k in zip(("aa", "zz", "kk"), row, strict=True) if k) for row in known]}
    )
    frame = frame.with_columns(**{name: known[:, column] for column, name in enumerate(("a", "z", "k"))})
    task = learn_task(frame, binary=["a", "z", "k"], categorical={}, tree=(), swap=None)
    corpus = build_corpus(frame, text=["text"], task=task)
    fitted = made(task, folders["llama"], {"epochs": 30, "learning_rate": 5e-3}, adapter={"rank": 8}, write="list")
    fitted.fit(corpus.rows(), None)
    logits = fitted.score(corpus.rows()).logits
    assert ((logits > 0) == known).mean() > 0.9
    fitted.save(tmp_path)
    again = made(task, folders["llama"], adapter={"rank": 8}, write="list")
    again.load(tmp_path)
    np.testing.assert_allclose(again.score(corpus.rows()).logits, logits, atol=1e-4)


def test_untrained_it_answers_and_keeps_only_a_name(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods()
    asked = made(task, folders["llama"], {"epochs": 0})
    assert asked.fit(corpus.rows(), None).figures["steps"] == 0
    expected = asked.score(corpus.rows()).logits
    asked.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["source.json"]
    again = made(task, folders["llama"], {"epochs": 0})
    again.load(tmp_path)
    np.testing.assert_array_equal(again.score(corpus.rows()).logits, expected)
    asked.net = None
    both = scores_of([again, asked], corpus.rows())
    np.testing.assert_array_equal([each.logits for each in both], [expected, expected])
    with pytest.raises(ArtefactError, match="isn't the one"):
        made(task, folders["mistral"], {"epochs": 0}).load(tmp_path)


def test_what_is_said_of_silence_is_taken_off(folders: dict[str, Path]) -> None:
    task, corpus = goods(12)
    plain, honest = (made(task, folders["llama"], {"epochs": 0}, contextual=each) for each in (False, True))
    for each in (plain, honest):
        each.fit(corpus.rows(), None)
    silence = build_corpus(pl.DataFrame({"title": [""]}), text=["title"]).rows()
    difference = plain.score(corpus.rows()).logits - plain.score(silence).logits
    found = honest.score(corpus.rows()).logits
    place = task.slices["good"].start
    np.testing.assert_allclose(found[:, place], difference[:, place], atol=1e-5)
    block = task.slices["module"]
    total = np.log(np.exp(difference[:, block]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found[:, block], difference[:, block] - total, atol=1e-5)
    np.testing.assert_allclose(honest.score(silence).logits[:, place], 0, atol=1e-6)


@pytest.mark.parametrize("weights", ["auto", "nf4", "int8"])
def test_untrained_it_may_be_quantised(weights: str, folders: dict[str, Path]) -> None:
    task, corpus = goods(12)
    asked = made(task, folders["llama"], {"epochs": 0}, unfrozen_layers=0, weights=weights)
    cost = asked.cost(corpus.rows(np.arange(8)))
    assert cost.trained == 0
    assert cost.seconds > 0
    asked.fit(corpus.rows(), None)
    assert np.isfinite(asked.score(corpus.rows()).logits).all()


@pytest.mark.parametrize("name", DECODERS)
def test_peft_alone_reads_the_adapter(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods(24)
    fitted = made(task, folders[name], adapter={"rank": 4}, normalise="sequence")
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders[name]), str(tmp_path)).eval()
    batch = fitted.sequences(corpus).batch(np.arange(4))
    read = partial(fitted.tokenizer.encode, add_special_tokens=False)
    scores = fitted.score(corpus.rows(np.arange(4))).logits[:, task.slices["good"].start]
    for row in range(4):
        ids = batch["input_ids"][row, : batch["attention_mask"][row].sum()].tolist()
        ids += read("good?") + read("\nAnswer:")
        sums = []
        for answer in (read(" No"), read(" Yes")):
            with torch.no_grad():
                logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].log_softmax(1)
            sums.append(float(logits[torch.arange(len(answer)), answer].sum()))
        assert sums[1] - sums[0] == pytest.approx(scores[row], abs=1e-4)


def test_texts_spell_no_special_token(folders: dict[str, Path]) -> None:
    task, corpus = goods(3)
    batch = made(task, folders["llama"]).sequences(corpus).batch(np.arange(3))
    assert not (batch["input_ids"][:, 1:] < 3).logical_and(batch["attention_mask"][:, 1:] == 1).any()


def test_a_conversation_is_written_as_its_template_says() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = "<s>" + CHAT
    shown = format_of(tokenizer, ["title", "price"], None, "auto", "Be {brief}.")
    assert shown.template == "<|system|>Be {{brief}}.</s><|user|>title: {title}\nprice: {price}\n\n"
    assert (shown.header, shown.lead) == ("</s><|assistant|>", "")
    plain = format_of(tokenizer, ["title"], "Product {title}", "no", None)
    assert (plain.template, plain.header, plain.lead) == ("Product {title}\n\n", "\nAnswer:", " ")


@pytest.mark.parametrize(
    ("template", "chat", "system", "said"),
    [
        (None, "yes", None, "no chat template"),
        (None, "auto", "Be brief.", "there is none"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "yes", None, "changes what a user says"),
        ("{{ raise_exception('no') }}", "yes", None, "can't be used"),
    ],
)
def test_conversations_that_can_not_be_written(template: str | None, chat: Any, system: str | None, said: str) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RecipeError, match=said):
        format_of(tokenizer, ["title"], None, chat, system)


def test_every_token_of_answers_counts_in_a_pass(folders: dict[str, Path]) -> None:
    task, corpus = goods(3)
    asked = made(task, folders["llama"])
    prompts = asked.sequences(corpus)
    assert (prompts.lengths - prompts.inputs.lengths == asked.script.tokens).all()
    cost = asked.cost(corpus.rows())
    assert cost.parameters == cost.trained > 0


def test_a_run_predicts_and_pairs_swap(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = {
        "data": {"text": ["prompt", "response_a", "response_b"], "id": "id"},
        "task": {
            "categorical": {"winner": ["a", "b", "tie"]},
            "swap": {"fields": [["response_a", "response_b"]], "target": "winner", "classes": {"a": "b", "b": "a"}},
        },
        "folds": {"count": 2},
        "model": {"family": "generator", "backbone": str(folders["llama"]), "max_tokens": 96, "adapter": {"rank": 4}},
        "training": {"epochs": 1, "learning_rate": 3e-3, "batch_size": 16},
    }
    fit_unpublished(recipe, demo("preferences", 40, seed=3), out=tmp_path / "run")
    fresh = demo("preferences", 10, seed=11)
    turned = fresh.rename({"response_a": "response_b", "response_b": "response_a"})
    one, other = (Run.load(tmp_path / "run").predict_proba(frame) for frame in (fresh, turned))
    np.testing.assert_allclose(one["winner=a"], other["winner=b"], atol=1e-5)
    np.testing.assert_allclose(one["winner=tie"], other["winner=tie"], atol=1e-5)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"question": "Which?"}}, r"\{name\}"),
        ({"objective": {"binary": "focal"}}, "objective.binary"),
        ({"pretraining": {"training": {"epochs": 0}}, "model": {"family": "encoder"}}, "pretraining.training.epochs"),
        ({"training": {"epochs": 0}, "model": {"adapter": {}}}, "trains no model.adapter"),
        ({"model": {"unfrozen_layers": 0}}, "training.epochs: 0"),
        ({"training": {"epochs": 0}, "model": {"family": "decoder"}}, "only model.family 'generator'"),
        ({"model": {"write": "list", "yes": "Sure"}}, "yes"),
        ({"model": {"chat": "no", "system": "Be brief."}}, "system"),
    ],
)
def test_recipes_that_say_what_nothing_reads(sections: dict[str, Any], said: str) -> None:
    model = {"family": "generator", "backbone": "a/b"} | sections.get("model", {})
    with pytest.raises(RecipeError, match=said):
        build_recipe({**sections, "model": model})


def test_nets_share_one_backbone(folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods(24)
    nets = []
    for number in range(2):
        fitted = made(task, folders["llama"], adapter={"rank": 4})
        fitted.fit(corpus.rows(), None)
        (tmp_path / str(number)).mkdir()
        fitted.save(tmp_path / str(number))
    for number in range(2):
        loaded = made(task, folders["llama"], adapter={"rank": 4})
        loaded.load(tmp_path / str(number))
        nets.append(loaded)
    first, second = (each.net for each in nets)
    assert isinstance(first, WriterNet)
    assert first.backbone is second.backbone
    before = nets[0].score(corpus.rows()).logits
    nets[1].score(corpus.rows())
    np.testing.assert_array_equal(nets[0].score(corpus.rows()).logits, before)
