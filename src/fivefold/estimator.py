"""Fivefold as a scikit-learn classifier of texts."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, check_consistent_length, check_is_fitted, column_or_1d

from fivefold.errors import DataError, RecipeError
from fivefold.pipeline.fit import fit, fit_unpublished
from fivefold.pipeline.prepare import read_source
from fivefold.pipeline.run import Run
from fivefold.recipe import Recipe, build_recipe

GIVEN = ("data", "task", "seed")
"""Sections of a recipe that X, y and `random_state` stand for."""


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
        Folder of the run, replaced by the next `fit`; None keeps it in a temporary folder that goes with
        `run_`. Clones share `out`, so leave it None in a search.

    Attributes
    ----------
    run_
        The finished `Run`: its `evaluation` holds the cross-fitted out-of-fold figures.
    classes_
        Classes as `fit` saw them, (classes,); column numbers for multi-label targets.
    fields_
        Names of the text fields.
    n_features_in_, feature_names_in_
        Number and names of the text fields, where `fit` saw a table.

    Notes
    -----
    A pickle and a deep copy carry the whole run folder, so they predict wherever they are loaded.

    scikit-learn's ``check_estimator`` passes, but can do little by itself: its data are matrices of numbers,
    which are no texts, so the tags (``string``, not ``two_d_array``) make it stop after cloning. Our tests
    therefore write its numbers as words and run all its checks for classifiers. Of these do not apply:

    - array API and sparse input: texts are neither (sparse input is refused with the usual message).
    - ``decision_function``, ``sample_weight`` and ``partial_fit``: there are none; weights are a column of a recipe.
    - one row, or fewer rows than folds: refused, as folds can't be held out.
    - NaN in X: a missing text (None, NaN) is read as an empty one, as everywhere in Fivefold.
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
            Texts, (rows,), or a table whose columns are text fields; None and NaN are empty texts.
        y
            Classes, (rows,), or a 0/1 indicator matrix, (rows, labels).

        Raises
        ------
        ValueError
            If X or the recipe can't be used, lengths differ, or y isn't a classification target.
        """
        texts = text_table(X)
        classes, codes = read_targets(y)
        check_consistent_length(texts, codes)
        labels = label_table(codes, texts.columns)
        with as_value_error():
            recipe = build_recipe(self._recipe(texts, labels, classes))
            frame = pl.concat([texts, labels], how="horizontal")
            self.run_ = self._fit(recipe, frame)
        self.classes_, self.fields_ = classes, tuple(texts.columns)
        if hasattr(X, "columns"):
            self.n_features_in_, self.feature_names_in_ = len(self.fields_), np.array(self.fields_, dtype=object)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Decided classes, (rows,), or a 0/1 indicator matrix, (rows, labels)."""
        check_is_fitted(self)
        with as_value_error():
            decided = self.run_.predict(self._rows(X)).drop("id")
        if self.run_.task.binaries:
            return decided.to_numpy().astype(np.int64)
        chosen: npt.NDArray[Any] = self.classes_[decided.to_series().cast(pl.Int64).to_numpy()]
        return chosen

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Calibrated probabilities, (rows, classes), or (rows, labels) for multi-label targets."""
        check_is_fitted(self)
        with as_value_error():
            return self.run_.predict_proba(self._rows(X)).drop("id").to_numpy().astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        """Text in: scikit-learn's checks on numeric matrices don't apply."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The parameters, and the files of the run by name."""
        state = dict(super().__getstate__())
        if "run_" in state:
            folder = self.run_.folder
            files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
            state["run_"] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpack the run into a temporary folder of its own."""
        super().__setstate__({name: value for name, value in state.items() if name != "run_"})
        if "run_" in state:
            self.run_ = in_temporary_folder(partial(unpack, state["run_"]))

    def _recipe(self, texts: pl.DataFrame, labels: pl.DataFrame, classes: npt.NDArray[Any]) -> dict[str, Any]:
        own = dict(self.recipe or {})
        taken = [key for key in GIVEN if key in own] + ["folds.count"] * ("count" in own.get("folds", {}))
        if taken:
            raise RecipeError(
                f"recipe holds {', '.join(taken)}, which X, y and the estimator's own parameters say.",
                next_step="leave it out, and set random_state and folds instead of seed and folds.count",
            )
        single = {"categorical": {labels.columns[0]: [str(code) for code in range(len(classes))]}}
        return {
            "name": type(self).__name__,
            **own,
            "seed": self.random_state,
            "data": {"text": texts.columns},
            "task": {"binary": labels.columns} if labels.dtypes[0] == pl.Int8 else single,
            "folds": {**own.get("folds", {}), "count": self.folds},
        }

    def _fit(self, recipe: Recipe, frame: pl.DataFrame) -> Run:
        if self.out is not None:
            return fit(recipe, frame, out=self.out, overwrite=True)
        return in_temporary_folder(lambda folder: fit_unpublished(recipe, frame, out=folder))

    def _rows(self, X: Any) -> pl.DataFrame:
        table = text_table(X)
        if table.columns != list(self.fields_):
            raise ValueError(f"X must have the text fields {list(self.fields_)}. Got {table.columns} instead.")
        return table


def in_temporary_folder(make: Callable[[Path], Run]) -> Run:
    """The run that `make` puts into the folder it is given, which is deleted with the run."""
    folder = tempfile.mkdtemp(prefix="fivefold-")
    try:
        run = make(Path(folder) / "run")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def unpack(files: Mapping[str, bytes], folder: Path) -> Run:
    """The run whose files by name are to lie in `folder`."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return Run.load(folder)


@contextmanager
def as_value_error() -> Iterator[None]:
    """Data and recipes that can't be used are a ValueError, as scikit-learn's contract says."""
    try:
        yield
    except (DataError, RecipeError) as error:
        raise ValueError(str(error)) from error


def text_table(X: Any) -> pl.DataFrame:
    """Texts as a table: one column for a sequence of texts, the columns of a table otherwise.

    Raises
    ------
    ValueError
        If X is neither, or empty.
    """
    if hasattr(X, "columns") and hasattr(X, "__len__"):
        return _filled(X)
    array = np.asarray(X, dtype=object)
    if array.ndim != 1:
        raise ValueError(f"X must be a sequence of texts or a table of text columns. Got shape {array.shape} instead.")
    texts = [None if _is_missing(text) else text for text in array]
    strange = next((text for text in texts if not isinstance(text, str | None)), None)
    if strange is not None:
        raise ValueError(f"X must hold texts. Got {type(strange).__name__}, such as {strange!r:.60}, instead.")
    return _filled(pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}))


def _filled(table: Any) -> pl.DataFrame:
    if len(table) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
    with as_value_error():
        return read_source(table)


def _is_missing(text: Any) -> bool:
    """None, NaN and pandas' NA, which is neither equal nor unequal to itself."""
    return text is None or type(text).__name__ == "NAType" or (isinstance(text, float) and text != text)


def read_targets(y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Classes, and the class number of each row, (rows,), or a 0/1 matrix, (rows, labels).

    Raises
    ------
    ValueError
        If y is missing in whole or in part, no classification target, or of one class only.
    """
    if y is None:
        raise ValueError("This FivefoldClassifier estimator requires y to be passed, but the target y is None.")
    if not hasattr(y, "toarray") and any(_is_missing(value) for value in np.asarray(y, dtype=object).ravel()):
        raise ValueError("Input y contains NaN or None.")
    if type_of_target(y, input_name="y") == "multilabel-indicator":
        matrix = np.asarray(y.toarray() if hasattr(y, "toarray") else y).astype(np.int8)
        return np.arange(matrix.shape[1]), matrix
    column = column_or_1d(y, warn=True)
    assert_all_finite(column, input_name="y")
    check_classification_targets(y)
    classes, codes = np.unique(column, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"Classifier can't train when only one class is present. Got {classes} instead.")
    return classes, codes


def label_table(codes: npt.NDArray[Any], fields: list[str]) -> pl.DataFrame:
    """Labels as columns that no text field is named like: int8 for a matrix, else numbers of classes as text."""
    name = "label"
    while any(field.startswith(name) for field in fields):
        name += "_"
    if codes.ndim == 1:
        return pl.DataFrame({name: codes.astype(str)})
    return pl.DataFrame({f"{name} {i}": column for i, column in enumerate(codes.T.astype(np.int8))})
