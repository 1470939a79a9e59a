"""Examples that stand before a record: training rows that are drawn once a fold, class by class in turn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fivefold.data.compose import Corpus, Rows
from fivefold.data.duplicates import folded
from fivefold.models.generator.answers import Positions
from fivefold.scores import id_array
from fivefold.task import Labels, Task

EXAMPLES = "examples.json"


@dataclass(frozen=True)
class Shots:
    """Which examples are shown; the parameters are keys of the recipe's section `model.shots`."""

    count: int
    take: Literal["balanced", "nearest"]
    tokens: int | None
    seed: int | None = None
    query: Sequence[str] = field(default_factory=tuple)
    backbone: str | None = None


@dataclass(frozen=True)
class Drawn:
    """Training rows that were drawn as examples.

    Parameters
    ----------
    pool
        Their texts and labels.
    places
        Of each part of the task, positions in the pool in the order in which they are shown.
    """

    pool: Corpus
    places: tuple[Positions, ...]

    def save(self, folder: Path) -> None:
        """Write texts and labels as JSON."""
        assert self.pool.labels is not None
        plain = {
            "ids": self.pool.ids.tolist(),
            "fields": {name: list(texts) for name, texts in self.pool.fields.items()},
            "codes": self.pool.labels.codes.tolist(),
            "places": [each.tolist() for each in self.places],
        }
        (folder / EXAMPLES).write_text(json.dumps(plain, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path, task: Task) -> Drawn:
        """What `save` wrote."""
        plain = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
        codes = np.array(plain["codes"], dtype=np.int32).reshape(-1, len(task.targets))
        pool = Corpus(id_array(plain["ids"]), plain["fields"], Labels(task, codes))
        return Drawn(pool, tuple(np.array(each, dtype=np.int64) for each in plain["places"]))


def draw(rows: Rows, kinds: Sequence[Sequence[Positions]], count: int, seed: int) -> Drawn:
    """Draw examples out of training rows, so many for each part of the task.

    Parameters
    ----------
    kinds
        Of each part, positions in `rows` by what they answer.
    """
    texts = [folded("\n".join(parts)) for parts in zip(*map(rows.texts, rows.corpus.fields), strict=True)]
    drawn = [_in_turn(texts, each, count, np.random.default_rng([seed, number])) for number, each in enumerate(kinds)]
    used, places = np.unique(np.concatenate(drawn), return_inverse=True)
    shown = rows.take(used)
    fields = {name: shown.texts(name) for name in rows.corpus.fields}
    ends = np.cumsum([len(each) for each in drawn])
    pool = Corpus(shown.ids, fields, Labels(shown.labels.task, shown.labels.codes))
    return Drawn(pool, tuple(np.split(places.reshape(-1).astype(np.int64), ends[:-1])))


def _in_turn(texts: Sequence[str], kinds: Sequence[Positions], count: int, random: np.random.Generator) -> Positions:
    """Rows of one kind after the other, the kinds in a new order each round; no text twice, and none that is empty.

    However few of the last ones are kept, they are of as many kinds as can be.
    """
    left = [random.permutation(rows).tolist() for rows in kinds]
    chosen: list[int] = []
    seen = {""}
    while len(chosen) < count and any(left):
        for kind in random.permutation(len(left)).tolist():
            row = next((row for row in _popped(left[kind]) if texts[row] not in seen), None)
            if row is not None and len(chosen) < count:
                chosen.append(row)
                seen.add(texts[row])
    return np.array(chosen, dtype=np.int64)


def _popped(rows: list[int]) -> Iterator[int]:
    while rows:
        yield rows.pop()
