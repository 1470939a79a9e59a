"""Keys of the section `model`, one class a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fivefold.recipe.backbones import DecoderSettings, EncoderSettings
from fivefold.recipe.generators import GeneratorSettings
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
    both_orders: bool = Field(
        True,
        description="with task.swap: learn and score every row in both orders; false: its own order may say something",
    )

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


ModelSettings = Annotated[
    LinearSettings | FeedForwardSettings | EncoderSettings | DecoderSettings | GeneratorSettings,
    Field(discriminator="family"),
]
"""A section `model`; its `family` says which class reads it."""
