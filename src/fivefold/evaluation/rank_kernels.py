"""Compiled kernels of ranking metrics: one pass down one label's rows for every line of weights.

`weights` is (resamples, rows). `rows` are one label's observed rows from the highest score down,
`positive` whether each is positive, `closes` whether the next has a lower score: (observed,) each.
"""

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def areas(weights: Any, rows: Any, positive: Any, closes: Any) -> Any:
    """Area under the ROC curve, (resamples,): right pairs, ties as half; NaN without both outcomes."""
    result = np.empty(len(weights))
    for resample in range(len(weights)):
        area = above = below = positives = negatives = 0.0
        for place in range(len(rows)):
            weight = weights[resample, rows[place]]
            if positive[place]:
                positives += weight
            else:
                negatives += weight
            if closes[place]:
                area += negatives * (above + positives / 2)
                above, below = above + positives, below + negatives
                positives = negatives = 0.0
        result[resample] = area / (above * below) if above * below > 0 else np.nan
    return result


@njit(nogil=True, cache=True)
def average_precisions(weights: Any, rows: Any, positive: Any, closes: Any) -> Any:
    """Sum over distinct scores of (recall - recall before) * precision, (resamples,); NaN without both outcomes."""
    result = np.empty(len(weights))
    for resample in range(len(weights)):
        total = drawn = positives = level = 0.0
        for place in range(len(rows)):
            weight = weights[resample, rows[place]]
            drawn += weight
            if positive[place]:
                level += weight
            if closes[place]:
                positives += level
                if level > 0:
                    total += level * positives / drawn
                level = 0.0
        result[resample] = total / positives if 0 < positives < drawn else np.nan
    return result
