"""Packing: the real tokens of a batch as one long sequence, so that nothing is computed for padding.

A model that packs still takes and gives padded batches, whoever calls it; only in between there is no padding. Every
token keeps its position, and attention goes through `attend`, which is told where sequences begin and so mixes none.

Packed are architectures whose layers hand what they don't know down to the attention function, and in which tokens meet
nowhere else, as read in transformers 5.17. DeBERTa, MPNet, BigBird and Longformer have attention of their own.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from fivefold.models.backbones.architectures import COUNTED_FROM_PAD, dropped_attention, layer_path
from fivefold.models.backbones.attention import attend_padded

ATTENTION = "fivefold_packed"
"""What transformers calls `attend`; never written into a config.json."""

PACKABLE = frozenset(
    {
        "BertModel",
        "CamembertModel",
        "DistilBertModel",
        "ElectraModel",
        "ModernBertModel",
        "RobertaModel",
        "XLMRobertaModel",
    }
)
"""Classes of transformers itself: other code may call its architecture "bert" too."""

WIDEST_HEAD = 128
"""Flash attention takes wider heads on some GPUs only."""

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a padded batch lie in its packed one.

    Parameters
    ----------
    shape
        Sequences and columns of the padded batch.
    place
        Where each real token stands in the flattened batch, int64 (tokens,).
    starts
        Where each sequence begins, and the end of the last one, int32 (S + 1,).
    """

    shape: tuple[int, int]
    place: Tensor
    starts: Tensor

    def pack(self, block: Tensor) -> Tensor:
        """The real tokens' share; (S, T) or (1, T) -> (1, tokens)."""
        return block.expand(self.shape).flatten()[self.place][None]

    def unpack(self, hidden: Tensor) -> Tensor:
        """The padded batch, zeros where padding is; (1, tokens, H) -> (S, T, H)."""
        rows, columns = self.shape
        flat = hidden.new_zeros(rows * columns, hidden.shape[2])
        return flat.index_copy(0, self.place, hidden[0]).view(rows, columns, -1)


def segments_of(mask: Tensor) -> Segments:
    """Where the real tokens of a mask (S, T) are; a GPU is waited for once."""
    starts = functional.pad(mask.bool().sum(dim=1).cumsum(dim=0), (1, 0))
    return Segments((mask.shape[0], mask.shape[1]), mask.flatten().nonzero().squeeze(1), starts.to(torch.int32))


def let_pack(model: Any) -> None:
    """Have a model without head pack its batches where that gains something; one that can't be packed stays as it is.

    `model.packing` is then "auto": under bf16 or fp16 autocast on a GPU with flash attention. "always" packs on any
    device, on a CPU by an attention that is right but slow; "never" doesn't. Where training drops attention, batches
    stay padded in any case, as flash attention of variable length has no dropout.
    """
    if not packable(model):
        return
    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    model.packing = "auto"
    model.register_forward_pre_hook(_pack, with_kwargs=True)
    model.get_submodule(layer_path(model))[-1].register_forward_hook(_unpack, with_kwargs=True)


def packable(model: Any) -> bool:
    """Whether this model's layers can be told where the sequences of a packed batch begin."""
    kind, config = type(model), model.config
    ours = kind.__name__ in PACKABLE and kind.__module__.startswith("transformers.models.")
    return ours and config._attn_implementation == "sdpa" and not getattr(config, "is_decoder", False)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention within each segment, or that of a padded batch.

    Parameters
    ----------
    query, key, value
        (S, heads, T, d); of a packed batch S is 1.
    sliding_window
        Of ModernBERT's local layers: a token sees those less than so many places away.

    Returns
    -------
    (S, T, heads, d), and None for the weights.

    Raises
    ------
    ValueError
        If attention is to be dropped in a packed batch.
    """
    if segments is None:
        return attend_padded(module, query, key, value, attention_mask, **others)
    if dropout := others.get("dropout"):
        raise ValueError(f"a packed batch drops no attention, and {dropout} of it was to be dropped")
    reach = None if sliding_window is None else sliding_window - 1
    flash = query.is_cuda and query.dtype in HALF
    return (_at_once if flash else _one_by_one)(query, key, value, segments, reach), None


def _at_once(query: Tensor, key: Tensor, value: Tensor, segments: Segments, reach: int | None) -> Tensor:
    """Flash attention of variable length; (1, heads, tokens, d) -> (1, tokens, heads, d).

    Scores are divided by sqrt(d), as in every architecture here; torch 2.10 takes no other scale, and no window.
    """
    from torch.nn.attention.varlen import varlen_attn  # a quarter of a second that a CPU needn't spend

    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    longest = segments.shape[1]  # columns are no fewer, and known without waiting for the GPU
    window: dict[str, Any] = {} if reach is None else {"window_size": (reach, reach)}
    mixed: Any = varlen_attn(q, k, v, segments.starts, segments.starts, longest, longest, **window)
    return torch.unsqueeze(mixed, 0)


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: Segments, reach: int | None) -> Tensor:
    """The same on any device and in any precision, segment after segment: what `_at_once` is compared with."""
    lengths = segments.starts.diff().tolist()
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    mixed = [scaled_dot_product_attention(q, k, v, _near(q, reach)) for q, k, v in parts]
    return torch.cat(mixed, dim=2).transpose(1, 2)


def _near(query: Tensor, reach: int | None) -> Tensor | None:
    """Which keys each query sees, (T, T); None: all."""
    place = torch.arange(query.shape[2], device=query.device)
    return None if reach is None else (place[:, None] - place).abs() <= reach


def _pack(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of a packed pass in place of a padded one's; None leaves them."""
    ids, mask = args[0] if args else kwargs.get("input_ids"), kwargs.get("attention_mask")
    positions = kwargs.get("position_ids")
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    if len(args) > 1 or ids is None or not _packs(model, ids.device):
        return None
    if positions is None:
        if model.config.model_type in COUNTED_FROM_PAD:
            return None  # transformers would count them from the ids
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
    segments = segments_of(mask)
    blocks = {"input_ids": ids, "position_ids": positions, "token_type_ids": kwargs.get("token_type_ids")}
    packed = {name: segments.pack(block) for name, block in blocks.items() if block is not None}
    # ModernBERT would make the mask of its windows, (tokens, tokens), if it got no masks of its layers.
    local = model.config.model_type == "modernbert"
    masks = dict.fromkeys(model.config.layer_types) if local else None
    return (), kwargs | packed | {"attention_mask": masks, "segments": segments}


def _unpack(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
    """What the last layer says, as a padded batch; norms behind it see padding as zeros."""
    segments: Segments | None = kwargs.get("segments")
    return None if segments is None else segments.unpack(output)


def _packs(model: Any, device: torch.device) -> bool:
    if model.packing == "never" or (model.training and dropped_attention(model.config)):
        return False
    return model.packing == "always" or flash_runs(model.config, device)


def flash_runs(config: Any, device: torch.device) -> bool:
    """Whether a pass on this device now would go through flash attention of variable length."""
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return False
    head = config.hidden_size // config.num_attention_heads
    return (
        torch.get_autocast_dtype("cuda") in HALF
        and head % 8 == 0
        and head <= WIDEST_HEAD
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and (config.model_type != "modernbert" or _windows_run())
    )


def _windows_run() -> bool:
    """Whether this torch has windows in attention of variable length; 2.10 hasn't."""
    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in inspect.signature(varlen_attn).parameters
