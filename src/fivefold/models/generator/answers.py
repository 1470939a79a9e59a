"""What a model may write after a prompt, as one tree of tokens: questions, their candidates, paths of labels.

A candidate's score is read off the tree, so every class has one whatever the model would rather say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fivefold.errors import RecipeError

Positions = npt.NDArray[np.int64]

ROOT = -1
"""The parent of what stands right behind the prompt."""

GIVEN = -1
"""The owner of a question's words."""


@dataclass(frozen=True)
class Question:
    """Words that are given, and what may follow them.

    Parameters
    ----------
    given
        Ids right behind the prompt; none where the answer itself stands there.
    candidates
        Ids of each candidate.
    """

    given: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Answers:
    """A tree of tokens behind a prompt; a parent stands before its children.

    Parameters
    ----------
    tokens, parents
        int64 (nodes,): the id of each node, and the node before it, `ROOT` behind the prompt.
    owners
        int64 (nodes,): the question that a node answers, `GIVEN` for words of a question, which aren't guessed.
    ends
        Of each question, the last node of each candidate.
    """

    tokens: Positions
    parents: Positions
    owners: Positions
    ends: tuple[Positions, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> Positions:
        """How many nodes stand before each, (nodes,)."""
        depths = np.zeros(len(self), dtype=np.int64)
        for node, parent in enumerate(self.parents.tolist()):
            depths[node] = 0 if parent == ROOT else depths[parent] + 1
        return depths

    @cached_property
    def lines(self) -> Positions:
        """Each node and all before it, then `ROOT`s: (nodes, deepest + 1)."""
        lines = np.full((len(self), int(self.depths.max(initial=-1)) + 1), ROOT, dtype=np.int64)
        for node, (parent, depth) in enumerate(zip(self.parents.tolist(), self.depths.tolist(), strict=True)):
            if parent != ROOT:
                lines[node, :depth] = lines[parent, :depth]
            lines[node, depth] = node
        return lines

    @cached_property
    def guessed(self) -> Positions:
        """Nodes that a model has to guess, those with one parent and question side by side: (guesses,)."""
        nodes = np.flatnonzero(self.owners != GIVEN)
        return nodes[np.lexsort((self.parents[nodes], self.owners[nodes]))]

    @cached_property
    def forks(self) -> Positions:
        """Guessed nodes that have rivals, in the order of `guessed`: elsewhere there is no choice."""
        groups = self.rivals(self.guessed)
        return self.guessed[np.bincount(groups)[groups] > 1]

    def rivals(self, guessed: Positions) -> Positions:
        """The number of the choice that each of some guessed nodes belongs to, counted from 0 as they come."""
        keys = np.stack([self.owners[guessed], self.parents[guessed]], axis=1)
        new = np.ones(len(keys), dtype=np.int64)
        new[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        numbers: Positions = np.cumsum(new) - 1
        return numbers

    def before(self, nodes: Positions) -> Positions:
        """The nodes that stand before any of these, sorted: what has to be read to guess them."""
        parents = self.parents[nodes]
        found: Positions = np.setdiff1d(self.lines[parents[parents != ROOT]], [ROOT])
        return found

    def written(self, question: int, candidate: int) -> Positions:
        """The guessed nodes of a candidate, first to last."""
        line = self.lines[self.ends[question][candidate]]
        line = line[line != ROOT]
        guessed: Positions = line[self.owners[line] != GIVEN]
        return guessed

    @cached_property
    def ambiguous(self) -> tuple[int, ...]:
        """Questions of which one candidate begins as another one ends."""
        inner = np.zeros(len(self), dtype=bool)
        inner[self.parents[(self.parents != ROOT) & (self.owners != GIVEN)]] = True
        return tuple(number for number, ends in enumerate(self.ends) if inner[ends].any())


def grow(questions: Sequence[Question]) -> Answers:
    """The tree of some questions, in which common beginnings stand once.

    Raises
    ------
    RecipeError
        If two candidates of a question are the same tokens, or one has none.
    """
    nodes: dict[tuple[int, int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []

    def walk(start: int, ids: Iterable[int], owner: int) -> int:
        for token in ids:
            place = nodes.setdefault((start, token, owner), len(tokens))
            if place == len(tokens):
                tokens.append(token)
                parents.append(start)
            start = place
        return start

    ends = []
    for number, question in enumerate(questions):
        begin = walk(ROOT, question.given, GIVEN)
        ends.append(np.array([walk(begin, candidate, number) for candidate in question.candidates], dtype=np.int64))
        _check(question, ends[-1])
    owners = [owner for _, _, owner in nodes]
    return Answers(_ids(tokens), _ids(parents), _ids(owners), tuple(ends))


def _ids(plain: Sequence[int]) -> Positions:
    return np.array(plain, dtype=np.int64)


def _check(question: Question, ends: Positions) -> None:
    if not all(question.candidates) or len(set(ends.tolist())) < len(ends):
        raise RecipeError(
            "Two answers to a question are the same tokens, or an answer has none, so that they can't be told apart.",
            got=str([list(candidate) for candidate in question.candidates][:10]),
            next_step="give them other words in model.answers",
        )
