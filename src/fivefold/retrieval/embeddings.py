"""Texts as unit vectors of a sentence encoder: each distinct text once, in batches of one length, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fivefold.models.backbones.architectures import position_limit
from fivefold.models.backbones.backbone import Origin, load_encoder, load_tokenizer
from fivefold.models.networks.material import Sequences
from fivefold.models.networks.reading import Reading
from fivefold.models.pooled.activations import frozen_activations
from fivefold.models.pooled.net import PooledNet
from fivefold.retrieval.index import HalfArray
from fivefold.training.precision import SCORING_TOKENS, default_device

LONGEST = 256
"""Tokens of a text that are read, as sentence-transformers reads with MiniLM; what is beyond is cut off."""

AT_ONCE = 100_000
"""Vectors scaled at once."""


@dataclass(frozen=True)
class Embedder:
    """Mean of the last hidden states of an encoder, scaled to length one.

    Parameters
    ----------
    backbone
        Hub id or folder of a sentence encoder; None: the packaged MiniLM.
    """

    backbone: str | None = None

    def __call__(self, texts: Sequence[str]) -> HalfArray:
        """Unit vectors, (texts, hidden); zeros for a text without any character.

        They are rounded to float16 here, so that an index says the same before and after it is saved.

        Raises
        ------
        FivefoldError
            If the backbone can't be had.
        """
        place = {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
        vectors = np.concatenate([self._unit_vectors(list(place)), np.zeros((1, self.width), np.float16)])
        return vectors[[place.get(text, -1) for text in texts]]

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return int(self._net.backbone.config.hidden_size)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.backbone)

    @cached_property
    def _net(self) -> PooledNet:
        return PooledNet(load_encoder(Origin(self.backbone), self._tokenizer, seed=0).model, width=1, seed=0)

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of the weights, in hex."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._net.backbone.state_dict().items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
        return digest.hexdigest()

    def _unit_vectors(self, texts: Sequence[str]) -> HalfArray:
        unit = np.empty((len(texts), self.width), dtype=np.float16)
        if not texts:
            return unit
        limit = position_limit(self._net.backbone.config)
        reading = Reading("joined", min(LONGEST, limit.tokens), "head", 1.0)
        inputs = reading.inputs({"text": texts}, self._tokenizer, limit)
        sequences = Sequences(inputs, self._tokenizer.pad_token_id)
        key, budget = f"mean of {self._digest}", SCORING_TOKENS[default_device().type]
        vectors = frozen_activations(self._net, sequences, key, budget).vectors
        for start in range(0, len(texts), AT_ONCE):
            part = vectors[start : start + AT_ONCE]
            unit[start : start + AT_ONCE] = part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12)
        return unit
