"""Batches as backbones need them, so that what one says of a sequence depends on that sequence alone.

Whatever side a batch was padded on, real tokens come first here, which makes every architecture's positions right.
BigBird's sparse attention takes the last block of a pass for a global one, so that a longer neighbour would change a
row's scores: only sequences with the same number of blocks share a pass. Causal language models get no mask, so that
attention leaves out the half above the diagonal instead of computing and masking it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from fivefold.errors import FivefoldError
from fivefold.models.backbones.architectures import (
    COUNTED_FROM_PAD,
    UNMASKED,
    first_position,
    is_block_sparse,
    longest_full,
    looks_back_only,
    position_limit,
    turning_point,
)


@dataclass(frozen=True)
class Sequences:
    """Padded sequences with real tokens first.

    Parameters
    ----------
    ids, mask, types
        int64 (S, T).
    """

    ids: Tensor
    mask: Tensor
    types: Tensor

    def take(self, index: Tensor, tokens: int) -> Sequences:
        """Those at `index`, with `tokens` columns, cut or padded."""
        return Sequences(
            *(
                functional.pad(block[index, :tokens], (0, max(0, tokens - block.shape[1])))
                for block in (self.ids, self.mask, self.types)
            )
        )


@dataclass(frozen=True)
class Pass:
    """Sequences that go through the backbone together.

    Parameters
    ----------
    index
        Where they stand in their batch, (n,); None is the whole batch.
    mask
        int64 (n, T), 1 where a real token is.
    inputs
        Arguments of the backbone.
    """

    index: Tensor | None
    mask: Tensor
    inputs: dict[str, Tensor]


def real_first(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Sequences:
    """Each row turned so that its first real token stands first; (S, T) each."""
    tokens = input_ids.shape[1]
    start = attention_mask.argmax(dim=1, keepdim=True)
    order = (torch.arange(tokens, device=input_ids.device) + start) % tokens
    return Sequences(*(block.gather(1, order) for block in (input_ids, attention_mask, token_type_ids)))


class Passes:
    """Cuts batches into passes of one backbone.

    Parameters
    ----------
    backbone
        The transformers model, without or with a head.
    attention
        "sparse": BigBird reads short sequences sparsely too, padded to the fewest blocks for it.

    Raises
    ------
    FivefoldError
        If attention is to be sparse or full, and the backbone isn't a BigBird with positions for it, or if padding
        would change what the backbone says.
    """

    def __init__(self, backbone: Any, attention: Literal["auto", "sparse", "full"] = "auto") -> None:
        self.config = backbone.config
        self.sparse_always = attention == "sparse"
        if attention != "auto":
            _check_attention(self.config, attention)
        accepted = inspect.signature(backbone.base_model.forward).parameters
        self.masked = not looks_back_only(backbone.base_model)
        if self.masked and (self.config.model_type in UNMASKED or "attention_mask" not in accepted):
            raise FivefoldError(
                f"A '{self.config.model_type}' backbone reads padding: scores of a row would depend on others.",
                next_step="take another backbone",
            )
        self.typed = "token_type_ids" in accepted and getattr(self.config, "type_vocab_size", 0) > 1

    def __call__(self, sequences: Sequences, leading: int = 1) -> Iterator[Pass]:
        """Passes that together hold every sequence once.

        `leading` tokens see, and are seen from, everywhere in a Longformer: the first one, and the slots of a prompt.
        """
        if is_block_sparse(self.config):
            for index, tokens in self._blocks(sequences.mask.sum(dim=1).tolist()):
                place = torch.tensor(index, device=sequences.ids.device)
                part = sequences.take(place, tokens)
                yield Pass(place, part.mask, self._inputs(part, leading))
            return
        if self.config.model_type == "longformer":
            # Padded here to whole windows, as the backbone would do with a warning.
            every = torch.arange(len(sequences.ids), device=sequences.ids.device)
            window = max(self.config.attention_window)
            sequences = sequences.take(every, -(-sequences.ids.shape[1] // window) * window)
        for alike in self._turned_alike(sequences.mask):
            part = sequences if alike is None else sequences.take(alike, int(sequences.mask[alike].sum(dim=1).max()))
            yield Pass(alike, part.mask, self._inputs(part, leading))

    def _turned_alike(self, mask: Tensor) -> list[Tensor | None]:
        """Positions of sequences that a rotation turns together as it would turn each alone; None for all."""
        short = turning_point(self.config)
        if short is None:
            return [None]
        long = mask.sum(dim=1) > short
        return [(long == kind).nonzero().squeeze(1) for kind in long.unique()]

    def _inputs(self, part: Sequences, leading: int) -> dict[str, Tensor]:
        pad = getattr(self.config, "pad_token_id", None) or 0
        ids = part.ids.masked_fill(part.mask == 0, pad)
        inputs = {"input_ids": ids}
        if self.masked:
            inputs["attention_mask"] = part.mask
        if self.typed:
            inputs["token_type_ids"] = part.types * part.mask
        if self.config.model_type in COUNTED_FROM_PAD:
            # Counted here, as transformers takes every token with the pad's id for padding, also inside a text.
            first = first_position(self.config)
            positions = torch.arange(ids.shape[1], device=ids.device) + first
            inputs["position_ids"] = torch.where(part.mask == 1, positions, first - 1)
        if self.config.model_type == "longformer":
            inputs["global_attention_mask"] = (torch.arange(ids.shape[1], device=ids.device) < leading) * part.mask
        return inputs

    def _blocks(self, lengths: Sequence[int]) -> list[tuple[list[int], int]]:
        """Positions of the sequences that share a pass, and its tokens: those short enough for full attention, and
        those of each number of blocks."""
        size, short = self.config.block_size, longest_full(self.config)
        groups: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            fewest = short // size + 1 if self.sparse_always else 0
            blocks = max(-(-length // size), fewest)
            groups.setdefault(blocks if blocks * size > short else 0, []).append(place)
        return [
            (places, blocks * size or max(lengths[place] for place in places))
            for blocks, places in sorted(groups.items())
        ]


def in_batch_order(places: Sequence[Tensor | None], blocks: Sequence[Tensor]) -> Tensor:
    """What passes gave, in the order of the batch."""
    if len(blocks) == 1 and places[0] is None:
        return blocks[0]
    order = torch.cat([place for place in places if place is not None])
    return torch.cat(list(blocks))[order.argsort()]


def _check_attention(config: Any, attention: str) -> None:
    if not (is_block_sparse(config) if attention == "sparse" else config.model_type == "big_bird"):
        raise FivefoldError(
            f"model.attention '{attention}' is BigBird's, and the backbone is a '{config.model_type}'.",
            next_step="leave model.attention out of the recipe",
        )
    if attention == "full":
        return
    fewest = longest_full(config) + config.block_size
    if fewest > position_limit(config).tokens:
        raise FivefoldError(
            f"BigBird's sparse attention needs inputs of {fewest} tokens, and the backbone has "
            f"{position_limit(config).tokens} positions.",
            next_step="lower block_size or num_random_blocks in model.architecture, or leave model.attention out",
        )
