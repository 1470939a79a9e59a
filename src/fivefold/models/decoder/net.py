"""A head over a causal backbone, which other nets may stand on too, each with an adapter of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fivefold.models.backbones.adapters import Adapter, copy_weights, load_adapter, own_weights, redraw, save_adapter
from fivefold.models.backbones.passes import Pass
from fivefold.models.backbones.prefix import FEWEST, Prefix, continues, prefix_of, state_of
from fivefold.models.backbones.resident import Resident
from fivefold.models.pooled.net import PooledNet

COMPUTING = threading.Lock()
"""Held while a prefix is computed. It belongs to no net, as nets are copied."""


class DecoderNet(PooledNet):
    """A causal backbone and a head.

    Parameters
    ----------
    prefix
        Ids that sequences begin with. In scoring they are computed once, where that pays and changes nothing.
    """

    def __init__(self, backbone: Any, *, prefix: Sequence[int] = (), **head: Any) -> None:
        self._kept: tuple[Any, Prefix] | None = None
        super().__init__(backbone, **head)
        self.prefix = torch.tensor(prefix if len(prefix) >= FEWEST and continues(backbone) else (), dtype=torch.int64)

    @property
    def spared(self) -> int:
        """Tokens of every sequence that scoring needn't compute: the prefix, of which a quarter is counted still, as a
        pass holds its vectors and keys for each sequence."""
        return len(self.prefix) * 3 // 4

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; training forgets the prefix."""
        if mode or self.training:
            self._kept = None  # torch doesn't count what a fused optimiser changes
        return super().train(mode)

    def hidden(self, each: Pass) -> Tensor:
        """The backbone's vector of every token of a pass, (n, T, H)."""
        if torch.is_grad_enabled() or self.training or not self._begins(each):
            return super().hidden(each)
        return self._known().followed(self.backbone, each.inputs["input_ids"], each.mask)

    def _begins(self, each: Pass) -> bool:
        """Whether all sequences of a pass begin with the prefix, and go on."""
        known, ids = len(self.prefix), each.inputs["input_ids"]
        if not known or ids.shape[1] <= known:
            return False
        return bool(each.mask[:, known].all() and (ids[:, :known] == self.prefix.to(ids.device)).all())

    def _known(self) -> Prefix:
        """The prefix under the weights of now; passes side by side wait for the first of them to compute it."""
        weights = self.changing()
        state = state_of(weights)
        with COMPUTING:
            kept = self._kept
            if kept is None or kept[0] != state:
                self._kept = kept = state, prefix_of(self.backbone, self.prefix.to(weights[0].device))
        return kept[1]

    def changing(self) -> Sequence[Tensor]:
        """Weights below the head that may ever change."""
        return list(self.backbone.parameters())


class AdaptedNet(DecoderNet):
    """A resident backbone with an adapter, which goes with the net, and the net's head."""

    def __init__(self, resident: Resident, name: str, adapter: Adapter, *, seed: int, **head: Any) -> None:
        resident.attach(adapter, name, seed)
        super().__init__(resident.loaded.model, seed=seed, **head)
        self.resident, self.name, self.adapter = resident, name, adapter
        self.own = own_weights(self.backbone, name)
        weakref.finalize(self, resident.drop, name)

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """The pooled vector of each sequence, fp32 (S, H)."""
        self.resident.activate(self.name)
        return super().vectors(input_ids, attention_mask, token_type_ids)

    def changing(self) -> Sequence[Tensor]:
        """The adapter alone."""
        return self.own

    def redraw(self, seed: int, biases: Any) -> None:
        """Begin again: an adapter that adds nothing, under a fresh head."""
        redraw(self.backbone, self.adapter, seed, self.name)
        self.reset_head(seed, biases)

    def save_adapter(self, folder: Path, source: str | None) -> None:
        """Write adapter and head in PEFT's layout; `source` names the backbone."""
        save_adapter(self.backbone, self.name, self.adapter, self.scores(), folder, source)

    def load_adapter(self, folder: Path) -> None:
        """Read what `save_adapter` wrote.

        Raises
        ------
        ArtefactError
            If it isn't there, or belongs to another adapter, backbone or head.
        """
        self.load_scores(load_adapter(self.backbone, self.name, folder))


def copy_adapter(source: AdaptedNet, target: AdaptedNet) -> None:
    """Give a net the adapter and head of another with the same settings, on the same backbone or its like."""
    copy_weights(source.backbone, source.name, target.backbone, target.name)
    target.load_scores(source.scores())
