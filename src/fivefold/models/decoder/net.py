"""A head over a backbone that other nets may stand on too, each with an adapter of its own."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from fivefold.models.backbones.adapters import Adapter, load_adapter, redraw, save_adapter
from fivefold.models.backbones.resident import Resident
from fivefold.models.pooled.net import PooledNet


class AdaptedNet(PooledNet):
    """A resident backbone with an adapter, which goes with the net, and the net's head."""

    def __init__(self, resident: Resident, name: str, adapter: Adapter, *, seed: int, **head: Any) -> None:
        resident.attach(adapter, name, seed)
        super().__init__(resident.loaded.model, seed=seed, **head)
        self.resident, self.name, self.adapter = resident, name, adapter
        weakref.finalize(self, resident.drop, name)

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """The pooled vector of each sequence, fp32 (S, H)."""
        self.resident.activate(self.name)
        return super().vectors(input_ids, attention_mask, token_type_ids)

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
    own = get_peft_model_state_dict(source.backbone, adapter_name=source.name, save_embedding_layers=False)
    set_peft_model_state_dict(target.backbone, own, adapter_name=target.name)
    target.load_scores(source.scores())
