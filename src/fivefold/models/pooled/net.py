"""A backbone under pooling, window merge, head and field merge: tokens of a batch to logits of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fivefold.errors import ArtefactError
from fivefold.models.backbones.architectures import is_block_sparse, is_known, turning_point
from fivefold.models.backbones.backbone import Attention, save_backbone
from fivefold.models.backbones.net import Net
from fivefold.models.backbones.passes import Pass, in_batch_order, real_first
from fivefold.models.backbones.places import first_line
from fivefold.models.pairs import Outcomes
from fivefold.models.pooled.comparison import Comparison
from fivefold.models.pooled.pooling import (
    AttentionPool,
    FieldMerge,
    Pooling,
    WindowMerge,
    cls_pool,
    last_pool,
    max_pool,
    mean_pool,
    segment_max,
    segment_mean,
)
from fivefold.task import FloatArray

HEAD_FILE = "head.safetensors"
POOLS = {"cls": cls_pool, "last": last_pool, "mean": mean_pool, "max": max_pool}
MERGES = {"mean": segment_mean, "max": segment_max}


class PooledNet(Net):
    """A backbone and a head over its pooled vectors.

    Parameters
    ----------
    backbone
        A transformers model without a head, from `load_encoder` or `load_decoder`.
    width
        Logits of a row.
    seed
        Of the head's first weights.
    biases
        First biases of the logits, (width,), such as the labels' log-odds; None: zeros.
    pooling
        How the vectors of a sequence become one.
    head
        One linear layer, or a hidden one before it.
    head_dropout
        Share of pooled activations dropped in training.
    fields
        How logits of a row's parts become the row's; "joined": a row has one part.
    windows
        How the vectors of a part's sequences become one; "none": a part has one sequence.
    attention
        BigBird's attention, see `Passes`.
    unfrozen_layers
        Train only so many top layers and the head; 0: the head alone; None: everything.
    outcomes
        Of a comparison: then a row has two parts, its head gives each a reward, and the logits are the outcomes'.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        width: int,
        seed: int,
        biases: FloatArray | Sequence[float] | None = None,
        pooling: Pooling = "mean",
        head: Literal["linear", "mlp"] = "linear",
        head_dropout: float = 0.1,
        fields: FieldMerge = "joined",
        windows: WindowMerge = "none",
        attention: Attention = "auto",
        unfrozen_layers: int | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        super().__init__(backbone, attention=attention, unfrozen_layers=unfrozen_layers)
        self.pooling, self.fields, self.windows = pooling, fields, windows
        self.comparison = None if outcomes is None else Comparison(outcomes)
        hidden = int(backbone.config.hidden_size)
        self.token_attention = AttentionPool(hidden) if pooling == "attention" else None
        self.window_attention = AttentionPool(hidden) if windows == "attention" else None
        between = [_undrawn(hidden, hidden), nn.GELU(), nn.Dropout(head_dropout)] if head == "mlp" else []
        # A bias on both rewards would cancel, and so learn from rounding alone.
        last = _undrawn(hidden, width) if outcomes is None else _undrawn(hidden, 1, bias=False)
        self.head = nn.Sequential(nn.Dropout(head_dropout), *between, last)
        self.reset_head(seed, biases)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        part: Tensor,
        owner: Tensor,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of the rows of a batch, fp32 (rows, width).

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids
            int64 (S, T), padded on either side.
        part
            int64 (S,), sorted: the part each sequence belongs to.
        owner
            int64 (parts,), sorted: the row each part belongs to.
        position_ids
            Not read: positions are counted here.
        """
        return self.classify(self.vectors(input_ids, attention_mask, token_type_ids), part, owner)

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """The pooled vector of each sequence, fp32 (S, H)."""
        places, pooled = [], []
        for each in self.passes(real_first(input_ids, attention_mask, token_type_ids)):
            hidden = self.hidden(each).float()
            with torch.autocast(hidden.device.type, enabled=False):
                pooled.append(self.pool(hidden, each.mask))
            places.append(each.index)
        return in_batch_order(places, pooled)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The vector of each sequence; (n, T, H), (n, T) -> (n, H)."""
        pool = self.token_attention or POOLS[self.pooling]
        vectors: Tensor = pool(hidden, mask)
        return vectors

    def hidden(self, each: Pass) -> Tensor:
        """The backbone's vector of every token of a pass, (n, T, H)."""
        vectors: Tensor = self.backbone(**each.inputs).last_hidden_state
        return vectors

    def classify(self, vectors: Tensor, part: Tensor, owner: Tensor) -> Tensor:
        """Logits (rows, width) from the vectors (S, H) of a batch's sequences."""
        with torch.autocast(vectors.device.type, enabled=False):
            merged = self._merge_windows(vectors.float(), part, len(owner))
        return head_logits(self.head, self.comparison, merged, owner, self.fields)

    @property
    def reentrant(self) -> bool:
        """Whether passes may run side by side: nothing that a pass changes outlives it. Not so where a BigBird turns
        its attention or LongRoPE its angles, and not known of code that came with the weights or multiplies quantised
        ones."""
        config, quantised = self.backbone.config, getattr(self.backbone, "is_quantized", False)
        return is_known(self.trunk) and not quantised and not is_block_sparse(config) and turning_point(config) is None

    @property
    def spared(self) -> int:
        """Tokens of every sequence that scoring needn't compute."""
        return 0

    @property
    def trains_pooling(self) -> bool:
        """Whether something below the head other than the backbone has weights, so that `pooled` can't be kept."""
        return self.token_attention is not None or self.window_attention is not None

    def pooled(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        part: Tensor,
        owner: Tensor,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """The vectors below the head, fp32 (parts, H), which never change while the backbone is frozen.

        Raises
        ------
        ValueError
            If pooling itself is trained.
        """
        if self.trains_pooling:
            raise ValueError("vectors of a trained pooling can't be kept")
        vectors = self.vectors(input_ids, attention_mask, token_type_ids)
        return self._merge_windows(vectors, part, len(owner))

    def reset_head(self, seed: int, biases: FloatArray | Sequence[float] | None = None) -> None:
        """Draw the head anew: normal weights as in the backbone, and the given biases for the logits."""
        generator = torch.Generator().manual_seed(seed)
        spread = float(getattr(self.backbone.config, "initializer_range", 0.02))
        linear = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer in linear:
                layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, spread, generator=generator))
                if layer.bias is not None:
                    layer.bias.zero_()
            if biases is not None:
                self._begin_at(np.asarray(biases, dtype=np.float32), linear[-1])
            for attention in (self.token_attention, self.window_attention):
                if attention is not None:
                    attention.scores.weight.zero_()

    def _begin_at(self, biases: FloatArray, last: nn.Linear) -> None:
        if self.comparison is None:
            last.bias.copy_(torch.from_numpy(biases))
        else:
            self.comparison.start(biases)

    def scores(self) -> dict[str, Tensor]:
        """All weights above the backbone, the head's under the names of a module `score` that has no dropout."""
        own = {name: each for name, each in self.state_dict().items() if not name.startswith("backbone.")}
        return {name.replace(*self._score, 1): each for name, each in own.items()}

    def load_scores(self, scores: Mapping[str, Tensor]) -> None:
        """Put back what `scores` gave.

        Raises
        ------
        ArtefactError
            If it belongs to other settings.
        """
        own = {name.replace(*self._score[::-1], 1): each for name, each in scores.items()}
        try:
            self._load_own(own)
        except (ValueError, RuntimeError) as error:
            raise ArtefactError("The head belongs to other settings.", got=first_line(error)) from error

    @property
    def _score(self) -> tuple[str, str]:
        return ("head.1.", "score.") if len(self.head) == 2 else ("head.", "score.")

    def _load_own(self, own: Mapping[str, Tensor]) -> None:
        rest = {name for name in self.state_dict() if not name.startswith("backbone.")}
        if rest != set(own):
            raise ValueError(f"it holds {', '.join(sorted(own))}")
        self.load_state_dict(own, strict=False)

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Write backbone, tokenizer and head into `folder`; `Origin(str(folder))` names the backbone."""
        save_backbone(self.backbone, tokenizer, folder)
        own = {n: t.detach().cpu().contiguous() for n, t in self.state_dict().items() if not n.startswith("backbone.")}
        save_file(own, folder / HEAD_FILE)

    def load_head(self, folder: Path) -> None:
        """Read the head that `save` wrote.

        Raises
        ------
        ArtefactError
            If it isn't there, or belongs to other settings.
        """
        try:
            self._load_own(load_file(folder / HEAD_FILE))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ArtefactError(f"The head {folder / HEAD_FILE} can't be read.", got=first_line(error)) from error

    def _merge_windows(self, vectors: Tensor, part: Tensor, parts: int) -> Tensor:
        if self.windows == "none":
            return vectors
        if self.window_attention is not None:
            return self.window_attention.merge(vectors, part, parts)
        return MERGES[self.windows](vectors, part, parts)


class PooledHead(nn.Module):
    """The head of a net, on the vectors that the net's `pooled` gave."""

    reentrant = True

    def __init__(self, net: PooledNet) -> None:
        super().__init__()
        self.head, self.comparison, self.fields = net.head, net.comparison, net.fields

    def forward(self, vectors: Tensor, owner: Tensor) -> Tensor:
        """Logits (rows, width) of vectors (parts, H)."""
        return head_logits(self.head, self.comparison, vectors, owner, self.fields)


def head_logits(
    head: nn.Module, comparison: Comparison | None, vectors: Tensor, owner: Tensor, fields: FieldMerge
) -> Tensor:
    """Logits of rows from the vectors of their parts, in fp32 under autocast too; (parts, H) -> (rows, width)."""
    with torch.autocast(vectors.device.type, enabled=False):
        said: Tensor = head(vectors.float())
        return merge_fields(said, owner, fields) if comparison is None else comparison(said)


def merge_fields(logits: Tensor, owner: Tensor, fields: FieldMerge) -> Tensor:
    """Logits of parts to logits of rows; (parts, width), (parts,) -> (rows, width)."""
    return logits if fields == "joined" else MERGES[fields](logits, owner, int(owner[-1]) + 1)


def _undrawn(inputs: int, outputs: int, **settings: Any) -> Any:
    """A linear layer whose weights are yet to be drawn, so that torch's global generator isn't touched."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs, **settings)
