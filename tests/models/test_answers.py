from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.test_invariance import assert_rows_stand_alone
from tests.models.tiny_decoders import DECODERS, bytes_tokenizer
from transformers import AutoModelForCausalLM

from fivefold.errors import RecipeError
from fivefold.models.backbones import architectures
from fivefold.models.backbones.backbone import Backbone, Origin, load_writer
from fivefold.models.generator.answers import Question, grow
from fivefold.models.generator.asking import Asking
from fivefold.models.generator.listing import Items, Listing
from fivefold.models.generator.net import WriterNet
from fivefold.models.generator.writing import Questionnaire, Writing
from fivefold.task import Binary, Categorical, Labels, Task, Tree

TREE = Tree(("group", "module"), ((0, 0), (0, 1), (1, 1), (1, 2)))
TASK = Task(
    (Binary("joy"), Categorical("group", ("tea", "red wine")), Categorical("module", ("a", "b c", "b d"))), TREE
)
PROMPT = [0, 17, 250, 31, 99, 120, 64]


def words(text: str) -> tuple[int, ...]:
    """A letter an id, which makes answers of several tokens."""
    return tuple(ord(letter) for letter in text)


def questions(**writing: Any) -> Questionnaire:
    return Writing(**writing).about(TASK, words, lead=" ", header=(5, 6), end=1)


@pytest.fixture(scope="module")
def writers(folders: dict[str, Path]) -> dict[str, Backbone]:
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return {name: load_writer(Origin(str(folder)), tokenizer, seed=0) for name, folder in folders.items()}


def said(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits of the token behind these ids, by transformers alone."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1].float()
    return logits


def among(model: Any, before: list[int], candidates: list[tuple[int, ...]]) -> list[float]:
    """Log-probability of each candidate by definition: at every token, against what any candidate has there."""
    totals = []
    for candidate in candidates:
        total = 0.0
        for place, token in enumerate(candidate):
            rivals = sorted(
                {other[place] for other in candidates if other[:place] == candidate[:place] and other[place:]}
            )
            logits = said(model, [*before, *candidate[:place]])
            total += float(logits[token] - logits[rivals].logsumexp(0))
        totals.append(total)
    return totals


def batch(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.int64) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


@settings(max_examples=15, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(3, 9), min_size=1, max_size=4).map(lambda ids: (*ids, 1)),
        min_size=2,
        max_size=9,
        unique=True,
    ),
    name=st.sampled_from(["llama", "gemma3"]),
)
def test_a_tree_scores_as_every_path_by_itself(
    sequences: list[tuple[int, ...]], name: str, writers: dict[str, Backbone], folders: dict[str, Path]
) -> None:
    target = Categorical("path", tuple(map(str, sequences)))
    encode = dict(zip(target.classes, sequences, strict=True))
    asked = Writing().about(Task((target,)), lambda text: encode.get(text, ()), lead="", header=(5,), end=1)
    net = WriterNet(writers[name], Asking(asked, "branches")).eval()
    with torch.no_grad():
        scores = net(**batch([PROMPT, PROMPT[:3]]))
    model = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    for row, prompt in enumerate((PROMPT, PROMPT[:3])):
        np.testing.assert_allclose(scores[row], among(model, [*prompt, 5], sequences), atol=1e-4)
    np.testing.assert_allclose(scores.exp().sum(dim=1), 1, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(3, 6), min_size=1, max_size=5).map(lambda ids: (*ids, 1)),
        min_size=2,
        max_size=20,
        unique=True,
    ),
    width=st.integers(1, 3),
)
def test_beams_are_exact_where_they_read(
    sequences: list[tuple[int, ...]], width: int, writers: dict[str, Backbone]
) -> None:
    target = Categorical("path", tuple(map(str, sequences)))
    encode = dict(zip(target.classes, sequences, strict=True))
    asked = Writing().about(
        Task((Binary("b"), target)), lambda text: encode.get(text, words(text)), lead="", header=(5,), end=1
    )
    whole, all_read, narrow = (
        WriterNet(writers["llama"], Asking(asked, "branches", beams)).eval() for beams in (None, 1000, width)
    )
    with torch.no_grad():
        exact, same, found = (net(**batch([PROMPT, PROMPT[:3]])) for net in (whole, all_read, narrow))
    np.testing.assert_allclose(same, exact, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], exact[:, 0], atol=1e-4)
    np.testing.assert_allclose(found[:, 1:].exp().sum(dim=1), 1, atol=1e-5)
    for row in range(2):
        greedy = followed(sequences, exact[row, 1:].tolist())
        assert float(found[row, 1 + greedy]) == pytest.approx(float(exact[row, 1 + greedy]), abs=1e-4)


def followed(sequences: list[tuple[int, ...]], scores: list[float]) -> int:
    """The answer that is reached when the likeliest branch is taken at every level."""
    left, place = list(range(len(sequences))), 0
    while len(left) > 1:
        tokens = {sequences[each][place] for each in left}
        share = {t: sum(math.exp(scores[each]) for each in left if sequences[each][place] == t) for t in tokens}
        best = max(share, key=lambda token: share[token])
        left, place = [each for each in left if sequences[each][place] == best], place + 1
    return left[0]


@pytest.mark.parametrize("name", DECODERS)
def test_beams_read_a_few_branchings_of_many(name: str, writers: dict[str, Backbone], monkeypatch: Any) -> None:
    generator = np.random.default_rng(0)
    classes = sorted({"".join(generator.choice(list("abcdef"), size=4)) for _ in range(300)})
    asked = Writing().about(Task((Categorical("brand", tuple(classes)),)), words, lead="", header=(5,), end=1)
    net = WriterNet(writers[name], Asking(asked, "branches", 2)).eval()
    widths = []
    monkeypatch.setattr(
        net, "read", lambda prompts, nodes: widths.append(nodes.tokens.shape[1]) or WriterNet.read(net, prompts, nodes)
    )
    with torch.no_grad():
        scores = net(**batch([PROMPT, PROMPT[:3]]))
    assert max(widths) <= net.script.tokens < len(asked.answers) / 10
    np.testing.assert_allclose(scores.exp().sum(dim=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_questions_together_are_questions_apart(
    name: str, writers: dict[str, Backbone], folders: dict[str, Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    net = WriterNet(writers[name], Asking(questions(), "branches")).eval()
    with torch.no_grad():
        scores = net(**batch([PROMPT]))[0]
    no, yes = among(model, [*PROMPT, *words("joy?"), 5, 6], [words(" No"), words(" Yes")])
    assert float(scores[0]) == pytest.approx(yes - no, abs=1e-4)
    for target in TASK.categoricals:
        candidates = [words(f" {each}") for each in target.classes]
        expected = among(model, [*PROMPT, *words(f"{target.name}?"), 5, 6], candidates)
        np.testing.assert_allclose(scores[TASK.slices[target.name]], expected, atol=1e-4)


@pytest.mark.parametrize("normalise", ["sequence", "length"])
def test_answers_against_the_whole_vocabulary(
    normalise: Any, writers: dict[str, Backbone], folders: dict[str, Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["llama"]).eval()
    with torch.no_grad():
        scores = WriterNet(writers["llama"], Asking(questions(), normalise)).eval()(**batch([PROMPT]))[0]
    before, totals = [*PROMPT, *words("module?"), 5, 6], []
    for each in TASK.categoricals[1].classes:
        ids = words(f" {each}")
        steps = [said(model, [*before, *ids[:place]]).log_softmax(0)[token] for place, token in enumerate(ids)]
        totals.append(sum(steps) / (len(ids) if normalise == "length" else 1))
    expected = torch.stack(totals).log_softmax(0)
    np.testing.assert_allclose(scores[TASK.slices["module"]], expected, atol=1e-4)


def test_a_path_says_of_each_level_what_its_paths_say(writers: dict[str, Backbone], folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["llama"]).eval()
    asked = questions(write="path")
    assert [each.words for each in asked.asked] == ["group > module?", "joy?"]
    with torch.no_grad():
        scores = WriterNet(writers["llama"], Asking(asked, "branches")).eval()(**batch([PROMPT]))[0]
    texts = [" tea > a", " tea > b c", " red wine > b c", " red wine > b d"]
    paths = np.exp(among(model, [*PROMPT, *words("group > module?"), 5, 6], list(map(words, texts))))
    np.testing.assert_allclose(scores[1:3].exp(), [paths[:2].sum(), paths[2:].sum()], atol=1e-4)
    np.testing.assert_allclose(scores[3:].exp(), [paths[0], paths[1] + paths[2], paths[3]], atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("write", ["questions", "path"])
def test_neighbours_order_and_padding_leave_scores_alone(
    name: str, write: Any, writers: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = WriterNet(writers[name], Asking(questions(write=write), "branches")).eval()
    random = np.random.default_rng(2)
    rows = [[0, *random.integers(1, 300, length).tolist(), 1] for length in (3, 60, 9, 29, 1)]
    assert_rows_stand_alone(net, rows)
    with torch.no_grad():
        once = net(**batch(rows))
        monkeypatch.setattr(architectures, "STEERED", frozenset())
        np.testing.assert_allclose(net(**batch(rows)), once, atol=2e-5)


def test_only_what_tells_answers_apart_is_read(writers: dict[str, Backbone]) -> None:
    asked = questions(write="path")
    script = Asking(asked, "branches")
    net = WriterNet(writers["llama"], script)
    texts = {
        "".join(map(chr, asked.answers.tokens[line[line >= 0]])) for line in asked.answers.lines[script.choices.read]
    }
    begun = "group > module?\x05\x06"
    assert f"{begun} tea > " in texts
    assert f"{begun} red wine > b " in texts
    assert not texts & {f"{begun} tea > b", f"{begun} red wine > b c"}
    with torch.no_grad():
        assert net(**batch([PROMPT])).shape == (1, TASK.width)


def test_what_is_dictated_costs_what_transformers_says(writers: dict[str, Backbone], folders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["qwen3"]).eval()
    asked = questions(write="path")
    labels = Labels(TASK, np.array([[1, 1, 2], [-1, 0, 0], [0, 1, 0]], dtype=np.int32))
    chosen = [each.chosen(labels) for each in asked.asked]
    assert [each.tolist() for each in chosen] == [[3, 0, -1], [1, -1, 0]]  # the last row's path isn't in the tree
    net = WriterNet(writers["qwen3"], Asking(asked, "branches")).eval()
    rows = [PROMPT, PROMPT[:4], PROMPT[:2]]
    with torch.no_grad():
        written = Asking(asked, "branches").dictated(labels)
        losses = net(**batch(rows), written=written)
    expected = []
    for before, answer, row in (
        ("group > module?", " red wine > b d", 0),
        ("joy?", " Yes", 0),
        ("group > module?", " tea > a", 1),
        ("joy?", " No", 2),
    ):
        ids = [*rows[row], *words(before), 5, 6]
        for token in words(answer):
            expected.append((row, -float(said(model, ids).log_softmax(0)[token])))
            ids.append(token)
    assert written.rows.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(losses, [loss for _, loss in expected], atol=1e-4)


def test_an_answer_that_goes_on_is_closed() -> None:
    task = Task((Categorical("kind", ("art", "artist")),))
    asked = Writing().about(task, words, lead="", header=(), end=1)
    assert asked.asked[0].candidates == ((*words("art"), 1), (*words("artist"), 1))
    assert not asked.answers.ambiguous


def test_answers_that_are_the_same_tokens_are_refused() -> None:
    with pytest.raises(RecipeError, match="same tokens"):
        grow([Question((3,), ((4, 5), (4, 5)))])
    with pytest.raises(RecipeError, match="has none"):
        grow([Question((3,), ((), (4,)))])


def test_classes_that_read_alike_are_named() -> None:
    task = Task((Categorical("brand", ("ACME", "Acme", "Bolt")),))
    with pytest.raises(RecipeError, match="same tokens") as refused:
        Writing().about(task, lambda text: words(text.lower()), lead=" ", header=(), end=1)
    assert "ACME = Acme" in str(refused.value)
    assert "Bolt" not in str(refused.value)
    other = Writing(answers={"brand=ACME": "acme in capitals"})
    assert other.about(task, lambda text: words(text.lower()), lead=" ", header=(), end=1).columns.questions.shape == (
        3,
    )


def test_letters_stand_for_listed_classes() -> None:
    asked = questions(choices="letters").asked[2]
    assert asked.words == "module?\nA. a\nB. b c\nC. b d"
    assert asked.candidates == (words(" A"), words(" B"), words(" C"))


@pytest.mark.parametrize(
    ("writing", "task", "said"),
    [
        ({"write": "path"}, Task((Binary("joy"),)), "has none"),
        ({"questions": {"fear": "?"}}, TASK, "model.questions"),
        ({"answers": {"group=beer": "?"}}, TASK, "model.answers"),
        ({"answers": {"joy": "happy"}}, TASK, "model.answers"),
        ({"choices": "letters"}, Task((Categorical("n", tuple(map(str, range(27)))),)), "26 classes at most"),
    ],
)
def test_words_for_what_is_not_there(writing: dict[str, Any], task: Task, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Writing(**writing).about(task, words, lead="", header=(), end=1)


NAMES = (" joy", " joyful", " fear", " awe")


ENDS = {"gemma2": 77, "gemma3": 200}
"""Ids that end a list where the usual one would end all of them at once."""


def list_by_hand(model: Any, prompt: list[int], end: int) -> list[float]:
    """Log-odds at each label's turn, by scoring every list that may go on from the greedy one by itself."""
    items = [(*words(name), 9) for name in NAMES]
    said_so_far, first, odds = [*prompt, 5, 6], 0, [0.0] * len(NAMES)
    while first < len(items):
        shares = among(model, said_so_far, [*items[first:], (end,)])
        for label in range(first, len(items)):
            rest = torch.tensor(shares[label - first + 1 :]).logsumexp(0)
            odds[label] = shares[label - first] - float(rest)
        likely = [label for label in range(first, len(items)) if odds[label] > 0]
        if not likely:
            break
        said_so_far += items[likely[0]]
        first = likely[0] + 1
    return odds


@pytest.mark.parametrize("name", DECODERS)
def test_a_list_is_scored_turn_by_turn(name: str, writers: dict[str, Backbone], folders: dict[str, Path]) -> None:
    items = Items("labels", (5, 6), tuple((*words(each), 9) for each in NAMES), ENDS.get(name, 1))
    net = WriterNet(writers[name], Listing(items)).eval()
    random = np.random.default_rng(4)
    rows = [[0, *random.integers(3, 300, length).tolist()] for length in (3, 11, 7, 1, 18, 6)]
    with torch.no_grad():
        odds = net(**batch(rows))
    model = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
    expected = np.array([list_by_hand(model, row, items.end) for row in rows])
    np.testing.assert_allclose(odds, expected, atol=2e-4)
    assert len({int((row > 0).sum()) for row in expected}) > 1, "lists must differ for this test to mean anything"
    assert_rows_stand_alone(net, rows)


def test_a_list_is_dictated_to_its_end(writers: dict[str, Backbone], folders: dict[str, Path]) -> None:
    items = Items("labels", (5, 6), tuple((*words(each), 9) for each in NAMES), 1)
    task = Task(tuple(Binary(name) for name in NAMES))
    labels = Labels(task, np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, -1, 0, 0]], dtype=np.int32))
    script, rows = Listing(items), [PROMPT, PROMPT[:4], PROMPT[:2]]
    written = script.dictated(labels)
    with torch.no_grad():
        losses = WriterNet(writers["llama"], script).eval()(**batch(rows), written=written)
    model, expected = AutoModelForCausalLM.from_pretrained(folders["llama"]).eval(), []
    for row, tokens in ((0, [*items.labels[0], *items.labels[3], 1]), (1, [1])):
        ids = [*rows[row], 5, 6]
        for token in tokens:
            expected.append(-float(said(model, ids).log_softmax(0)[token]))
            ids.append(token)
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    assert written.rows.tolist() == [0] * (len(expected) - 1) + [1]
