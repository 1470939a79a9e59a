"""What neighbours give a row: a text of theirs, or the votes of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from fivefold.retrieval.entries import NOBODY, Entries
from fivefold.retrieval.neighbours import Neighbours
from fivefold.task import MISSING, Binary, Categorical, FloatArray, IntArray, Labels, Task

NAMED = 3
"""Classes of a target that votes are told of."""

LEAST_NAMED = 0.05
"""Share of the votes below which a class isn't told."""


class Given(Protocol):
    """What entries give to the rows that find them."""

    def texts(self, found: Neighbours) -> list[str]:
        """A text a row, (rows,); "" where there is no neighbour."""
        ...

    def figures(self, found: Neighbours) -> csr_array | None:
        """Numbers of each row, float32 (rows, figures); None where entries give text alone."""
        ...


@dataclass(frozen=True)
class GivenTexts:
    """A text an entry, (entries,)."""

    of_entry: Sequence[str]

    def texts(self, found: Neighbours) -> list[str]:
        """The texts of a row's neighbours, nearest first, a line each."""
        rows = ((self.of_entry[entry] for entry in row if entry != NOBODY) for row in found.entries.tolist())
        return ["\n".join(dict.fromkeys(text for text in row if text)) for row in rows]

    def figures(self, found: Neighbours) -> None:
        """None."""


@dataclass(frozen=True)
class GivenVotes:
    """The labels of each entry: the mean of its rows' probabilities, float32 CSR (entries, task.width)."""

    task: Task
    shares: csr_array

    def texts(self, found: Neighbours) -> list[str]:
        """The leading classes of each target in words, such as "kind: tea 62 %, coffee 38 %"."""
        shares = self._of_rows(found)
        starts = [self.task.slices[target.name].start for target in self.task.targets]
        texts = []
        for row in range(len(found)):
            part = slice(shares.indptr[row], shares.indptr[row + 1])
            texts.append(_in_words(self.task, starts, shares.indices[part], shares.data[part]))
        return texts

    def figures(self, found: Neighbours) -> csr_array:
        """Each class's share of the votes, weighted by similarity, and last the similarity of the nearest."""
        best = csr_array(found.best[:, None])
        return csr_array(hstack([self._of_rows(found), best], format="csr", dtype=np.float32))

    def _of_rows(self, found: Neighbours) -> csr_array:
        weight = found.similarity / found.similarity.sum(axis=1, keepdims=True).clip(1e-12)
        filled = found.entries != NOBODY
        starts = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
        votes = csr_array((weight[filled], found.entries[filled], starts), shape=(len(found), self.shares.shape[0]))
        shares = csr_array(votes @ self.shares)
        shares.sort_indices()
        return shares


def texts_given(entries: Entries, texts: Sequence[str], rows: npt.NDArray[np.bool_]) -> GivenTexts:
    """The text of the first of these rows, bool (rows,), that each entry has; `texts` are those of all rows."""
    found = [""] * len(entries)
    for row in np.flatnonzero(rows & (entries.of_row != NOBODY)).tolist():
        place = int(entries.of_row[row])
        found[place] = found[place] or texts[row]
    return GivenTexts(found)


def votes_given(entries: Entries, labels: Labels, rows: npt.NDArray[np.bool_]) -> GivenVotes:
    """The labels of these rows, bool (rows,), by entry; `labels` are those of all rows."""
    index = np.flatnonzero(rows & (entries.of_row != NOBODY))
    own, places = labels.take(index), entries.of_row[index]
    blocks = []
    for target in labels.task.targets:
        known = own.column(target.name) != MISSING
        counts = np.bincount(places[known], minlength=len(entries))
        one = np.float32(1) / counts.clip(1)[places[known]].astype(np.float32)
        shape = (len(entries), int(known.sum()))
        gathered = csr_array((one, (places[known], np.arange(shape[1]))), shape=shape)
        blocks.append(csr_array(gathered @ _one_hot(own, target, known)))
    return GivenVotes(labels.task, csr_array(hstack(blocks, format="csr", dtype=np.float32)))


def _one_hot(labels: Labels, target: Binary | Categorical, known: npt.NDArray[np.bool_]) -> csr_array:
    """Probabilities of one target in the rows that have it, (rows, width), without holding those of hard labels."""
    if target.name in labels.soft:
        return csr_array(labels.soft[target.name][known])
    codes = labels.column(target.name)[known]
    if isinstance(target, Binary):
        return csr_array(codes[:, None].astype(np.float32))
    ones = np.ones(len(codes), dtype=np.float32)
    return csr_array((ones, codes, np.arange(len(codes) + 1)), shape=(len(codes), target.width))


def _in_words(task: Task, starts: Sequence[int], columns: IntArray, shares: FloatArray) -> str:
    """One row's votes, whose classes are at `columns` among the logits."""
    owner = np.searchsorted(starts, columns, side="right") - 1
    parts = []
    for number in np.unique(owner).tolist():
        target, own = task.targets[number], owner == number
        order = np.argsort(-shares[own], kind="stable")[:NAMED]
        told = [(int(columns[own][i]) - starts[number], float(shares[own][i])) for i in order]
        told = [(place, share) for place, share in told if share >= LEAST_NAMED]
        if isinstance(target, Categorical) and told:
            parts.append(f"{target.name}: " + ", ".join(f"{target.classes[i]} {share:.0%}" for i, share in told))
        elif told:
            parts.append(f"{target.name} {told[0][1]:.0%}")
    return "; ".join(parts)
