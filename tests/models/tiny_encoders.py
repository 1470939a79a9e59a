"""Tiny random encoders of every architecture, their tokenizer, and batches padded on either side."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
WORDS = ["yes", "no", "?", ".", *(f"word{i}" for i in range(90))]

COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **COMMON},
    "roberta": {"model_type": "roberta", **COMMON, "type_vocab_size": 1},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    },
    "deberta": {
        "model_type": "deberta-v2",
        **COMMON,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "conv_kernel_size": 3,
    },
    "mpnet": {"model_type": "mpnet", **COMMON},
    "modernbert": {
        "model_type": "modernbert",
        **COMMON,
        "num_hidden_layers": 4,
        "local_attention": 16,
        "global_attn_every_n_layers": 3,
    },
    "big_bird": {
        "model_type": "big_bird",
        **COMMON,
        "attention_type": "block_sparse",
        "block_size": 4,
        "num_random_blocks": 1,
    },
    "big_bird_full": {"model_type": "big_bird", **COMMON, "attention_type": "original_full"},
    "longformer": {"model_type": "longformer", **COMMON, "attention_window": [8, 16], "max_position_embeddings": 258},
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    backend.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", special_tokens=[("<cls>", 2), ("<sep>", 3)]
    )
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def random_rows(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [[2, *torch.randint(5, 99, (n - 2,), generator=generator).tolist(), 3] for n in lengths]


def batch_of(rows: list[list[int]], side: str = "right", extra: int = 0, pad: int = 0) -> dict[str, Tensor]:
    """Each row one part with one sequence, padded to the longest and `extra` more; token types 0 and 1."""
    tokens = max(map(len, rows)) + extra
    ids, mask, types = (torch.full((len(rows), tokens), value) for value in (pad, 0, 0))
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(tokens - len(row), tokens)
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
        types[i, place] = (torch.arange(len(row)) > len(row) // 2).long()
    every = torch.arange(len(rows))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "part": every, "owner": every}
