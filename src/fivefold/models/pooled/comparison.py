"""Two rewards become the probabilities of a comparison: one side wins, the other does, or they tie.

Bradley and Terry 1952 ("Rank analysis of incomplete block designs") say P(first) = σ(r₁ - r₂). Rao and Kupper 1967
("Ties in paired-comparison experiments") put a band η ≥ 0 around equality, within which a judge sees no difference:

    P(first) = σ(r₁ - r₂ - η),   P(second) = σ(r₂ - r₁ - η),   P(tie) = 1 - P(first) - P(second).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from fivefold.models.pairs import Outcomes
from fivefold.task import FloatArray


class Comparison(nn.Module):
    """Log-probabilities of the outcomes from the rewards of both sides; with ties η = softplus(band) is learnt, too.

    Parameters
    ----------
    outcomes
        Which class each outcome is.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        super().__init__()
        self.outcomes = outcomes
        self.band = None if outcomes.tie is None else nn.Parameter(torch.zeros(1))

    def forward(self, rewards: Tensor) -> Tensor:
        """Of the rewards of both sides of each row, side by side; (2 rows, 1) -> (rows, classes)."""
        first, second = rewards.reshape(-1, 2).unbind(dim=1)
        o = self.outcomes
        if self.band is None or o.tie is None:
            logs = {o.first: logsigmoid(first - second), o.second: logsigmoid(second - first)}
        else:
            logs = dict(zip((o.first, o.second, o.tie), rao_kupper(first - second, softplus(self.band)), strict=True))
        return torch.stack([logs[place] for place in sorted(logs)], dim=1)

    @torch.no_grad()
    def start(self, biases: FloatArray) -> None:
        """Begin where equal rewards tie as often as the labels do.

        At r₁ = r₂ P(tie) = tanh(η/2) = t, so exp(η) - 1 = 2t/(1 - t), the logarithm of which softplus undoes.

        Parameters
        ----------
        biases
            Logarithms of the classes' frequencies, (classes,).
        """
        if self.band is not None:
            ties = np.exp(np.float64(biases[self.outcomes.tie]))
            self.band.fill_(float(np.log(2 * ties) - np.log1p(-ties)))


def rao_kupper(gap: Tensor, band: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities that the first side wins, that the second does, and of a tie.

    As P(tie) = (exp(2η) - 1) P(first) P(second), no difference of probabilities is taken, which could vanish.

    Shape
    -----
    gap, r₁ - r₂: (rows,); band, η: (1,); returned (rows,) each.
    """
    band = band.clamp(min=torch.finfo(band.dtype).tiny)
    first, second = logsigmoid(gap - band), logsigmoid(-gap - band)
    return first, second, first + second + 2 * band + torch.log(-torch.expm1(-2 * band))
