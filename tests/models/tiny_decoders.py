"""Tiny random decoders of several architectures, and a byte-level tokenizer whose pad token is its end token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
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


def write_gguf(model: Any, tokenizer: Any, path: Path) -> Path:
    """A causal Llama in a GGUF file, unquantised, as llama.cpp's converter lays it out."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    plain = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(plain["vocab"], key=plain["vocab"].get)
    writer.add_token_list([*tokens, *(f"<unused{i}>" for i in range(config.vocab_size - len(tokens)))])
    writer.add_token_merges([" ".join(merge) for merge in plain["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for key, tensor in model.state_dict().items():
        stem, weight = key.removesuffix(".weight"), tensor.numpy()
        layer, part = (stem.split(".")[2], stem.split(".", 3)[3]) if ".layers." in stem else ("", "")
        if part.endswith(("q_proj", "k_proj")):  # rotary halves lie interleaved in GGUF
            heads = len(weight) // config.head_dim
            weight = weight.reshape(heads, 2, config.head_dim // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(f"blk.{layer}.{names[part]}.weight" if part else f"{whole[stem]}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
