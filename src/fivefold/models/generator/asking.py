"""Questions behind a prompt, each answered by one of its candidates."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.generator.answers import Positions
from fivefold.models.generator.beams import Beams
from fivefold.models.generator.choices import choices_of, moved
from fivefold.models.generator.net import Writer, Written
from fivefold.models.generator.tree_pass import nodes_of
from fivefold.models.generator.writing import Questionnaire
from fivefold.task import Labels

Normalise = Literal["branches", "sequence", "length"]


class Asking:
    """A script of questions whose candidates stand in one tree.

    Parameters
    ----------
    normalise
        What a token's probability is relative to: "branches", the other answers' tokens in its place; "sequence", the
        whole vocabulary; "length", that too, and an answer's score is the mean over its tokens.
    beams
        Choices read of a question at a level of its tree, see `Beams`; None: all, in one pass. Only with "branches".
    """

    def __init__(self, questions: Questionnaire, normalise: Normalise, beams: int | None = None) -> None:
        self.questions, self.normalise = questions, normalise
        answers = questions.answers
        self.choices = choices_of(answers, answers.forks if normalise == "branches" else answers.guessed)
        self.columns = questions.columns
        self.nodes = nodes_of(answers, [self.choices.read])
        self.beams = None if beams is None else Beams(answers, self.choices, beams)

    @property
    def words(self) -> str:
        """What asks the first question."""
        return self.questions.asked[0].words

    @property
    def tokens(self) -> int:
        """Tokens behind a prompt that a pass reads, at most."""
        return len(self.questions.answers) if self.beams is None else self.beams.tokens

    @property
    def deepest(self) -> int:
        """Tokens of the longest line behind a prompt."""
        return int(self.questions.answers.depths.max()) + 1

    def scores(self, net: Writer, prompts: Padded) -> Tensor:
        """Log-odds and log-probabilities of the rows of a batch, fp32 (rows, width)."""
        return self.columns.logits(self.candidates(net, prompts))

    def candidates(self, net: Writer, prompts: Padded) -> Tensor:
        """Log-probability of each candidate of all questions, fp32 (rows, candidates)."""
        self._follow(prompts.ids.device)
        if self.beams is not None:
            return self.choices.candidates(self.beams.guesses(net, prompts))
        choices, rows = self.choices, len(prompts.ids)
        places, nodes = choices.places.expand(rows, -1), self.nodes.repeated(rows)
        if self.normalise == "branches":
            own = net.weighed(prompts, nodes, places, choices.vocabulary, choices.words)
            return choices.candidates(choices.among_rivals(own))
        sums = choices.candidates(net.guessed(prompts, nodes, places, choices.vocabulary[choices.words]))
        return sums / choices.lengths if self.normalise == "length" else sums

    def _follow(self, device: torch.device) -> None:
        """Move what says how answers are read to where the weights are, once."""
        if self.nodes.tokens.device != device:
            self.nodes, self.choices = moved(self.nodes, device), moved(self.choices, device)
            self.columns = moved(self.columns, device)

    def answers(self, labels: Labels) -> list[tuple[int, ...]]:
        """The right answer to the only question, in ids, for each row; () where it isn't known."""
        (asked,) = self.questions.asked
        return [asked.candidates[number] if number >= 0 else () for number in asked.chosen(labels).tolist()]

    def kinds(self, labels: Labels) -> list[Positions]:
        """The rows of each answer to the only question, of those that rows have."""
        chosen = self.questions.asked[0].chosen(labels)
        return [np.flatnonzero(chosen == number) for number in np.unique(chosen[chosen >= 0])]

    def dictated(self, labels: Labels) -> Written:
        """What rows with these labels write: every answer that is known."""
        answers = self.questions.answers
        chosen = [asked.chosen(labels) for asked in self.questions.asked]
        guessed = []
        for row in range(len(labels)):
            known = [answers.written(number, each[row]) for number, each in enumerate(chosen) if each[row] >= 0]
            guessed.append(np.concatenate([np.zeros(0, dtype=np.int64), *known]))
        reads = [answers.before(nodes) for nodes in guessed]
        places = [
            np.where(answers.parents[nodes] < 0, 0, 1 + np.searchsorted(read, answers.parents[nodes]))
            for nodes, read in zip(guessed, reads, strict=True)
        ]
        rows = np.repeat(np.arange(len(guessed)), [len(nodes) for nodes in guessed])
        plain = (rows, np.concatenate(places), answers.tokens[np.concatenate(guessed)])
        return Written(nodes_of(answers, reads), *(torch.from_numpy(each) for each in plain))
