"""The encoder family: a BERT-like backbone, fine-tuned or frozen, under a head."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fivefold.data.compose import Corpus, Rows
from fivefold.models.backbones.architectures import count_full_attention, position_limit
from fivefold.models.backbones.backbone import (
    Backbone,
    Origin,
    load_config,
    load_encoder,
    load_masked_lm,
    load_tokenizer,
)
from fivefold.models.encoder.activations import frozen_activations
from fivefold.models.encoder.net import EncoderNet, PooledHead
from fivefold.models.encoder.prompted import PromptedNet, answer_id, prompt_lead
from fivefold.models.networks.material import Material, Sequences
from fivefold.models.networks.network import Network, read_both_ways, truncation_remarks
from fivefold.models.networks.reading import Reading, Windows
from fivefold.objectives.weights import label_biases
from fivefold.task import Labels, Task
from fivefold.training.inputs import NO_LEAD
from fivefold.training.tokens import plain_tokenizer

Net = EncoderNet | PromptedNet


class EncoderClassifier(Network):
    """One fold of the encoder family; settings as in the recipe's section `model`."""

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
        max_tokens: int | None,
        truncation: Any,
        head_share: float,
        field_tokens: Mapping[str, int],
        windows: Any,
        window_tokens: int,
        window_overlap: int,
        max_windows: int | None,
        attention: Any,
        unfrozen_layers: int | None,
        prompt: str,
        prompt_labels: Mapping[str, str],
        yes: str,
        no: str,
        **common: Any,
    ) -> None:
        super().__init__(task, **common)
        self.origin = Origin(backbone, architecture, trust_remote_code, dropout, attention_dropout, attention)
        self.tokenizer_name = tokenizer or backbone
        self.head = head
        self.unfrozen_layers = unfrozen_layers
        cut = None if windows == "none" else Windows(window_tokens, window_overlap, max_windows)
        self.reading = Reading(fields, max_tokens, truncation, head_share, dict(field_tokens), cut)
        self.pooling, self.windows, self.head_dropout = pooling, windows, head_dropout
        self.prompt, self.prompt_labels, self.answers = prompt, dict(prompt_labels), (yes, no)
        self.net: Net | None = None
        self.loaded: Backbone | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, or the one that was named."""
        return load_tokenizer(self.tokenizer_name, trust_remote_code=self.origin.trust_remote_code)

    @cached_property
    def tokenizer_digest(self) -> str:
        """What tells tokenizers apart wherever they lie, in hex."""
        return hashlib.sha256(plain_tokenizer(self.tokenizer).encode()).hexdigest()

    @cached_property
    def trunk_digest(self) -> str:
        """SHA-256 of the backbone's weights, in hex; read of frozen ones only, which never change."""
        assert self.net is not None
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
    def frozen(self) -> bool:
        """Whether nothing below the head learns, so that the trunk has to be run once only."""
        pools = "attention" in (self.pooling, self.windows)
        return self.head != "prompted" and self.unfrozen_layers == 0 and not pools

    def learn_vocabulary(self, train: Rows) -> None:
        """Nothing: the tokenizer comes with the backbone."""

    def sequences(self, corpus: Corpus) -> Sequences:
        """Token sequences of all rows."""
        key = f"encoder:{self.tokenizer_digest}:{self.reading}:{self.prompt_ids.tolist()}"
        return Sequences(corpus.once(key, self._inputs), self.tokenizer.pad_token_id)

    def material(self, corpus: Corpus) -> Material:
        """Token sequences, or what a frozen trunk makes of them."""
        sequences = self.sequences(corpus)
        if not self.frozen:
            return sequences
        if self.net is None:
            self.net = self.build(None, self.seed)
        net = self.net
        assert isinstance(net, EncoderNet)
        named = (
            self.trunk_digest,
            self.origin.attention,
            self.pooling,
            self.windows,
            self.reading,
            self.tokenizer_digest,
        )
        key = hashlib.sha256(repr(named).encode()).hexdigest()
        return corpus.once(f"activations:{key}", lambda _: frozen_activations(net, sequences, key, self.scoring_tokens))

    @cached_property
    def prompt_ids(self) -> Any:
        """The slots of a prompted head, int32 (tokens,); none for others."""
        if self.head != "prompted":
            return NO_LEAD
        return prompt_lead(self.task, self.tokenizer, self.prompt, self.prompt_labels)

    def _inputs(self, fields: Mapping[str, Sequence[str]]) -> Any:
        texts = read_both_ways(fields, self.task.swap)
        return self.reading.inputs(texts, self.tokenizer, position_limit(self.config), self.prompt_ids)

    def build(self, labels: Labels | None, seed: int) -> Net:
        """The backbone under a fresh head at the label rates."""
        load = load_masked_lm if self.head == "prompted" else load_encoder
        self.loaded = load(self.origin, self.tokenizer, seed=seed)
        return self._over(self.loaded.model, None if labels is None else label_biases(labels), seed)

    def _over(self, model: Any, biases: Any, seed: int) -> Net:
        common: dict[str, Any] = {
            "width": self.task.width,
            "fields": self.reading.fields,
            "attention": self.origin.attention,
            "unfrozen_layers": self.unfrozen_layers,
        }
        if self.head != "prompted":
            return EncoderNet(
                model,
                seed=seed,
                biases=biases,
                head=self.head,
                head_dropout=self.head_dropout,
                pooling=self.pooling,
                windows=self.windows,
                **common,
            )
        yes, no = (answer_id(self.tokenizer, word) for word in self.answers)
        return PromptedNet(model, mask=self.tokenizer.mask_token_id, yes=yes, no=no, **common)

    def begin(self, labels: Labels) -> nn.Module:
        """The net to train; one that was built to compute activations takes its head's biases now."""
        if self.net is None:
            self.net = self.build(labels, self.seed)
        elif isinstance(self.net, EncoderNet) and not self.resumed:
            self.net.reset_head(self.seed, label_biases(labels))
        return self.net

    def trained(self, net: nn.Module) -> nn.Module:
        """All of it, or the head of a frozen one."""
        return PooledHead(net) if self.frozen and isinstance(net, EncoderNet) else net

    def depths(self, net: nn.Module) -> list[Mapping[str, nn.Parameter]]:
        """Embeddings, layers from the bottom up, head."""
        assert isinstance(net, Net)
        return list(net.layers())

    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """How much was truncated, what BigBird reads with full attention, and what the checkpoint lacked."""
        inputs = self.sequences(corpus).inputs
        full = count_full_attention(self.config, inputs.tokens.lengths)
        said = list(truncation_remarks(inputs))
        if full and self.origin.attention != "sparse":
            said.append(
                f"BigBird reads {full / len(inputs.tokens):.1%} of the inputs with full attention: they are short."
            )
        return (*said, *(self.loaded.remarks if self.loaded else ()))

    def save(self, folder: Path) -> None:
        """Write backbone, tokenizer and head."""
        assert self.net is not None
        self.net.save(folder, self.tokenizer)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; only the folder is read."""
        self.origin = replace(self.origin, name=str(folder), architecture=None)
        self.tokenizer_name = str(folder)
        for name in ("tokenizer", "tokenizer_digest", "trunk_digest", "config", "prompt_ids"):
            self.__dict__.pop(name, None)
        self.net = self.build(None, self.seed)
        if isinstance(self.net, EncoderNet):
            self.net.load_head(folder)
        self.resumed = True
        self.net.eval()
