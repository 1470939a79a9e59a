"""The generator family at an endpoint: prompts and answers are made here, and their tokens scored there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fivefold.data.compose import Rows
from fivefold.models.backbones.architectures import PositionLimit
from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.backbones.passes import real_first
from fivefold.models.base import Classifier, Cost
from fivefold.models.generator.endpoint import Client, Endpoint, Tail
from fivefold.models.generator.kept import Kept
from fivefold.models.generator.net import Writer
from fivefold.models.generator.prompted import Behind, Part, PromptedClassifier, sample
from fivefold.models.generator.tree_pass import Nodes
from fivefold.models.networks.expense import BASE_BYTES
from fivefold.task import FloatArray, Task
from fivefold.training.cache import cache_folder
from fivefold.training.inputs import Inputs

log = logging.getLogger("fivefold")

ROWS = 64
"""Prompts whose requests are sent together."""

ANSWERS = "endpoint.sqlite"
"""The file of the cache that holds what endpoints said."""


@dataclass
class Requests:
    """Counts what would be asked; a writer to whom all is alike."""

    count: int = 0
    tokens: int = 0

    def log_probabilities(self, asked: Sequence[Tail]) -> list[FloatArray]:
        """Zeros."""
        self.count += len(asked)
        self.tokens += sum(len(each.ids) for each in asked)
        return [np.zeros(len(each.ids) - each.first, dtype=np.float32) for each in asked]


class RemoteWriter:
    """A writer whose guesses are scored elsewhere, a request for each line of tokens that no other one goes on."""

    def __init__(self, client: Client | Requests) -> None:
        self.client = client

    def weighed(self, prompts: Padded, nodes: Nodes, places: Tensor, vocabulary: Tensor, words: Tensor) -> Tensor:
        """Log-probabilities of guesses, see `Writer`."""
        return self.guessed(prompts, nodes, places, vocabulary[words])

    def guessed(self, prompts: Padded, nodes: Nodes, places: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of guesses, see `Writer`."""
        guesses: list[tuple[int, tuple[int, ...]]] = []
        starts: list[tuple[int, ...]] = []
        for row, length in enumerate(prompts.mask.sum(dim=1).tolist()):
            starts.append(tuple(prompts.ids[row, :length].tolist()))
            read, lines = nodes.tokens[row].tolist(), nodes.lines[row].tolist()
            for place, token in zip(places[row].tolist(), tokens.tolist(), strict=True):
                before = [read[node] for node in lines[place - 1] if node >= 0] if place else []
                guesses.append((row, (*before, token)))
        # In this order a line stands right before those that go on from it, so the last of these holds all of them.
        order = sorted(range(len(guesses)), key=guesses.__getitem__)
        holders: list[int] = []
        asked: list[tuple[int, tuple[int, ...]]] = []
        for guess in reversed(order):
            row, line = guesses[guess]
            if not asked or asked[-1][0] != row or asked[-1][1][: len(line)] != line:
                asked.append((row, line))
            holders.append(len(asked) - 1)
        said = self.client.log_probabilities([Tail(starts[row] + line, len(starts[row])) for row, line in asked])
        found = np.empty(len(guesses), dtype=np.float32)
        for guess, holder in zip(reversed(order), holders, strict=True):
            found[guess] = said[holder][len(guesses[guess][1]) - 1]
        return torch.from_numpy(found.reshape(tuple(places.shape)))


class RemoteClassifier(PromptedClassifier):
    """One fold of the generator family whose model is a server's; settings as in the recipe's section `model`."""

    def __init__(self, task: Task, *, endpoint: Mapping[str, Any], **common: Any) -> None:
        super().__init__(task, **common)
        self.endpoint = Endpoint(**endpoint)

    @cached_property
    def client(self) -> Client:
        """Who is asked."""
        folder = cache_folder()
        return Client(self.endpoint, Kept(None if folder is None else folder / ANSWERS))

    @cached_property
    def limit(self) -> PositionLimit:
        """Tokens of a prompt, as the recipe says, for the server's backbone isn't here."""
        assert self.reading.max_tokens is not None
        return PositionLimit(self.reading.max_tokens, hard=False)

    @property
    def two_stacks(self) -> bool:
        """Never: `/completions` is of causal models."""
        return False

    @property
    def alone(self) -> bool:
        """Never: no net reads records by itself."""
        return False

    def _made(self, seed: int, *, trained: bool) -> Any:
        return nn.Identity()

    def cost(self, train: Rows) -> Cost:
        """Nothing that is known of here; says aloud what will be asked, and of whom."""
        self._draw(train)
        self.endpoint.key()
        self.endpoint.say()
        index = sample(train.index)
        counted = Requests()
        for template in self.templates:
            for part in self.parts:
                self._scored(part, self.prompts(train.corpus, index, part, template).inputs, RemoteWriter(counted))
        log.warning("  %s", self._estimate(counted, len(train.corpus) / len(index), len(index)))
        return Cost(0.0, BASE_BYTES)

    def _estimate(self, counted: Requests, times: float, rows: int) -> str:
        orders = 2 if self._swapped("scoring") else 1
        requests, tokens = (round(each * times * orders) for each in (counted.count, counted.tokens))
        said = f"To ask once about every row: {requests:,} requests of {tokens:,} prompt tokens"
        if self.endpoint.price is not None:
            said += f", {tokens / 1e6 * self.endpoint.price:.2f} at {self.endpoint.price:g} a million"
        said += f" (by the prompts of {rows:,} rows; answers that are kept are not asked for again)"
        return said + ("; a list takes as many again for every label in it" if self.writing.write == "list" else "")

    def answered(self, part: Part, behind: Behind) -> FloatArray:
        """What the server says of a part of the task behind each prompt, float32 (rows, part's width)."""
        return self._scored(part, behind.inputs, RemoteWriter(self.client))

    def _scored(self, part: Part, inputs: Inputs, writer: Writer) -> FloatArray:
        logits = [np.zeros((0, part.task.width), dtype=np.float32)]
        for start in range(0, inputs.rows, ROWS):
            batch = inputs.batch(np.arange(start, min(start + ROWS, inputs.rows)), self.tokenizer.pad_token_id)
            prompts = real_first(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
            logits.append(part.script.scores(writer, prompts).numpy())
        return np.concatenate(logits)


def generator(task: Task, *, endpoint: Mapping[str, Any] | None, **settings: Any) -> Classifier:
    """A classifier of the generator family, whose model is here or at an endpoint."""
    if endpoint is None:
        return PromptedClassifier(task, **settings)
    return RemoteClassifier(task, endpoint=endpoint, **settings)
