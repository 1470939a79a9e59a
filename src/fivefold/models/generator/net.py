"""A language model that answers: tokens of a batch to scores of every answer, or to losses of what was written."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fivefold.models.backbones.adapters import Adapter, copy_weights, load_adapter, redraw, save_adapter
from fivefold.models.backbones.backbone import Backbone
from fivefold.models.backbones.net import Net
from fivefold.models.backbones.passes import real_first
from fivefold.models.backbones.resident import Resident
from fivefold.models.generator.answers import Positions
from fivefold.models.generator.choices import choices_of, moved
from fivefold.models.generator.tree_pass import Nodes, hidden_at, nodes_of
from fivefold.models.generator.writing import Questionnaire

Normalise = Literal["branches", "sequence", "length"]


@dataclass(frozen=True)
class Written:
    """What the rows of a batch are to write.

    Parameters
    ----------
    nodes
        The nodes that each row reads.
    rows, places, tokens
        int64 (tokens,): the row of each token that is written, the place that it is guessed at (0 behind the prompt,
        1 + i behind the i-th node), and the token.
    """

    nodes: Nodes
    rows: Tensor
    places: Tensor
    tokens: Tensor


class WriterNet(Net):
    """A causal backbone, its head for the next token, and the questions that it answers.

    Parameters
    ----------
    loaded
        From `load_writer`.
    normalise
        What a token's probability is relative to: "branches", the other answers' tokens in its place; "sequence", the
        whole vocabulary; "length", that too, and an answer's score is the mean over its tokens.
    """

    def __init__(
        self, loaded: Backbone, questions: Questionnaire, normalise: Normalise, unfrozen_layers: int | None = None
    ) -> None:
        super().__init__(loaded.model, attention="auto", unfrozen_layers=unfrozen_layers)
        self.head = loaded.whole.get_output_embeddings()
        self.loaded = loaded
        self.questions, self.normalise = questions, normalise
        answers = questions.answers
        self.choices = choices_of(answers, answers.forks if normalise == "branches" else answers.guessed)
        self.columns = questions.columns
        self.nodes = nodes_of(answers, [self.choices.read])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        part: Tensor | None = None,
        owner: Tensor | None = None,
        position_ids: Tensor | None = None,
        written: Written | None = None,
    ) -> Tensor:
        """Log-odds and log-probabilities of the rows of a batch, fp32 (rows, width); a row is one sequence.

        With `written`, minus the log-probability of each token that is written instead, fp32 (tokens,).
        """
        prompts = real_first(input_ids, attention_mask, token_type_ids)
        if written is not None:
            hidden = hidden_at(self.backbone, self.passes, prompts, written.nodes)
            logits = self.vocabulary_logits(hidden[written.rows, written.places])
            return functional.cross_entropy(logits, written.tokens, reduction="none")
        self._follow(input_ids.device)
        hidden = hidden_at(self.backbone, self.passes, prompts, self.nodes.repeated(len(input_ids)))
        candidates = self.choices.candidates(self._guesses(hidden))
        if self.normalise == "length":
            candidates = candidates / self.choices.lengths
        return self.columns.logits(candidates)

    def vocabulary_logits(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:
        """What the head says of every token, or of these words, fp32; (..., H) -> (..., tokens)."""
        if words is None:
            return self._finished(self.head(hidden).float())
        bias = None if self.head.bias is None else self.head.bias[words]
        return self._finished(functional.linear(hidden, self.head.weight[words].to(hidden.dtype), bias).float())

    def _finished(self, logits: Tensor) -> Tensor:
        """As transformers' models end: Cohere and Granite scale their logits, Gemma 2 bounds them."""
        config = self.backbone.config
        logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _guesses(self, hidden: Tensor) -> Tensor:
        """Log-probability of each guess that counts, (B, guesses)."""
        choices = self.choices
        if self.normalise == "branches":
            places = torch.unique(choices.places)
            logits = self.vocabulary_logits(hidden[:, places], choices.vocabulary)
            return choices.among_rivals(logits, torch.searchsorted(places, choices.places))
        logits = torch.log_softmax(self.vocabulary_logits(hidden), dim=-1)
        return logits[:, choices.places, choices.vocabulary[choices.words]]

    def _follow(self, device: torch.device) -> None:
        """Move what says how answers are read to where the weights are, once."""
        if self.nodes.tokens.device != device:
            self.nodes, self.choices = moved(self.nodes, device), moved(self.choices, device)
            self.columns = moved(self.columns, device)


class AdaptedWriter(WriterNet):
    """A resident backbone with an adapter, which goes with the net."""

    def __init__(
        self,
        home: Resident,
        name: str,
        adapter: Adapter,
        questions: Questionnaire,
        normalise: Normalise,
        *,
        seed: int,
    ) -> None:
        home.attach(adapter, name, seed)
        super().__init__(home.loaded, questions, normalise)
        self.head.requires_grad_(False)
        self.home, self.name, self.adapter = home, name, adapter
        weakref.finalize(self, home.drop, name)

    def forward(self, *common: Any, **named: Any) -> Tensor:
        """As `WriterNet`, with this net's adapter."""
        self.home.activate(self.name)
        return super().forward(*common, **named)

    def redraw(self, seed: int) -> None:
        """Begin again with an adapter that adds nothing."""
        redraw(self.backbone, self.adapter, seed, self.name)

    def save_adapter(self, folder: Path, source: str | None) -> None:
        """Write the adapter in PEFT's layout; `source` names the backbone."""
        save_adapter(self.backbone, self.name, self.adapter, {}, folder, source)

    def load_adapter(self, folder: Path) -> None:
        """Read what `save_adapter` wrote.

        Raises
        ------
        ArtefactError
            If it isn't there, or belongs to another adapter or backbone.
        """
        load_adapter(self.backbone, self.name, folder)

    def copy_to(self, other: AdaptedWriter) -> None:
        """Give a net with the same settings this adapter."""
        copy_weights(self.backbone, self.name, other.backbone, other.name)


def dictation(questions: Questionnaire, chosen: Sequence[Positions]) -> Written:
    """What rows write whose labels are these candidates.

    Parameters
    ----------
    chosen
        Of each question the candidate of every row, int64 (rows,), -1 where a row's label is missing.
    """
    answers = questions.answers
    guessed = [
        np.concatenate(
            [answers.written(number, each[row]) for number, each in enumerate(chosen) if each[row] >= 0]
            or [np.zeros(0, dtype=np.int64)]
        )
        for row in range(len(chosen[0]))
    ]
    reads = [answers.before(nodes) for nodes in guessed]
    places = [
        np.where(answers.parents[nodes] < 0, 0, 1 + np.searchsorted(read, answers.parents[nodes]))
        for nodes, read in zip(guessed, reads, strict=True)
    ]
    rows = np.repeat(np.arange(len(guessed)), [len(nodes) for nodes in guessed])
    plain = (rows, np.concatenate(places), answers.tokens[np.concatenate(guessed)])
    return Written(nodes_of(answers, reads), *(torch.from_numpy(each) for each in plain))
