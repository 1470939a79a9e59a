from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fivefold.training.words import shortened

TEXT = "  one two\n\nthree  four five "


def test_a_text_keeps_words_from_either_end() -> None:
    assert shortened(TEXT, 2, 0) == "  one two"
    assert shortened(TEXT, 0, 2) == "four five "
    assert shortened(TEXT, 1, 1) == "  one five "
    assert shortened(TEXT, 2, 2) == "  one two  four five "
    assert shortened(TEXT, 0, 0) == ""
    assert shortened(TEXT, 5, 0) == TEXT
    assert shortened(" ", 0, 0) == " "


@given(st.text(st.sampled_from("ab \n\t"), max_size=40), st.integers(0, 6), st.integers(0, 6))
def test_words_are_kept_whole_and_in_order(text: str, first: int, last: int) -> None:
    words, kept = text.split(), shortened(text, first, last).split()
    most = first + last
    assert kept == (words if len(words) <= most else words[:first] + words[len(words) - last :])
