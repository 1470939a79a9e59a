"""Encoder-decoders: which ones can write, the token that begins what they write, and one made of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderConfig, EncoderDecoderModel

from fivefold.errors import FivefoldError, RecipeError
from fivefold.models.backbones.architectures import position_limit, stack_configs
from fivefold.models.backbones.places import explained, resolve

JOINED = "encoder-decoder"
"""What transformers calls two models of which one reads and the other writes."""

WRITERS = ("bart", JOINED, "mt5", "t5")
"""Architectures whose decoder reads a tree of tokens in one pass, see `decoder_pass`."""

SPEAKERS = ("bert",)
"""Architectures that can be the decoder of two joined models."""


def is_encoder_decoder(config: Any) -> bool:
    """Whether a backbone reads a text in one stack and writes in another."""
    return bool(getattr(config, "is_encoder_decoder", False))


@dataclass(frozen=True)
class Joined:
    """Loads a decoder that lies at `decoder` over an encoder, in the place of a class of transformers."""

    decoder: str

    def from_pretrained(self, name: str, *, config: Any, **arguments: Any) -> tuple[Any, dict[str, list[str]]]:
        """The model, and its weights that neither checkpoint has, such as the decoder's attention to the encoder."""
        place = resolve(self.decoder)
        encoder, read = _with_report(AutoModel, name, config=config.encoder, **arguments)
        with explained(place, "decoder"):
            decoder, written = _with_report(AutoModelForCausalLM, place.name, config=config.decoder, **arguments)
        missing = [
            f"{part}.{key}"
            for part, found in (("encoder", read), ("decoder", written))
            for key in found["missing_keys"]
        ]
        return EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder), {"missing_keys": missing}


def _with_report(kind: Any, name: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    model, report = kind.from_pretrained(name, **arguments)
    return model, report


def joined_config(encoder: Any, decoder: Any) -> Any:
    """The config of an encoder with a decoder over it; the decoder's own one changes with it."""
    pad = encoder.pad_token_id
    return EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, pad_token_id=pad)


def check_room(config: Any, tokens: int) -> None:
    """Refuse answers of so many tokens, the start token included, where a decoder hasn't as many positions.

    Raises
    ------
    RecipeError
        Saying how many it has.
    """
    limit = position_limit(stack_configs(config)[-1])
    if limit.hard and tokens > limit.tokens:
        raise RecipeError(
            "A question and its longest answer are longer than what the decoder can write.",
            allowed=f"{limit.tokens} tokens",
            got=str(tokens),
            next_step="shorten model.question, model.questions or model.answers",
        )


def prepare_to_write(config: Any, tokenizer: Any) -> None:
    """Decide what an encoder-decoder's text begins with, and that it keeps no keys and values.

    The checkpoint's start token stays; else it is the token that the tokenizer begins texts with, or its pad token.

    Raises
    ------
    FivefoldError
        If the architecture isn't one of `WRITERS`, or its decoder none of `SPEAKERS`.
    """
    kind, speaker = config.model_type, stack_configs(config)[-1].model_type
    joined = kind == JOINED
    if kind not in WRITERS or (joined and speaker not in SPEAKERS):
        raise FivefoldError(
            "This encoder-decoder can't write labels.",
            allowed=f"{', '.join(WRITERS)}, the decoder of an {JOINED} being a {' or '.join(SPEAKERS)}",
            got=f"{JOINED} with a {speaker}" if joined else kind,
        )
    if getattr(config, "decoder_start_token_id", None) is None:
        starts = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id)
        config.decoder_start_token_id = next(each for each in starts if each is not None)
    for each in (config, *stack_configs(config)):
        each.use_cache = False  # of keys and values, which only generating reads
