"""Fivefold as a scikit-learn classifier of texts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from fivefold.pipeline.fit import fit
from fivefold.pipeline.prepare import read_source
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe

TARGET = "label"


class FivefoldClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Folds, out-of-fold thresholds and the mean of the folds' models behind `fit` and `predict`.

    Parameters
    ----------
    recipe
        Sections of a recipe as a mapping, such as ``{"model": {"C": 2}}``; data and task come from `fit`.
    folds
        K.
    random_state
        Seed of folds and models, an int.
    out
        Folder of the run; None keeps it in a temporary folder that goes with the estimator.

    Attributes
    ----------
    run_
        The finished `Run`: its `evaluation` holds the cross-fitted out-of-fold figures.
    classes_
        Classes as `fit` saw them, (classes,); column numbers for multi-label targets.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        *,
        folds: int = 5,
        random_state: int = 0,
        out: str | Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.folds = folds
        self.random_state = random_state
        self.out = out

    def fit(self, X: Any, y: Any) -> FivefoldClassifier:
        """Fit on texts.

        Parameters
        ----------
        X
            Texts, (rows,), or a table whose columns are text fields.
        y
            Classes, (rows,), or a 0/1 indicator matrix, (rows, labels).

        Raises
        ------
        ValueError
            If X holds no rows, lengths differ, or y isn't a classification target.
        """
        if y is None:
            raise ValueError("This FivefoldClassifier estimator requires y to be passed, but the target y is None.")
        check_classification_targets(y)
        check_consistent_length(X, y)
        texts = text_table(X)
        labels = self._label_table(y)
        recipe = build_recipe(
            {
                "name": type(self).__name__,
                "seed": self.random_state,
                **(self.recipe or {}),
                "data": {"text": texts.columns},
                "task": self._task(labels),
                "folds": {"count": self.folds, **(self.recipe or {}).get("folds", {})},
            }
        )
        frame = pl.concat([texts, labels], how="horizontal")
        self.run_ = fit(recipe, frame, out=self._folder(), overwrite=True)
        self.fields_ = tuple(texts.columns)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Decided classes, (rows,), or a 0/1 indicator matrix, (rows, labels)."""
        check_is_fitted(self)
        decided = self.run_.predict(self._rows(X)).drop("id")
        if TARGET not in decided.columns:
            return decided.to_numpy().astype(np.int64)
        chosen: npt.NDArray[Any] = self.classes_[decided[TARGET].cast(pl.Int64).to_numpy()]
        return chosen

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Calibrated probabilities, (rows, classes), or (rows, labels) for multi-label targets."""
        check_is_fitted(self)
        return self.run_.predict_proba(self._rows(X)).drop("id").to_numpy().astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        """Text in: scikit-learn's checks on numeric matrices don't apply."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        tags.classifier_tags.multi_label = True
        return tags

    def _label_table(self, y: Any) -> pl.DataFrame:
        if type_of_target(y) == "multilabel-indicator":
            matrix = np.asarray(y)
            self.classes_ = np.arange(matrix.shape[1])
            return pl.DataFrame({f"{TARGET} {i}": matrix[:, i].astype(np.int8) for i in self.classes_})
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present. Got {self.classes_} instead.")
        return pl.DataFrame({TARGET: codes.astype(str)})

    def _task(self, labels: pl.DataFrame) -> dict[str, Any]:
        if labels.columns == [TARGET]:
            return {"categorical": {TARGET: [str(code) for code in range(len(self.classes_))]}}
        return {"binary": labels.columns}

    def _folder(self) -> Path:
        if self.out is not None:
            return Path(self.out)
        self._temporary = tempfile.TemporaryDirectory(prefix="fivefold-")
        return Path(self._temporary.name) / "run"

    def _rows(self, X: Any) -> pl.DataFrame:
        table = text_table(X)
        if table.columns != list(self.fields_):
            raise ValueError(f"X must have the text fields {list(self.fields_)}. Got {table.columns} instead.")
        return table


def text_table(X: Any) -> pl.DataFrame:
    """Texts as a table: one column for a sequence of texts, the columns of a table otherwise.

    Raises
    ------
    ValueError
        If X is neither, or empty.
    """
    if hasattr(X, "columns"):
        table = read_source(X)
    else:
        array = np.asarray(X, dtype=object)
        if array.ndim != 1 or not all(isinstance(text, str) for text in array):
            raise ValueError(
                f"X must be a sequence of texts or a table of text columns. Got shape {array.shape} instead."
            )
        table = pl.DataFrame({"text": pl.Series(array.tolist(), dtype=pl.String)})
    if table.is_empty():
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    return table
