"""How fields are read: budgets in words, which answer is trimmed first, and what is told of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.models.tiny import word_pieces

from fivefold.errors import RecipeError
from fivefold.models.backbones.architectures import PositionLimit
from fivefold.models.networks.reading import Reading, Windows, truncation_figures, truncation_remarks
from fivefold.training.inputs import Inputs
from fivefold.training.templates import Truncation

TOKENIZER = word_pieces()
LIMIT = PositionLimit(512, True)
PLAIN: dict[str, Any] = {"fields": "joined", "max_tokens": None, "truncation": "head", "head_share": 0.5}


def read(texts: dict[str, list[str]], **settings: Any) -> Inputs:
    return Reading(**PLAIN | settings).inputs(texts, TOKENIZER, LIMIT)


def words(inputs: Inputs, row: int = 0) -> str:
    return TOKENIZER.decode(inputs.tokens.row(row), skip_special_tokens=True)


def test_the_longer_answer_is_trimmed_first_then_both() -> None:
    for room, kept in ((160, (10, 100, 50)), (130, (10, 70, 50)), (110, (10, 50, 50)), (90, (10, 40, 40))):
        lengths = {name: np.array([size]) for name, size in (("prompt", 10), ("a", 100), ("b", 50))}
        found = Truncation(room + 4).kept(lengths, 4)
        assert tuple(int(count[0]) for count in found.values()) == kept


@pytest.mark.parametrize(
    ("truncation", "left"),
    [("head", "good bad good"), ("tail", "bad bad good"), ("head_tail", "good bad good")],
)
def test_a_field_keeps_so_many_words(truncation: str, left: str) -> None:
    texts = {"a": ["good bad good good bad bad good", "bad good"], "b": ["bad"] * 2}
    inputs = read(texts, truncation=truncation, head_share=0.34, field_words={"a": 3})
    assert words(inputs) == f"{left} bad"
    assert words(inputs, 1) == "bad good bad"
    assert inputs.fields["a"].content.tolist() == [7, 2]
    assert inputs.fields["a"].kept.tolist() == [3, 2]
    assert inputs.fields["b"].truncated == 0


def test_words_are_cut_before_tokens_are_shared() -> None:
    texts = {"a": ["good " * 40], "b": ["bad " * 12]}
    inputs = read(texts, max_tokens=23, field_words={"a": 15})
    assert {name: each.kept.tolist() for name, each in inputs.fields.items()} == {"a": [10], "b": [10]}
    assert inputs.coverage.lost == pytest.approx(1 - 20 / 52)


def test_no_budget_changes_nothing() -> None:
    texts = {"a": ["so good", "bad"], "b": ["what", ""]}
    plain, bounded = read(texts), read(texts, field_words={"a": 2, "b": 7})
    assert np.array_equal(plain.tokens.ids, bounded.tokens.ids)


def test_windows_read_what_a_budget_leaves() -> None:
    texts = {"a": ["good " * 20], "b": ["bad " * 4]}
    inputs = read(texts, windows=Windows(8, 0, None), field_words={"a": 5}, field_tokens={"b": 3})
    assert {name: each.kept.tolist() for name, each in inputs.fields.items()} == {"a": [5], "b": [3]}
    assert {name: each.content.tolist() for name, each in inputs.fields.items()} == {"a": [20], "b": [4]}


def test_what_is_left_out_is_told_field_by_field() -> None:
    texts = {"prompt": ["bad"] * 4, "a": ["good " * 6, "good", "", "good"], "b": ["bad", "bad " * 4, "bad " * 4, "bad"]}
    inputs = read(texts, field_words={"a": 3, "b": 2})
    (remark,) = truncation_remarks(inputs, 4)
    assert remark == (
        "Truncated: 75.0% of the rows are longer than the model reads; 31.8% of all tokens are left out "
        "(a: 25.0% of rows, 37.5% of tokens; b: 50.0% of rows, 40.0% of tokens)."
    )
    figures = truncation_figures(inputs, 4)
    assert figures["truncated_rows"] == 0.75
    assert figures["truncated_rows of a"] == 0.25
    assert figures["truncated_tokens of b"] == pytest.approx(0.4)
    assert "truncated_rows of prompt" not in figures
    # Rows beyond are the same texts swapped.
    assert truncation_remarks(inputs, 1)[0].endswith("(a: 100.0% of rows, 50.0% of tokens).")


def test_one_field_is_told_in_one_sentence() -> None:
    inputs = read({"text": ["good " * 9, "bad"]}, max_tokens=8)
    assert truncation_remarks(inputs, 2) == (
        "Truncated: 50.0% of the rows are longer than the model reads; 30.0% of all tokens are left out.",
    )
    assert set(truncation_figures(inputs, 2)) == {"truncated_rows", "truncated_tokens"}
    assert truncation_figures(read({"text": ["bad"]}), 1) == {}


def test_budgets_of_no_column_are_refused() -> None:
    with pytest.raises(RecipeError, match="field_words names"):
        read({"a": ["x"]}, field_words={"c": 3})
