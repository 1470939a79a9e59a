"""The words around texts and questions: a conversation as the backbone's chat template writes it, or plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fivefold.errors import RecipeError
from fivefold.training.templates import learn_template

FIELDS, QUESTION = "Fields-of-the-row", "Question-about-it"
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
    shown = template if template is not None else _shown(names)
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
    return Format(before.replace("{", "{{").replace("}", "}}") + shown + BREAK, after, "")


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
    return Format(template if template is not None else _shown(names), "", " ")


def _shown(names: Sequence[str]) -> str:
    return f"{{{names[0]}}}" if len(names) == 1 else "\n".join(f"{name}: {{{name}}}" for name in names)


def _conversation(tokenizer: Any, system: str | None) -> tuple[str, str]:
    """What a chat template writes before and after what a user says, the answer's header last."""
    turns = [{"role": "system", "content": system}] if system is not None else []
    turns.append({"role": "user", "content": FIELDS + QUESTION})
    try:
        written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's authors and may raise anything
        raise RecipeError("The backbone's chat template can't be used.", got=str(error)[:200]) from error
    before, mark, after = written.partition(FIELDS + QUESTION)
    if not mark:
        raise RecipeError("The backbone's chat template changes what a user says.", next_step="take model.chat: no")
    if tokenizer.bos_token and learn_template(tokenizer).prefix:
        before = before.removeprefix(tokenizer.bos_token)  # which the tokenizer puts there itself
    return before, after
