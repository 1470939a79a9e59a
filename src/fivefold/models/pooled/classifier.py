"""A backbone under pooling and a head, fine-tuned or frozen, as a classifier of one fold."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fivefold.data.compose import Corpus, Rows
from fivefold.models.backbones.architectures import position_limit
from fivefold.models.backbones.backbone import Attention, Backbone, Origin, load_config, load_tokenizer
from fivefold.models.backbones.vocabulary import Shrink, only_occurring
from fivefold.models.networks.material import Activations, Material, Sequences
from fivefold.models.networks.network import Network
from fivefold.models.networks.reading import Reading, Windows, read_both_ways, truncation_remarks
from fivefold.models.pairs import outcomes_of
from fivefold.models.pooled.activations import frozen_activations, part_starts
from fivefold.models.pooled.net import PooledHead, PooledNet
from fivefold.models.pooled.sides import read_sides
from fivefold.objectives.weights import label_biases
from fivefold.task import FloatArray, Labels, Task
from fivefold.training.inputs import NO_LEAD, Inputs
from fivefold.training.tokens import tokenizer_digest


class PooledClassifier(Network):
    """What the encoder and the decoder family share; settings as in the recipe's section `model`."""

    def __init__(
        self,
        task: Task,
        *,
        backbone: str | None,
        architecture: Mapping[str, Any] | None,
        tokenizer: str | None,
        trust_remote_code: bool,
        pooling: Any,
        head: Any,
        head_dropout: float,
        dropout: float | None,
        attention_dropout: float | None,
        fields: Any,
        template: str | None,
        max_tokens: int | None,
        truncation: Any,
        head_share: float,
        field_tokens: Mapping[str, int],
        field_words: Mapping[str, int],
        windows: Any,
        window_tokens: int,
        window_overlap: int,
        max_windows: int | None,
        unfrozen_layers: int | None,
        attention: Attention = "auto",
        **common: Any,
    ) -> None:
        super().__init__(task, **common)
        self.origin = Origin(backbone, architecture, trust_remote_code, dropout, attention_dropout, attention)
        self.tokenizer_name = tokenizer or backbone
        self.head = head
        self.outcomes = outcomes_of(task) if head == "reward" else None
        self.unfrozen_layers = unfrozen_layers
        cut = None if windows == "none" else Windows(window_tokens, window_overlap, max_windows)
        self.reading = Reading(
            fields, max_tokens, truncation, head_share, dict(field_tokens), cut, template, dict(field_words)
        )
        self.pooling, self.windows, self.head_dropout = pooling, windows, head_dropout
        self.net: Any = None
        self.backbone_remarks: tuple[str, ...] = ()

    @abstractmethod
    def load_backbone(self, seed: int) -> Backbone:
        """The backbone's weights; what its checkpoint lacks is drawn from `seed`."""

    @cached_property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, or the one that was named."""
        return load_tokenizer(self.tokenizer_name, trust_remote_code=self.origin.trust_remote_code)

    @cached_property
    def tokenizer_digest(self) -> str:
        """What tells tokenizers apart wherever they lie, in hex."""
        return tokenizer_digest(self.tokenizer)

    @cached_property
    def trunk_digest(self) -> str:
        """SHA-256 of the backbone's weights, in hex; read of frozen ones only, which never change."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.net.backbone.state_dict().items()):
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + plain.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def config(self) -> Any:
        """The backbone's configuration."""
        return load_config(self.origin, self.tokenizer)

    @property
    def compares(self) -> bool:
        """Whether the two sides of a pair are read alone, each for a reward."""
        return self.outcomes is not None

    def _swapped(self, where: str) -> bool:
        """Never where rewards are compared: swapping the sides swaps the outcomes by itself."""
        return not self.compares and super()._swapped(where)

    @property
    def frozen(self) -> bool:
        """Whether nothing below the head learns, so that the trunk has to be run once only."""
        return self.unfrozen_layers == 0 and "attention" not in (self.pooling, self.windows)

    def learn_vocabulary(self, train: Rows) -> None:
        """Nothing: the tokenizer comes with the backbone."""

    def sequences(self, corpus: Corpus) -> Sequences:
        """Token sequences of all rows."""
        key = f"pooled:{self.tokenizer_digest}:{self.reading}:{self.lead.tolist()}:{self.compares}"
        return Sequences(corpus.once(key, self._inputs), self.tokenizer.pad_token_id)

    def material(self, corpus: Corpus) -> Material:
        """Token sequences, or what a frozen trunk makes of them."""
        sequences = self.sequences(corpus)
        if not self.frozen:
            return sequences
        if self.net is None:
            self.net = self.build(None, self.seed)
        net = self.net
        named = (
            self.trunk_digest,
            self.origin.attention,
            self.pooling,
            self.windows,
            self.reading,
            self.tokenizer_digest,
            self.compares,
        )
        key = hashlib.sha256(repr(named).encode()).hexdigest()
        return corpus.once(f"activations:{key}", lambda _: frozen_activations(net, sequences, key, self.scoring_tokens))

    def unread(self, net: Any, sequences: Sequences) -> Material:
        """Token sequences, or zeros where a frozen trunk's vectors will be."""
        if not self.frozen:
            return sequences
        starts = part_starts(sequences)
        return Activations(np.zeros((int(starts[-1]), int(net.backbone.config.hidden_size)), np.float32), starts)

    @cached_property
    def lead(self) -> Any:
        """Ids before the content of every sequence, int32 (tokens,)."""
        return NO_LEAD

    def _inputs(self, fields: Mapping[str, Sequence[str]]) -> Inputs:
        limit, swap = position_limit(self.config), self.task.swap
        if swap is not None and self.compares:
            return read_sides(self.reading, fields, swap, self.tokenizer, limit, self.lead)
        return self.reading.inputs(read_both_ways(fields, swap), self.tokenizer, limit, self.lead)

    def build(self, labels: Labels | None, seed: int) -> nn.Module:
        """The backbone under a fresh head at the label rates."""
        loaded = self.load_backbone(seed)
        self.backbone_remarks = loaded.remarks
        return self.over(loaded.model, None if labels is None else label_biases(labels), seed)

    def over(self, model: Any, biases: FloatArray | None, seed: int) -> nn.Module:
        """Pooling and a fresh head over a backbone."""
        return PooledNet(model, seed=seed, biases=biases, **self.head_settings)

    @property
    def head_settings(self) -> dict[str, Any]:
        """What a net is told beside its backbone and first weights."""
        return {
            "width": self.task.width,
            "pooling": self.pooling,
            "head": "linear" if self.compares else self.head,
            "outcomes": self.outcomes,
            "head_dropout": self.head_dropout,
            "fields": self.reading.fields,
            "windows": self.windows,
            "attention": self.origin.attention,
            "unfrozen_layers": self.unfrozen_layers,
        }

    def learning(self, net: nn.Module, *corpora: Corpus) -> AbstractContextManager[Shrink]:
        """With embeddings of the tokens alone that these corpora have."""
        if self.frozen:
            return super().learning(net, *corpora)
        padding = self.tokenizer.pad_token_id, getattr(self.config, "pad_token_id", None) or 0
        always = np.array([*padding, *self.tokenizer.all_special_ids], dtype=np.int32)
        ids = (self.sequences(corpus).inputs.tokens.ids for corpus in corpora)
        return only_occurring(net, net.backbone, [always, *ids])

    def begin(self, labels: Labels) -> nn.Module:
        """The net to train; one that was built to compute activations takes its head's biases now."""
        if self.net is None:
            self.net = self.build(labels, self.seed)
        elif isinstance(self.net, PooledNet) and not self.resumed:
            self.net.reset_head(self.seed, label_biases(labels))
        net: nn.Module = self.net
        return net

    def trained(self, net: nn.Module) -> nn.Module:
        """All of it, or the head of a frozen one."""
        return PooledHead(net) if self.frozen and isinstance(net, PooledNet) else net

    def depths(self, net: Any) -> list[Mapping[str, nn.Parameter]]:
        """Embeddings, layers from the bottom up, head."""
        return list(net.layers())

    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """How much was truncated, and what the checkpoint lacked."""
        return (*truncation_remarks(self.sequences(corpus).inputs, len(corpus)), *self.backbone_remarks)

    def save(self, folder: Path) -> None:
        """Write backbone, tokenizer and head."""
        self.net.save(folder, self.tokenizer)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; only the folder is read."""
        self.origin = replace(self.origin, name=str(folder), architecture=None)
        self.tokenizer_name = str(folder)
        for name in ("tokenizer", "tokenizer_digest", "trunk_digest", "config", "lead"):
            self.__dict__.pop(name, None)
        self.net = self.build(None, self.seed)
        if isinstance(self.net, PooledNet):
            self.net.load_head(folder)
        self.resumed = True
        self.net.eval()
