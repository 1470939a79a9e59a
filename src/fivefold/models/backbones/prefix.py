"""The words that every sequence begins with, computed once: keys and values that later tokens of any sequence read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from fivefold.models.backbones.architectures import is_steered, looks_back_only

FEWEST = 16
"""Tokens from which on a prefix is kept: below, two passes for one text cost more than they save in the next."""


class Past(DynamicLayer):
    """Keys and values of one layer, (1, heads, P, d), that stand before those of any pass and are never added to."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.is_initialized = (keys, values), True
        self.keys, self.values = self.known

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """What a pass attends to, its own keys and values last; (n, heads, T, d) -> (n, heads, P + T, d)."""
        keys, values = self.known
        return _behind(keys, key_states), _behind(values, value_states)


@dataclass(frozen=True)
class Prefix:
    """What a backbone makes of tokens that others follow.

    Parameters
    ----------
    past
        Keys and values of every layer.
    hidden
        Vectors of the top layer, (1, P, H).
    """

    past: Cache
    hidden: Tensor

    def followed(self, backbone: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors of whole sequences (n, T, H), of which only what follows the prefix is computed; (n, T) both."""
        known = self.hidden.shape[1]
        rest = backbone(input_ids=ids[:, known:], attention_mask=mask, past_key_values=self.past).last_hidden_state
        return torch.cat([self.hidden.expand(len(ids), -1, -1), rest], dim=1)


def prefix_of(backbone: Any, ids: Tensor) -> Prefix:
    """Run the tokens `ids` (P,) through a backbone alone."""
    seen: Any = DynamicCache()
    hidden = backbone(input_ids=ids[None], past_key_values=seen).last_hidden_state
    return Prefix(Cache([Past(layer.keys, layer.values) for layer in seen.layers]), hidden)


def continues(backbone: Any) -> bool:
    """Whether what a backbone says of tokens stays the same whatever follows, as is known of some architectures."""
    return is_steered(backbone) and looks_back_only(backbone)


def state_of(weights: Sequence[Tensor]) -> tuple[Any, ...]:
    """What tells weights from those that they are later, and how a pass multiplies them."""
    kind = weights[0].device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return autocast, tuple((each.data_ptr(), each._version) for each in weights)  # torch counts changes in place


def _behind(known: Tensor, new: Tensor) -> Tensor:
    return torch.cat([known.expand(len(new), -1, -1, -1), new], dim=2)
