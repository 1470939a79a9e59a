"""The labels that are present, written one after the other in the order of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.generator.answers import ROOT, Positions, Question, grow
from fivefold.models.generator.choices import LOWEST, choices_of, log_sums, moved
from fivefold.models.generator.net import Writer, Written
from fivefold.models.generator.tree_pass import Nodes, chains
from fivefold.task import MISSING, Labels


@dataclass(frozen=True)
class Items:
    """What a list is made of.

    Parameters
    ----------
    words
        What asks for it.
    header
        Ids between a prompt and the list.
    labels
        Ids of each label, what closes it included.
    end
        The id that ends the list.
    """

    words: str
    header: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    end: int


class Listing:
    """A script of labels, of which those are written that are present; the next may be any later one, or the end.

    The score of a label is the log-odds of writing it at its turn: against all that may follow in its stead, behind the
    labels before it that were more likely than not at theirs. So what is read is one list, the one that a model would
    write, and a row takes a pass more for every label that it has.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self.tree = grow([Question((), (*items.labels, (items.end,)))])
        self.choices = choices_of(self.tree, self.tree.forks)
        lines = self.tree.lines[self.tree.ends[0]]
        latest = np.array([int((lines == node).any(axis=1).nonzero()[0].max()) for node in self.tree.forks])
        self.latest = torch.from_numpy(latest)

    @property
    def words(self) -> str:
        """What asks for the list."""
        return self.items.words

    @property
    def tokens(self) -> int:
        """Tokens behind a prompt that a pass reads, at most."""
        return len(self.items.header) + sum(map(len, self.items.labels)) + len(self.choices.read)

    @property
    def deepest(self) -> int:
        """Tokens of the longest line behind a prompt."""
        return len(self.items.header) + sum(map(len, self.items.labels)) + 1

    def scores(self, net: Writer, prompts: Padded) -> Tensor:
        """Log-odds of each label at its turn, fp32 (rows, labels)."""
        rows, width = len(prompts.ids), len(self.items.labels)
        odds = prompts.ids.new_zeros(rows, width, dtype=torch.float32)
        written = [list(self.items.header) for _ in range(rows)]
        first = torch.zeros(rows, dtype=torch.int64, device=odds.device)
        labels = torch.arange(width, device=odds.device)
        while len(left := (first < width).nonzero().squeeze(1)):
            some = prompts.take(left, prompts.ids.shape[1])
            found = self._turn(net, some, [written[row] for row in left.tolist()], first[left])
            odds[left] = torch.where(labels >= first[left, None], found, odds[left])
            likely = (labels >= first[left, None]) & (found > 0)
            chosen = torch.where(likely.any(dim=1), likely.int().argmax(dim=1), width)
            first = first.index_copy(0, left, chosen + 1)
            for row, label in zip(left.tolist(), chosen.tolist(), strict=True):
                written[row] += self.items.labels[label] if label < width else ()
        return odds

    def _turn(self, net: Writer, prompts: Padded, written: Sequence[Sequence[int]], first: Tensor) -> Tensor:
        """Log-odds of each label from `first` on behind what is written, (B, labels)."""
        device = prompts.ids.device
        choices, latest = moved(self.choices, device), self.latest.to(device)
        nodes = moved(self._behind(written), device)
        places = torch.tensor([len(each) for each in written], device=device)[:, None] + choices.places
        own = net.weighed(prompts, nodes, places, choices.vocabulary, choices.words)
        allowed = latest >= first[:, None]
        own = own.masked_fill(~allowed, -torch.inf)
        guesses = torch.where(allowed, own - log_sums(own, choices.groups)[:, choices.groups], -torch.inf)
        shares = choices.candidates(guesses).clamp(min=3 * LOWEST)
        others = shares.flip(1).logcumsumexp(dim=1).flip(1)[:, 1:]
        return (shares[:, :-1] - others).clamp(LOWEST, -LOWEST)

    def _behind(self, written: Sequence[Sequence[int]]) -> Nodes:
        """What is written, and the tree of what may come next, as nodes behind each prompt."""
        read = self.choices.read
        count, tree = max(map(len, written)), self.tree.lines[read]
        inner = np.where(tree == ROOT, ROOT, np.searchsorted(read, tree))
        tokens = np.zeros((len(written), count + len(read)), dtype=np.int64)
        depths = np.full(tokens.shape, -1, dtype=np.int64)
        lines = np.full((*tokens.shape, count + tree.shape[1]), -1, dtype=np.int64)
        for row, said in enumerate(written):
            known, total = len(said), len(said) + len(read)
            tokens[row, :total] = [*said, *self.tree.tokens[read]]
            depths[row, :total] = [*range(known), *(known + self.tree.depths[read])]
            lines[row, :total, :known] = np.arange(known)
            lines[row, :known, :known] = np.where(np.tri(known, dtype=bool), np.arange(known), -1)
            lines[row, known:total, known : known + inner.shape[1]] = np.where(inner == ROOT, -1, known + inner)
        return Nodes(*(torch.from_numpy(each) for each in (tokens, depths, lines)))

    def answers(self, labels: Labels) -> list[tuple[int, ...]]:
        """The list of each row and its end, in ids; () where a label is missing."""
        return [tuple(self._list(codes)) for codes in labels.codes.tolist()]

    def kinds(self, labels: Labels) -> list[Positions]:
        """The rows that have each label, and those that have none; of those that lack no cell."""
        codes = np.where((labels.codes == MISSING).any(axis=1, keepdims=True), MISSING, labels.codes)
        having = [np.flatnonzero(column == 1) for column in codes.T]
        return [rows for rows in (*having, np.flatnonzero((codes == 0).all(axis=1))) if len(rows)]

    def dictated(self, labels: Labels) -> Written:
        """The list of each row and its end; none of a row with a missing label."""
        header = self.items.header
        lists = [self._list(codes) for codes in labels.codes.tolist()]
        rows = np.repeat(np.arange(len(lists)), list(map(len, lists)))
        places = [len(header) + np.arange(len(each)) for each in lists]
        read = [[*header, *each[:-1]] if each else [] for each in lists]
        plain = (rows, np.concatenate(places), np.array([token for each in lists for token in each]))
        return Written(chains(read), *(torch.from_numpy(each.astype(np.int64)) for each in plain))

    def _list(self, codes: Sequence[int]) -> list[int]:
        if MISSING in codes:
            return []
        present = [token for label, code in zip(self.items.labels, codes, strict=True) if code for token in label]
        return [*present, self.items.end]
