"""From what a model says of the tokens of a tree to log-probabilities of its candidates."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fivefold.models.generator.answers import ROOT, Answers, Positions

Placed = TypeVar("Placed", bound=Any)

LOWEST = -30.0
"""Log-probability of a class that nothing speaks for."""


@dataclass(frozen=True)
class Choices:
    """The guesses that tell the candidates of a tree apart.

    Parameters
    ----------
    read
        int64 (read,): the nodes that have to go through the model.
    vocabulary
        int64 (words,): the distinct ids that are guessed, sorted.
    places
        int64 (guesses,): where each guess is made, 0 at the prompt's end, 1 + i at the i-th node that is read.
    words
        int64 (guesses,): what is guessed, as a position in `vocabulary`.
    groups
        int64 (guesses,): the choice that each guess is one of.
    paths
        int64 (candidates, longest): the guesses of each candidate of all questions, -1 behind them.
    """

    read: Positions
    vocabulary: Tensor
    places: Tensor
    words: Tensor
    groups: Tensor
    paths: Tensor

    def among_rivals(self, own: Tensor) -> Tensor:
        """Log-probability of each guess among its rivals, from what speaks for each, (B, guesses) both."""
        return own - log_sums(own, self.groups)[:, self.groups]

    @property
    def lengths(self) -> Tensor:
        """Guesses of each candidate, (candidates,)."""
        return (self.paths >= 0).sum(dim=1).clamp(min=1)

    def candidates(self, guesses: Tensor) -> Tensor:
        """The sums over each candidate's guesses, (B, guesses) -> (B, candidates)."""
        padded = torch.cat([guesses, guesses.new_zeros(len(guesses), 1)], dim=1)
        return padded[:, self.paths].sum(dim=2)


@dataclass(frozen=True)
class Columns:
    """Which candidates speak for each logit of a task.

    Parameters
    ----------
    questions
        int64 (candidates,): the question of each candidate.
    candidates, slots
        int64 (votes,): a candidate, and the slot that it speaks for, sorted by slot: the task's logits first, then
        what speaks against each binary.
    against
        int64 (width,): the slot that speaks against a logit, -1 where none does.
    """

    questions: Tensor
    candidates: Tensor
    slots: Tensor
    against: Tensor

    def logits(self, candidates: Tensor) -> Tensor:
        """Log-odds and log-probabilities of the task's columns, (B, candidates) -> (B, width)."""
        shares = candidates - log_sums(candidates, self.questions)[:, self.questions]
        slots = max(len(self.against), int(self.against.max()) + 1)
        votes = log_sums(shares[:, self.candidates], self.slots, slots).clamp(min=LOWEST)
        return votes[:, : len(self.against)] - torch.where(self.against >= 0, votes[:, self.against], 0.0)


def log_sums(values: Tensor, groups: Tensor, count: int | None = None) -> Tensor:
    """log Σ exp of the values of each group, -inf where there is none; (B, n), (n,) -> (B, count)."""
    if count is None:
        count = int(groups.max()) + 1 if len(groups) else 0
    index = groups.expand(len(values), -1)
    highest = values.new_full((len(values), count), -torch.inf).scatter_reduce(1, index, values.detach(), "amax")
    total = values.new_zeros(len(values), count).scatter_add(1, index, (values - highest.gather(1, index)).exp())
    return highest + total.log()


def choices_of(answers: Answers, guesses: Positions) -> Choices:
    """The choices of a tree when some of its guessed nodes count: `answers.forks`, or `answers.guessed`."""
    read = answers.before(guesses)
    vocabulary, words = np.unique(answers.tokens[guesses], return_inverse=True)
    parents = answers.parents[guesses]
    places = np.where(parents == ROOT, 0, 1 + np.searchsorted(read, parents))
    number = np.full(len(answers), -1, dtype=np.int64)
    number[guesses] = np.arange(len(guesses))
    lines = answers.lines[np.concatenate(answers.ends)]
    paths = np.where(lines == ROOT, -1, number[lines])
    paths = np.sort(paths, axis=1)[:, ::-1][:, : max(1, int((paths >= 0).sum(axis=1).max(initial=1)))]
    plain = (vocabulary, places, words.reshape(-1), answers.rivals(guesses), paths)
    return Choices(read, *(torch.from_numpy(np.ascontiguousarray(each)) for each in plain))


def moved(placed: Placed, device: torch.device) -> Placed:
    """The same on another device."""
    known = {key.name: getattr(placed, key.name) for key in fields(placed)}
    tensors = {name: each.to(device) for name, each in known.items() if isinstance(each, Tensor)}
    within = {name: moved(each, device) for name, each in known.items() if is_dataclass(each)}
    return replace(placed, **tensors, **within)
