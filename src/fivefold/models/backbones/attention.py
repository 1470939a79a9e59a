"""Attention as plain matrix products, where torch's own is slow: in bf16 on a CPU.

With 32 sequences of 31 tokens, 12 heads of 32, both ways take 20 ms by `scaled_dot_product_attention` of torch 2.13 and
4 ms so. Scoring 8 sequences of 256 tokens, 9 heads of 64 that see what stands before them, takes 9 and 3 ms (two cores
with AVX-512 bf16).
"""

from __future__ import annotations

import inspect
import itertools
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
from fivefold.training.precision import computes_bf16

ATTENTION = "fivefold_padded"
"""What transformers calls `attend_padded`; never written into a config.json."""

LONGEST = 512
"""Tokens up to which all weights of attention are kept for the way back; torch's own keeps none."""

QUERIES = 128
"""Queries that are multiplied at once, whose scores stay in a core's cache; causal ones leave out later keys."""

AT_ONCE = 1 << 20
"""Weights of attention that scoring holds at once: 2 MB."""


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
        or (attention_mask is not None and attention_mask.dim() == 4 and attention_mask.shape[1] > 1)
        or (causal and query.shape[2] != key.shape[2])
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    if torch.is_autocast_enabled("cpu"):  # rotations may have made queries and keys fp32
        query, key, value = (each.to(torch.get_autocast_dtype("cpu")) for each in (query, key, value))
    return products(query, key, value, attention_mask, causal, dropout, scaling), None


def torch_is_slow(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a CPU multiplies these in bf16, and no more weights than may be are kept for a way back."""
    blocks = query, key, value
    if query.device.type != "cpu" or (goes_back(*blocks) and key.shape[2] > LONGEST):
        return False
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return (cast or all(each.dtype == torch.bfloat16 for each in blocks)) and computes_bf16(query.device)


def goes_back(*blocks: Tensor) -> bool:
    """Whether gradients of these will be wanted."""
    return torch.is_grad_enabled() and any(each.requires_grad for each in blocks)


def products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool = False,
    dropout: float = 0.0,
    scaling: float | None = None,
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
    causal
        A token sees itself and those before it; in place of a mask, and K = T.

    Returns
    -------
    (S, T, heads, d)
    """
    (rows, heads, tokens, width), keys = query.shape, key.shape[2]
    scale = width**-0.5 if scaling is None else scaling
    few = rows if goes_back(query, key, value) else max(1, AT_ONCE // (heads * min(tokens, QUERIES) * keys))
    with torch.autocast(query.device.type, enabled=False):  # which would have the softmax write fp32
        turned = (key - key.detach().mean(dim=2, keepdim=True)).transpose(2, 3).contiguous()
        parts = zip(query.split(few), turned.split(few), value.contiguous().split(few), strict=True)
        seen = itertools.repeat(None) if mask is None else mask.expand(rows, 1, tokens, keys).split(few)
        return torch.cat([mixed(*part, some, causal, dropout, scale) for part, some in zip(parts, seen, strict=False)])


def mixed(
    query: Tensor, turned: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float, scale: float
) -> Tensor:
    """Of some sequences, (s, T, heads, d), some queries at a time; if causal, without what stands behind them."""
    said, end, keys = [], 0, turned.shape[3]
    for few in query.split(QUERIES, dim=2):
        start, end = end, end + few.shape[2]
        if causal:
            bias = added(torch.ones(end - start, end, dtype=torch.bool).tril(diagonal=start), query.dtype)
        else:
            bias = added(None if mask is None else mask[:, :, start:end], query.dtype)
        shown = end if causal else keys
        said.append(multiply(few, turned[..., :shown], value[:, :, :shown], bias, dropout, scale))
    return torch.cat(said, dim=1)


def multiply(query: Tensor, turned: Tensor, value: Tensor, bias: Tensor, dropout: float, scale: float) -> Tensor:
    """Values under the softmax of the queries' scores, (s, t, heads, d)."""
    rows, heads, tokens, width = query.shape
    shared = rows * turned.shape[1]
    scores = bias.expand(rows, heads, tokens, turned.shape[3]).clone(memory_format=torch.contiguous_format)
    scores = scores.view(shared, -1, turned.shape[3])
    weights = scores.baddbmm_(query.reshape(shared, -1, width), turned.flatten(0, 1), alpha=scale).softmax(dim=-1)
    if dropout:
        weights = SparingDropout(dropout)(weights)
    return (weights @ value.flatten(0, 1)).view(rows, heads, tokens, -1).transpose(1, 2)


def added(mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a mask adds to scores; it broadcasts as the mask does."""
    if mask is None:
        return torch.zeros(1, 1, 1, 1, dtype=dtype)
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
