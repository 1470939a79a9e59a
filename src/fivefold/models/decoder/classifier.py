"""The decoder family: a causal language model under a classification head, whole or by a low-rank adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fivefold.data.compose import Rows
from fivefold.models.backbones.adapters import Adapter, load_adapter
from fivefold.models.backbones.backbone import Backbone, Weights, load_decoder
from fivefold.models.backbones.contents import check_source, keep_source
from fivefold.models.backbones.kernels import Kernels, usable
from fivefold.models.backbones.resident import TRAINED, Resident, resident
from fivefold.models.decoder.net import AdaptedNet, DecoderNet, copy_adapter
from fivefold.models.decoder.together import logits_together, stand_together
from fivefold.models.networks.network import weights_of
from fivefold.models.networks.supervised import on_device
from fivefold.models.pooled.classifier import PooledClassifier
from fivefold.objectives.weights import label_biases
from fivefold.scores import Scores, normalised
from fivefold.task import FloatArray, Labels, Task
from fivefold.training.precision import choose_precision, default_device


class DecoderClassifier(PooledClassifier):
    """One fold of the decoder family; settings as in the recipe's section `model`."""

    def __init__(
        self, task: Task, *, weights: str, adapter: Mapping[str, Any] | None, kernels: Kernels, **common: Any
    ) -> None:
        super().__init__(task, **common)
        self.adapter = None if adapter is None else Adapter(**adapter)
        self.origin = replace(self.origin, weights=self._held(weights), kernels=kernels)
        self.home: Resident | None = None
        self.begins_from: Path | None = None

    def _held(self, weights: str) -> Weights:
        """How the backbone is held: in full where it is trained itself, else as the device computes."""
        if weights != "auto":
            return weights  # type: ignore[return-value]
        if self.adapter is None and self.unfrozen_layers != 0:
            return "fp32"
        return choose_precision(self.training["precision"], default_device())

    @property
    def frozen(self) -> bool:
        """Whether nothing below the head learns, so that the trunk has to be run once only."""
        return super().frozen and self.adapter is None

    def load_backbone(self, seed: int) -> Backbone:
        """The backbone alone."""
        return load_decoder(self.origin, self.tokenizer, seed=seed)

    @property
    def head_settings(self) -> dict[str, Any]:
        """What a net is told beside its backbone and first weights."""
        return super().head_settings | {"prefix": self.reading.prefix(self.tokenizer, self.lead)}

    def over(self, model: Any, biases: FloatArray | None, seed: int) -> nn.Module:
        """Pooling and a fresh head over a backbone."""
        return DecoderNet(model, seed=seed, biases=biases, **self.head_settings)

    def build(self, labels: Labels | None, seed: int) -> nn.Module:
        """The backbone under a fresh head at the label rates; with an adapter, one that is to be trained."""
        if self.adapter is None:
            return super().build(labels, seed)
        net = self._adapted(self.adapter, None if labels is None else label_biases(labels), seed, trained=True)
        self._begin_elsewhere(net)
        return net

    def _adapted(self, adapter: Adapter, biases: FloatArray | None, seed: int, *, trained: bool) -> AdaptedNet:
        self.home = home = resident(self.origin, self.tokenizer, seed=seed, trained=trained)
        self.backbone_remarks = home.loaded.remarks
        name = TRAINED if trained else home.free_name()
        return AdaptedNet(home, name, adapter, seed=seed, biases=biases, **self.head_settings)

    def begin(self, labels: Labels) -> nn.Module:
        """The net to train; a loaded adapter moves to the name of those that are trained."""
        net = super().begin(labels)
        if isinstance(net, AdaptedNet) and net.name != TRAINED:
            assert self.adapter is not None
            trained = self._adapted(self.adapter, None, self.seed, trained=True)
            copy_adapter(net, trained)
            self.net = net = trained
        return net

    def fresh_weights(self, labels: Labels, seed: int) -> Mapping[str, Tensor]:
        """Weights by name to begin again with; an adapter is drawn anew where it is, on the backbone that is there."""
        if not isinstance(self.net, AdaptedNet):
            return super().fresh_weights(labels, seed)
        self.net.redraw(seed, label_biases(labels))
        self._begin_elsewhere(self.net)
        return weights_of(self.net)

    def _begin_elsewhere(self, net: AdaptedNet) -> None:
        """Take the adapter of another run, whose head was for other labels, where one was named."""
        if self.begins_from is not None:
            load_adapter(net.backbone, net.name, self.begins_from)

    @staticmethod
    def score_together(models: Sequence[Any], rows: Rows) -> list[Scores] | None:
        """What each of several models says of `rows`, in one pass; None where they can't share it or needn't."""
        first = models[0]
        nets = [model.net.to(default_device()).eval() for model in models]
        if not stand_together(nets) or first.task.swap or any(model.reading != first.reading for model in models):
            return None
        sequences = first.sequences(rows.corpus)
        tokens = int((sequences.lengths * sequences.counts)[rows.index].sum())
        if not len(rows) or tokens * len(models) > first.scoring_tokens:
            return None
        with torch.inference_mode():
            logits = logits_together(nets, on_device(sequences.batch(rows.index), nets[0]))
        return [Scores(first.task, rows.ids, normalised(first.task, each.cpu().numpy())) for each in logits]

    def save(self, folder: Path) -> None:
        """Write adapter and head in PEFT's layout, or the whole backbone where it was trained itself."""
        if isinstance(self.net, AdaptedNet):
            keep_source(folder, self.origin.name)
            self.net.save_adapter(folder, self.origin.name)
        else:
            super().save(folder)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; an adapter's backbone is found by its name, in memory if it is there.

        Kernels that can't run here are left out.
        """
        self.origin = replace(self.origin, kernels=usable(self.origin.kernels))
        if self.adapter is None:
            super().load(folder)
            return
        check_source(folder, self.origin.name)
        self.net = self._adapted(self.adapter, None, self.seed, trained=False)
        self.net.load_adapter(folder)
        self.resumed = True
        self.net.eval()
