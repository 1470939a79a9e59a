"""Draws that every look-alike shares: a choice, a sample, a typing error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")


def choose(generator: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of the options, all alike likely."""
    return options[int(generator.random() * len(options))]


def sample(generator: np.random.Generator, options: Sequence[Option], size: int) -> list[Option]:
    """`size` different options, in random order."""
    return [options[i] for i in generator.permutation(len(options))[:size]]


def mistype(generator: np.random.Generator, word: str) -> str:
    """The word with a letter dropped, doubled or swapped with the next one."""
    if len(word) < 4:
        return word
    at = int(generator.integers(1, len(word) - 1))
    edits = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )
    return choose(generator, edits)


def vocabulary(words: str) -> list[str]:
    """Words written with spaces between them."""
    return words.split()
