"""The words around texts and questions: a conversation as the backbone's chat template writes it, or plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fivefold.errors import RecipeError
from fivefold.training.templates import learn_template

FIELDS, QUESTION, ANSWER = "Fields-of-the-row", "Question-about-it", "Answer-to-it"
"""Marks that a chat template leaves as they are."""

BREAK = "\n\n"
"""Between a text and a question about it."""

PLAIN_HEADER = "\nAnswer:"

Chat = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Format:
    """A prompt in words, special tokens spelled out.

    Parameters
    ----------
    template
        What stands before a question, the text columns in braces.
    header
        What stands between a question and its answer.
    lead
        What an answer begins with.
    """

    template: str
    header: str
    lead: str


@dataclass(frozen=True)
class Turn:
    """An example in words: a text, a question, the header, its answer, and then the next text.

    Parameters
    ----------
    header
        What stands between an example's question and its answer.
    template
        As that of a `Format`, for a text that an answer stands before.
    """

    header: str
    template: str


def format_of(tokenizer: Any, names: Sequence[str], template: str | None, chat: Chat, system: str | None) -> Format:
    """How rows with the text columns `names` are presented.

    Parameters
    ----------
    template
        Words around the columns; None: the column alone, or each after its name.
    chat
        Whether the tokenizer's chat template is used; "auto": where it has one.
    system
        What a conversation begins with; None: what its template begins with by itself.

    Raises
    ------
    RecipeError
        If a chat template is asked for that isn't there, or can't be used.
    """
    shown = _shown(names, template)
    spoken = tokenizer.chat_template is not None
    if chat == "yes" and not spoken:
        raise RecipeError(
            "The backbone's tokenizer has no chat template.", next_step="take model.chat: no, or an instruction model"
        )
    if chat == "no" or not spoken:
        if system is not None:
            raise RecipeError("model.system begins a conversation, and there is none.", next_step="leave it out")
        return Format(shown + BREAK, PLAIN_HEADER, " ")
    before, after = _conversation(tokenizer, system)
    return Format(_literal(before) + shown + BREAK, after, "")


def encoded_format(names: Sequence[str], template: str | None, chat: Chat, system: str | None) -> Format:
    """How rows are presented to an encoder-decoder: texts to the encoder, questions and answers to the decoder.

    Arguments as those of `format_of`.

    Raises
    ------
    RecipeError
        If a conversation is asked for.
    """
    if chat == "yes" or system is not None:
        raise RecipeError("An encoder-decoder has no conversations.", next_step="leave model.chat and model.system out")
    return Format(_shown(names, template), "", " ")


def turn_of(tokenizer: Any, names: Sequence[str], template: str | None, chat: Chat, system: str | None) -> Turn:
    """How examples are presented before a row; arguments as those of `format_of`, which has been asked already.

    Raises
    ------
    RecipeError
        If the chat template has no room for earlier turns.
    """
    shown = _shown(names, template) + BREAK
    if chat == "no" or tokenizer.chat_template is None:
        return Turn(PLAIN_HEADER, BREAK + shown)
    said = {"role": "user", "content": FIELDS + QUESTION}
    written = _written(tokenizer, system, [said, {"role": "assistant", "content": ANSWER}, said])
    _, between, *_ = [*written.split(FIELDS + QUESTION), "", ""]
    header, _, end = between.partition(ANSWER)
    if not end:
        raise RecipeError("The backbone's chat template changes earlier turns.", next_step="take model.chat: no")
    return Turn(header, _literal(end) + shown)


def _literal(words: str) -> str:
    return words.replace("{", "{{").replace("}", "}}")


def _shown(names: Sequence[str], template: str | None) -> str:
    if template is not None:
        return template
    return f"{{{names[0]}}}" if len(names) == 1 else "\n".join(f"{name}: {{{name}}}" for name in names)


def _conversation(tokenizer: Any, system: str | None) -> tuple[str, str]:
    """What a chat template writes before and after what a user says, the answer's header last."""
    written = _written(tokenizer, system, [{"role": "user", "content": FIELDS + QUESTION}])
    before, mark, after = written.partition(FIELDS + QUESTION)
    if not mark:
        raise RecipeError("The backbone's chat template changes what a user says.", next_step="take model.chat: no")
    if tokenizer.bos_token and learn_template(tokenizer).prefix:
        before = before.removeprefix(tokenizer.bos_token)  # which the tokenizer puts there itself
    return before, after


def _written(tokenizer: Any, system: str | None, turns: list[dict[str, str]]) -> str:
    """A conversation whose next turn is an answer."""
    begun = [] if system is None else [{"role": "system", "content": system}]
    try:
        return str(tokenizer.apply_chat_template(begun + turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of the model's authors and may raise anything
        raise RecipeError("The backbone's chat template can't be used.", got=str(error)[:200]) from error
