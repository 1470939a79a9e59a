"""What a network reads of a corpus: sequences of tokens, or activations that a frozen trunk computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fivefold.task import FloatArray
from fivefold.training.inputs import Inputs
from fivefold.training.tokens import spans

Positions = npt.NDArray[np.int64]


class Material(Protocol):
    """Rows of a corpus as a network takes them."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def lengths(self) -> Positions:
        """What a row's padding depends on: tokens of its longest sequence, (rows,)."""
        ...

    @property
    def counts(self) -> Positions:
        """Sequences of each row, (rows,)."""
        ...

    def batch(self, rows: Positions) -> Mapping[str, Tensor]:
        """Arguments of the network's `forward` for these rows."""
        ...


@dataclass(frozen=True)
class Sequences:
    """Token sequences, padded batch by batch with the token `pad`."""

    inputs: Inputs
    pad: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.inputs.rows

    @property
    def lengths(self) -> Positions:
        """Tokens of each row's longest sequence, (rows,)."""
        return self.inputs.lengths

    @property
    def counts(self) -> Positions:
        """Sequences of each row, (rows,)."""
        return self.inputs.counts

    def batch(self, rows: Positions) -> Mapping[str, Tensor]:
        """Ids, mask, types, and which row and part each sequence belongs to."""
        return self.inputs.batch(rows, self.pad)


@dataclass(frozen=True)
class Activations:
    """Vectors of a frozen trunk.

    Parameters
    ----------
    vectors
        float32 (parts, hidden), the parts of a row side by side.
    starts
        Position of each row's first part, (rows + 1,).
    """

    vectors: FloatArray
    starts: Positions

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Positions:
        """All alike: a vector has no length."""
        return np.ones(self.rows, dtype=np.int64)

    @property
    def counts(self) -> Positions:
        """Parts of each row, (rows,)."""
        return np.diff(self.starts)

    def batch(self, rows: Positions) -> Mapping[str, Tensor]:
        """The rows' vectors and the row of each."""
        counts = self.counts[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        vectors = self.vectors[spans(self.starts[rows], counts)]
        return {"vectors": torch.from_numpy(vectors), "owner": torch.from_numpy(owner)}
