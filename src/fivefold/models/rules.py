"""Rules for pairs whose texts tell nothing: the rates of their classes, in place of what a model would guess.

Where two answers are the same, or one of them is empty, a model can only read the prompt. What people said of such
pairs in the training rows is all there is to know, so it is counted: the posterior mean under a Dirichlet prior.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fivefold.data.columns import counted
from fivefold.data.compose import Rows
from fivefold.errors import ArtefactError
from fivefold.models.base import Classifier, Cost, History
from fivefold.models.pairs import (
    ALIKE,
    FIRST,
    FIRST_EMPTY,
    SECOND,
    SECOND_EMPTY,
    TIE,
    class_order,
    kinds_of,
    swap_of,
    winners,
)
from fivefold.scores import Scores
from fivefold.task import Task

FILE = "pair_rules.json"

KINDS = {"alike": ALIKE, "first_empty": FIRST_EMPTY}
"""Kinds that have rates, by their name in the file; those of an empty second side are the latter's, swapped."""

PRIOR = {
    ALIKE: {FIRST: 0.25, SECOND: 0.25, TIE: 0.5},
    FIRST_EMPTY: {FIRST: 0.25, SECOND: 0.5, TIE: 0.25},
}
"""One row before any is seen, by who wins; several classes of one winner share, and without ties the rest is scaled."""

Rates: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairRules:
    """Probabilities of the swapped target's classes, (classes,), for the kinds of pairs that training rows had."""

    task: Task
    rates: Mapping[int, Rates]

    @staticmethod
    def learn(task: Task, train: Rows) -> PairRules:
        """From the labels and weights of the training rows; a kind that no labelled row has gets no rule."""
        kinds, order = kinds_of(train, swap_of(task)), class_order(task)
        mass = train.labels.probabilities(swap_of(task).target).astype(np.float64) * train.weights[:, None]
        of = {kind: np.nansum(mass[kinds == kind], axis=0) for kind in (ALIKE, FIRST_EMPTY, SECOND_EMPTY)}
        counts = {ALIKE: (of[ALIKE] + of[ALIKE][order]) / 2, FIRST_EMPTY: of[FIRST_EMPTY] + of[SECOND_EMPTY][order]}
        return PairRules(task, {kind: _posterior(task, kind, seen) for kind, seen in counts.items() if seen.any()})

    @staticmethod
    def load(task: Task, path: Path) -> PairRules:
        """What `save` wrote; no rules where there is no such file.

        Raises
        ------
        ArtefactError
            If it can't be read, or is another task's.
        """
        if not path.exists():
            return PairRules(task, {})
        classes = task.target(swap_of(task).target).classes
        try:
            plain = json.loads(path.read_text("utf-8"))
            rates = {KINDS[name]: np.array([found[label] for label in classes]) for name, found in plain.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"The rules {path} can't be read.", got=repr(error)[:200]) from error
        return PairRules(task, rates)

    @staticmethod
    def mean(several: Sequence[PairRules]) -> PairRules:
        """The mean rates of several folds' rules, of each kind over those that have it."""
        kinds = sorted({kind for each in several for kind in each.rates})
        found = {kind: [each.rates[kind] for each in several if kind in each.rates] for kind in kinds}
        return PairRules(several[0].task, {kind: np.mean(rates, axis=0) for kind, rates in found.items()})

    def save(self, path: Path) -> None:
        """Write the rates by kind and class; nothing where there are none."""
        classes = self.task.target(swap_of(self.task).target).classes
        names = {kind: name for name, kind in KINDS.items()}
        plain = {names[kind]: dict(zip(classes, rates.tolist(), strict=True)) for kind, rates in self.rates.items()}
        if plain:
            path.write_text(json.dumps(plain, indent=1, ensure_ascii=False), encoding="utf-8")

    def decided(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows have a rule, (rows,)."""
        kinds = kinds_of(rows, swap_of(self.task))
        return np.isin(np.where(kinds == SECOND_EMPTY, FIRST_EMPTY, kinds), list(self.rates))

    def applied(self, rows: Rows, scores: Scores) -> Scores:
        """The scores of rows, with the rates where there is a rule; other targets than the swapped one stay."""
        if not self.decided(rows).any():
            return scores
        kinds, logits = kinds_of(rows, swap_of(self.task)), scores.logits.copy()
        block = self.task.slices[swap_of(self.task).target]
        for kind, rates in self._by_kind().items():
            logits[kinds == kind, block] = np.log(rates).astype(np.float32)
        return Scores(scores.task, scores.ids, logits)

    def _by_kind(self) -> dict[int, Rates]:
        if FIRST_EMPTY not in self.rates:
            return dict(self.rates)
        return {**self.rates, SECOND_EMPTY: self.rates[FIRST_EMPTY][class_order(self.task)]}


class RuledClassifier:
    """A classifier of pairs that learns from, and speaks of, those that a rule doesn't decide."""

    def __init__(self, inner: Classifier, task: Task) -> None:
        self.inner, self.task = inner, task
        self.rules = PairRules(task, {})

    def cost(self, train: Rows) -> Cost:
        """That of the rows without a rule."""
        return self.inner.cost(self._divided(train)[1])

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        """Learn the rates of rows that tell nothing, and the model from all others."""
        self.rules, rest = self._divided(train)
        followed = None if valid is None else valid.take(~self.rules.decided(valid))
        history = self.inner.fit(rest, followed, scratch)
        ruled = len(train) - len(rest)
        if not ruled:
            return history
        everywhere = self.rules.decided(train.corpus.rows())
        remark = (
            f"Rules: {counted(int(everywhere.sum()), 'row')} ({everywhere.mean():.1%}) with identical answers, or an "
            "empty one, have the rates of such training rows; the model learns from the others."
        )
        return History({**history.figures, "ruled_rows": float(ruled)}, (*history.remarks, remark))

    def score(self, rows: Rows) -> Scores:
        """What the model says, and the rates where a rule decides."""
        return self.rules.applied(rows, self.inner.score(rows))

    def explain(self, rows: Rows, most: int) -> Mapping[str, list[tuple[str, float]]]:
        """What the model's strongest features are."""
        return self.inner.explain(rows, most)

    def save(self, folder: Path) -> None:
        """Write the model's files, and the rates beside them."""
        self.inner.save(folder)
        self.rules.save(folder / FILE)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; one that was saved without rules has none."""
        self.inner.load(folder)
        self.rules = PairRules.load(self.task, folder / FILE)

    def _divided(self, train: Rows) -> tuple[PairRules, Rows]:
        """The rules, and the rows that they don't decide; no rules where they would decide all."""
        rules = PairRules.learn(self.task, train)
        if len(self.task.targets) > 1:  # the others still learn from these rows
            return rules, train
        rest = train.take(~rules.decided(train))
        return (rules, rest) if len(rest) else (PairRules(self.task, {}), train)


def ruled(make: Callable[[], Classifier], task: Task) -> RuledClassifier:
    """What `make` makes, under rules."""
    return RuledClassifier(make(), task)


def _posterior(task: Task, kind: int, counts: Rates) -> Rates:
    """Rates after `counts`, (classes,), on top of the prior's one row."""
    wins = winners(task)
    shares = np.array([PRIOR[kind][winner] / np.count_nonzero(wins == winner) for winner in wins.tolist()])
    mass = counts + shares / shares.sum()
    posterior: Rates = mass / mass.sum()
    return posterior
