"""A model as it is, of whose prompts the examples that all begin with are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.backbones.prefix import FEWEST, Prefix, continues, prefix_of
from fivefold.models.generator.net import WriterNet
from fivefold.models.generator.tree_pass import Nodes, hidden_at


class SharedWriter(WriterNet):
    """A writer that never learns, whose prompts may be told to begin alike."""

    def __init__(self, *common: Any) -> None:
        super().__init__(*common)
        self.requires_grad_(False)
        self.beginning: tuple[int, ...] = ()
        self._known: Prefix | None = None

    @property
    def spared(self) -> int:
        """Tokens of every prompt that scoring needn't compute, of which a quarter is counted still, as a pass holds
        their keys."""
        return len(self.beginning) * 3 // 4

    def begin(self, ids: Sequence[int]) -> None:
        """From now on every prompt begins with these ids, and goes on; where an architecture can't use that, nothing
        changes."""
        able = len(ids) >= FEWEST and continues(self.backbone)
        self.beginning, self._known = tuple(ids) if able else (), None

    def read(self, prompts: Padded, nodes: Nodes) -> Tensor:
        """The vectors of each prompt's last token and of the nodes behind it: (B, 1 + n, H)."""
        if not self.beginning:
            return super().read(prompts, nodes)
        if self._known is None:
            self._known = prefix_of(self.backbone, torch.tensor(self.beginning, device=prompts.ids.device))
        return hidden_at(self.backbone, self.passes, prompts, nodes, self._known)
