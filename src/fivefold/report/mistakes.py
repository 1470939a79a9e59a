"""The rows the model got wrong most surely: often wrong labels, always worth reading."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fivefold.report.content import ReportContent
from fivefold.report.wording import code_name, shorten
from fivefold.scores import CHUNK, log_softmax
from fivefold.task import MISSING, Binary, FloatArray, IntArray, Target

EXCERPT = 280
"""Characters quoted of a text."""

LogProbabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """A wrong decision: what was true and what was predicted, each with the probability it was given."""

    id: str
    excerpt: str
    target: str
    true: str
    predicted: str
    true_probability: float
    predicted_probability: float
    loss: float


def worst_mistakes(content: ReportContent, most: int = 20) -> tuple[Mistake, ...]:
    """The wrong decisions with the greatest log loss, greatest first; every target has a fair share of `most`."""
    share = max(2, math.ceil(most / len(content.task.targets)))
    found = [mistake for target in content.task.targets for mistake in _of_target(content, target, share)]
    return tuple(sorted(found, key=lambda mistake: -mistake.loss)[:most])


def log_probability(target: Target, block: FloatArray, codes: IntArray) -> LogProbabilities:
    """Log-probability that a target's logits (rows, width) give to `codes`; (rows,)."""
    if isinstance(target, Binary):
        return np.asarray(-np.logaddexp(0, np.where(codes == 1, -1, 1) * block[:, 0].astype(np.float64)))
    return log_softmax(block)[np.arange(len(codes)), codes].astype(np.float64)


def _of_target(content: ReportContent, target: Target, most: int) -> Iterator[Mistake]:
    codes = content.labels.column(target.name)
    decisions = content.decisions[:, content.task.names.index(target.name)]
    wrong = np.flatnonzero((codes != decisions) & (codes != MISSING) & (decisions != MISSING))
    block = content.scores.block(target.name)
    given = [log_probability(target, block[rows], codes[rows]) for rows in _chunked(wrong)]
    order = np.argsort(np.concatenate([np.zeros(0), *given]), kind="stable")[:most]
    for row in wrong[order]:
        yield _mistake(content, target, int(row), int(codes[row]), int(decisions[row]))


def _chunked(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _mistake(content: ReportContent, target: Target, row: int, true: int, predicted: int) -> Mistake:
    pair = np.repeat(content.scores.block(target.name)[[row]], 2, axis=0)
    right, said = log_probability(target, pair, np.array([true, predicted], dtype=np.int32)).tolist()
    return Mistake(
        str(content.scores.ids[row]),
        shorten(content.texts[row], EXCERPT) if len(content.texts) else "",
        target.name,
        code_name(content.task, target.name, true),
        code_name(content.task, target.name, predicted),
        math.exp(right),
        math.exp(said),
        -right,
    )
