"""Noisy short messages with the eleven emotions of SemEval-2018 Task 1 E-c."""

from __future__ import annotations

from typing import Any

import numpy as np

from fivefold.data.demo.wording import choose, mistype, vocabulary

CUES = {
    "anger": "furious angry rage mad fuming annoyed outraged yelling snapped hostile unfair #angry 😠 😡",
    "anticipation": "tomorrow waiting soon countdown almost ready expecting watch until weekend #soon ⏳ 👀 finally",
    "disgust": "gross awful disgusting nasty sick vile rotten filthy unfair ugh revolting #gross 🤢 🤮",
    "fear": "scared afraid terrified nervous anxious panic worried shaking dread nightmare #scared 😱 😰 dark",
    "joy": "happy glad laughing smile yay fun wonderful delighted cheerful great party #happy 😂 😀 best",
    "love": "love adore darling hug sweet heart cherish dearest kiss beautiful #love ❤️ 😍 together",
    "optimism": "hope better improve believe bright keep trying positive future tomorrow #hope 🌞 💪 finally",
    "pessimism": "pointless never doomed hopeless useless worse fail again nothing wasted #whatever 😒 dark alone",
    "sadness": "sad crying tears lonely miss lost heartbroken sorry grief blue alone #sad 😢 😭 goodbye",
    "surprise": "wow unexpected suddenly shocked unbelievable never omg plot twist #wow 😮 really",
    "trust": "trust honest reliable faith promise loyal safe count together believe #trust 🤝 always",
}
LABELS = tuple(CUES)
WORDS = {label: cues.split() for label, cues in CUES.items()}
ANY = sorted({word for words in WORDS.values() for word in words})

# How often a mood occurs and how likely each of its emotions is, near the rates and pairs of the shared task.
MOODS = (
    (0.28, {"anger": 0.94, "disgust": 0.92, "sadness": 0.2, "fear": 0.06}),
    (0.13, {"disgust": 0.85, "sadness": 0.55, "anger": 0.65, "pessimism": 0.25}),
    (0.24, {"joy": 0.96, "optimism": 0.55, "love": 0.22, "surprise": 0.05, "trust": 0.06}),
    (0.1, {"joy": 0.7, "love": 0.6, "optimism": 0.5, "trust": 0.15}),
    (0.12, {"sadness": 0.95, "pessimism": 0.55, "disgust": 0.2, "fear": 0.15}),
    (0.1, {"fear": 0.95, "anticipation": 0.35, "pessimism": 0.15, "anger": 0.15}),
    (0.08, {"optimism": 0.9, "anticipation": 0.8, "trust": 0.35, "joy": 0.35}),
    (0.04, {"surprise": 0.95, "joy": 0.4, "anticipation": 0.3, "disgust": 0.15}),
)
FILLERS = (
    "{0} about the {1} today",
    "can't stop thinking of the {1} {0}",
    "my {1} makes me feel so {0}",
    "@user the {1} was {0} lol",
    "so {0} right now #{1}",
    "when the {1} goes {0} and nobody says a thing",
    "{0} {0} {1}",
    "not {0} at all about this {1}",
    "just got home from the {1} {0}",
    "@user @user {0} is all I can say about the {1}",
    "imagine a {1} without {0} moments",
    "{1} again {0}",
)
SUBJECTS = vocabulary("game boss exam train phone movie weather team class meeting flight song dog neighbour job news")

CUED = 0.82
STRAY = 0.38
NOISE = 0.02


def tweets(rows: int, generator: np.random.Generator) -> dict[str, list[Any]]:
    """Columns text and a 0/1 column an emotion, of `rows` rows."""
    odds = np.array([share for share, _ in MOODS])
    moods = generator.choice(len(MOODS), size=rows, p=odds / odds.sum())
    rates = np.array([[MOODS[mood][1].get(label, 0.01) for label in LABELS] for mood in moods])
    felt = generator.random(rates.shape) < rates
    texts = [_text(generator, [label for label, on in zip(LABELS, row, strict=True) if on]) for row in felt]
    # Symmetric flips would drown the rare emotions, so a flip depends on the rate.
    flipped = generator.random(felt.shape) < np.where(felt, 2 * NOISE, NOISE * felt.mean(axis=0))
    codes = (felt ^ flipped).astype(np.int8)
    return {"text": texts} | {label: codes[:, i].tolist() for i, label in enumerate(LABELS)}


def _text(generator: np.random.Generator, felt: list[str]) -> str:
    cues = [choose(generator, WORDS[label]) for label in felt if generator.random() < CUED]
    cues += [choose(generator, ANY) for _ in range(2) if generator.random() < STRAY]
    cues = [cues[i] for i in generator.permutation(len(cues))] or ["okay"]
    parts = [choose(generator, FILLERS).format(cue, choose(generator, SUBJECTS)) for cue in cues[:2]]
    words = " ".join(parts + cues[2:]).split()
    words = [mistype(generator, word) if generator.random() < 0.04 else word for word in words]
    shouted = generator.random() < 0.06
    return (" ".join(words).upper() if shouted else " ".join(words)) + choose(generator, ("", "", "!", "!!", " ..."))
