from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from fivefold import FivefoldClassifier

RECIPE = {"model": {"char_ngrams": None, "word_ngrams": [1, 1], "min_df": 1}}
WORDS = {"a": "sunny warm bright", "b": "rain cold grey", "c": "snow ice white"}


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes ten times as long as the rest of so small a fit."""
    monkeypatch.setattr("fivefold.pipeline.fit.publish", lambda folder, texts: (folder / "report.html").touch())


def quick() -> FivefoldClassifier:
    return FivefoldClassifier(RECIPE, folds=2)


def weather(classes: str, rows: int = 30) -> tuple[list[str], list[str]]:
    y = [classes[i % len(classes)] for i in range(rows)]
    return [f"{WORDS[label]} day {i % 4}" for i, label in enumerate(y)], y


TEXTS, CLASSES = weather("ab")


@pytest.fixture(scope="module")
def fitted() -> FivefoldClassifier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fivefold.pipeline.fit.publish", lambda folder, texts: (folder / "report.html").touch())
        return quick().fit(TEXTS, CLASSES)


class OfNumbers(FivefoldClassifier):
    """Writes each number of a matrix as words, so that scikit-learn's own checks can feed the classifier."""

    def fit(self, X, y):
        if y is not None:
            X, y = validate_data(self, X, y, multi_output=True)
        return super().fit(as_words(X), y)

    def predict(self, X):
        return super().predict(self._checked(X))

    def predict_proba(self, X):
        return super().predict_proba(self._checked(X))

    def _checked(self, X):
        check_is_fitted(self)
        return as_words(validate_data(self, X, reset=False))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.allow_nan = False, True, False
        return tags


def as_words(matrix: np.ndarray) -> list[str]:
    steps = list(enumerate(np.linspace(-2, 2, 9)))
    return ["row " + " ".join(f"c{j}s{k}" for j, v in enumerate(row) for k, s in steps if v > s) for row in matrix]


@parametrize_with_checks([OfNumbers(RECIPE, folds=2)])
def test_scikit_learns_checks_on_numbers_written_as_words(estimator, check) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_scikit_learns_checks_on_the_classifier_itself() -> None:
    """Its tags stop them after cloning; what stops them is said in the docstring."""
    assert {check["status"] for check in check_estimator(quick())} == {"passed"}


def test_parameters() -> None:
    first = FivefoldClassifier(RECIPE, folds=3, random_state=7)
    assert vars(FivefoldClassifier()) == {"recipe": None, "folds": 5, "random_state": 0, "out": None}
    assert clone(first).get_params() == first.get_params()
    assert first.set_params(folds=4).folds == 4
    assert "folds=4" in repr(first)
    with pytest.raises(ValueError, match="Invalid parameter 'K'"):
        first.set_params(K=2)


def test_not_fitted() -> None:
    for method in (quick().predict, quick().predict_proba):
        with pytest.raises(NotFittedError):
            method(["text"])


def test_what_fit_leaves(fitted: FivefoldClassifier) -> None:
    assert fitted.fit.__self__ is fitted
    assert fitted.classes_.tolist() == ["a", "b"]
    assert fitted.fields_ == ("text",)
    assert not hasattr(fitted, "n_features_in_")
    assert fitted.run_.evaluation.rows == len(TEXTS)
    assert fitted.score(TEXTS, CLASSES) == 1
    assert np.allclose(fitted.predict_proba(TEXTS).sum(axis=1), 1, atol=1e-6)


def test_inputs_stay_as_they_are() -> None:
    frame = pd.DataFrame({"text": TEXTS})
    y, recipe, before = list(CLASSES), copy.deepcopy(RECIPE), frame.copy()
    quick().fit(frame, y).predict(frame)
    assert (y, RECIPE) == (CLASSES, recipe)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    "texts",
    [
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=range(5, 35)),
        pd.Series(TEXTS, dtype="string"),
        pl.Series(TEXTS),
        tuple(TEXTS),
    ],
    ids=["str array", "object array", "pandas", "pandas string", "polars", "tuple"],
)
def test_sequences_of_texts(texts: object, fitted: FivefoldClassifier) -> None:
    assert fitted.predict(texts).tolist() == CLASSES


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_tables_of_text_fields(make: type) -> None:
    table = make({"label": TEXTS, "id": ["same"] * len(TEXTS), "group": [str(i) for i in range(len(TEXTS))]})
    model = quick().fit(table, CLASSES)
    assert model.feature_names_in_.tolist() == list(table.columns) == ["label", "id", "group"]
    assert model.n_features_in_ == 3
    assert model.score(table, CLASSES) == 1
    with pytest.raises(ValueError, match="must have the text fields"):
        model.predict(TEXTS)


@pytest.mark.parametrize(
    "y",
    [
        np.array([3, -1, 10] * 10),
        np.array([True, False] * 15),
        np.array(["ü", "x=y,\n"] * 15, dtype=object),
        pd.Series(["no", "yes"] * 15, dtype="category"),
        [0.0, 1.0] * 15,
    ],
    ids=["int", "bool", "odd names", "pandas category", "float"],
)
def test_classes_keep_their_type(y: object) -> None:
    texts = [WORDS["abc"[list(np.unique(y)).index(label)]] for label in y]
    model = quick().fit(texts, y)
    assert model.classes_.tolist() == np.unique(y).tolist()
    assert model.predict(texts).tolist() == list(y)


@pytest.mark.parametrize("wrap", [np.asarray, csr_array, pd.DataFrame, lambda y: y.tolist()])
def test_multi_label(wrap) -> None:
    y = np.array([[i % 2, i % 3 == 0, 0] for i in range(30)], dtype=int)
    texts = [f"word {WORDS['a'] * row[0]} {WORDS['c'] * row[1]}" for row in y]
    model = quick().fit(texts, wrap(y))
    assert model.predict(texts).tolist() == y.tolist()
    assert model.predict_proba(texts).shape == y.shape
    assert model.score(texts, y) == 1


def test_missing_texts_are_empty_ones(fitted: FivefoldClassifier) -> None:
    odd = [None, float("nan"), pd.NA, ""]
    assert len(set(map(tuple, fitted.predict_proba(odd)))) == 1
    assert len(set(map(tuple, fitted.predict_proba(pd.Series([*odd, np.nan]))))) == 1
    quick().fit([*TEXTS, *odd], [*CLASSES, *"abab"])


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (TEXTS, ["a"] * 30, "only one class"),
        (TEXTS, CLASSES[:-1], "inconsistent numbers of samples"),
        (TEXTS, None, "requires y"),
        (TEXTS, [*CLASSES[:-1], None], "None"),
        (TEXTS, [1.0, 0.0] * 14 + [1.0, np.nan], "NaN"),
        (TEXTS, np.linspace(0, 1, 30), "continuous"),
        (TEXTS, [[1, 2, 3]] * 30, "1d array"),
        ([], [], "0 sample"),
        ("one text", ["a"], "sequence of texts"),
        (np.ones((30, 2)), CLASSES, "sequence of texts"),
        ([*TEXTS[:-1], 5], CLASSES, "must hold texts. Got int"),
        ([*TEXTS[:-1], b"bytes"], CLASSES, "must hold texts. Got bytes"),
        (TEXTS[:1], CLASSES[:1], "only one class"),
        (TEXTS[:2], CLASSES[:2], "No n-gram|fewer"),
        (["", " "] * 15, CLASSES, "No n-gram"),
        (pd.DataFrame({"text": [{"a": 1}] * 30}), CLASSES, "can't be read as text"),
    ],
)
def test_bad_input_is_a_value_error(X: object, y: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quick().set_params(recipe={"model": {"char_ngrams": None, "min_df": 2}}).fit(X, y)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"model": {"C": -1}}, "model.C"),
        ({"modle": {}}, "did you mean 'model'"),
        ({"data": {"train": "x.csv"}}, "recipe holds data"),
        ({"seed": 1, "folds": {"count": 3}}, r"recipe holds seed, folds\.count"),
    ],
)
def test_bad_recipes_are_a_value_error(recipe: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FivefoldClassifier(recipe).fit(TEXTS, CLASSES)


@pytest.mark.parametrize("twin", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_a_copy_carries_its_run(twin) -> None:
    model = quick().fit(TEXTS, CLASSES)
    expected, folder = model.predict_proba(TEXTS), model.run_.folder
    other = twin(model)
    del model
    gc.collect()
    assert not folder.exists()
    assert np.array_equal(other.predict_proba(TEXTS), expected)
    assert other.run_.evaluation.rows == len(TEXTS)
    assert vars(twin(quick())) == vars(quick())


def test_temporary_folders_go_with_their_fit(fitted: FivefoldClassifier) -> None:
    model = quick().fit(TEXTS, CLASSES)
    first = model.run_.folder
    model.fit(TEXTS, CLASSES)
    assert model.run_.folder.exists()
    assert not first.parent.exists()


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    model = quick().set_params(out=tmp_path / "run").fit(TEXTS, CLASSES)
    assert model.run_.folder == tmp_path / "run"
    del model
    gc.collect()
    assert (tmp_path / "run/run.json").exists()


def test_the_seed_reaches_the_folds() -> None:
    texts, y = weather("abc", 60)
    folds = [quick().set_params(random_state=seed).fit(texts, y).run_.out_of_fold.folds.tolist() for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]


def test_inside_scikit_learn() -> None:
    assert cross_val_score(quick(), np.array(TEXTS), CLASSES, cv=2).mean() == 1
    search = GridSearchCV(quick(), {"recipe": [RECIPE, {"model": {"C": 2, "char_ngrams": None}}]}, cv=2)
    assert search.fit(pd.Series(TEXTS), CLASSES).best_score_ == 1
    assert search.predict(TEXTS).tolist() == CLASSES
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    assert make_pipeline(lower, quick()).fit(TEXTS, CLASSES).score(TEXTS, CLASSES) == 1
