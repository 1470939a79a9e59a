"""Several vectors become one: tokens of a sequence, windows of a text, and the logits of a row's parts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["cls", "last", "mean", "max", "attention"]
WindowMerge = Literal["none", "mean", "max", "attention"]
FieldMerge = Literal["joined", "max", "mean"]


def cls_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the first token; (S, T, H), (S, T) -> (S, H). Real tokens come first."""
    return hidden[:, 0]


def last_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the last real token, found by counting: a token with the pad's id may be text; (S, T, H), (S, T) ->
    (S, H)."""
    last = mask.sum(dim=1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens; (S, T, H), (S, T) -> (S, H)."""
    real = mask.to(hidden.dtype)
    return _silenced(hidden, mask, 0.0).sum(dim=1) / real.sum(dim=1, keepdim=True)


def max_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Largest value of each dimension over real tokens; (S, T, H), (S, T) -> (S, H)."""
    return _silenced(hidden, mask, -torch.inf).amax(dim=1)


class AttentionPool(nn.Module):
    """Mean weighted by a softmax over learnt scores, one a vector; starts as the plain mean.

    Parameters
    ----------
    hidden
        Width of the vectors.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scores = nn.utils.skip_init(nn.Linear, hidden, 1, bias=False)
        nn.init.zeros_(self.scores.weight)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Over real tokens; (S, T, H), (S, T) -> (S, H)."""
        hidden = _silenced(hidden, mask, 0.0)
        scores = self.scores(hidden).squeeze(-1).masked_fill(mask == 0, -torch.inf)
        return torch.einsum("st,sth->sh", scores.softmax(dim=1), hidden)

    def merge(self, vectors: Tensor, group: Tensor, groups: int) -> Tensor:
        """Over the vectors of each group; (S, H), (S,) -> (groups, H)."""
        scores = self.scores(vectors).squeeze(-1)
        highest = segment_max(scores[:, None], group, groups)[:, 0].detach()
        weights = (scores - highest[group]).exp()
        total = torch.zeros(groups, dtype=weights.dtype, device=weights.device).index_add(0, group, weights)
        return segment_sum(vectors * (weights / total[group])[:, None], group, groups)


def segment_sum(vectors: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum over the vectors of each group; (S, H), (S,) -> (groups, H)."""
    return vectors.new_zeros(groups, vectors.shape[1]).index_add(0, group, vectors)


def segment_mean(vectors: Tensor, group: Tensor, groups: int) -> Tensor:
    """Mean over the vectors of each group; (S, H), (S,) -> (groups, H)."""
    counts = torch.bincount(group, minlength=groups).to(vectors.dtype)
    return segment_sum(vectors, group, groups) / counts[:, None]


def segment_max(vectors: Tensor, group: Tensor, groups: int) -> Tensor:
    """Largest value of each dimension over the vectors of each group; (S, H), (S,) -> (groups, H)."""
    index = group[:, None].expand_as(vectors)
    empty = vectors.new_full((groups, vectors.shape[1]), -torch.inf)
    return empty.scatter_reduce(0, index, vectors, "amax", include_self=False)


def _silenced(hidden: Tensor, mask: Tensor, value: float) -> Tensor:
    """Padding replaced, not multiplied away: an architecture may leave anything there, NaN included."""
    return hidden.masked_fill((mask == 0)[:, :, None], value)
