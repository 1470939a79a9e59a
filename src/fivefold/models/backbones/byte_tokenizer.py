"""ByT5's tokenizer, which transformers only has in Python, as one that the library `tokenizers` runs."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode


def as_fast(tokenizer: Any) -> Any:
    """ByT5's with the same ids: special tokens, a token a byte, sentinels, an end behind a text; others as they are."""
    return _bytes(tokenizer) if isinstance(tokenizer, ByT5Tokenizer) else tokenizer


def _bytes(slow: ByT5Tokenizer) -> PreTrainedTokenizerFast:
    known = {index: token.content for index, token in sorted(slow.added_tokens_decoder.items())}
    first = [content for index, content in known.items() if index < slow.offset]
    vocabulary = {content: index for index, content in enumerate(first)}
    vocabulary |= {letter: slow.offset + byte for byte, letter in bytes_to_unicode().items()}
    fast = Tokenizer(models.BPE(vocabulary, [], unk_token=slow.unk_token))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(content, normalized=False) for content in known.values()])
    end = (slow.eos_token, slow.eos_token_id)
    fast.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", pair=f"$A {end[0]} $B {end[0]}", special_tokens=[end]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        name_or_path=slow.name_or_path,
        pad_token=slow.pad_token,
        eos_token=slow.eos_token,
        unk_token=slow.unk_token,
        extra_special_tokens=[content for index, content in known.items() if index >= slow.offset],
        model_input_names=slow.model_input_names,
    )
