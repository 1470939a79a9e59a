"""Keys of the section `model`, one class a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fivefold.recipe.section import Choices, Span

BOOSTING_KEYS = ("trees", "leaves", "learning_rate")
LIBLINEAR_KEYS = ("C", "max_epochs", "tolerance", "prune")


class LinearSettings(Choices):
    """TF-IDF over words and characters with a linear model or boosted trees."""

    family: Literal["linear"] = Field("linear", description="TF-IDF under a linear model or boosted trees")
    solver: Literal["logistic", "svm", "boosting"] = Field(
        "logistic", description="logistic regression, linear SVM with calibrated scores, or LightGBM"
    )
    tokens: Literal["words", "social"] = Field("words", description="what a word is; social keeps emoji, # and @")
    word_ngrams: Span | None = Field((1, 2), description="[low, high] words; null: none")
    char_ngrams: Span | None = Field((2, 5), description="[low, high] characters within word bounds; null: none")
    min_df: int = Field(2, ge=1, description="drop n-grams in fewer training rows of the fold")
    max_features: int | None = Field(
        None, ge=1, le=2**31 - 1, description="keep the most frequent n-grams of each kind"
    )
    sublinear_tf: bool = Field(True, description="1 + log(count) instead of the count")
    C: float = Field(4.0, gt=0, le=1e6, description="inverse strength of the L2 penalty")
    max_epochs: int = Field(30, ge=1, le=1_000_000, description="passes over the rows at most")
    tolerance: float = Field(1e-2, gt=0, le=1, description="stop when no dual variable moves further than this")
    prune: float = Field(0.01, ge=0, le=1e6, description="drop smaller weights of categoricals with over 128 classes")
    trees: int = Field(200, ge=1, le=100_000, description="boosting: rounds")
    leaves: int = Field(31, ge=2, le=131_072, description="boosting: leaves a tree")
    learning_rate: float = Field(0.1, gt=0, le=10, description="boosting: shrinkage")

    @model_validator(mode="after")
    def _some_features(self) -> LinearSettings:
        if self.word_ngrams is None and self.char_ngrams is None:
            raise ValueError("word_ngrams and char_ngrams can't both be null")
        return self

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen solver doesn't read."""
        return {f"solver '{self.solver}'": LIBLINEAR_KEYS if self.solver == "boosting" else BOOSTING_KEYS}


class FeedForwardSettings(Choices):
    """The mean of word embeddings under hidden layers, trained from scratch."""

    family: Literal["feedforward"] = Field(description="embeddings and hidden layers")
    vocabulary: str | None = Field(
        None, description="hub id or folder of a tokenizer whose vocabulary is used; none: words of the training rows"
    )
    words: int = Field(20_000, ge=1, le=10_000_000, description="own vocabulary: the most frequent words at most")
    min_count: int = Field(2, ge=1, description="own vocabulary: drop words that training rows have less often")
    embedding: int = Field(100, ge=1, le=65_536, description="width of an embedding")
    pretrained_embeddings: bool = Field(
        False, description="start from the input embeddings of the model at `vocabulary`, whose width then holds"
    )
    hidden: list[Annotated[int, Field(ge=1, le=65_536)]] = Field([256], description="width of each hidden layer")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of activations dropped in training")
    max_tokens: int = Field(512, ge=1, description="tokens of a row that are read")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen vocabulary doesn't read."""
        named = {} if self.vocabulary is None else {"a tokenizer's 'vocabulary'": ("words", "min_count")}
        return named | ({"pretrained_embeddings": ("embedding",)} if self.pretrained_embeddings else {})

    @model_validator(mode="after")
    def _whose_embeddings(self) -> FeedForwardSettings:
        if self.vocabulary is None and self.pretrained_embeddings:
            raise ValueError("pretrained_embeddings needs 'vocabulary', the model whose embeddings they are")
        return self


PROMPT_KEYS = ("prompt", "prompt_labels", "yes", "no")
WINDOW_KEYS = ("window_tokens", "window_overlap", "max_windows")
ENCODER_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


class EncoderSettings(Choices):
    """A BERT-like backbone, fine-tuned under a head."""

    family: Literal["encoder"] = Field(description="a BERT-like backbone under a head")
    backbone: str | None = Field(
        None, description=f"hub id or folder of the weights; none: {ENCODER_DEFAULT}, which needs no network"
    )
    architecture: dict[str, Any] | None = Field(
        None,
        description="instead of a backbone: a transformers config, such as {model_type: big_bird, …}; random weights",
    )
    tokenizer: str | None = Field(None, description="hub id or folder of the tokenizer; none: the backbone's")
    trust_remote_code: bool = Field(False, description="run code that comes with the backbone")
    pooling: Literal["cls", "mean", "max", "attention"] = Field(
        "mean", description="how a sequence's vectors become one"
    )
    head: Literal["linear", "mlp", "prompted"] = Field(
        "linear",
        description="linear or one hidden layer; prompted: a masked yes/no slot a label, read by the masked-LM head",
    )
    head_dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the head")
    dropout: float | None = Field(None, ge=0, lt=1, description="hidden dropout of the backbone; none: its own")
    attention_dropout: float | None = Field(
        0.0, ge=0, lt=1, description="attention dropout; without it fused attention runs; none: the backbone's own"
    )
    fields: Literal["joined", "max", "mean"] = Field(
        "joined", description="several text columns: joined into one text, or encoded alone and their logits merged"
    )
    max_tokens: int | None = Field(None, ge=8, description="tokens of an input at most; none: the backbone's limit")
    truncation: Literal["head", "tail", "head_tail"] = Field("head", description="which end of a long text is kept")
    head_share: float = Field(0.5, gt=0, lt=1, description="head_tail: share of what is kept that is the head")
    field_tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="text column: its tokens at most; those left out share what remains"
    )
    windows: Literal["none", "mean", "max", "attention"] = Field(
        "none", description="read a long text in windows, and how their vectors become one"
    )
    window_tokens: int = Field(256, ge=8, description="tokens of a window")
    window_overlap: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    max_windows: int | None = Field(None, ge=1, description="windows of a text at most; none: all")
    attention: Literal["auto", "sparse", "full"] = Field(
        "auto", description="BigBird's attention; auto: sparse where inputs are long enough for it"
    )
    unfrozen_layers: int | None = Field(
        None, ge=0, description="train only so many top layers; 0: frozen, its activations computed once; none: all"
    )
    prompt: str = Field(
        "{label}? {mask}.", description="prompted: the slot of a label; {label} and {mask} are filled in"
    )
    prompt_labels: dict[str, str] = Field(
        {}, description="prompted: logit (label or target=class): words to use instead"
    )
    yes: str = Field("yes", description="prompted: word whose logit speaks for a label")
    no: str = Field("no", description="prompted: word whose logit speaks against it")

    @model_validator(mode="after")
    def _one_source(self) -> EncoderSettings:
        if self.architecture is not None and self.backbone is not None:
            raise ValueError("'architecture' starts from random weights and 'backbone' from trained ones; name one")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("architecture needs 'model_type', such as big_bird")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture needs 'tokenizer', whose vocabulary it reads")
        return self

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        prompted = self.head == "prompted"
        return {
            f"windows '{self.windows}'": WINDOW_KEYS if self.windows == "none" else ("max_tokens", "truncation"),
            f"truncation '{self.truncation}'": () if self.truncation == "head_tail" else ("head_share",),
            f"head '{self.head}'": ("pooling", "head_dropout", "windows") if prompted else PROMPT_KEYS,
        }

    @model_validator(mode="after")
    def _windows_advance(self) -> EncoderSettings:
        if self.windows != "none" and self.window_overlap * 2 > self.window_tokens:
            raise ValueError("window_overlap must be at most half of window_tokens")
        return self

    @model_validator(mode="after")
    def _prompt_whole(self) -> EncoderSettings:
        if self.prompt.count("{mask}") != 1:
            raise ValueError("prompt must hold {mask} once")
        return self


ModelSettings = Annotated[LinearSettings | FeedForwardSettings | EncoderSettings, Field(discriminator="family")]
"""A section `model`; its `family` says which class reads it."""
