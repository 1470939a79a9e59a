"""Attention as plain matrix products, where torch's own is slow on the way back: in bf16 on a CPU.

With 32 sequences of 31 tokens, 12 heads of 32, both ways take 20 ms by `scaled_dot_product_attention` of torch 2.13 and
4 ms so; with 4 sequences of 256 tokens and heads of 64, 25 and 8 ms (two cores with AVX-512 bf16).
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fivefold.models.backbones.architectures import is_known
from fivefold.training.dropout import SparingDropout

ATTENTION = "fivefold_padded"
"""What transformers calls `attend_padded`; never written into a config.json."""

LONGEST = 512
"""Tokens up to which all weights of attention are kept for the way back; torch's own keeps none."""


def let_multiply(model: Any) -> None:
    """Have a model without head go through `attend_padded`, if all its attention goes through transformers' `sdpa`.

    Architectures whose code asks for "sdpa" by name, to make other masks for it, stay as they are, as does code that
    isn't transformers' own.
    """
    replaceable = is_known(model) and getattr(model, "_supports_attention_backend", False)
    if not replaceable or model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return
    source = inspect.getsource(sys.modules[type(model).__module__])
    if not re.search(r"_attn_implementation (==|in|!=)[^\n]*\"sdpa\"", source):
        AttentionInterface.register(ATTENTION, attend_padded)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)


def attend_padded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers' own `sdpa` says, by products where they are faster; parameters and returns as there.

    Parameters
    ----------
    query, key, value
        (S, heads, T, d); keys and values may have fewer heads, each of them for several of the query.
    """
    given = others.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", True) if given is None else given)
    if (
        not torch_is_slow(query, key, value)
        or others.get("position_bias") is not None
        or (causal and query.shape[2] != key.shape[2])
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    if causal:
        attention_mask = torch.ones(2 * key.shape[2:3], dtype=torch.bool).tril()
    if torch.is_autocast_enabled("cpu"):  # rotations may have made queries and keys fp32
        query, key, value = (each.to(torch.get_autocast_dtype("cpu")) for each in (query, key, value))
    return products(query, key, value, attention_mask, dropout, scaling), None


def torch_is_slow(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these are multiplied in bf16 on a CPU, and there will be a way back."""
    blocks = query, key, value
    if not torch.is_grad_enabled() or query.device.type != "cpu" or key.shape[2] > LONGEST:
        return False
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    in_bf16 = cast or all(each.dtype == torch.bfloat16 for each in blocks)
    return in_bf16 and any(each.requires_grad for each in blocks)


def kept_bytes(config: Any, tokens: int) -> float:
    """What a layer keeps of attention over so many tokens at most for its way back, in bf16 by products."""
    return 2.0 * tokens * min(tokens, LONGEST) * int(config.num_attention_heads)


def products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0, scaling: float | None = None
) -> Tensor:
    """softmax(Q K' / sqrt(d)) V (Vaswani et al. 2017, arXiv 1706.03762), in the precision of its arguments.

    The mean key is taken off all keys, which adds one number to all scores of a query and so changes no weight; large
    biases of keys would leave few bits for what tells scores apart.

    Parameters
    ----------
    query, key, value
        (S, heads, T, d), (S, shared, K, d), (S, shared, K, d); query heads h use key head h * shared // heads.
    mask
        What is added to scores, or where True what is seen; broadcasts to (S, 1, T, K).

    Returns
    -------
    (S, T, heads, d)
    """
    rows, heads, tokens, width = query.shape
    shared = key.shape[1]
    with torch.autocast(query.device.type, enabled=False):  # which would have the softmax write fp32
        scaled = query * (width**-0.5 if scaling is None else scaling)
        centred = key - key.detach().mean(dim=2, keepdim=True)
        scores = scaled.reshape(rows, shared, -1, width) @ centred.transpose(2, 3)
        scores = scores.view(rows, heads, tokens, -1)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask.to(scores.dtype)
        weights = scores.softmax(dim=-1)
        if dropout:
            weights = SparingDropout(dropout)(weights)
        mixed = weights.view(rows, shared, -1, weights.shape[-1]) @ value
    return mixed.view(rows, heads, tokens, -1).transpose(1, 2).contiguous()
