"""Does the training still learn? Divergence is a loss that was below its plateau and is back on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, pvariance

OPENING = 10
"""Steps whose mean loss is the plateau: heads start at the label rates, so an untrained model already sits on it."""

LASTING = 25
"""Latest steps whose mean loss decides, and steps in a row without a finite loss that are divergence."""

MEMORY, NOISE_MEMORY = 0.95, 0.99
"""How much the smoothed loss, and its variance, keep of themselves a step."""

CLEAR = 2.0
"""Standard deviations of a step's loss by which the smoothed loss must have fallen before a return counts as one:
nine standard errors of a mean over `LASTING` steps, so noise alone doesn't come back up within any training."""

RETURN = 0.1
"""Share of the whole fall within which the loss is back on its plateau."""

EXPLODED = 10.0
"""Multiple of the plateau above which the loss is lost, whether it had fallen or not."""


@dataclass
class Watch:
    """The losses so far and what they say; plain values, so that a checkpoint holds them.

    Parameters
    ----------
    seen, broken
        Steps with a finite loss and gradient, and steps in a row without.
    plateau
        Mean loss of the first steps.
    smoothed, variance, lowest
        Exponential mean and variance of the loss, and the lowest mean so far.
    learned
        Whether the loss was ever clearly below its plateau.
    recent
        The latest losses.
    """

    seen: int = 0
    broken: int = 0
    plateau: float = 0.0
    smoothed: float = 0.0
    variance: float = 0.0
    lowest: float = 0.0
    learned: bool = False
    recent: list[float] = field(default_factory=list)

    def skip(self) -> None:
        """A step whose loss or gradient isn't finite."""
        self.broken += 1

    def see(self, loss: float) -> None:
        """A step's loss."""
        self.broken = 0
        self.seen += 1
        self.recent = [*self.recent[1 - LASTING :], loss]
        if self.seen <= OPENING:
            self.plateau = self.smoothed = self.lowest = fmean(self.recent)
            self.variance = pvariance(self.recent)
            return
        off = min(loss, 2 * abs(self.plateau)) - self.smoothed  # one outlier mustn't hide what was learned
        self.smoothed += (1 - MEMORY) * off
        self.variance += (1 - NOISE_MEMORY) * (off**2 - self.variance)
        self.lowest = min(self.lowest, self.smoothed)
        self.learned |= self.plateau - self.smoothed > CLEAR * math.sqrt(self.variance)

    @property
    def diverged(self) -> bool:
        """Whether training has to go back."""
        if self.broken >= LASTING or len(self.recent) < LASTING:
            return self.broken >= LASTING
        fall, far = self.plateau - self.lowest, EXPLODED * abs(self.plateau)
        returned = self.learned and self._lately(self.plateau + fall) >= self.plateau - RETURN * fall
        return returned or self._lately(2 * far) > far

    @property
    def well(self) -> bool:
        """Whether the loss, smoothed and of the last step, is where learning had brought it, and finite."""
        limit = (self.plateau + self.lowest) / 2 if self.learned else EXPLODED * abs(self.plateau)
        return self.broken == 0 and max(self.smoothed, *self.recent[-1:], -math.inf) <= limit

    def _lately(self, most: float) -> float:
        """Mean of the latest losses, none above `most`: single outliers, however large, decide nothing."""
        return fmean(min(loss, most) for loss in self.recent)
