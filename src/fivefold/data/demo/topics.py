"""Short plain texts in one of eight topics that share ambiguous words."""

from __future__ import annotations

from typing import Any

import numpy as np

from fivefold.data.demo.wording import choose

VOCABULARY = {
    "sport": "goal referee striker tournament coach sprint racket stadium league marathon medal pitch score match",
    "cooking": "oven recipe garlic simmer whisk butter roast pan spice dough season batter plate stock chop",
    "finance": "loan mortgage dividend savings budget interest invoice bank stock bond share branch deposit yield",
    "gardening": "soil compost prune seedling lawn trowel root bulb branch plant bed season bloom shed hedge",
    "music": "guitar melody concert rhythm album chord drummer pitch score record note scale band key choir",
    "technology": "laptop software update battery browser password server bug cloud key screen record code router",
    "travel": "airport hotel passport luggage itinerary hostel ferry beach book board guide platform coach train",
    "health": "doctor exercise sleep vitamin allergy clinic posture stretch scale plate train dose pulse rest",
}
LABELS = tuple(VOCABULARY)
WORDS = {label: words.split() for label, words in VOCABULARY.items()}
ANY = sorted({word for words in WORDS.values() for word in words})
TEMPLATES = (
    "does anyone know a good {0} for a beginner , mine and the {1} don't go together",
    "the {0} was better than expected but the {1} took most of the weekend",
    "looking for advice about {0} and {1} before next month",
    "I finally sorted out the {0} , now the {1} needs some attention",
    "my neighbour says that {0} matters more than {1} , is that true ?",
    "three things to know about {0} : patience , {1} and a bit of luck",
    "why is the {0} so expensive this year ? even a {1} costs a lot",
    "after years with the same {0} we tried a new {1} and never looked back",
    "a short guide to {0} , from the first {1} to the last",
    "what I wish somebody had told me about {0} , {1} and {2}",
    "the {0} and the {1} arrived late , so we had to make do with a {2}",
    "how much {0} is too much when the {1} is new and the {2} is old ?",
)

OWN_WORD = 0.72
NOISE = 0.05


def topics(rows: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """Columns text and label of `rows` rows."""
    labels = [choose(generator, LABELS) for _ in range(rows)]
    texts = [_text(generator, label) for label in labels]
    seen = [choose(generator, LABELS) if generator.random() < NOISE else label for label in labels]
    return {"text": texts, "label": seen}


def _text(generator: np.random.Generator, label: str) -> str:
    sentences = int(generator.integers(1, 4))
    words = [choose(generator, WORDS[label] if generator.random() < OWN_WORD else ANY) for _ in range(3 * sentences)]
    parts = [choose(generator, TEMPLATES).format(*words[3 * i : 3 * i + 3]) for i in range(sentences)]
    return " . ".join(parts)
