"""Rules for pairs that tell nothing: their rates, what the model is left to learn, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fivefold.data.compose import Corpus, Rows
from fivefold.data.corpus import build_corpus
from fivefold.data.demo import demo
from fivefold.data.labels import learn_task
from fivefold.errors import ArtefactError, RecipeError
from fivefold.models.base import Cost, History
from fivefold.models.pairs import (
    ALIKE,
    FIRST,
    FIRST_EMPTY,
    SECOND,
    SECOND_EMPTY,
    TELLING,
    TIE,
    Outcomes,
    kinds_of,
    outcomes_of,
    swap_of,
    winners,
)
from fivefold.models.rules import FILE, PairRules, RuledClassifier
from fivefold.pipeline.fit import fit
from fivefold.scores import Scores
from fivefold.task import Binary, Categorical, Swap, Task

SWAP = Swap((("a", "b"),), "winner", {"first": "second", "second": "first"})
TASK = Task((Categorical("winner", ("tie", "first", "second")),), swap=SWAP)
PAIR = Task((Categorical("winner", ("first", "second")),), swap=SWAP)

TEXTS = [
    ("One.", "Two.", "first"),
    ("Same  text ", "same\ttext", "tie"),
    ("", " ", "first"),
    ("x", "X", "tie"),
    ("", "Full.", "second"),
    ("Full.", "\n", "first"),
    ("Full.", "", "tie"),
    ("Three", "Four", "tie"),
]
KINDS = [TELLING, ALIKE, ALIKE, ALIKE, FIRST_EMPTY, SECOND_EMPTY, SECOND_EMPTY, TELLING]


def corpus_of(texts: list[tuple[str, str, str | None]], task: Task = TASK) -> Corpus:
    frame = pl.DataFrame(texts, schema=["a", "b", "winner"], orient="row").with_columns(prompt=pl.lit(""))
    return build_corpus(frame, text=["prompt", "a", "b"], task=task)


class Deaf:
    """A classifier that remembers what it was shown and says the same of every row."""

    def __init__(self, task: Task) -> None:
        self.task, self.shown, self.followed = task, 0, 0

    def cost(self, train: Rows) -> Cost:
        return Cost(float(len(train)), 0.0)

    def fit(self, train: Rows, valid: Rows | None, scratch: Path | None = None) -> History:
        self.shown, self.followed = len(train), 0 if valid is None else len(valid)
        return History({"rows": float(len(train))})

    def score(self, rows: Rows) -> Scores:
        return Scores(self.task, rows.ids, np.full((len(rows), self.task.width), -1.0, dtype=np.float32))

    def explain(self, rows: Rows, most: int) -> dict[str, list[tuple[str, float]]]:
        return {"first": [("word", 1.0)]}

    def save(self, folder: Path) -> None:
        (folder / "deaf.txt").write_text("")

    def load(self, folder: Path) -> None:
        (folder / "deaf.txt").read_text()


def test_kinds_of_pairs() -> None:
    assert kinds_of(corpus_of(TEXTS).rows(), SWAP).tolist() == KINDS
    assert kinds_of(corpus_of(TEXTS).rows(np.array([4, 0])), SWAP).tolist() == [FIRST_EMPTY, TELLING]
    several = Swap((("a", "b"), ("c", "d")), "winner", SWAP.classes)
    fields = {"a": ["x", "", "x"], "b": ["x", "", ""], "c": ["y", "", ""], "d": ["z", "y", "y"]}
    rows = Corpus(np.arange(3), fields).rows()
    assert kinds_of(rows, several).tolist() == [TELLING, FIRST_EMPTY, TELLING]


def test_who_wins_is_said_by_the_order_of_the_class_map() -> None:
    assert winners(TASK).tolist() == [TIE, FIRST, SECOND]
    turned = Swap(SWAP.fields, "winner", {"second": "first", "first": "second"})
    assert winners(Task(TASK.targets, swap=turned)).tolist() == [TIE, SECOND, FIRST]
    assert outcomes_of(TASK) == Outcomes(1, 2, 0)
    assert outcomes_of(PAIR) == Outcomes(0, 1, None)


@pytest.mark.parametrize(
    "task",
    [
        Task(TASK.targets),
        Task((*TASK.targets, Binary("rude")), swap=SWAP),
        Task((Categorical("winner", ("first", "second", "tie", "neither")),), swap=SWAP),
        Task((Categorical("winner", ("a", "b", "tie")),), swap=Swap(SWAP.fields, "winner", {"a": "a"})),
    ],
)
def test_a_reward_needs_one_comparison(task: Task) -> None:
    with pytest.raises(RecipeError, match="compares two answers"):
        outcomes_of(task)


def test_rates_are_counts_and_one_row_of_prior() -> None:
    rules = PairRules.learn(TASK, corpus_of(TEXTS).rows())
    # Alike: two ties, and one win that counts half for either side; the prior's row is ½, ¼, ¼.
    np.testing.assert_allclose(rules.rates[ALIKE], np.array([2 + 0.5, 0.5 + 0.25, 0.5 + 0.25]) / 4)
    # First empty, or second and swapped: a tie and two wins of the full side; the prior's row is ¼, ¼, ½.
    np.testing.assert_allclose(rules.rates[FIRST_EMPTY], np.array([1 + 0.25, 0.25, 2 + 0.5]) / 4)


def test_rates_without_ties_soft_labels_and_weights() -> None:
    frame = pl.DataFrame(
        {"a": ["", "same", ""], "b": ["full", "same", "more"], "winner=first": [0.2, 1.0, None], "w": [3.0, 1.0, 1.0]}
    ).with_columns((1 - pl.col("winner=first")).alias("winner=second"))
    corpus = build_corpus(frame, text=["a", "b"], task=PAIR, weight="w")
    rules = PairRules.learn(PAIR, corpus.rows())
    np.testing.assert_allclose(rules.rates[ALIKE], [0.5, 0.5])
    np.testing.assert_allclose(rules.rates[FIRST_EMPTY], np.array([0.6 + 1 / 3, 2.4 + 2 / 3]) / 4, rtol=1e-6)


def test_the_model_learns_from_the_other_rows_and_speaks_of_them() -> None:
    rows, inner = corpus_of(TEXTS).rows(), Deaf(TASK)
    classifier = RuledClassifier(inner, TASK)
    assert classifier.cost(rows).seconds == 2
    history = classifier.fit(rows, rows)
    assert (inner.shown, inner.followed) == (2, 2)
    assert history.figures == {"rows": 2.0, "ruled_rows": 6.0}
    assert history.remarks[0].startswith("Rules: 6 rows (75.0%)")
    assert classifier.explain(rows, 3) == inner.explain(rows, 3)
    probabilities = np.exp(classifier.score(rows).logits)
    np.testing.assert_allclose(probabilities[[0, 7]], np.exp(-1), rtol=1e-6)
    np.testing.assert_allclose(probabilities[1:4], np.array([[2.5, 0.75, 0.75]] * 3) / 4, rtol=1e-6)
    np.testing.assert_allclose(probabilities[4], np.array([1.25, 0.25, 2.5]) / 4, rtol=1e-6)
    np.testing.assert_allclose(probabilities[5], np.array([1.25, 2.5, 0.25]) / 4, rtol=1e-6)
    turned = corpus_of([(b, a, label) for a, b, label in TEXTS]).rows()
    assert np.array_equal(classifier.score(turned).logits[:, TASK.swap_order], classifier.score(rows).logits)


def test_a_kind_that_no_training_row_has_is_left_to_the_model(tmp_path: Path) -> None:
    rows, inner = corpus_of(TEXTS).rows(), Deaf(TASK)
    classifier = RuledClassifier(inner, TASK)
    plain = rows.take(np.array([0, 7]))
    assert classifier.fit(plain, None).figures == {"rows": 2.0}
    np.testing.assert_array_equal(classifier.score(rows).logits, inner.score(rows).logits)
    classifier.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deaf.txt"]
    classifier.fit(rows.take(np.array([0, 1, 7])), None)
    assert set(classifier.rules.rates) == {ALIKE}
    np.testing.assert_allclose(classifier.score(rows).logits[4:], -1)
    classifier.load(tmp_path)
    np.testing.assert_array_equal(classifier.score(rows).logits, inner.score(rows).logits)


def test_rules_that_would_decide_everything_decide_nothing() -> None:
    rows, inner = corpus_of(TEXTS).rows(np.arange(1, 7)), Deaf(TASK)
    history = RuledClassifier(inner, TASK).fit(rows, None)
    assert (inner.shown, history.remarks) == (6, ())


def test_unlabelled_rows_make_no_rule() -> None:
    assert PairRules.learn(TASK, corpus_of([("", "x", None), ("y", "z", "first")]).rows()).rates == {}


def test_other_targets_are_the_models() -> None:
    task = Task((Binary("rude"), *TASK.targets), swap=SWAP)
    frame = pl.DataFrame(TEXTS, schema=["a", "b", "winner"], orient="row").with_columns(rude=pl.lit(1))
    rows = build_corpus(frame, text=["a", "b"], task=task).rows()
    classifier = RuledClassifier(Deaf(task), task)
    classifier.fit(rows, None)
    logits = classifier.score(rows).logits
    np.testing.assert_allclose(logits[:, 0], -1)
    np.testing.assert_allclose(np.exp(logits[4, 1:]), np.array([1.25, 0.25, 2.5]) / 4, rtol=1e-6)


def test_rates_are_kept_exactly(tmp_path: Path) -> None:
    rows = corpus_of(TEXTS).rows()
    fitted, again = RuledClassifier(Deaf(TASK), TASK), RuledClassifier(Deaf(TASK), TASK)
    fitted.fit(rows, None)
    fitted.save(tmp_path)
    again.load(tmp_path)
    assert again.score(rows).logits.tobytes() == fitted.score(rows).logits.tobytes()
    assert set(json.loads((tmp_path / FILE).read_text())) == {"alike", "first_empty"}
    (tmp_path / FILE).write_text('{"alike": {"first": 1}}')
    with pytest.raises(ArtefactError, match="can't be read"):
        again.load(tmp_path)


def test_a_run_follows_its_rules(tmp_path: Path) -> None:
    frame = demo("preferences", 240, seed=0)
    quick = {"model": {"char_ngrams": None, "word_ngrams": [1, 1]}, "folds": {"count": 2}}
    run = fit(quick, frame, out=tmp_path / "ruled")
    kinds = kinds_of(build_corpus(frame, text=run.recipe.data.text).rows(), swap_of(run.task))
    assert {ALIKE, FIRST_EMPTY, SECOND_EMPTY} & set(kinds.tolist())
    empty = run.predict_proba(frame.filter(pl.Series(kinds == FIRST_EMPTY)))
    assert empty["winner=b"].n_unique() == 1
    turned = frame.filter(pl.Series(kinds == FIRST_EMPTY)).rename(
        {"response_a": "response_b", "response_b": "response_a"}
    )
    assert run.predict_proba(turned)["winner=a"].to_list() == empty["winner=b"].to_list()
    assert len(list(run.folder.rglob(FILE))) == 2


def test_rules_without_rows_change_no_byte(tmp_path: Path) -> None:
    frame = demo("preferences", 120, seed=0)
    frame = frame.filter((pl.col("response_a") != "") & (pl.col("response_b") != ""))
    frame = frame.filter(pl.col("response_a") != pl.col("response_b"))
    swap = {"fields": [["response_a", "response_b"]], "target": "winner", "classes": {"a": "b", "b": "a"}}
    plain = {
        "data": {"text": ["prompt", "response_a", "response_b"]},
        "model": {"char_ngrams": None, "word_ngrams": [1, 1]},
        "folds": {"count": 2},
    }
    runs = [
        fit(
            {**plain, "task": {"categorical": ["winner"], "swap": {**swap, "rules": rules}}}, frame, out=tmp_path / name
        )
        for name, rules in (("with", True), ("without", False))
    ]
    models = [{p.name: p.read_bytes() for p in (run.folder / "folds/0/model").iterdir()} for run in runs]
    assert models[0] == models[1]
    scores = [(run.folder / "scores/oof.parquet").read_bytes() for run in runs]
    assert scores[0] == scores[1]


def test_kinds_need_a_swap() -> None:
    task = learn_task(pl.DataFrame({"w": ["a", "b"]}), binary=(), categorical={"w": []}, tree=(), swap=None)
    with pytest.raises(ValueError, match="no pairs"):
        swap_of(task)
