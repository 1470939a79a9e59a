"""Two reports of an everyday accident, with 21 yes/no findings, its place and what happened."""

from __future__ import annotations

from typing import Any

import numpy as np

from fivefold.data.demo.narrative_phrases import (
    CAUSES,
    DENIALS_LE,
    DENIALS_ME,
    FILLERS_LE,
    FILLERS_ME,
    FINDINGS,
    NOTES_LE,
    NOTES_ME,
    PLACES,
)
from fivefold.data.demo.wording import choose, mistype, sample

LABELS = (*FINDINGS, "place", "cause")

TOLD = 0.9
"""A finding is mentioned in at least one report so often; the rest is known only to the coder."""

DENIED = 0.08
"""A finding that isn't there is mentioned as absent so often, in the same words."""

NOISE = 0.03
TYPING_ERROR = 0.01
SHORTEST, LONGEST = 65, 200
"""Words wanted of a report; boilerplate is added until there are so many."""


def narratives(rows: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """Columns text_le, text_me, 21 findings (0/1), place and cause of `rows` rows."""
    names = list(FINDINGS)
    rates = np.array([FINDINGS[name][0] for name in names])
    # A severity shared by the row's findings correlates them.
    severity = generator.normal(0, 0.7, size=(rows, 1))
    found = generator.random((rows, len(names))) < 1 / (1 + np.exp(-(np.log(rates / (1 - rates)) + severity)))
    places = [choose(generator, list(PLACES)) for _ in range(rows)]
    causes = [_cause(generator) for _ in range(rows)]
    texts = [_reports(generator, row, names, *where) for row, *where in zip(found, places, causes, strict=True)]
    codes = (found ^ (generator.random(found.shape) < 2 * NOISE * found.mean(axis=0))).astype(np.int8)
    table: dict[str, list[Any]] = {"text_le": [le for le, _ in texts], "text_me": [me for _, me in texts]}
    table |= {name: codes[:, i].tolist() for i, name in enumerate(names)}
    noisy = generator.random((rows, 2)) < NOISE
    table["place"] = [choose(generator, list(PLACES)) if off else p for p, off in zip(places, noisy[:, 0], strict=True)]
    table["cause"] = [_cause(generator) if off else c for c, off in zip(causes, noisy[:, 1], strict=True)]
    return table


def _cause(generator: np.random.Generator) -> str:
    """Falls are common and the last causes rare."""
    names = list(CAUSES)
    return names[int(len(names) * generator.random() ** 1.6)]


def _reports(
    generator: np.random.Generator, found: np.ndarray[Any, Any], names: list[str], place: str, cause: str
) -> tuple[str, str]:
    """The officer's and the examiner's report."""
    le = [f"V was {choose(generator, PLACES[place])}.", f"V {choose(generator, CAUSES[cause])}."]
    me = [f"Decedent reportedly {choose(generator, CAUSES[cause])}."] if generator.random() < 0.5 else []
    for name, on in zip(names, found.tolist(), strict=True):
        if generator.random() < (TOLD if on else DENIED):
            _mention(generator, FINDINGS[name][1], on, le, me)
    le = _padded(generator, le, FILLERS_LE)
    me = _padded(generator, me, FILLERS_ME)
    return _written(generator, le), _written(generator, me)


def _mention(generator: np.random.Generator, phrases: tuple[str, ...], on: bool, le: list[str], me: list[str]) -> None:
    """Add what the officer, the examiner or both say about one finding."""
    speaker = generator.random()
    if speaker < 0.7:
        le.append(choose(generator, NOTES_LE if on else DENIALS_LE).format(choose(generator, phrases)))
    if speaker > 0.5:
        me.append(choose(generator, NOTES_ME if on else DENIALS_ME).format(choose(generator, phrases)))


def _padded(generator: np.random.Generator, sentences: list[str], fillers: tuple[str, ...]) -> list[str]:
    """The sentences among enough boilerplate for a report, in random order after the first."""
    words = sum(len(sentence.split()) for sentence in sentences)
    wanted = int(generator.integers(SHORTEST, LONGEST))
    extra = []
    for filler in sample(generator, fillers, len(fillers)):
        if words >= wanted:
            break
        extra.append(filler)
        words += len(filler.split())
    return sentences[:1] + sample(generator, sentences[1:] + extra, len(sentences) - 1 + len(extra))


def _written(generator: np.random.Generator, sentences: list[str]) -> str:
    words = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences).split()
    hit = generator.random(len(words)) < TYPING_ERROR
    # Reports are typed in haste: the space after a full stop is sometimes missing.
    text = " ".join(mistype(generator, word) if off else word for word, off in zip(words, hit, strict=True))
    return text.replace(". ", ".", 1) if generator.random() < 0.2 else text
