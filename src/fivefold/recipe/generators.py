"""Keys of the section `model` of the family that writes its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from fivefold.recipe.backbones import WeightSettings

LIST_KEYS = ("questions", "yes", "no", "choices", "normalise", "beams", "contextual", "loss")


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
        }

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
