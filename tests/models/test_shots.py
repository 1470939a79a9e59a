from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.models.test_answers import among
from tests.models.test_generator import CHAT, goods, made
from tests.models.tiny_decoders import bytes_tokenizer
from transformers import AutoModelForCausalLM

from fivefold.data.compose import Corpus, Near
from fivefold.data.corpus import build_corpus
from fivefold.data.labels import learn_task
from fivefold.errors import RecipeError
from fivefold.models.generator.prompted import PromptedClassifier
from fivefold.models.generator.prompts import turn_of
from fivefold.models.generator.shared import SharedWriter
from fivefold.models.generator.shots import draw
from fivefold.recipe import build_recipe
from fivefold.scores import Scores

pytestmark = pytest.mark.usefixtures("fp32", "no_cache")

ASKED: dict[str, Any] = {"epochs": 0}


def asked(task: Any, folders: dict[str, Path], **model: Any) -> PromptedClassifier:
    classifier = made(task, folders["llama"], ASKED, **{"max_tokens": 200, **model})
    assert isinstance(classifier, PromptedClassifier)
    return classifier


def shown(classifier: PromptedClassifier, corpus: Corpus, rows: list[int], part: int = 0) -> list[str]:
    """The prompts of some rows as text."""
    inputs = classifier.prompts(corpus, np.array(rows), classifier.parts[part], None).inputs
    return [classifier.tokenizer.decode(inputs.tokens.row(row)) for row in range(len(rows))]


def test_examples_stand_before_a_record_with_their_answers(folders: dict[str, Path]) -> None:
    task, corpus = goods(30)
    classifier = asked(task, folders, shots={"count": 3})
    classifier.fit(corpus.rows(np.arange(20)), None)
    assert [part.task.names for part in classifier.parts] == [("good",), ("group",), ("module",)]
    assert classifier.drawn is not None
    pool = classifier.drawn.pool
    assert set(pool.ids) <= {f"r{row}" for row in range(20)}
    for number, part in enumerate(classifier.parts):
        (name,) = part.task.names
        said = {"good": ("No", "Yes"), "group": ("tea", "wine"), "module": ("black", "green", "red wine")}[name]
        expected = ""
        for place in classifier.drawn.places[number].tolist():
            answer = said[pool.rows(np.array([place])).labels.column(name)[0]]
            # An answer that another one begins with is closed by the end token.
            expected += f"{pool.fields['title'][place]}\n\n{name}?\nAnswer: {answer}\n\n"
        prompts = shown(classifier, corpus, [25, 3], number)
        assert prompts == [f"<s>{expected}{corpus.fields['title'][row]}\n\n" for row in (25, 3)]


def test_drawn_examples_are_balanced_and_seeded(folders: dict[str, Path]) -> None:
    task, corpus = goods(60)
    classifier = asked(task, folders)
    kinds = [part.script.kinds(corpus.rows().labels) for part in asked(task, folders, shots={}).parts]
    one, same, other = (draw(corpus.rows(), kinds, 6, seed) for seed in (0, 0, 1))
    for places, part in zip(one.places, asked(task, folders, shots={}).parts, strict=True):
        column = one.pool.rows(places).labels.column(part.task.names[0])
        counts = np.bincount(column, minlength=max(2, part.task.width))
        assert counts.min() == counts.max(), part.task.names
    assert [list(one.pool.ids[each]) for each in one.places] == [list(same.pool.ids[each]) for each in same.places]
    assert [list(one.pool.ids[each]) for each in one.places] != [list(other.pool.ids[each]) for each in other.places]
    many = draw(corpus.rows(), kinds, 1000, 0)
    texts = [text.lower() for text in many.pool.fields["title"]]
    assert all(len({texts[place] for place in each}) == len(each) for each in many.places)
    assert classifier.drawn is None


@pytest.mark.parametrize("write", ["questions", "path", "list"])
def test_scores_are_those_of_the_whole_prompt(write: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task, corpus = goods(24)
    if write == "list":
        frame = pl.DataFrame({"title": list(corpus.fields["title"]), "a": [0, 1] * 12, "b": [1, 0, 0] * 8})
        task = learn_task(frame, binary=["a", "b"], categorical={}, tree=(), swap=None)
        corpus = build_corpus(frame, text=["title"], task=task)
    classifier = asked(task, folders, write=write, shots={"count": 2}, normalise="branches")
    classifier.fit(corpus.rows(np.arange(16)), None)
    scores = classifier.score(corpus.rows(np.arange(16, 20)))
    model = AutoModelForCausalLM.from_pretrained(folders["llama"]).eval()
    part = classifier.parts[0]
    inputs = classifier.prompts(corpus, np.arange(16, 20), part, None).inputs
    read = classifier.plain
    for row in range(4):
        ids = inputs.tokens.row(row).tolist()
        if write == "list":
            answers = [read("a\n"), read("b\n"), (1,)]
            ids += read("labels?") + read("\nAnswer:") + read("\n")
        elif write == "path":
            answers = [read(" tea > black"), read(" tea > green"), read(" wine > red wine")]
            ids += read("group > module?") + read("\nAnswer:")
        else:
            answers = [read(" No"), read(" Yes")]
            ids += read("good?") + read("\nAnswer:")
        said = torch.tensor(among(model, ids, answers))
        if write == "questions":
            expected, place = said[1] - said[0], task.slices["good"].start
        elif write == "path":
            expected, place = torch.logsumexp(said[:2], 0), task.slices["group"].start
        else:
            expected, place = said[0] - torch.logsumexp(said[1:], 0), 0
        assert scores.logits[row, place] == pytest.approx(float(expected), abs=1e-4)
    classifier.save(tmp_path)
    again = asked(task, folders, write=write, shots={"count": 2}, normalise="branches")
    again.load(tmp_path)
    np.testing.assert_array_equal(again.score(corpus.rows(np.arange(16, 20))).logits, scores.logits)


def test_a_list_in_an_example_is_closed(folders: dict[str, Path]) -> None:
    frame = pl.DataFrame({"text": ["one", "two", "three"], "a": [1, 0, 1], "b": [1, 0, 0]})
    task = learn_task(frame, binary=["a", "b"], categorical={}, tree=(), swap=None)
    corpus = build_corpus(frame, text=["text"], task=task)
    classifier = asked(task, folders, write="list", shots={"count": 3})
    classifier.fit(corpus.rows(), None)
    (prompt,) = shown(classifier, corpus, [0])
    for text, labels in (("one", "a\nb\n"), ("two", ""), ("three", "a\n")):
        assert f"{text}\n\nlabels?\nAnswer:\n{labels}</s>\n\n" in prompt


def test_examples_are_earlier_turns_of_a_conversation(folders: dict[str, Path]) -> None:
    task, corpus = goods(12)
    classifier = asked(task, folders, shots={"count": 2}, system="Sort {goods}.")
    classifier.tokenizer.chat_template = CHAT
    classifier.fit(corpus.rows(), None)
    assert classifier.drawn is not None
    first, second = classifier.drawn.places[0].tolist()
    pool = classifier.drawn.pool
    codes = pool.rows().labels.column("good")
    titles = [title.rstrip() for title in pool.fields["title"]]
    (prompt,) = shown(classifier, corpus, [2])
    turns = "".join(
        f"<|user|>{titles[place]}{'' if pool.fields['title'][place] == titles[place] else ' '}\n\ngood?</s>"
        f"<|assistant|>{('No', 'Yes')[codes[place]]}</s>"
        for place in (first, second)
    )
    assert prompt == f"<s><|system|>Sort {{goods}}.</s>{turns}<|user|>{corpus.fields['title'][2]}\n\n"


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}<|{{ m.role }}|>{{ m.content if loop.last else '' }}{% endfor %}<|assistant|>"],
)
def test_conversations_without_earlier_turns_are_refused(template: str) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RecipeError, match="earlier turns"):
        turn_of(tokenizer, ["title"], None, "auto", None)


def test_examples_give_way_to_the_record(folders: dict[str, Path]) -> None:
    task, corpus = goods(20)
    long = replace(corpus, fields={"title": ["word " * 3, *corpus.fields["title"][1:]]}, built={})
    long.fields["title"][1] = "many words " * 40
    classifier = asked(task, folders, shots={"count": 6, "tokens": 4}, max_tokens=96)
    history = classifier.fit(long.rows(), None)
    said = " ".join(history.remarks)
    assert "have no room for all" in said
    assert "of their texts are cut" in said
    behind = classifier.prompts(long, np.array([0, 1]), classifier.parts[0], None)
    assert 0 < behind.kept[0] < behind.known[0] == 6
    assert behind.kept[1] == 0
    assert (behind.inputs.tokens.lengths <= 96).all()
    alone, many = shown(classifier, long, [1])[0], shown(classifier, long, [0])[0]
    assert "Answer" not in alone
    assert many.endswith("\n\nword word word \n\n")
    roomy = asked(task, folders, shots={"count": 2}, max_tokens=240)
    assert roomy.fit(corpus.rows(), None).remarks == ()


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "qwen3"])
def test_what_prompts_begin_with_is_computed_once(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, corpus = goods(14)
    long = replace(corpus, fields={"title": ["many words " * 25, *corpus.fields["title"][1:]]}, built={})
    classifier = made(task, folders[name], ASKED, max_tokens=140, shots={"count": 3, "tokens": 12})
    assert isinstance(classifier, PromptedClassifier)
    classifier.fit(long.rows(np.arange(3, 14)), None)
    passed: list[int] = []

    def counted(model: Any, arguments: Any, named: Any) -> None:
        passed.append(named["input_ids"].numel())

    hook = classifier.net.backbone.register_forward_pre_hook(counted, with_kwargs=True)
    found = classifier.score(long.rows()).logits
    spared, passed[:] = sum(passed), []
    monkeypatch.setattr(SharedWriter, "begin", lambda *_: None)
    expected = classifier.score(long.rows()).logits
    hook.remove()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert spared < 0.5 * sum(passed)


def test_the_nearest_stands_last_and_each_row_has_its_own(folders: dict[str, Path]) -> None:
    task, corpus = goods(12)
    places = np.array([[3, 5], [7, -1], [-1, -1]])
    near = Corpus(corpus.ids[:3], {"title": corpus.fields["title"][:3]}, near=Near(places, corpus))
    classifier = asked(task, folders, shots={"count": 2, "take": "nearest"}, contextual=True)
    classifier.fit(replace(corpus, near=Near(np.tile([[0, 1]], (12, 1)), corpus)).rows(), None)
    prompts = shown(classifier, near, [0, 1, 2])
    for prompt, row, expected in zip(prompts, range(3), ([5, 3], [7], []), strict=True):
        before = "".join(
            f"{corpus.fields['title'][place]}\n\ngood?\nAnswer: "
            f"{('No', 'Yes')[corpus.rows().labels.column('good')[place]]}\n\n"
            for place in expected
        )
        assert prompt == f"<s>{before}{corpus.fields['title'][row]}\n\n"
    together = classifier.score(near.rows())
    for row in range(3):
        alone = classifier.score(near.rows(np.array([row])))
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-5)


def test_several_wordings_are_averaged(folders: dict[str, Path]) -> None:
    task, corpus = goods(10)
    words = ["Sold: {title}", "{title} is what we sell"]
    both = asked(task, folders, prompts=words)
    single = [asked(task, folders, template=each) for each in words]
    for each in (both, *single):
        each.fit(corpus.rows(), None)
    found, apart = both.score(corpus.rows()), [each.score(corpus.rows()).logits for each in single]
    mean = (apart[0] + apart[1]) / 2
    place = task.slices["good"].start
    np.testing.assert_allclose(found.logits[:, place], mean[:, place], atol=1e-4)
    block = task.slices["module"]
    expected = mean[:, block] - np.log(np.exp(mean[:, block]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.logits[:, block], expected, atol=1e-4)
    assert isinstance(found, Scores)
    assert both.cost(corpus.rows(np.arange(6))).seconds > 0


def test_every_wording_names_every_column(folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    with pytest.raises(RecipeError, match="name each text column once"):
        asked(task, folders, prompts=["Sold: {title}", "{name} is what we sell"]).cost(corpus.rows())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"epochs": 1}, "model": {"shots": {}}}, "model.shots are for a model as it is"),
        ({"training": {"epochs": 1}, "model": {"prompts": ["{a}", "{a}!"]}}, "several model.prompts are for"),
        ({"model": {"shots": {"query": ["a"]}}}, "query"),
        ({"model": {"shots": {"take": "nearest", "seed": 3}}}, "seed"),
        ({"model": {"prompts": ["{a}"], "template": "{a}"}}, "template"),
        ({"model": {"shots": {"take": "nearest", "query": ["b"]}}, "data": {"text": ["a"]}}, r"\['b'\] aren't among"),
        ({"model": {"shots": {"take": "nearest"}}, "enrichment": {}}, "don't go with enrichment"),
    ],
)
def test_recipes_that_say_what_can_not_be(sections: dict[str, Any], said: str) -> None:
    model = {"family": "generator", "backbone": "a/b"} | sections.get("model", {})
    with pytest.raises(RecipeError, match=said):
        build_recipe({"training": {"epochs": 0}, **sections, "model": model})
