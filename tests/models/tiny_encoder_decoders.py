"""Tiny random encoder-decoders of several architectures, each with a tokenizer of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.models.tiny import TINY, word_pieces
from tests.models.tiny_decoders import bytes_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from fivefold.data.demo import demo
from fivefold.models.backbones.backbone import Origin, load_writer, save_backbone

T5: dict[str, Any] = {
    "vocab_size": 512,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "dropout_rate": 0.0,
    "initializer_factor": 1.0,
}
"""Its distances fall into eight buckets within lines of a few tokens."""

BERT = TINY | {
    "vocab_size": 512,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {"model_type": "t5", **T5, "initializer_factor": 1.5},
    "flan": {"model_type": "t5", **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "byt5": {"model_type": "t5", **T5, "vocab_size": 384, "num_decoder_layers": 1, "tie_word_embeddings": False},
    "mt5": {"model_type": "mt5", **T5},
    "bart": {
        "model_type": "bart",
        "vocab_size": 512,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 256,
        "scale_embedding": True,
        "init_std": 0.3,
        "dropout": 0.0,
    },
    "joined": {
        "model_type": "encoder-decoder",
        "encoder": {**BERT, "hidden_size": 24},
        "decoder": {**BERT, "num_hidden_layers": 1},
    },
}


def pieces_tokenizer(words: int = 400) -> PreTrainedTokenizerFast:
    """T5's kind of tokenizer, trained on demo tweets: padding is 0, the end 1, and sentinels stand last."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=words, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(demo("tweets", 200, seed=5)["text"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<extra_id_1>", "<extra_id_0>"],
    )


def tokenizer_of(name: str) -> Any:
    """What goes with an architecture."""
    if name == "byt5":
        return ByT5Tokenizer()
    if name == "joined":
        return word_pieces()
    if name != "bart":
        return pieces_tokenizer()
    tokenizer = bytes_tokenizer()
    tokenizer.pad_token = "<pad>"
    return tokenizer


def save_encoder_decoder(name: str, folder: Path) -> Path:
    """A tiny encoder-decoder with its tokenizer, in `folder`; with a head or biases of its own where some are so."""
    tokenizer = tokenizer_of(name)
    whole = load_writer(Origin(architecture=ENCODER_DECODERS[name]), tokenizer, seed=1).whole
    torch.manual_seed(2)
    if name in ("flan", "byt5", "mt5"):
        whole.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(whole.lm_head.weight))
    if name == "bart":
        whole.final_logits_bias.normal_()
    save_backbone(whole, tokenizer, folder)
    return folder
