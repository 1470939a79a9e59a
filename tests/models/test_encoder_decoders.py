"""Scores of encoder-decoders against what transformers says of every answer by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.test_answers import TASK, batch, words
from tests.models.test_invariance import assert_rows_stand_alone
from tests.models.tiny_encoder_decoders import ENCODER_DECODERS
from transformers import AutoModelForSeq2SeqLM

from fivefold.models.backbones.architectures import layer_count, parameters_by_depth
from fivefold.models.backbones.backbone import Backbone, Origin, load_tokenizer, load_writer
from fivefold.models.generator.asking import Asking
from fivefold.models.generator.listing import Items, Listing
from fivefold.models.generator.net import WriterNet
from fivefold.models.generator.writing import Questionnaire, Writing
from fivefold.task import Categorical, Labels, Task

TEXT = [17, 250, 31, 99, 120, 64, 1]
NAMES = (" joy", " joyful", " fear", " awe")


def questions(**writing: Any) -> Questionnaire:
    return Writing(**writing).about(TASK, words, lead=" ", header=(5,), end=1)


@pytest.fixture(scope="module")
def writers(encoder_decoders: dict[str, Path]) -> dict[str, Backbone]:
    found = {}
    for name, folder in encoder_decoders.items():
        found[name] = load_writer(Origin(str(folder)), load_tokenizer(str(folder)), seed=0)
        assert not found[name].missing
    return found


@pytest.fixture(scope="module")
def references(encoder_decoders: dict[str, Path]) -> dict[str, Any]:
    """The same models, as transformers alone loads them."""
    return {name: AutoModelForSeq2SeqLM.from_pretrained(folder).eval() for name, folder in encoder_decoders.items()}


class Spoken:
    """What transformers says behind a text, without anything that is shared between answers."""

    def __init__(self, model: Any, start: int) -> None:
        self.model, self.start = model, start

    def logits(self, text: list[int], before: list[int]) -> torch.Tensor:
        """Of the token behind `before`."""
        with torch.no_grad():
            said = self.model(input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor([[self.start, *before]]))
        found: torch.Tensor = said.logits[0, -1].float()
        return found

    def among(self, text: list[int], before: list[int], candidates: list[tuple[int, ...]]) -> list[float]:
        """Log-probability of each candidate: at every token, against what any candidate has there."""
        totals = []
        for candidate in candidates:
            total = 0.0
            for place, token in enumerate(candidate):
                rivals = {each[place] for each in candidates if each[:place] == candidate[:place] and each[place:]}
                if len(rivals) > 1:
                    logits = self.logits(text, [*before, *candidate[:place]])
                    total += float(logits[token] - logits[sorted(rivals)].logsumexp(0))
            totals.append(total)
        return totals


def spoken(name: str, references: dict[str, Any]) -> Spoken:
    starts = {"bart": 2, "joined": references["joined"].config.decoder_start_token_id}
    return Spoken(references[name], starts.get(name, 0))


@settings(max_examples=12, deadline=None)
@given(
    sequences=st.lists(
        st.lists(st.integers(3, 9), min_size=1, max_size=5).map(lambda ids: (*ids, 1)),
        min_size=2,
        max_size=9,
        unique=True,
    ),
    name=st.sampled_from(list(ENCODER_DECODERS)),
    text=st.lists(st.integers(3, 380), min_size=0, max_size=12).map(lambda ids: [*ids, 1]),
)
def test_a_tree_scores_as_every_path_by_itself(
    sequences: list[tuple[int, ...]],
    name: str,
    text: list[int],
    writers: dict[str, Backbone],
    references: dict[str, Any],
) -> None:
    target = Categorical("path", tuple(map(str, sequences)))
    encode = dict(zip(target.classes, sequences, strict=True))
    asked = Writing().about(Task((target,)), lambda text: encode.get(text, ()), lead="", header=(5,), end=1)
    net = WriterNet(writers[name], Asking(asked, "branches")).eval()
    with torch.no_grad():
        scores = net(**batch([TEXT, text]))
    for row, each in enumerate((TEXT, text)):
        np.testing.assert_allclose(scores[row], spoken(name, references).among(each, [5], sequences), atol=1e-4)
    np.testing.assert_allclose(scores.exp().sum(dim=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@pytest.mark.parametrize("normalise", ["branches", "length"])
def test_questions_are_answered_behind_one_text(
    name: str, normalise: Any, writers: dict[str, Backbone], references: dict[str, Any]
) -> None:
    by, net = spoken(name, references), WriterNet(writers[name], Asking(questions(), normalise)).eval()
    reads = []
    with (
        torch.no_grad(),
        writers[name].whole.base_model.encoder.register_forward_pre_hook(lambda module, args: reads.append(module)),
    ):
        scores = net(**batch([TEXT]))[0]
    assert len(reads) == 1
    for target in TASK.categoricals:
        before, candidates = [*words(f"{target.name}?"), 5], [words(f" {each}") for each in target.classes]
        if normalise == "branches":
            expected = torch.tensor(by.among(TEXT, before, candidates))
        else:
            steps = [
                [by.logits(TEXT, [*before, *each[:place]]).log_softmax(0)[each[place]] for place in range(len(each))]
                for each in candidates
            ]
            expected = torch.stack([torch.stack(each).mean() for each in steps]).log_softmax(0)
        np.testing.assert_allclose(scores[TASK.slices[target.name]], expected, atol=1e-4)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@pytest.mark.parametrize("write", ["questions", "path"])
def test_neighbours_order_and_padding_leave_scores_alone(name: str, write: Any, writers: dict[str, Backbone]) -> None:
    random = np.random.default_rng(2)
    rows = [[*random.integers(3, 380, length).tolist(), 1] for length in (3, 60, 9, 29, 1)]
    assert_rows_stand_alone(WriterNet(writers[name], Asking(questions(write=write), "branches")).eval(), rows)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_what_is_dictated_costs_what_transformers_says(
    name: str, writers: dict[str, Backbone], references: dict[str, Any]
) -> None:
    labels = Labels(TASK, np.array([[1, 1, 2], [-1, 0, 0], [0, 1, 0]], dtype=np.int32))
    script, rows = Asking(questions(write="path"), "branches"), [TEXT, TEXT[2:], TEXT[4:]]
    written, expected = script.dictated(labels), []
    net = WriterNet(writers[name], script).train()  # no dropout is left on
    losses = net(**batch(rows), written=written)
    by = spoken(name, references)
    for before, answer, row in (
        ("group > module?", " red wine > b d", 0),
        ("joy?", " Yes", 0),
        ("group > module?", " tea > a", 1),
        ("joy?", " No", 2),
    ):
        ids = [*words(before), 5]
        for token in words(answer):
            expected.append((row, -float(by.logits(rows[row], ids).log_softmax(0)[token])))
            ids.append(token)
    assert written.rows.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(losses.detach(), [loss for _, loss in expected], atol=1e-4)
    losses.sum().backward()
    for each in net.parameters():
        assert each.grad is None or torch.isfinite(each.grad).all()
    net.zero_grad()


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_list_is_scored_turn_by_turn(name: str, writers: dict[str, Backbone], references: dict[str, Any]) -> None:
    items, by = Items("labels?", (5, 6), tuple((*words(each), 9) for each in NAMES), 1), spoken(name, references)
    random = np.random.default_rng(4)
    rows = [[*random.integers(3, 300, length).tolist(), 1] for length in (3, 11, 7)]
    net = WriterNet(writers[name], Listing(items)).eval()
    with torch.no_grad():
        odds = net(**batch(rows))
    for row, text in enumerate(rows):
        written, first = [5, 6], 0
        while first < len(NAMES):
            shares = torch.tensor(by.among(text, written, [*items.labels[first:], (1,)]))
            expected = [float(shares[at] - shares[at + 1 :].logsumexp(0)) for at in range(len(NAMES) - first)]
            likely = [at for at, each in enumerate(expected) if each > 0]
            last = likely[0] + 1 if likely else len(expected)
            np.testing.assert_allclose(odds[row, first : first + last], expected[:last], atol=2e-4)
            written += items.labels[first + last - 1]
            first += last


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_layers_are_counted_through_both_stacks(name: str, writers: dict[str, Backbone]) -> None:
    trunk = writers[name].whole.base_model
    groups = parameters_by_depth(trunk)
    assert layer_count(trunk) == len(groups) - 1 == (4 if name in ("t5", "flan", "mt5", "bart") else 3)
    for depth, group in enumerate(groups):
        place = depth - 1 if depth <= 2 else depth - 3
        part = "encoder." if depth <= 2 else "decoder."
        numbered = [key for key in group if any(f"{kind}.{place}." in key for kind in ("block", "layers", "layer"))]
        assert depth == 0 or (numbered and all(key.startswith(part) for key in numbered))
    net = WriterNet(writers[name], Asking(questions(), "branches"), unfrozen_layers=1)
    trained = {key for key, each in net.named_parameters() if each.requires_grad}
    assert trained
    assert not any(key.startswith(("backbone.encoder.", "backbone.model.encoder.")) for key in trained)
    net.requires_grad_(True)
