"""What the heads of the linear family learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from fivefold.task import FloatArray, IntArray, Labels, concatenate


@dataclass(frozen=True)
class Examples:
    """Rows as features, with their labels.

    Parameters
    ----------
    features
        float32 (rows, features).
    labels
        Of the rows; a missing one is not learnt from.
    weights
        How much each row counts, (rows,).
    groups
        Rows of one number are held back together, or not at all, (rows,).
    """

    features: csr_array
    labels: Labels
    weights: FloatArray
    groups: IntArray

    def take(self, index: npt.NDArray[Any]) -> Examples:
        """The rows at `index` (positions or a boolean mask)."""
        return Examples(self.features[index], self.labels.take(index), self.weights[index], self.groups[index])

    def and_swapped(self, features: csr_array) -> Examples:
        """These, and behind them the same pairs in the other order, which have these features."""
        return Examples(
            csr_array(vstack([self.features, features], format="csr")),
            concatenate([self.labels, self.labels.swapped()]),
            np.tile(self.weights, 2),
            np.tile(self.groups, 2),
        )
