"""The decoder family: a causal language model under a classification head, whole or by a low-rank adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fivefold.models.backbones.adapters import Adapter, attach, load_adapter, redraw, save_adapter
from fivefold.models.backbones.backbone import Backbone, Weights, load_decoder
from fivefold.models.networks.network import weights_of
from fivefold.models.pooled.classifier import PooledClassifier
from fivefold.objectives.weights import label_biases
from fivefold.task import Labels, Task
from fivefold.training.precision import choose_precision, default_device


class DecoderClassifier(PooledClassifier):
    """One fold of the decoder family; settings as in the recipe's section `model`."""

    def __init__(self, task: Task, *, weights: str, adapter: Mapping[str, Any] | None, **common: Any) -> None:
        super().__init__(task, **common)
        plain = None if adapter is None else {**adapter, "targets": _hashable(adapter["targets"])}
        self.adapter = None if plain is None else Adapter(**plain)
        self.origin = replace(self.origin, weights=self._held(weights))

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
        """The backbone, with a fresh adapter where there is one."""
        backbone = load_decoder(self.origin, self.tokenizer, seed=seed)
        if self.adapter is not None:
            attach(backbone.model, self.adapter, seed)
        return backbone

    def fresh_weights(self, labels: Labels, seed: int) -> Mapping[str, Tensor]:
        """Weights by name to begin again with; an adapter is drawn anew where it is, on the backbone that is there."""
        if self.adapter is None:
            return super().fresh_weights(labels, seed)
        redraw(self.net.backbone, self.adapter, seed)
        self.net.reset_head(seed, label_biases(labels))
        return weights_of(self.net)

    def save(self, folder: Path) -> None:
        """Write adapter and head in PEFT's layout, or the whole backbone where it was trained itself."""
        if self.adapter is None:
            super().save(folder)
            return
        save_adapter(self.net.backbone, self.adapter, self.net.scores(), folder, self.origin.name)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote; an adapter's backbone is found by its name."""
        if self.adapter is None:
            super().load(folder)
            return
        self.net = self.build(None, self.seed)
        self.net.load_scores(load_adapter(self.net.backbone, folder))
        self.resumed = True
        self.net.eval()


def _hashable(targets: Any) -> str | tuple[str, ...]:
    return targets if isinstance(targets, str) else tuple(targets)
