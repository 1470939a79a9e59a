"""The likeliest branches of a tree of answers that is too large to be read whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.generator.answers import ROOT, Answers, Positions
from fivefold.models.generator.choices import Choices, log_sums, moved
from fivefold.models.generator.net import Writer
from fivefold.models.generator.tree_pass import nodes_of


class Beams:
    """Of every question, the `width` likeliest choices of each level are read; the others aren't.

    A choice is a set of rivals, its level the number of choices before it. What an unread one would say is taken to be
    even among the answers it leads to. So the answers of a question sum to one, an answer has the probability that the
    whole tree would give it where all its choices were read, and those behind an unread one share what leads to it.

    Parameters
    ----------
    answers, choices
        The tree, and its guesses that have rivals.
    width
        Choices read of a question at a level.
    """

    def __init__(self, answers: Answers, choices: Choices, width: int) -> None:
        self.answers, self.choices, self.width = answers, choices, width
        self.groups = choices.groups.numpy()
        self.first = answers.forks[np.unique(self.groups, return_index=True)[1]]
        self.before = self._befores()
        levels = np.zeros(len(self.first), dtype=np.int64)
        for group in np.argsort(answers.depths[self.first], kind="stable"):
            if self.before[group] >= 0:
                levels[group] = levels[self.groups[self.before[group]]] + 1
        questions = answers.owners[self.first]
        self.levels = [
            [np.flatnonzero((levels == level) & (questions == question)) for question in np.unique(questions)]
            for level in range(int(levels.max(initial=-1)) + 1)
        ]
        self.even = _even(choices)

    def _befores(self) -> Positions:
        """The last guess before each choice, -1 where there is none, (choices,)."""
        answers = self.answers
        numbers = np.full(len(answers) + 1, -1, dtype=np.int64)
        numbers[answers.forks] = np.arange(len(answers.forks))
        above = answers.lines[answers.parents[self.first]]
        above[answers.parents[self.first] == ROOT] = ROOT
        places = np.where(numbers[above] >= 0, np.arange(above.shape[1]), -1).max(axis=1, initial=-1)
        found: Positions = np.where(places < 0, -1, numbers[above[np.arange(len(above)), places]])
        return found

    @property
    def tokens(self) -> int:
        """Tokens behind a prompt that a pass reads, at most."""
        lines = self.width * len(self.answers.ends) * (int(self.answers.depths.max()) + 1)
        return min(len(self.choices.read), lines)

    def guesses(self, net: Writer, prompts: Padded) -> Tensor:
        """Log-probability of each guess among its rivals, fp32 (B, guesses)."""
        rows, device = len(prompts.ids), prompts.ids.device
        choices, found = moved(self.choices, device), self.even.to(device).expand(rows, -1)
        reached = np.tile(np.where(self.before < 0, 0.0, -np.inf), (rows, 1))
        for level in self.levels:
            read = np.zeros(reached.shape, dtype=bool)
            for asked in level:
                best = asked[np.argsort(-reached[:, asked], axis=1, kind="stable")[:, : self.width]]
                np.put_along_axis(read, best, np.isfinite(np.take_along_axis(reached, best, axis=1)), axis=1)
            own = self._said(net, prompts, choices, read)
            chosen = torch.from_numpy(read).to(device)[:, choices.groups]
            found = torch.where(chosen, choices.among_rivals(own), found)
            passed: npt.NDArray[np.bool_] = np.any(read, axis=0)
            behind = (self.before >= 0) & passed[self.groups[self.before]]
            leads = self.before[behind]
            chances = reached[:, self.groups[leads]] + found.detach()[:, leads].cpu().numpy()
            reached[:, behind] = np.where(read[:, self.groups[leads]], chances, -np.inf)
        return found

    def _said(self, net: Writer, prompts: Padded, choices: Choices, read: npt.NDArray[np.bool_]) -> Tensor:
        """What speaks for each guess whose choice is read, of others whatever, (B, guesses)."""
        answers, device = self.answers, prompts.ids.device
        chosen = [np.flatnonzero(row) for row in read]
        reads = [answers.before(self.first[groups]) for groups in chosen]
        places = np.zeros(read.shape, dtype=np.int64)
        for row, (groups, seen) in enumerate(zip(chosen, reads, strict=True)):
            nodes = answers.parents[self.first[groups]]
            places[row, groups] = np.where(nodes == ROOT, 0, 1 + np.searchsorted(seen, nodes))
        at = torch.from_numpy(places).to(device)[:, choices.groups]
        return net.weighed(prompts, moved(nodes_of(answers, reads), device), at, choices.vocabulary, choices.words)


def _even(choices: Choices) -> Tensor:
    """Log-probability of each guess when the answers beneath its choice are all as likely, fp32 (1, guesses)."""
    passed = choices.paths[choices.paths >= 0]
    answers = torch.bincount(passed, minlength=len(choices.groups)).float().log()[None]
    return answers - log_sums(answers, choices.groups)[:, choices.groups]
