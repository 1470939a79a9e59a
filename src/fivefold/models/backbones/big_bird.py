"""BigBird's attention, equal to transformers' in what it says, without what makes scores depend on other rows.

Found in `transformers.models.big_bird` 5.17:

- One batch of at most (5 + 2 num_random_blocks) blocks turns the whole model to full attention for good, so scores
  depend on what was scored before. Here every pass chooses by its own length.
- Turning builds new attention modules, which draws from torch's generator. Here both kinds share their weights.
- Under gradient checkpointing a layer runs again in the backward pass, when another batch may have turned it. Here a
  layer chooses by its arguments, which are the same again.
- Every sparse pass reseeds numpy's global generator. Here its state is put back.
- Every sparse layer fills a (tokens, tokens) matrix for each head that nobody reads, which costs what sparsity saves
  and fails under autocast. Here it isn't made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fivefold.models.backbones.architectures import is_block_sparse, longest_full

PLANNED = (1024, 3072, 4096)
"""Lengths whose random blocks follow a plan of the paper's own."""


class EitherAttention(nn.Module):
    """Full attention where a layer gets a full mask, block-sparse attention where it gets block masks.

    Takes the place of a `BigBirdAttention` whose attention is block-sparse, and names its weights alike.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.self = attention.self
        self.output = attention.output
        self.dropout = float(attention.config.attention_probs_dropout_prob)
        self.random_blocks: dict[int, Tensor] = {}

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        band_mask: Tensor | None = None,
        to_mask: Tensor | None = None,
        **unread: Any,
    ) -> tuple[Tensor, None]:
        """Hidden states (S, T, H) and None, as `BigBirdAttention` returns them."""
        heads: int = self.self.num_attention_heads
        query, key, value = (
            layer(hidden_states).view(*hidden_states.shape[:2], heads, -1).transpose(1, 2)
            for layer in (self.self.query, self.self.key, self.self.value)
        )
        if band_mask is None or to_mask is None:
            dropout = self.dropout if self.training else 0.0
            mixed = scaled_dot_product_attention(query, key, value, attention_mask, dropout)
        else:
            mixed = self._sparse(query, key, value, to_mask.flatten(1) > 0)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2), hidden_states)
        return output, None

    def _sparse(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor) -> Tensor:
        """First and last block see everything, the others their share; (S, heads, T, d), (S, T) -> (S, heads, T, d).

        Zaheer et al., "Big Bird: Transformers for Longer Sequences" (arXiv 2007.14062), section 2; like transformers'
        without dropout of attention.
        """
        size: int = self.self.block_size
        heads = torch.arange(query.shape[1], device=query.device)[:, None, None]
        seen, present = (t.to(query.device) for t in self._seen_blocks(query.shape[2] // size))
        blocked = (*query.shape[:2], -1, size, query.shape[3])
        queries, keys, values = (each.reshape(blocked) for each in (query, key, value))
        near_real = (real.view(len(real), -1, size)[:, seen] & present[:, :, None]).flatten(3)
        inner = scaled_dot_product_attention(
            queries[:, :, 1:-1].flatten(0, 1),
            keys[:, heads, seen].flatten(3, 4).flatten(0, 1),
            values[:, heads, seen].flatten(3, 4).flatten(0, 1),
            near_real.flatten(0, 1)[:, :, None],
        )
        ends = scaled_dot_product_attention(
            torch.cat([query[:, :, :size], query[:, :, -size:]], dim=2), key, value, real[:, None, None]
        )
        middle = inner.reshape(*query.shape[:2], -1, query.shape[3])
        return torch.cat([ends[:, :, :size], middle, ends[:, :, size:]], dim=2)

    def _seen_blocks(self, blocks: int) -> tuple[Tensor, Tensor]:
        """Key blocks that each query block but the first and last sees, (heads, blocks - 2, 5 + random), and whether
        each of them counts, (blocks - 2, 5 + random): the first block, three neighbours, the last, and random ones."""
        place = torch.arange(1, blocks - 1)
        fixed = torch.stack([torch.zeros_like(place), place - 1, place, place + 1, torch.full_like(place, blocks - 1)])
        drawn = self._random_blocks(blocks)
        seen = torch.cat([fixed.T.expand(len(drawn), -1, -1), drawn], dim=2)
        present = torch.ones(seen.shape[1:], dtype=torch.bool)
        present[0, 1] = present[-1, 3] = False  # the neighbour is the first or last block, which is there already
        return seen, present

    def _random_blocks(self, blocks: int) -> Tensor:
        """int64 (heads, blocks - 2, random), the same in every pass: of a layer in training, the first block else."""
        sparse = self.self
        if not self.training:
            return torch.zeros(sparse.num_attention_heads, blocks - 2, sparse.num_random_blocks, dtype=torch.int64)
        if blocks not in self.random_blocks:
            state = np.random.get_state()
            np.random.seed(sparse.seed)
            self.random_blocks[blocks] = torch.from_numpy(np.stack(_draw(sparse, blocks * sparse.block_size))).long()
            np.random.set_state(state)
        return self.random_blocks[blocks]


def _draw(sparse: Any, tokens: int) -> list[np.ndarray[Any, Any]]:
    """Random blocks a head, as `BigBirdBlockSparseAttention` draws them."""
    size, number, heads = sparse.block_size, sparse.num_random_blocks, sparse.num_attention_heads
    if tokens in PLANNED:
        longest = sparse.max_seqlen
        drawn = [
            sparse._bigbird_block_rand_mask(longest, longest, size, size, number, last_idx=1024) for _ in range(heads)
        ]
        return [each[: tokens // size - 2] for each in drawn]
    ends, numbers = sparse._get_rand_attn_plan(tokens, size, number)
    drawn = sparse._bigbird_block_rand_mask_with_head(tokens, tokens, size, size, heads, ends, numbers)
    return list(drawn)


def mend(model: Any) -> None:
    """Let a `BigBirdModel` choose its attention anew in every pass; nothing to do where it is always full."""
    if not is_block_sparse(model.config):
        return
    for layer in model.encoder.layer:
        layer.attention = EitherAttention(layer.attention)
    model.register_forward_pre_hook(_choose_attention, with_kwargs=True)


def _choose_attention(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = args[0] if args else kwargs.get("input_ids")
    tokens = (kwargs["inputs_embeds"] if given is None else given).shape[1]
    model.attention_type = "original_full" if tokens <= longest_full(model.config) else "block_sparse"
