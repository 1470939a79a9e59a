"""A language model that answers: tokens of a batch to scores of every answer, or to losses of what was written."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fivefold.models.backbones.adapters import Adapter, copy_weights, load_adapter, redraw, save_adapter
from fivefold.models.backbones.backbone import Backbone
from fivefold.models.backbones.encoder_decoders import is_encoder_decoder
from fivefold.models.backbones.net import Net
from fivefold.models.backbones.passes import Passes, real_first
from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.backbones.resident import Resident
from fivefold.models.generator.answers import Positions
from fivefold.models.generator.decoder_pass import spoken_at
from fivefold.models.generator.tree_pass import Nodes, hidden_at
from fivefold.task import Labels


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


class Writer(Protocol):
    """A language model that says how likely tokens are behind a prompt and what was written after it."""

    def weighed(self, prompts: Padded, nodes: Nodes, places: Tensor, vocabulary: Tensor, words: Tensor) -> Tensor:
        """What speaks for each guess, up to a number that all guesses of a place share, fp32 (B, guesses).

        Parameters
        ----------
        places
            int64 (B, guesses): where each is made, 0 behind the prompt, 1 + i behind the i-th node of a row.
        vocabulary, words
            The distinct ids that are guessed, and what is guessed, as positions among them: (guesses,).
        """

    def guessed(self, prompts: Padded, nodes: Nodes, places: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of each guessed id, (guesses,), among the whole vocabulary, fp32 (B, guesses)."""


class Script(Protocol):
    """What a model is to write behind a prompt, and what its scores are read off."""

    @property
    def words(self) -> str:
        """What asks for it, where one question is asked."""

    @property
    def tokens(self) -> int:
        """Tokens behind a prompt that a pass reads, at most."""

    @property
    def deepest(self) -> int:
        """Tokens of the longest line behind a prompt."""

    def scores(self, net: Writer, prompts: Padded) -> Tensor:
        """Log-odds and log-probabilities of the rows of a batch, fp32 (rows, width)."""

    def dictated(self, labels: Labels) -> Written:
        """What rows with these labels write."""

    def answers(self, labels: Labels) -> list[tuple[int, ...]]:
        """What each row writes, in ids, where one question is asked; () where it isn't known."""

    def kinds(self, labels: Labels) -> list[Positions]:
        """Rows by what they write, of which examples take some of each."""


class WriterNet(Net):
    """A causal backbone or an encoder-decoder, its head for the next token, and what they write.

    Parameters
    ----------
    loaded
        From `load_writer`.
    """

    def __init__(self, loaded: Backbone, script: Script, unfrozen_layers: int | None = None) -> None:
        super().__init__(loaded.model, attention="auto", unfrozen_layers=unfrozen_layers)
        self.head = loaded.whole.get_output_embeddings()
        self.loaded, self.script = loaded, script
        self.two_stacks = is_encoder_decoder(loaded.model.config)
        if self.two_stacks:
            self.passes = Passes(loaded.model.base_model.encoder)

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
        if written is None:
            return self.script.scores(self, prompts)
        logits = self.vocabulary_logits(self.read(prompts, written.nodes)[written.rows, written.places])
        return functional.cross_entropy(logits, written.tokens, reduction="none")

    def read(self, prompts: Padded, nodes: Nodes) -> Tensor:
        """What the head reads of each prompt's last token and of the nodes behind it: (B, 1 + n, H).

        An encoder-decoder's encoder reads the prompt, and its decoder the nodes behind its start token.
        """
        if self.two_stacks:
            return spoken_at(self.backbone, self.passes, prompts, nodes)
        return hidden_at(self.backbone, self.passes, prompts, nodes)

    def weighed(self, prompts: Padded, nodes: Nodes, places: Tensor, vocabulary: Tensor, words: Tensor) -> Tensor:
        """Logits of guesses, see `Writer`; only of the words that are guessed."""
        distinct, back = torch.unique(places, dim=1, return_inverse=True)
        return self.vocabulary_logits(self._at(prompts, nodes, distinct), vocabulary)[:, back, words]

    def guessed(self, prompts: Padded, nodes: Nodes, places: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of guesses, see `Writer`."""
        distinct, back = torch.unique(places, dim=1, return_inverse=True)
        return self.vocabulary_logits(self._at(prompts, nodes, distinct)).log_softmax(dim=-1)[:, back, tokens]

    def _at(self, prompts: Padded, nodes: Nodes, places: Tensor) -> Tensor:
        """The vectors at places of each row, (B, n) -> (B, n, H)."""
        hidden = self.read(prompts, nodes)
        return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))

    def vocabulary_logits(self, hidden: Tensor, words: Tensor | None = None) -> Tensor:
        """What the head says of every token, or of these words, fp32; (..., H) -> (..., tokens)."""
        if words is None:
            return self._finished(self.head(hidden).float(), slice(None))
        bias = None if self.head.bias is None else self.head.bias[words]
        return self._finished(functional.linear(hidden, self.head.weight[words].to(hidden.dtype), bias).float(), words)

    def _finished(self, logits: Tensor, words: Tensor | slice) -> Tensor:
        """As transformers' models end: BART adds a bias, Cohere and Granite scale their logits, Gemma 2 bounds them."""
        config = self.backbone.config
        shift = getattr(self.backbone, "final_logits_bias", None)
        logits = logits if shift is None else logits + shift[0, words]
        logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)


class AdaptedWriter(WriterNet):
    """A resident backbone with an adapter, which goes with the net."""

    def __init__(
        self,
        home: Resident,
        name: str,
        adapter: Adapter,
        script: Script,
        *,
        seed: int,
    ) -> None:
        home.attach(adapter, name, seed)
        super().__init__(home.loaded, script)
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
