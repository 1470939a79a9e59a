"""Pairs of answers to a prompt with the better one named, and ties.

A prompt may have several turns: `prompt` then holds the user's turns joined by blank lines, and each
response the answers to them in the same order, joined by blank lines. Prompts and responses are always strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fivefold.data.demo.wording import choose, sample, vocabulary

SUBJECTS = vocabulary(
    "bread bicycles tides volcanoes chess pensions violins bees compost glaciers fonts lighthouses tea maps batteries "
    "marathons bridges comets opera mushrooms"
)
REQUESTS = (
    "Explain how {0} work to a twelve-year-old.",
    "Give me five tips about {0}.",
    "What should I know about {0} before I start?",
    "Write a short note to a friend about {0}.",
    "Compare {0} with {1}.",
    "Is it true that {0} are going out of fashion?",
)
FOLLOW_UPS = ("Make it shorter, please.", "And what about {0}?", "Can you give an example?", "Why is that?")
FACTS = (
    "For example, {0} depend on regular care and a steady temperature.",
    "The main reason is that {0} change slowly over the years.",
    "First, look at where {0} come from; second, at who needs them.",
    "A practical tip: start with simple {0} and keep notes.",
    "Experts measure {0} in three steps, each easy to repeat.",
    "In short, good {0} need time, space and a little patience.",
    "Step one: prepare. Step two: try {0}. Step three: compare.",
    "Note that {0} differ from place to place, so check locally.",
)
HEDGES = (
    "It depends on many things.",
    "There are different opinions about this.",
    "As everybody knows, it is what it is.",
    "I am not sure, but it might be fine.",
    "Hopefully that was useful in some way.",
)
OPENINGS = ("Sure!", "Great question.", "Here is what I know:", "Of course.", "Well,", "")
REFUSALS = ("I'm sorry, but I can't help with that.", "As a language model I have no opinion on this.")

LABELS = ("winner",)
LARGEST_GROUP = 5
SEVERAL_TURNS = 0.15
EMPTY = 0.02
TASTE = 0.9
"""Standard deviation of a judge's taste, in the units of quality."""

TIE = 0.33
"""Answers whose appeal differs by less are a tie; about 15 % of the pairs."""


@dataclass(frozen=True)
class Answer:
    """A response and how good it is."""

    text: str
    quality: float


def preferences(rows: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """Columns group, prompt, response_a, response_b and winner of `rows` rows; rows of a prompt are neighbours."""
    table: list[tuple[Any, ...]] = []
    # Numbered from a drawn start, so that another draw's groups are other groups.
    group = int(generator.integers(2**31)) * 1000
    while len(table) < rows:
        turns, subjects = _prompt(generator)
        answers = [_answer(generator, subjects) for _ in range(LARGEST_GROUP + 1)]
        for _ in range(int(generator.integers(1, LARGEST_GROUP + 1))):
            first, second = sample(generator, answers, 2)
            table.append((group, "\n\n".join(turns), first.text, second.text, _winner(generator, first, second)))
        group += 1
    columns = ("group", "prompt", "response_a", "response_b", "winner")
    return {name: list(values) for name, values in zip(columns, zip(*table[:rows], strict=True), strict=True)}


def _prompt(generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """The user's turns, and what each is about."""
    turns, subjects = [], []
    for turn in range(int(generator.integers(2, 4)) if generator.random() < SEVERAL_TURNS else 1):
        subject, other = sample(generator, SUBJECTS, 2)
        turns.append(choose(generator, FOLLOW_UPS if turn else REQUESTS).format(subject, other))
        subjects.append(subject)
    return turns, subjects


def _answer(generator: np.random.Generator, subjects: list[str]) -> Answer:
    if generator.random() < EMPTY:
        return Answer("", -2.5)
    parts = [_turn(generator, subject) for subject in subjects]
    return Answer("\n\n".join(part.text for part in parts), sum(part.quality for part in parts) / len(parts))


def _turn(generator: np.random.Generator, subject: str) -> Answer:
    """Facts on the subject raise the quality; hedges, lost subjects and refusals lower it."""
    if generator.random() < 0.06:
        return Answer(choose(generator, REFUSALS), -1.8)
    facts, hedges = int(generator.integers(0, 5)), int(generator.integers(0, 4))
    strays = generator.random() < 0.15
    about = choose(generator, SUBJECTS) if strays else subject
    sentences = [fact.format(about) for fact in sample(generator, FACTS, facts)] + sample(generator, HEDGES, hedges)
    listed = facts > 1 and generator.random() < 0.3
    body = "\n".join(f"- {sentence}" for sentence in sentences) if listed else " ".join(sentences)
    quality = 0.55 * facts - 0.3 * hedges + 0.4 * listed - 1.2 * strays
    return Answer(f"{choose(generator, OPENINGS)} {body}".strip(), quality)


def _winner(generator: np.random.Generator, first: Answer, second: Answer) -> str:
    gap = first.quality - second.quality + float(generator.normal(0, TASTE))
    if first.text == second.text or abs(gap) < TIE:
        return "tie"
    return "a" if gap > 0 else "b"
