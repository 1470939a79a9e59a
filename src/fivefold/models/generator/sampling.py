"""Texts that a causal language model writes after examples of such texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fivefold.errors import RecipeError
from fivefold.models.backbones.architectures import PositionLimit, position_limit
from fivefold.models.backbones.backbone import Origin, Weights, load_config, load_tokenizer, load_writer
from fivefold.models.backbones.places import quiet
from fivefold.models.generator.prompts import Chat, format_of
from fivefold.models.networks.reading import Reading
from fivefold.training.precision import default_device

NEXT = re.compile(r"\s*(?:\n\s*)+Text \d+.*", re.DOTALL)
"""Where a model goes on to a text that it wasn't asked for."""

INSTRUCTION = "Here are texts of one kind. Write another one of the same kind, about something else."


@dataclass(frozen=True)
class Sampler:
    """A causal backbone that continues a numbered list of texts.

    Parameters
    ----------
    backbone
        Hub id or folder.
    instruction
        Words before the examples; None: `INSTRUCTION`.
    tokens
        Tokens of a text at most.
    temperature, top_p
        How tokens are drawn: Holtzman et al. 2020, arXiv 1904.09751.
    batch
        Texts written at a time.
    """

    backbone: str
    instruction: str | None
    tokens: int
    temperature: float
    top_p: float
    chat: Chat
    weights: Weights
    batch: int = 16

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise RecipeError(
                "Tokens can't be drawn so.",
                allowed="a temperature above 0, and top_p above 0 and up to 1",
                got=f"temperature {self.temperature}, top_p {self.top_p}",
            )

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.backbone, trust_remote_code=False)

    @cached_property
    def _model(self) -> Any:
        origin = Origin(self.backbone, weights=self.weights)
        with quiet():
            whole = load_writer(origin, self._tokenizer, seed=0).whole
        return whole.eval() if self.weights in ("nf4", "int8") else whole.eval().to(default_device())

    def write(self, examples: Sequence[Sequence[str]], seed: int) -> list[str]:
        """A text after each set of examples, drawn anew for every seed; "" where nothing came of it."""
        tokenizer, model = self._tokenizer, self._model
        limit = position_limit(load_config(Origin(self.backbone), tokenizer))
        numbered = ["\n\n".join(f"Text {n}:\n{text}" for n, text in enumerate(some, 1)) for some in examples]
        nexts = [f"Text {len(some) + 1}:" for some in examples]
        said = (self.instruction or INSTRUCTION).replace("{", "{{").replace("}", "}}")
        shown = format_of(tokenizer, ["examples", "next"], said + "\n\n{examples}\n\n{next}", self.chat, None)
        spoken = shown.template.rstrip() + (shown.header if shown.lead == "" else "\n")
        reading = Reading("joined", None, "tail", 0.5, {}, None, spoken, {})
        room = PositionLimit(limit.tokens - self.tokens, limit.hard)
        inputs = reading.inputs({"examples": numbered, "next": nexts}, tokenizer, room)
        written = []
        for start in range(0, len(examples), self.batch):
            rows = np.arange(start, min(start + self.batch, len(examples)))
            batch = inputs.batch(rows, tokenizer.pad_token_id, side="left")
            ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
            torch.manual_seed(hash((seed, start)) % 2**31)
            with torch.inference_mode():
                drawn = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    top_k=0,
                    max_new_tokens=self.tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    use_cache=True,
                )
            texts = tokenizer.batch_decode(drawn[:, ids.shape[1] :], skip_special_tokens=True)
            written += [NEXT.sub("", "\n" + text).strip() for text in texts]
        return written
