"""From calibrated scores to decisions: thresholds, the most probable class, the most probable tree path.

Decisions are int32 (rows, targets) in the layout of `Labels.codes`: 0/1 for a binary, a class index
for a categorical.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fivefold.decisions.cuts import binary_probabilities
from fivefold.evaluation.sums import Values
from fivefold.scores import Scores
from fivefold.task import MISSING, Binary, IntArray, Labels, Tree


def decide_freely(scores: Scores, thresholds: Values) -> IntArray:
    """Binaries above their thresholds, (binaries,), and each categorical's most probable class."""
    parts = [_decide(chunk, thresholds) for chunk in scores.chunks()]
    return np.concatenate([np.zeros((0, len(scores.task.targets)), dtype=np.int32), *parts])


def decide_consistently(scores: Scores, thresholds: Values) -> IntArray:
    """As `decide_freely`, but the categoricals of the task's tree take its most probable valid path.

    Without a tree the two are the same.
    """
    decisions, tree = decide_freely(scores, thresholds), scores.task.tree
    if tree is not None:
        levels = [scores.task.names.index(name) for name in tree.levels]
        decisions[:, levels] = np.array(tree.paths, dtype=np.int32)[path_of(scores, tree)]
    return decisions


def path_of(scores: Scores, tree: Tree) -> npt.NDArray[np.int64]:
    """The most probable path of each row, an index into `tree.paths`, (rows,); of equals the first.

    The probability of a path is the product of its classes' probabilities at each level. A level's
    softmax normaliser is common to all paths, so the sums of logits rank them.
    """
    paths = np.array(tree.paths, dtype=np.int64)
    parts = [np.zeros(0, dtype=np.int64)]
    for chunk in scores.chunks():
        total = np.zeros((len(chunk), len(paths)), dtype=np.float32)
        for level, name in enumerate(tree.levels):
            total += chunk.block(name)[:, paths[:, level]]
        parts.append(total.argmax(axis=1))
    return np.concatenate(parts)


def never_predicted(decisions: IntArray, labels: Labels) -> tuple[str, ...]:
    """Columns (`name`, or `name=class`) that occur in `labels` but in no decision, in the task's order."""
    decided, lost = Labels(labels.task, decisions), []
    for target in labels.task.targets:
        missed = np.setdiff1d(labels.column(target.name), decided.column(target.name))
        if isinstance(target, Binary):
            lost += [target.name] if 1 in missed else []
        else:
            lost += [target.columns[code] for code in missed if code != MISSING]
    return tuple(lost)


def _decide(scores: Scores, thresholds: Values) -> IntArray:
    task = scores.task
    decisions = np.empty((len(scores), len(task.targets)), dtype=np.int32)
    above = iter((binary_probabilities(scores) > thresholds).T)
    for position, target in enumerate(task.targets):
        is_binary = isinstance(target, Binary)
        decisions[:, position] = next(above) if is_binary else scores.block(target.name).argmax(axis=1)
    return decisions
