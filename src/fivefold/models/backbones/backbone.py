"""Where a backbone's weights and tokenizer come from, and the one place where its pad token is decided."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from fivefold.errors import FivefoldError, MissingExtraError
from fivefold.models.backbones.architectures import set_dropouts, stack_configs
from fivefold.models.backbones.attention import let_multiply
from fivefold.models.backbones.big_bird import mend
from fivefold.models.backbones.byte_tokenizer import as_fast
from fivefold.models.backbones.deberta import masked_lm_class
from fivefold.models.backbones.encoder_decoders import (
    JOINED,
    Joined,
    is_encoder_decoder,
    joined_config,
    prepare_to_write,
)
from fivefold.models.backbones.kernels import Kernels, apply_liger, check_kernels, unsloth_model
from fivefold.models.backbones.packing import let_pack
from fivefold.models.backbones.places import explained, first_line, quiet, resolve
from fivefold.training.precision import DTYPES, choose_precision, default_device

Attention = Literal["auto", "sparse", "full"]

Weights = Literal["fp32", "bf16", "fp16", "nf4", "int8"]
"""How weights are held in memory: as floats, or quantised by bitsandbytes."""


QUANTISED = frozenset({"nf4", "int8"})


@dataclass(frozen=True)
class Origin:
    """Where a backbone comes from, and what of its config is overridden.

    Parameters
    ----------
    name
        Folder or hub id of trained weights; None is the embedded MiniLM.
    architecture
        Instead of trained weights a transformers config with `model_type`; weights are then drawn.
    trust_remote_code
        Run Python that comes with the weights.
    dropout, attention_dropout
        Shares dropped in training; None leaves the config's.
    attention
        BigBird's attention, see `Passes`.
    weights
        How weights that aren't trained are held.
    kernels
        What computes a decoder's layers, see `kernels`.
    decoder
        Folder or hub id of a model that becomes the decoder over `name`'s encoder.
    """

    name: str | None = None
    architecture: Mapping[str, Any] | None = None
    trust_remote_code: bool = False
    dropout: float | None = None
    attention_dropout: float | None = None
    attention: Attention = "auto"
    weights: Weights = "fp32"
    kernels: Kernels = "none"
    decoder: str | None = None


@dataclass(frozen=True)
class Backbone:
    """A transformers model, and the weights that its checkpoint didn't have, which were drawn.

    Of a causal language model that writes, `model` is the part without its head for the next token, and `whole` all of
    it; of an encoder-decoder both are all of it.
    """

    model: Any
    missing: tuple[str, ...] = ()
    whole: Any = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth saying aloud of these weights."""
        model = self.model
        body = f"{model.base_model_prefix}."
        masked = hasattr(model, model.base_model_prefix) and model.base_model is not model
        head = [name for name in self.missing if masked and not name.startswith(body)]
        trunk = [name for name in self.missing if name not in head]
        remarks = []
        if head:
            remarks.append("The backbone has no pretrained masked-language-model head; a random one is trained.")
        if trunk:
            remarks.append(
                f"{len(trunk)} weights of the backbone aren't in its checkpoint and start random, such as {trunk[0]}."
            )
        return tuple(remarks)


def load_tokenizer(name: str | None, *, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer at a folder or hub id, with a pad token.

    Raises
    ------
    FivefoldError
        If it can't be had, or has no fast version.
    """
    place = resolve(name)
    with quiet(), explained(place, "tokenizer"):
        found = AutoTokenizer.from_pretrained(place.name, trust_remote_code=trust_remote_code, **place.arguments)
    tokenizer = as_fast(found)
    if not tokenizer.is_fast:
        raise FivefoldError(f"The tokenizer '{place}' has no fast version (tokenizer.json).")
    if tokenizer.pad_token_id is None:
        substitute = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
        if substitute is None:
            raise FivefoldError(f"The tokenizer '{place}' has neither a pad nor an end token.")
        # Padding is told from text by the attention mask alone, so that sharing a token is harmless.
        tokenizer.pad_token = substitute
    return tokenizer


def load_config(origin: Origin, tokenizer: Any) -> Any:
    """The transformers config of a backbone, with its overrides and the tokenizer's pad token.

    Raises
    ------
    FivefoldError
        If it can't be had, or doesn't go with the tokenizer.
    """
    config = _config(origin, tokenizer)
    if is_encoder_decoder(config):
        raise FivefoldError(
            f"The backbone '{origin.name}' is an encoder-decoder ('{config.model_type}').",
            allowed="an encoder, such as BERT, or a decoder, such as Llama",
            next_step="take model.family: generator, which writes labels with it",
        )
    if config.model_type == "big_bird" and origin.attention != "auto":
        config.attention_type = "original_full" if origin.attention == "full" else "block_sparse"
    return config


def load_writer_config(origin: Origin, tokenizer: Any) -> Any:
    """The config of a model that writes, causal or an encoder-decoder, as `load_config` otherwise.

    Raises
    ------
    FivefoldError
        As `load_config`, and if it is an encoder-decoder that can't write labels.
    """
    config = _config(origin, tokenizer)
    if origin.decoder:
        config = joined_config(config, _config(replace(origin, name=origin.decoder, decoder=None), tokenizer))
    if is_encoder_decoder(config):
        prepare_to_write(config, tokenizer)
    config.use_cache = False  # of keys and values, which only generating reads
    return config


def load_encoder(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """The encoder without any head; whatever its checkpoint lacks is drawn from `seed`.

    Raises
    ------
    FivefoldError
        If it can't be had.
    """
    return _load(AutoModel, origin, load_config(origin, tokenizer), seed)


def load_masked_lm(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """The encoder under its masked-language-model head; whatever its checkpoint lacks is drawn from `seed`.

    DeBERTa-v2 has two heads in transformers, and checkpoints of v3 hold the one that isn't the default
    (`legacy: false`); the one that the checkpoint holds is taken.

    Raises
    ------
    FivefoldError
        If it can't be had.
    """
    config = load_config(origin, tokenizer)
    backbone = _load(masked_lm_class(config), origin, config, seed)
    if config.model_type == "deberta-v2" and backbone.remarks:
        other = copy.deepcopy(config)
        other.legacy = not config.legacy
        backbone = min(backbone, _load(masked_lm_class(other), origin, other, seed), key=lambda each: len(each.missing))
    return backbone


def load_decoder(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """The causal backbone without its head for the next token, its weights held as `origin` says.

    Raises
    ------
    FivefoldError
        If it can't be had.
    MissingExtraError
        If bitsandbytes isn't installed and weights are to be quantised, or the kernels aren't.
    """
    check_kernels(origin.kernels)
    config = _decoder_config(origin, tokenizer)
    if origin.kernels == "unsloth":
        return _unslothed(origin, config, seed)
    backbone = _load(AutoModel, origin, config, seed)
    if origin.kernels == "liger":
        apply_liger(backbone.model)
    return backbone


def load_causal_lm(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """The backbone under its head for the next token; whatever its checkpoint lacks is drawn from `seed`.

    Raises
    ------
    FivefoldError
        If it can't be had.
    """
    return _load(AutoModelForCausalLM, origin, load_config(origin, tokenizer), seed)


def load_writer(origin: Origin, tokenizer: Any, *, seed: int) -> Backbone:
    """The causal backbone as `load_decoder` holds it and its head for the next token, or an encoder-decoder.

    Raises
    ------
    FivefoldError
        If it can't be had.
    MissingExtraError
        If bitsandbytes isn't installed and weights are to be quantised.
    """
    _check_quantised(origin)
    config = load_writer_config(origin, tokenizer)
    if not is_encoder_decoder(config):
        loaded = _load(AutoModelForCausalLM, origin, config, seed)
        return Backbone(loaded.model.base_model, loaded.missing, loaded.model)
    kind = Joined(origin.decoder) if origin.decoder else AutoModelForSeq2SeqLM
    loaded = _load(kind, origin, config, seed)
    return Backbone(loaded.model, loaded.missing, loaded.model)


def save_backbone(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write safetensors, config and tokenizer into `folder`, which is then a name for `Origin`."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_quantised(origin: Origin) -> None:
    if origin.weights in QUANTISED and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "llm", f"model.weights {origin.weights}")


def _decoder_config(origin: Origin, tokenizer: Any) -> Any:
    _check_quantised(origin)
    config = load_config(origin, tokenizer)
    config.use_cache = False  # of keys and values, which only generating reads
    return config


def _load(kind: Any, origin: Origin, config: Any, seed: int) -> Backbone:
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = _drawn(kind, config) if origin.architecture else _trained(kind, origin, config)
    trunk = backbone.model.base_model
    reader = trunk.encoder if is_encoder_decoder(config) else trunk
    if getattr(reader, "pooler", None) is not None:
        reader.pooler = None  # nobody reads it, and weights without gradients trouble distributed training
    if reader.config.model_type == "big_bird":
        mend(reader)
    let_pack(reader)
    let_multiply(reader)
    return backbone


def _trained(kind: Any, origin: Origin, config: Any) -> Backbone:
    place = resolve(origin.name)
    with explained(place, "backbone"):
        model, report = kind.from_pretrained(
            place.name,
            config=config,
            trust_remote_code=origin.trust_remote_code,
            output_loading_info=True,
            **place.arguments,
            **held(origin.weights),
        )
    keep_unpacked(model)
    return Backbone(model, tuple(sorted(name for name in report["missing_keys"] if "pooler" not in name)))


def keep_unpacked(model: Any) -> None:
    """Have bitsandbytes leave four-bit weights as they are on CPUs with bf16.

    There its layers repack themselves for another kernel in the first pass without gradients, which rounds their scales
    (so that a net says something else after it was scored) and fails for widths that 64 doesn't divide.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _unslothed(origin: Origin, config: Any, seed: int) -> Backbone:
    place = resolve(origin.name)
    with quiet(), torch.random.fork_rng(), explained(place, "backbone"):
        trust = origin.trust_remote_code
        return Backbone(unsloth_model(place, config, origin.weights, trust_remote_code=trust, seed=seed))


def held(weights: Weights) -> dict[str, Any]:
    """Arguments of `from_pretrained` that hold weights so.

    NF4 with double quantisation is QLoRA's (Dettmers et al. 2023, arXiv 2305.14314); it multiplies in bf16 where the
    device does that well, in fp32 elsewhere.
    """
    if weights not in QUANTISED:
        return {"dtype": DTYPES[weights]}
    dtype = DTYPES[choose_precision("auto", default_device())]
    if weights == "int8":
        return {"dtype": dtype, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"dtype": dtype, "quantization_config": quantised}


def _drawn(kind: Any, config: Any) -> Backbone:
    with _architecture_explained(config.model_type):
        return Backbone(kind.from_config(config).float())


def _config(origin: Origin, tokenizer: Any) -> Any:
    config = _new_config(origin.architecture, tokenizer) if origin.architecture else _stored_config(origin, tokenizer)
    set_dropouts(config, origin.dropout, origin.attention_dropout)
    return config


def _new_config(architecture: Mapping[str, Any], tokenizer: Any) -> Any:
    settings = dict(architecture)
    kind = str(settings.pop("model_type"))
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    known = {"vocab_size": len(tokenizer)} | {name: getattr(tokenizer, name) for name in names}
    with quiet(), _architecture_explained(kind):
        if kind == JOINED:
            return joined_config(
                _new_config(settings["encoder"], tokenizer), _new_config(settings["decoder"], tokenizer)
            )
        return AutoConfig.for_model(kind, **(known | settings))


@contextlib.contextmanager
def _architecture_explained(kind: str) -> Iterator[None]:
    try:
        yield
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError, StrictDataclassError) as error:
        raise FivefoldError(
            f"model.architecture doesn't make a '{kind}'.",
            got=first_line(error),
            next_step="see the configuration class of this model type in the documentation of transformers",
        ) from error


def _stored_config(origin: Origin, tokenizer: Any) -> Any:
    place = resolve(origin.name)
    with quiet(), explained(place, "backbone"):
        config = AutoConfig.from_pretrained(place.name, trust_remote_code=origin.trust_remote_code, **place.arguments)
    if not all(hasattr(each, "vocab_size") and hasattr(each, "hidden_size") for each in stack_configs(config)):
        raise FivefoldError(
            f"The backbone '{place}' reads more than text ('{config.model_type}').",
            next_step="name a checkpoint of its language model alone",
        )
    if len(tokenizer) > (known := min(each.vocab_size for each in stack_configs(config))):
        raise FivefoldError(
            f"The tokenizer knows {len(tokenizer)} tokens, but the backbone '{place}' only {known}.",
            next_step="leave model.tokenizer out of the recipe, so that the backbone's own is used",
        )
    if getattr(config, "pad_token_id", None) is None:
        # An existing one stays: RoBERTa-like positions are counted from it.
        config.pad_token_id = tokenizer.pad_token_id
    return config
