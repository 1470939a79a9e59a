"""Texts as passages in which a language model guesses tokens: layouts, puzzles, and what frequency would guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fivefold.task import IntArray
from fivefold.training.assembly import Piece, assembled, whole
from fivefold.training.inputs import Inputs, joined
from fivefold.training.templates import Template, Truncation, room_of
from fivefold.training.tokens import Tokens, starts_of

Layout = Literal["lines", "blocks"]

IGNORED = -100
"""Target of a position where nothing is guessed; the one that torch's cross-entropy leaves out."""

KEPT_FIXED = 0
"""The epoch whose puzzles validation rows have; those of training are counted from 1."""

MASKED, SWAPPED = 0.8, 0.1
"""Shares of the tokens to be guessed that become the mask, and another token; the rest stay as they are."""

Positions = npt.NDArray[np.int64]
Puzzle: TypeAlias = Callable[[IntArray, np.random.Generator], tuple[IntArray, IntArray]]
"""From the ids of a passage to the ids that are shown and the targets, `IGNORED` where there is none; (tokens,) all."""


@dataclass(frozen=True)
class Vocabulary:
    """What ids mean.

    Parameters
    ----------
    plain
        bool (ids,), which ids text is made of; the others are special tokens, or none.
    pad, mask
        Ids of these tokens; mask is -1 where there is none.
    """

    plain: npt.NDArray[np.bool_]
    pad: int
    mask: int

    @staticmethod
    def of(tokenizer: Any) -> Vocabulary:
        """The vocabulary of a tokenizer."""
        ids = np.array(sorted(tokenizer.get_vocab().values()))
        plain = np.zeros(ids[-1] + 1, dtype=bool)
        plain[ids] = True
        plain[tokenizer.all_special_ids] = False
        mask = tokenizer.mask_token_id
        return Vocabulary(plain, tokenizer.pad_token_id, -1 if mask is None else mask)


def lay_out(
    tokens: Tokens, template: Template, layout: Layout, block_tokens: int, plain: npt.NDArray[np.bool_]
) -> Inputs:
    """Passages of at most `block_tokens` tokens, a row each; those without a plain token are left out.

    Parameters
    ----------
    tokens
        Content of the texts.
    layout
        "lines": a text a passage, a long one several; "blocks": all texts end to end, separators between, cut evenly.

    Raises
    ------
    RecipeError
        If block_tokens leaves no room for content.
    """
    stream = tokens if layout == "lines" else end_to_end(tokens, template.middle)
    pieces = cut(stream, room_of(block_tokens, template.overhead(1)))
    guessable = np.concatenate([[0], np.cumsum(plain[pieces.ids])])[pieces.starts]
    return joined({"text": pieces.take(np.diff(guessable) > 0)}, template, Truncation(block_tokens))


def end_to_end(tokens: Tokens, separator: Sequence[int]) -> Tokens:
    """All rows as one, `separator` between them."""
    apart, _ = assembled(
        [whole(separator, 0, len(tokens)), Piece(tokens.ids, 0, tokens.starts[:-1], tokens.lengths)],
    )
    ids = apart.ids[len(separator) :]
    return Tokens(ids, np.array([0, len(ids)], dtype=np.int64))


def cut(tokens: Tokens, room: int) -> Tokens:
    """Every row in pieces of `room` tokens, the last one shorter; empty rows have none."""
    counts = -(-tokens.lengths // room)
    within = np.arange(counts.sum()) - np.repeat(starts_of(counts)[:-1], counts)
    starts = np.repeat(tokens.starts[:-1], counts) + room * within
    return Tokens(tokens.ids, np.append(starts, tokens.starts[-1]))


def masked_puzzle(vocabulary: Vocabulary, share: float) -> Puzzle:
    """BERT's puzzle: of the plain tokens `share` are to be guessed, at least one; 80 % of them are shown as the mask,
    10 % as another plain token, 10 % as they are (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""
    plain_ids = np.flatnonzero(vocabulary.plain)

    def puzzle(ids: IntArray, random: np.random.Generator) -> tuple[IntArray, IntArray]:
        places = np.flatnonzero(vocabulary.plain[ids])
        chosen = random.permutation(places)[: max(1, round(share * len(places)))]
        lot = random.random(len(chosen))
        swapped = chosen[(lot >= MASKED) & (lot < MASKED + SWAPPED)]
        shown, targets = ids.copy(), np.full_like(ids, IGNORED)
        targets[chosen] = ids[chosen]
        shown[chosen[lot < MASKED]] = vocabulary.mask
        shown[swapped] = random.choice(plain_ids, len(swapped))
        return shown, targets

    return puzzle


def causal_puzzle(vocabulary: Vocabulary) -> Puzzle:
    """Every plain token is to be guessed from those before it."""

    def puzzle(ids: IntArray, random: np.random.Generator) -> tuple[IntArray, IntArray]:
        targets = np.full_like(ids, IGNORED)
        targets[:-1] = np.where(vocabulary.plain[ids[1:]], ids[1:], IGNORED)
        return ids, targets

    return puzzle


@dataclass(frozen=True)
class Passages:
    """Passages and their puzzles, which depend on seed, epoch and row alone.

    Parameters
    ----------
    inputs
        A sequence a row.
    pad
        Id on the places without a token.
    """

    inputs: Inputs
    pad: int
    puzzle: Puzzle
    seed: int

    def batch(self, rows: npt.NDArray[Any], epoch: int) -> dict[str, Tensor]:
        """Puzzles of these rows: `input_ids`, `attention_mask`, `token_type_ids` and `targets`, int64 (S, T) each."""
        tensors = self.inputs.batch(rows, self.pad)
        batch = {name: tensors[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        shown = batch["input_ids"].numpy()  # shares memory with the tensor
        targets = np.full_like(shown, IGNORED)
        for place, row in enumerate(rows):
            ids = self.inputs.tokens.row(row)
            random = np.random.default_rng([self.seed, epoch, row])
            shown[place, : len(ids)], targets[place, : len(ids)] = self.puzzle(ids, random)
        return batch | {"targets": torch.from_numpy(targets)}

    def targets(self, epoch: int) -> IntArray:
        """What is to be guessed in all rows, (targets,)."""
        found = [np.zeros(0, dtype=np.int32)]
        for row in range(self.inputs.rows):
            random = np.random.default_rng([self.seed, epoch, row])
            targets = self.puzzle(self.inputs.tokens.row(row), random)[1]
            found.append(targets[targets != IGNORED])
        return np.concatenate(found)


def frequency_loss(train: Passages, watched: Passages, plain: npt.NDArray[np.bool_]) -> float:
    """Mean loss on the watched puzzles of guessing by the training tokens' frequencies, one added to each count."""
    counts = (np.bincount(train.inputs.tokens.ids, minlength=len(plain)) + 1.0)[plain]
    logarithms = np.full(len(plain), -np.inf)
    logarithms[plain] = np.log(counts / counts.sum())
    return -float(logarithms[watched.targets(KEPT_FIXED)].mean())
