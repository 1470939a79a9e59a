"""Linear weights for every target of a task, solved together on one sparse matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array, vstack
from scipy.special import log_expit

from fivefold.models.linear.coordinate_descent import LinearSettings, LinearWeights, Loss, fit_linear
from fivefold.models.linear.examples import Examples
from fivefold.models.linear.scoring import prune_weights, score_rows, score_rows_pruned
from fivefold.scores import log_softmax
from fivefold.task import Binary, FloatArray, Task

WIDE = 128
"""A categorical with more classes is solved one class against the rest, some at a time, and its weights are pruned."""

BLOCK = 256
"""Classes of a wide categorical that are held dense at once."""

Group = tuple[str, ...]
"""Targets solved together: all binaries, or one categorical."""


@dataclass(frozen=True)
class Weights:
    """Weights of one group: dense (features, columns), or pruned to CSR of the same shape; bias (columns,)."""

    weights: FloatArray | csr_array
    bias: FloatArray

    def margins(self, features: csr_array, threads: int) -> FloatArray:
        """float32 (rows, columns)."""
        if isinstance(self.weights, np.ndarray):
            return score_rows(features, self.weights, self.bias, threads=threads)
        return score_rows_pruned(features, self.weights, self.bias, threads=threads)

    def column(self, index: int) -> FloatArray:
        """Weights of one column, (features,)."""
        if isinstance(self.weights, np.ndarray):
            return self.weights[:, index]
        return np.asarray(self.weights[:, [index]].todense(), dtype=np.float32)[:, 0]


@dataclass
class LinearHead:
    """Logistic regression or linear SVM over all targets.

    Binaries are solved together, each for itself. A categorical of up to `WIDE` classes is one
    multinomial model, a wider one is one class against the rest, normalised. The SVM's margins become
    log-odds by Platt scaling, fitted on a fifth of the training rows that a first fit did not see;
    a wide categorical, whose second fit would cost most, gets a fixed scale: `decision.calibration:
    temperature` finds a better one.

    Parameters
    ----------
    solver, C, max_epochs, tolerance, prune, seed
        As in the recipe's section `model`; `prune` concerns wide categoricals.
    """

    task: Task
    solver: Literal["logistic", "svm"]
    C: float
    max_epochs: int
    tolerance: float
    prune: float
    seed: int
    threads: int
    fitted: dict[Group, Weights] = field(default_factory=dict)
    scales: FloatArray | None = None

    def fit(self, examples: Examples, sides: FloatArray) -> dict[str, float]:
        """Fit all targets; `sides` weighs the negative and positive side of each logit, (width, 2)."""
        if self.solver == "svm":
            self.scales = self._scales(examples, sides)
        return {"epochs": float(self._fit_groups(list(self._groups()), examples, sides))}

    def logits(self, features: csr_array) -> FloatArray:
        """float32 (rows, width)."""
        result = self._margins(features)
        if self.scales is not None:
            result = result * self.scales[0] + self.scales[1]
        for target in self.task.categoricals:
            place = self.task.slices[target.name]
            block = result[:, place]
            one_against_rest = self.scales is None and target.width > WIDE
            result[:, place] = log_softmax(log_expit(block) if one_against_rest else block)
        return result

    def weights_of(self, column: int) -> FloatArray:
        """Weights of one logit, (features,)."""
        for group, weights in self.fitted.items():
            places = self._columns(group)
            if column in places:
                return weights.column(int(np.flatnonzero(places == column)[0]))
        raise IndexError(column)

    def save(self, folder: Path) -> None:
        """Write head.safetensors."""
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for i, weights in enumerate(self.fitted.values()):
            arrays[f"{i}.bias"] = weights.bias
            if isinstance(weights.weights, np.ndarray):
                arrays[f"{i}.weights"] = np.ascontiguousarray(weights.weights)
            else:
                pruned = weights.weights
                arrays |= {f"{i}.data": pruned.data, f"{i}.indices": pruned.indices, f"{i}.indptr": pruned.indptr}
        if self.scales is not None:
            arrays["scales"] = self.scales
        save_file(arrays, folder / "head.safetensors")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        arrays = load_file(folder / "head.safetensors")
        self.scales = arrays.get("scales")
        for i, group in enumerate(self._groups()):
            bias = arrays[f"{i}.bias"]
            if f"{i}.weights" in arrays:
                self.fitted[group] = Weights(arrays[f"{i}.weights"], bias)
            else:
                parts = (arrays[f"{i}.data"], arrays[f"{i}.indices"], arrays[f"{i}.indptr"])
                self.fitted[group] = Weights(csr_array(parts, shape=(len(parts[2]) - 1, len(bias))), bias)

    def _groups(self) -> Iterator[Group]:
        if self.task.binaries:
            yield tuple(target.name for target in self.task.binaries)
        for target in self.task.categoricals:
            yield (target.name,)

    def _columns(self, group: Group) -> npt.NDArray[np.int64]:
        slices = [self.task.slices[name] for name in group]
        return np.concatenate([np.arange(place.start, place.stop) for place in slices])

    def _fit_groups(self, groups: list[Group], examples: Examples, sides: FloatArray) -> int:
        epochs = 0
        for group in groups:
            fit = self._fit_wide if self._is_wide(group) else self._fit_whole
            self.fitted[group], passes = fit(group, examples, sides[self._columns(group)])
            epochs = max(epochs, passes)
        return epochs

    def _is_wide(self, group: Group) -> bool:
        return len(group) == 1 and self.task.target(group[0]).width > WIDE

    def _fit_whole(self, group: Group, examples: Examples, sides: FloatArray) -> tuple[Weights, int]:
        targets = np.concatenate([examples.labels.probabilities(name) for name in group], axis=1)
        single = self.task.target(group[0])
        loss: Loss = "logistic" if isinstance(single, Binary) else "softmax"
        made = self._solve(examples, targets, loss, sides)
        return Weights(made.weights, made.bias), made.epochs

    def _fit_wide(self, group: Group, examples: Examples, sides: FloatArray) -> tuple[Weights, int]:
        """One class against the rest, a block of classes at a time, so that few are held dense."""
        parts, epochs, labels = [], 0, examples.labels
        codes = labels.column(group[0])
        width = self.task.target(group[0]).width
        for start in range(0, width, BLOCK):
            classes = np.arange(start, min(start + BLOCK, width))
            targets = (codes[:, None] == classes).astype(np.float32)
            targets[codes < 0] = np.nan
            if group[0] in labels.soft:
                targets = labels.soft[group[0]][:, classes]
            made = self._solve(examples, targets, "logistic", sides[classes])
            parts.append((prune_weights(made.weights, self.prune), made.bias))
            epochs = max(epochs, made.epochs)
        stacked = csr_array(vstack([csr_array(pruned.T) for pruned, _ in parts], format="csr").T.tocsr())
        return Weights(stacked, np.concatenate([bias for _, bias in parts])), epochs

    def _solve(self, examples: Examples, targets: FloatArray, loss: Loss, sides: FloatArray) -> LinearWeights:
        settings = LinearSettings(
            loss="squared_hinge" if self.solver == "svm" else loss,
            C=self.C,
            tolerance=self.tolerance,
            max_epochs=self.max_epochs,
            seed=self.seed,
        )
        return fit_linear(
            examples.features,
            targets,
            settings,
            class_weights=sides,
            row_weights=examples.weights,
            threads=self.threads,
        )

    def _margins(self, features: csr_array) -> FloatArray:
        result = np.zeros((features.shape[0], self.task.width), dtype=np.float32)
        for group, weights in self.fitted.items():
            result[:, self._columns(group)] = weights.margins(features, self.threads)
        return result

    def _scales(self, examples: Examples, sides: FloatArray) -> FloatArray:
        """Scale and shift of each logit, (2, width), learnt on rows that this first fit doesn't train on."""
        from fivefold.models.linear.platt import (
            fit_scales,  # brings scikit-learn, which logistic regression doesn't need
        )

        order = np.random.default_rng(self.seed).permutation(np.unique(examples.groups))
        unseen = np.isin(examples.groups, order[: max(len(order) // 5, 1)])
        held_out = examples.take(unseen)
        first = replace(self, fitted={}, scales=None)
        narrow = [group for group in self._groups() if not self._is_wide(group)]
        first._fit_groups(narrow, examples.take(~unseen), sides)
        return fit_scales(first._margins(held_out.features), held_out.labels, first.fitted_names)

    @property
    def fitted_names(self) -> set[str]:
        """The targets that have weights."""
        return {name for group in self.fitted for name in group}
