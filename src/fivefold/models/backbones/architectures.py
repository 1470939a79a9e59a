"""What differs from one architecture to the next: limits, layers, dropout, and what a batch must look like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fivefold.errors import FivefoldError

COUNTED_FROM_PAD = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta"}
    | {"xlm-roberta-xl"}
)
"""Architectures whose positions start after the padding index, so that their position table is longer than their inputs
may be: RoBERTa's 514 positions hold 512 tokens."""

CAUSAL = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Architectures in which nothing that a token becomes depends on later ones, and positions are counted from the first
column, as read in transformers 5.17."""

STEERED = frozenset({"gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Of these, architectures whose attention takes any mask, and whose positions are what they are told."""

UNMASKED = frozenset({"convbert", "fnet"})
"""Encoders whose tokens become something else when padding stands behind them."""

RELATIVE = frozenset({"mt5", "t5"})
"""Architectures that know positions by their distances alone."""

AFTER_LAYERS = frozenset(
    {"final_norm", "final_layer_norm", "final_layernorm", "norm", "norm_f", "ln_f", "emb_layer_norm_after"}
)
"""Norms behind the top layer; they are trained with it."""

HEADS = ("cls", "lm_head")
"""What stands above the layers of a model that writes."""

DROPOUTS = (
    "hidden_dropout_prob",
    "hidden_dropout",
    "dropout",
    "dropout_rate",
    "activation_dropout",
    "embedding_dropout",
    "embd_pdrop",
    "mlp_dropout",
    "resid_pdrop",
)
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")


@dataclass(frozen=True)
class PositionLimit:
    """How many tokens, special ones included, an input may have.

    Parameters
    ----------
    tokens
        Tokens that the backbone was built for.
    hard
        Whether longer inputs fail; with relative positions they are only unusual.
    """

    tokens: int
    hard: bool


def stack_configs(config: Any) -> tuple[Any, ...]:
    """The configs of a backbone's stacks, encoder first; mostly one and the same."""
    return (config.encoder, config.decoder) if config.model_type == "encoder-decoder" else (config,)


def position_limit(config: Any) -> PositionLimit:
    """The limit of a backbone with this transformers config; what tokenizers and sentence-transformers say is none.

    Of an encoder-decoder it is the encoder's.
    """
    config = stack_configs(config)[0]
    stated = int(getattr(config, "max_position_embeddings", 0) or 0)
    tokens = stated if stated > 0 else 512
    if config.model_type in COUNTED_FROM_PAD:
        tokens -= first_position(config)
    if is_block_sparse(config):
        tokens -= tokens % config.block_size
    relative = getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True)
    relative = relative or config.model_type in RELATIVE
    # Beyond its positions a dynamic rotation turns tokens by the longest sequence that the model has seen so far.
    rotary = getattr(config, "rope_parameters", None) is not None and rotation(config, "dynamic") is None
    return PositionLimit(tokens, stated > 0 and not relative and not rotary)


def first_position(config: Any) -> int:
    """The position of the first token, in architectures `COUNTED_FROM_PAD`."""
    return 2 if config.model_type == "mpnet" else int(config.pad_token_id) + 1


def looks_back_only(model: Any) -> bool:
    """Whether real tokens that stand first need no mask, as padding behind them is never seen."""
    config = model.config
    both_ways = getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True)
    return is_known(model) and config.model_type in CAUSAL and not both_ways


def is_known(model: Any) -> bool:
    """Whether a model's code is that of transformers, not some that came with its weights."""
    return type(model).__module__.startswith("transformers.models.")


def is_steered(model: Any) -> bool:
    """Whether a pass does with any mask and any positions what they say."""
    return is_known(model) and model.config.model_type in STEERED and turning_point(model.config) is None


def rotation(config: Any, kind: str) -> Mapping[str, Any] | None:
    """The parameters of a rotation of this kind in any layer; None where there is none."""
    parameters = getattr(config, "rope_parameters", None) or {}
    several = parameters.values() if all(isinstance(each, dict) for each in parameters.values()) else [parameters]
    return next((each for each in several if each.get("rope_type") == kind), None)


def turning_point(config: Any) -> int | None:
    """Tokens from which on LongRoPE (Ding et al. 2024, arXiv 2402.13753) turns all tokens of a pass otherwise."""
    found = rotation(config, "longrope")
    return None if found is None else int(found["original_max_position_embeddings"])


def is_block_sparse(config: Any) -> bool:
    """Whether this is BigBird with its own attention, which goes by blocks."""
    return bool(config.model_type == "big_bird" and config.attention_type == "block_sparse")


def longest_full(config: Any) -> int:
    """Tokens up to which BigBird's block-sparse attention is full attention instead.

    Its two global, three neighbouring and `num_random_blocks` random blocks must not meet, which transformers takes to
    need more than (5 + 2 num_random_blocks) blocks (`BigBirdModel.forward`).
    """
    return int((5 + 2 * config.num_random_blocks) * config.block_size)


def count_full_attention(config: Any, lengths: npt.NDArray[Any]) -> int:
    """How many inputs of these lengths in tokens a block-sparse BigBird reads with full attention; 0 for any other."""
    return int(np.count_nonzero(lengths <= longest_full(config))) if is_block_sparse(config) else 0


def set_dropouts(config: Any, dropout: float | None, attention_dropout: float | None) -> None:
    """Override the dropouts of a config before its model is built; None leaves them.

    Raises
    ------
    FivefoldError
        If the architecture has no such dropout.
    """
    for value, names, key in (
        (dropout, DROPOUTS, "dropout"),
        (attention_dropout, ATTENTION_DROPOUTS, "attention_dropout"),
    ):
        present = [(each, name) for each in stack_configs(config) for name in names if hasattr(each, name)]
        if value and not present:
            raise FivefoldError(
                f"model.{key} can't be set: a '{config.model_type}' backbone has no such dropout.",
                next_step=f"leave model.{key} out of the recipe",
            )
        for each, name in present if value is not None else ():
            setattr(each, name, value)


def dropped_attention(config: Any) -> float:
    """The share of attention that a backbone drops in training; 0 where it drops none."""
    return max((float(getattr(config, name)) for name in ATTENTION_DROPOUTS if hasattr(config, name)), default=0.0)


def layer_path(backbone: Any) -> str:
    """Dotted name of the list of a backbone's layers, such as "encoder.layer".

    Raises
    ------
    FivefoldError
        If none can be found.
    """
    lists = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    depth = getattr(backbone.config, "num_hidden_layers", None)
    fitting: list[str] = [name for name, module in lists if len(module) == depth] or [name for name, _ in lists]
    if not fitting:
        raise FivefoldError(
            f"The layers of a '{getattr(backbone.config, 'model_type', 'custom')}' backbone can't be told apart.",
            next_step="leave model.unfrozen_layers and training.layer_decay out of the recipe, or take another one",
        )
    return min(fitting, key=lambda name: name.count("."))


def layer_count(backbone: Any) -> int:
    """How many layers a backbone has, those of an encoder and its decoder together."""
    return sum(stack.layers for stack in stacks(backbone))


@dataclass(frozen=True)
class Stack:
    """Layers of a backbone, one above the other.

    Parameters
    ----------
    within
        What the names of all that belongs to it begin with: "", or "encoder." and "decoder.".
    path
        Dotted name of the list of layers.
    layers
        How many.
    """

    within: str
    path: str
    layers: int


def stacks(backbone: Any) -> tuple[Stack, ...]:
    """The layers of a backbone from the bottom up; a decoder stands on its encoder.

    Raises
    ------
    FivefoldError
        As `layer_path`.
    """
    parts = ("encoder.", "decoder.") if getattr(backbone.config, "is_encoder_decoder", False) else ("",)
    found = [(part, part + layer_path(backbone.get_submodule(part[:-1]))) for part in parts]
    return tuple(Stack(part, path, len(backbone.get_submodule(path))) for part, path in found)


def depth_of(name: str, parts: Sequence[Stack]) -> int:
    """Depth of what a backbone calls `name`: 0 for embeddings, i + 1 for layer i, counted from 0.

    Norms and heads after the layers go with the top layer, relative position tables with the embeddings, DeBERTa's
    convolution with the first layer, behind which it stands.
    """
    below = 0
    for part in parts:
        if match := re.match(re.escape(part.path) + r"\.(\d+)(\.|$)", name):
            return below + int(match[1]) + 1
        own = name.removeprefix(part.within) if name.startswith(part.within) else ""
        if own.startswith("encoder.conv"):
            return below + 1
        below += part.layers
        parts_of = own.split(".")
        if parts_of[0] != "embeddings" and AFTER_LAYERS.intersection(parts_of):
            return below
    return below if set(name.split(".")) & set(HEADS) else 0


def parameters_by_depth(backbone: Any) -> list[dict[str, nn.Parameter]]:
    """Parameters by their names: embeddings, then each layer from the bottom up."""
    parts = stacks(backbone)
    groups: list[dict[str, nn.Parameter]] = [{} for _ in range(layer_count(backbone) + 1)]
    for name, parameter in backbone.named_parameters():
        groups[depth_of(name, parts)][name] = parameter
    return groups


def modules_up_to(backbone: Any, depth: int) -> Iterator[nn.Module]:
    """All modules whose depth is at most `depth`, those that only hold others left out."""
    parts = stacks(backbone)
    paths = [part.path for part in parts]
    for name, module in backbone.named_modules():
        holds_layers = not name or any(path == name or path.startswith(f"{name}.") for path in paths)
        if not holds_layers and depth_of(name, parts) <= depth:
            yield module
