"""Boosted trees over sparse features: a booster a binary, a softmax booster a categorical."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from scipy.sparse import csr_array, csr_matrix

from fivefold.models.linear.examples import Examples
from fivefold.scores import EDGE, log_softmax
from fivefold.task import MISSING, Binary, FloatArray, Target, Task


@dataclass
class BoostedHead:
    """LightGBM on each target, saved as LightGBM's text models.

    Parameters
    ----------
    trees, leaves, learning_rate
        Rounds, leaves a tree and shrinkage, as LightGBM's num_boost_round, num_leaves, learning_rate.
    seed, threads
        Results repeat for a seed and a number of threads.
    """

    task: Task
    trees: int
    leaves: int
    learning_rate: float
    seed: int
    threads: int
    boosters: dict[str, lightgbm.Booster] = field(default_factory=dict)

    def fit(self, examples: Examples, sides: FloatArray) -> dict[str, float]:
        """Fit a booster a target; `sides` weighs the negative and positive side of each logit, (width, 2)."""
        features, labels, weights = examples.features, examples.labels, examples.weights
        for target in self.task.targets:
            codes, target_sides = labels.column(target.name), sides[self.task.slices[target.name]]
            known = codes != MISSING
            if isinstance(target, Binary):
                weighted = weights * target_sides[0][np.maximum(codes, 0)]
            else:
                weighted = weights * target_sides[:, 1][np.maximum(codes, 0)]
            data = lightgbm.Dataset(csr_matrix(features[known]), label=codes[known], weight=weighted[known])
            self.boosters[target.name] = lightgbm.train(self._settings(target), data, num_boost_round=self.trees)
        return {"trees": float(sum(booster.num_trees() for booster in self.boosters.values()))}

    def logits(self, features: csr_array) -> FloatArray:
        """float32 (rows, width)."""
        result = np.empty((features.shape[0], self.task.width), dtype=np.float32)
        for target in self.task.targets:
            raw = np.asarray(self.boosters[target.name].predict(csr_matrix(features), raw_score=True), dtype=np.float32)
            limit = float(-np.log(EDGE))
            block = np.clip(raw[:, None], -limit, limit) if isinstance(target, Binary) else log_softmax(raw)
            result[:, self.task.slices[target.name]] = block
        return result

    def save(self, folder: Path) -> None:
        """Write one text model a target."""
        names = {name: f"booster_{i}.txt" for i, name in enumerate(self.boosters)}
        (folder / "boosters.json").write_text(json.dumps(names, ensure_ascii=False), "utf-8")
        for name, file in names.items():
            (folder / file).write_text(self.boosters[name].model_to_string(), "utf-8")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        names = json.loads((folder / "boosters.json").read_text("utf-8"))
        self.boosters = {
            name: lightgbm.Booster(model_str=(folder / file).read_text("utf-8")) for name, file in names.items()
        }

    def weights_of(self, column: int) -> FloatArray:
        """Gain of each feature for the target of a logit, (features,)."""
        name = next(name for name, place in self.task.slices.items() if place.start <= column < place.stop)
        return np.asarray(self.boosters[name].feature_importance("gain"), dtype=np.float32)

    def _settings(self, target: Target) -> dict[str, Any]:
        kind: dict[str, Any] = (
            {"objective": "binary"}
            if isinstance(target, Binary)
            else {"objective": "multiclass", "num_class": target.width}
        )
        return kind | {
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,
            "feature_pre_filter": False,
            "verbosity": -1,
        }
