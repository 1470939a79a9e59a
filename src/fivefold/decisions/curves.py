"""What a label's scores promise when a logistic curve is drawn through them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from fivefold.decisions.cuts import Cells, Ranking
from fivefold.evaluation.sums import Values, divide
from fivefold.scores import EDGE

BINS = 1000
"""Groups of neighbouring scores that a curve is fitted to: two numbers need no more."""


def expected(problem: Cells) -> Cells:
    """`problem` with the share of positives that each label's curve promises in place of its labels.

    A cut that is best for it maximises the metric's expected counts, and depends on two fitted numbers
    instead of on single rows: Lipton et al. 2014, arXiv 1402.1892, on probabilities of Platt 1999.
    """
    columns = zip(problem.rankings, problem.probabilities.T, problem.positive.T, problem.observed.T, strict=True)
    promised = [
        np.where(seen, logistic_curve(ranking, logit(np.clip(p, EDGE, 1 - EDGE)), positive), 0.0)
        for ranking, p, positive, seen in columns
    ]
    return replace(problem, positive=np.stack(promised, axis=1))


def logistic_curve(ranking: Ranking, logits: Values, positive: Values) -> Values:
    """Probabilities expit(a · logit + b), a ≥ 0, of all cells, (cells,), of greatest likelihood on the ranked ones.

    The labels count as (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), so that few or parted rows give no certainty
    (Platt 1999, "Probabilistic outputs for support vector machines", section 2.2).
    """
    cells = ranking.cells
    first = np.unique(np.linspace(0, len(cells), BINS, endpoint=False).astype(np.int64))
    counts = np.diff(first, append=len(cells))
    hits = np.add.reduceat(positive[cells], first, dtype=np.float64)
    ones = hits.sum()
    zeros = len(cells) - ones
    target = hits * (ones + 1) / (ones + 2) + (counts - hits) / (zeros + 2)
    place, width = logits[cells].mean(), logits[cells].std()
    scaled = np.add.reduceat(divide(logits[cells] - place, width), first) / counts

    def loss(line: Values) -> tuple[float, Values]:
        raised = line[0] * scaled + line[1]
        residual = counts * expit(raised) - target
        return float(counts @ np.logaddexp(0, raised) - target @ raised) / len(cells), np.array(
            [residual @ scaled, residual.sum()]
        ) / len(cells)

    start = np.array([1.0, logit(target.sum() / len(cells))])
    slope, height = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=((0, None), (None, None))).x
    return np.asarray(expit(slope * divide(logits - place, width) + height))
