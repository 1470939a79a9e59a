"""What a network should say of each row, as one array."""

from __future__ import annotations

import numpy as np

from fivefold.task import MISSING, FloatArray, Labels


def targets_of(labels: Labels) -> FloatArray:
    """The probability that each logit stands for.

    A binary's is that of being present, a categorical's are those of its classes. Dense: for wide tasks ask for
    a batch at a time, `targets_of(labels.take(rows))`.

    Returns
    -------
    float32 (rows, task.width), NaN where the label is missing.
    """
    task, codes = labels.task, labels.binary_codes
    targets = np.empty((len(labels), task.width), dtype=np.float32)
    targets[:, task.binary_columns] = np.where(codes == MISSING, np.nan, codes)
    for name in {*labels.soft, *(target.name for target in task.categoricals)}:
        targets[:, task.slices[name]] = labels.probabilities(name)
    return targets
