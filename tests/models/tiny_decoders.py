"""Tiny random decoders of several architectures, and a byte-level tokenizer whose pad token is its end token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fivefold.data.demo import demo
from fivefold.models.backbones.backbone import Origin, load_causal_lm, save_backbone

SPECIAL = ["<s>", "</s>", "<pad>"]

COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **COMMON},
    "qwen2": {"model_type": "qwen2", **COMMON},
    "qwen3": {"model_type": "qwen3", **COMMON},
    "mistral": {"model_type": "mistral", **COMMON, "sliding_window": 16},
    "gemma2": {"model_type": "gemma2", **COMMON, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3": {"model_type": "gemma3_text", **COMMON, "query_pre_attn_scalar": 8, "sliding_window": 16},
}


def bytes_tokenizer(words: int = 400, bos: bool = True) -> PreTrainedTokenizerFast:
    """Llama's kind of tokenizer, trained on demo tweets; it knows no pad token, though "<pad>" is a special one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(demo("tweets", 200, seed=5)["text"], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", extra_special_tokens=["<pad>"]
    )


def save_decoder(name: str, folder: Path) -> Path:
    """A tiny decoder with its tokenizer and its head for the next token, in `folder`."""
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    save_backbone(load_causal_lm(Origin(architecture=DECODERS[name]), tokenizer, seed=1).model, tokenizer, folder)
    return folder
