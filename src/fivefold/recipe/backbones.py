"""Keys of the section `model` of families over a backbone: encoders and decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fivefold.recipe.section import Choices, Settings

PROMPT_KEYS = ("prompt", "prompt_labels", "yes", "no")
WINDOW_KEYS = ("window_tokens", "window_overlap", "max_windows")
ENCODER_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
QUANTISED = ("nf4", "int8")
REWARD = "reward: of pairs, each answer read alone and the two rewards compared"


class SourceSettings(Choices):
    """Where a backbone comes from, and how much of a text it reads."""

    family: str
    backbone: str | None = Field(
        None, description=f"hub id or folder of the weights; none: {ENCODER_DEFAULT}, which needs no network"
    )
    architecture: dict[str, Any] | None = Field(
        None,
        description="instead of a backbone: a transformers config, such as {model_type: big_bird, …}; random weights",
    )
    tokenizer: str | None = Field(None, description="hub id or folder of the tokenizer; none: the backbone's")
    trust_remote_code: bool = Field(False, description="run code that comes with the backbone")
    dropout: float | None = Field(None, ge=0, lt=1, description="hidden dropout of the backbone; none: its own")
    attention_dropout: float | None = Field(
        0.0, ge=0, lt=1, description="attention dropout; without it fused attention runs; none: the backbone's own"
    )
    template: str | None = Field(
        None,
        description="words around the text columns, such as 'Question: {question} Answer: {answer}'; none: separators",
    )
    max_tokens: int | None = Field(None, ge=8, description="tokens of an input at most; none: the backbone's limit")
    truncation: Literal["head", "tail", "head_tail"] = Field("head", description="which end of a long text is kept")
    head_share: float = Field(0.5, gt=0, lt=1, description="head_tail: share of what is kept that is the head")
    field_tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="text column: its tokens at most; those left out share what remains"
    )
    field_words: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="text column: its words at most, cut first and as `truncation` says; a word has no white space"
    )
    unfrozen_layers: int | None = Field(
        None, ge=0, description="train only so many top layers; 0: frozen, its activations computed once; none: all"
    )

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        return {f"truncation '{self.truncation}'": () if self.truncation == "head_tail" else ("head_share",)}

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        if self.architecture is not None and self.backbone is not None:
            raise ValueError("'architecture' starts from random weights and 'backbone' from trained ones; name one")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("architecture needs 'model_type', such as big_bird")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture needs 'tokenizer', whose vocabulary it reads")
        return self


class BackboneSettings(SourceSettings):
    """What encoders and decoders under a head share."""

    head_dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the head")
    fields: Literal["joined", "max", "mean"] = Field(
        "joined", description="several text columns: joined into one text, or encoded alone and their logits merged"
    )
    windows: Literal["none", "mean", "max", "attention"] = Field(
        "none", description="read a long text in windows, and how their vectors become one"
    )
    window_tokens: int = Field(256, ge=8, description="tokens of a window")
    window_overlap: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    max_windows: int | None = Field(None, ge=1, description="windows of a text at most; none: all")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        return {
            f"windows '{self.windows}'": WINDOW_KEYS if self.windows == "none" else ("max_tokens", "truncation"),
            **super().idle,
            f"fields '{self.fields}'": () if self.fields == "joined" else ("template",),
        }

    @model_validator(mode="after")
    def _windows_advance(self) -> BackboneSettings:
        if self.windows != "none" and self.window_overlap * 2 > self.window_tokens:
            raise ValueError(
                f"window_overlap must be at most half of window_tokens, and {self.window_overlap} is more than half of "
                f"{self.window_tokens}"
            )
        return self


class EncoderSettings(BackboneSettings):
    """A BERT-like backbone, fine-tuned under a head."""

    family: Literal["encoder"] = Field(description="a BERT-like backbone under a head")
    pooling: Literal["cls", "mean", "max", "attention"] = Field(
        "mean", description="how a sequence's vectors become one"
    )
    head: Literal["linear", "mlp", "prompted", "reward"] = Field(
        "linear",
        description="linear or one hidden layer; prompted: a masked yes/no slot a label, read by the masked-LM head; "
        f"{REWARD}",
    )
    attention: Literal["auto", "sparse", "full"] = Field(
        "auto", description="BigBird's attention; auto: sparse where inputs are long enough for it"
    )
    prompt: str = Field(
        "{label}? {mask}.", description="prompted: the slot of a label; {label} and {mask} are filled in"
    )
    prompt_labels: dict[str, str] = Field(
        {}, description="prompted: logit (label or target=class): words to use instead"
    )
    yes: str = Field("yes", description="prompted: word whose logit speaks for a label")
    no: str = Field("no", description="prompted: word whose logit speaks against it")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        unread = {"prompted": ("pooling", "head_dropout", "windows"), "reward": (*PROMPT_KEYS, "fields")}
        return {**super().idle, f"head '{self.head}'": unread.get(self.head, PROMPT_KEYS)}

    @model_validator(mode="after")
    def _prompt_whole(self) -> EncoderSettings:
        if self.prompt.count("{mask}") != 1:
            raise ValueError("prompt must hold {mask} once")
        return self


class AdapterSettings(Settings):
    """Low-rank matrices beside the backbone's, which learn in its stead."""

    rank: int = Field(16, ge=1, description="rank of the matrices")
    alpha: float = Field(32, gt=0, description="their product counts alpha / rank times")
    dropout: float = Field(0.05, ge=0, lt=1, description="share of an adapter's inputs dropped in training")
    targets: str | list[str] = Field(
        "all-linear", description="modules that get an adapter, by name; all-linear: every linear layer of the backbone"
    )
    rslora: bool = Field(False, description="rank-stabilised: alpha / √rank times")
    dora: bool = Field(False, description="weight-decomposed: a length and a direction a weight")
    options: dict[str, Any] = Field({}, description="further arguments of PEFT's LoraConfig")


class WeightSettings(SourceSettings):
    """How a causal language model is held, and what of it learns."""

    backbone: str | None = Field(
        None, description="hub id, folder or .gguf file of the weights, such as HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    weights: Literal["auto", "fp32", "bf16", "fp16", "nf4", "int8"] = Field(
        "auto",
        description="how the backbone is held; auto: fp32 where it is trained itself, else as the device computes; "
        "nf4 and int8: quantised, which with an adapter is QLoRA",
    )
    adapter: AdapterSettings | None = Field(None, description="LoRA; none: the backbone itself is trained")

    @property
    def elsewhere(self) -> bool:
        """Whether the model isn't computed here."""
        return False

    @model_validator(mode="after")
    def _source_named(self) -> WeightSettings:
        if self.backbone is None and self.architecture is None and not self.elsewhere:
            raise ValueError(f"a {self.family} needs 'backbone', such as HuggingFaceTB/SmolLM2-135M-Instruct")
        return self

    @model_validator(mode="after")
    def _what_trains(self) -> WeightSettings:
        if self.adapter is not None and self.unfrozen_layers is not None:
            raise ValueError("'adapter' leaves every layer as it is, and unfrozen_layers trains some; name one")
        if self.adapter is not None and self.architecture is not None:
            raise ValueError("an adapter needs trained weights: 'backbone', not 'architecture'")
        learns = self.adapter is None and self.unfrozen_layers != 0
        if learns and self.weights not in ("auto", "fp32"):
            raise ValueError(
                f"weights '{self.weights}' can't be trained themselves: add 'adapter' (adapter: {{}}), "
                "or freeze them with unfrozen_layers: 0"
            )
        if self.architecture is not None and self.weights in QUANTISED:
            raise ValueError(f"weights '{self.weights}' are made of trained ones: name 'backbone'")
        return self


class DecoderSettings(WeightSettings, BackboneSettings):
    """A causal language model under a head, fine-tuned whole or by an adapter."""

    family: Literal["decoder"] = Field(description="a causal language model under a head")
    pooling: Literal["last", "mean", "max", "attention"] = Field(
        "last", description="how a sequence's vectors become one; last: that of the last token"
    )
    head: Literal["linear", "mlp", "reward"] = Field("linear", description=f"linear or one hidden layer; {REWARD}")
    kernels: Literal["none", "liger", "unsloth"] = Field(
        "none", description="what computes the layers on a CUDA GPU; none: torch; liger, unsloth: these packages"
    )

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        return {**super().idle, f"head '{self.head}'": ("fields",) if self.head == "reward" else ()}

    @model_validator(mode="after")
    def _unsloth_adapts(self) -> DecoderSettings:
        if self.kernels == "unsloth" and self.adapter is None:
            raise ValueError("kernels 'unsloth' are for an adapter: add it (adapter: {}), or take kernels: liger")
        if self.kernels == "unsloth" and (self.dropout or self.attention_dropout):
            raise ValueError("kernels 'unsloth' drop nothing: leave dropout and attention_dropout out")
        return self
