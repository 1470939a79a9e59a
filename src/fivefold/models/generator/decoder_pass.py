"""A text through an encoder once, and a tree of tokens through the decoder over it in one pass.

Every node sees the token that a decoder's text starts with, its own line, and nothing else of the tree. Where a
decoder's positions can't be told to its model, its layers are called here as the model calls them in transformers 5.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.masking_utils import create_bidirectional_mask

from fivefold.models.backbones.passes import Passes, in_batch_order
from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.generator.tree_pass import Nodes, as_taken


@dataclass(frozen=True)
class Reading:
    """What a decoder reads.

    Parameters
    ----------
    ids, depths
        int64 (B, n): start token and nodes, and how many tokens stand before each.
    seen
        bool (B, n, n): which of them each one sees.
    texts, real
        The encoder's vectors (B, T, H), and int64 (B, T), 1 where a real token is.
    """

    ids: Tensor
    depths: Tensor
    seen: Tensor
    texts: Tensor
    real: Tensor

    def mask(self, decoder: Any) -> Any:
        """`seen` as the decoder's layers take it."""
        return as_taken(decoder.config, self.seen)

    def text_mask(self, decoder: Any, hidden: Tensor) -> Any:
        """Which tokens of the texts are real, as the decoder's layers take it."""
        return create_bidirectional_mask(
            config=decoder.config, inputs_embeds=hidden, attention_mask=self.real, encoder_hidden_states=self.texts
        )


def spoken_at(whole: Any, passes: Passes, prompts: Padded, nodes: Nodes) -> Tensor:
    """The vectors that the head of an encoder-decoder reads, at its start token and at the nodes: (B, 1 + n, H).

    Parameters
    ----------
    passes
        Of its encoder.
    prompts
        What the encoder reads.
    """
    return DECODERS[whole.config.model_type](
        whole, started(whole.config, prompts, encoded(whole, passes, prompts), nodes)
    )


def encoded(whole: Any, passes: Passes, prompts: Padded) -> Tensor:
    """The encoder's vector of every token, zeros or anything where none is: (B, T, H)."""
    found, places = [], []
    for each in passes(prompts):
        hidden: Tensor = whole.base_model.encoder(**each.inputs).last_hidden_state
        hidden = hidden[:, : prompts.ids.shape[1]]
        found.append(functional.pad(hidden, (0, 0, 0, prompts.ids.shape[1] - hidden.shape[1])))
        places.append(each.index)
    return in_batch_order(places, found)


def started(config: Any, prompts: Padded, texts: Tensor, nodes: Nodes) -> Reading:
    """The start token, and the nodes behind it."""
    rows, count = nodes.tokens.shape
    start = nodes.tokens.new_full((rows, 1), config.decoder_start_token_id)
    seen = torch.ones(rows, 1 + count, 1 + count, dtype=torch.bool, device=start.device).tril(-1)
    seen[:, 1:, 1:] = nodes.seen
    seen |= torch.eye(1 + count, dtype=torch.bool, device=start.device)  # so that no softmax is over nothing
    return Reading(
        torch.cat([start, nodes.tokens], dim=1), functional.pad(1 + nodes.depths, (1, 0)), seen, texts, prompts.mask
    )


def _t5(whole: Any, read: Reading) -> Tensor:
    """T5's positions are biases of attention, of which the first layer makes a table by distances."""
    decoder = whole.decoder
    most = int(read.depths.max()) + 1
    table = decoder.block[0].layer[0].SelfAttention.compute_bias(most, most)[0]  # (heads, most, most)
    bias = table[:, read.depths[:, :, None], read.depths[:, None, :]].transpose(0, 1)  # (B, heads, n, n)
    hidden: Tensor = decoder.dropout(decoder.embed_tokens(read.ids))
    mask, text_mask, text_bias = read.mask(decoder), read.text_mask(decoder, hidden), None
    for block in decoder.block:
        hidden, _, text_bias = block(hidden, mask, bias, read.texts, text_mask, text_bias)
    hidden = decoder.dropout(decoder.final_layer_norm(hidden))
    return hidden * whole.model_dim**-0.5 if getattr(whole.config, "scale_decoder_outputs", False) else hidden


def _bart(whole: Any, read: Reading) -> Tensor:
    """BART counts positions by itself; its layers are never left out in training."""
    decoder = whole.base_model.decoder
    positions = decoder.embed_positions(read.ids, position_ids=read.depths)[0]
    hidden: Tensor = decoder.layernorm_embedding(decoder.embed_tokens(read.ids) + positions)
    hidden = functional.dropout(hidden, decoder.dropout, decoder.training)
    mask, text_mask = read.mask(decoder), read.text_mask(decoder, hidden)
    for layer in decoder.layers:
        hidden = layer(hidden, mask, read.texts, encoder_attention_mask=text_mask)
    return hidden


def _joined(whole: Any, read: Reading) -> Tensor:
    """A BERT under its head for the next token; what it attends to may have another width."""
    decoder = whole.decoder
    texts = whole.enc_to_dec_proj(read.texts) if hasattr(whole, "enc_to_dec_proj") else read.texts
    hidden = decoder.base_model(
        input_ids=read.ids,
        attention_mask=read.mask(decoder),
        position_ids=read.depths,
        encoder_hidden_states=texts,
        encoder_attention_mask=read.real,
    ).last_hidden_state
    spoken: Tensor = decoder.cls.predictions.transform(hidden)
    return spoken


DECODERS = {"bart": _bart, "encoder-decoder": _joined, "mt5": _t5, "t5": _t5}
