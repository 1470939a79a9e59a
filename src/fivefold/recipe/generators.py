"""Keys of the section `model` of the family that writes its labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fivefold.recipe.backbones import WeightSettings
from fivefold.recipe.section import Choices, Names, Settings

LIST_KEYS = ("questions", "yes", "no", "choices", "normalise", "beams", "contextual", "loss")


LOCAL_KEYS = (
    "backbone",
    "architecture",
    "weights",
    "adapter",
    "unfrozen_layers",
    "dropout",
    "attention_dropout",
    "loss",
    "beams",
    "decoder",
)
NEAREST_KEYS = ("query", "backbone")


class ShotSettings(Choices):
    """Examples that stand before a record, each a training row's text and its right answer."""

    count: int = Field(8, ge=1, le=1000, description="examples before a record at most, of each question its own")
    take: Literal["balanced", "nearest"] = Field(
        "balanced",
        description="balanced: drawn once a fold, class by class in turn; "
        "nearest: the training rows most like the record",
    )
    tokens: int | None = Field(
        None, ge=1, description="tokens of an example's text at most; none: an equal share of the context"
    )
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="balanced: draws another set; none: the recipe's")
    query: Names = Field([], description="nearest: text columns that are compared; empty: all of data.text")
    backbone: str | None = Field(
        None, description="nearest: hub id or folder of a sentence encoder; none: the packaged MiniLM"
    )

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen kind doesn't read."""
        return {f"take '{self.take}'": NEAREST_KEYS if self.take == "balanced" else ("seed",)}

    def problems(self, text: Sequence[str], swapped: Collection[str], enriched: bool) -> list[str]:
        """What nearest examples don't go with, a sentence each.

        Parameters
        ----------
        text
            The text columns; none where they are still to be inferred.
        swapped
            Columns that trade places.
        enriched
            Whether the recipe has a section enrichment.
        """
        query, found = self.query or list(text), []
        if enriched:
            found.append("model.shots: nearest examples don't go with enrichment; take balanced ones")
        if text and (strange := [name for name in query if name not in text]):
            found.append(f"model.shots.query: {strange} aren't among the text columns {list(text)}")
        if moved := [name for name in query if name in swapped]:
            found.append(f"model.shots.query: {moved} trade places in a pair, so examples would depend on its order")
        return found


class EndpointSettings(Settings):
    """A server that computes the model: it gets the records' texts."""

    url: str = Field(description="its address up to /completions, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="what it calls the model")
    api_key_env: str | None = Field(
        None, description="environment variable that holds the API key, which is written nowhere; none: no key"
    )
    concurrency: int = Field(8, ge=1, le=256, description="requests at a time")
    retries: int = Field(5, ge=0, le=100, description="times that a request is sent again if it is busy or fails")
    timeout: float = Field(60.0, gt=0, le=86_400, description="seconds to wait for an answer")
    price: float | None = Field(None, ge=0, description="of a million prompt tokens, for the estimate; none: not told")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an address such as http://localhost:8000/v1")
        if parts.username is not None:
            raise ValueError("must hold no user or password: name a variable in api_key_env")
        return url


class GeneratorSettings(WeightSettings):
    """A language model that answers questions about a text, or writes the path of its labels."""

    family: Literal["generator"] = Field(
        description="a language model that writes its labels, causal or an encoder-decoder"
    )
    decoder: str | None = Field(
        None,
        description="hub id or folder of a BERT that writes over `backbone` as its encoder; its attention to the "
        "encoder starts random; none: the backbone writes itself",
    )
    template: str | None = Field(
        None, description="words around the text columns, before the question; none: the text, or each after its name"
    )
    chat: Literal["auto", "yes", "no"] = Field(
        "auto", description="whether prompts are a conversation by the tokenizer's chat template; auto: if it has one"
    )
    system: str | None = Field(None, description="what a conversation begins with; none: as its template has it")
    write: Literal["questions", "path", "list"] = Field(
        "questions",
        description="questions: every target is asked for alone; path: the levels of task.tree are written one after "
        "the other, other targets asked for alone; list: the labels that are present are written, a line each",
    )
    prompts: list[str] = Field(
        [],
        description="several templates, whose scores are averaged; a name without a brace is a file that holds one, "
        "beside the recipe",
    )
    shots: ShotSettings | None = Field(None, description="examples before each record; none: it is asked about alone")
    endpoint: EndpointSettings | None = Field(
        None, description="a server that computes the model instead of this machine; none: no text leaves it"
    )
    question: str = Field("{name}?", description="words that ask for a target; {name} is its name, 'labels' for a list")
    questions: dict[str, str] = Field(
        {}, description="target: words that ask for it instead; a path is asked for by its root's"
    )
    yes: str = Field("Yes", description="answer for a label")
    no: str = Field("No", description="answer against it")
    choices: Literal["names", "letters"] = Field(
        "names", description="a class is answered by its name, or by a letter that the question lists it with"
    )
    answers: dict[str, str] = Field({}, description="class (target=class) or label of a list: words for its name")
    normalise: Literal["branches", "sequence", "length"] = Field(
        "branches",
        description="an answer's tokens are weighed against the other answers' tokens in their place; against all "
        "of the vocabulary; or so, and by their mean",
    )
    beams: int | None = Field(
        None,
        ge=1,
        description="of a large tree of answers, so many of the likeliest branchings are read a question and level, "
        "and what the others would say is taken to be even; none: all are read in one pass",
    )
    contextual: bool = Field(
        False,
        description="divide what is said of a text by what is said of an empty one, a bias of the question",
    )
    loss: Literal["tokens", "scores"] = Field(
        "tokens",
        description="tokens: the next token of the right answers, among the whole vocabulary; scores: the section "
        "objective, on the scores of all answers",
    )

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        return {
            **super().idle,
            f"chat '{self.chat}'": ("system",) if self.chat == "no" else (),
            f"write '{self.write}'": LIST_KEYS if self.write == "list" else (),
            f"normalise '{self.normalise}'": ("beams",) if self.normalise != "branches" else (),
            "an endpoint": () if self.endpoint is None else LOCAL_KEYS,
            "a list of 'prompts'": ("template",) if self.prompts else (),
        }

    @property
    def elsewhere(self) -> bool:
        """Whether a server computes the model."""
        return self.endpoint is not None

    @model_validator(mode="after")
    def _endpoint_whole(self) -> GeneratorSettings:
        missing = [key for key in ("tokenizer", "max_tokens") if getattr(self, key) is None]
        if self.endpoint is not None and missing:
            raise ValueError(
                f"an endpoint needs {' and '.join(missing)}: the model's tokenizer by hub id or folder, as tokens are "
                "what is sent, and how many of them a prompt may have"
            )
        return self

    @model_validator(mode="after")
    def _decoder_learns(self) -> GeneratorSettings:
        if self.decoder is not None and self.backbone is None:
            raise ValueError("'decoder' writes over an encoder: name it in 'backbone'")
        if self.decoder is not None and (self.adapter is not None or self.unfrozen_layers is not None):
            raise ValueError(
                "'decoder' starts with random attention to its encoder, so all of it has to learn: "
                "leave adapter and unfrozen_layers out"
            )
        return self

    @model_validator(mode="after")
    def _name_asked(self) -> GeneratorSettings:
        if "{name}" not in self.question:
            raise ValueError("question must hold {name}, or every target is asked for alike")
        return self
