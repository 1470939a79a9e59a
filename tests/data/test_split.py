"""Every row is held out once, groups are never cut, and folds repeat with the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.data.split import (
    ALWAYS_TRAINING,
    Folds,
    given_folds,
    load_folds,
    merge_groups,
    number_groups,
    save_folds,
    split,
)
from fivefold.errors import DataError
from fivefold.task import Binary, Categorical, Labels, Task, learn_tree


def mixed_labels(rows: int, binaries: int = 6, seed: int = 0) -> Labels:
    generator = np.random.default_rng(seed)
    rates = 0.5 / (1 + np.arange(binaries))
    codes = np.column_stack([generator.random((rows, binaries)) < rates, generator.integers(0, 4, rows)])
    targets = (*(Binary(f"b{i}") for i in range(binaries)), Categorical("place", ("a", "b", "c", "d")))
    return Labels(Task(targets), codes.astype(np.int32))


def class_labels(codes: np.ndarray, name: str = "label") -> Labels:
    classes = tuple(f"c{i}" for i in range(int(codes.max()) + 1))
    return Labels(Task((Categorical(name, classes),)), codes.astype(np.int32)[:, None])


def tree_labels(rows: int) -> Labels:
    leaf = np.random.default_rng(0).integers(0, 24, rows)
    brand = np.random.default_rng(1).integers(0, 200, rows)
    codes = np.column_stack([leaf // 12, leaf // 4, leaf, brand]).astype(np.int32)
    sizes = {"supergroup": 2, "group": 6, "module": 24, "brand": 200}
    targets = tuple(Categorical(name, tuple(map(str, range(size)))) for name, size in sizes.items())
    flat = Labels(Task(targets), codes)
    return Labels(Task(targets, tree=learn_tree(("supergroup", "group", "module"), flat)), codes)


@st.composite
def problems(draw: st.DrawFn) -> dict:
    rows = draw(st.integers(12, 80))
    seed = draw(st.integers(0, 5))
    labels = draw(
        st.sampled_from([None, mixed_labels(rows, seed=seed), mixed_labels(rows, 1), tree_labels(rows)])
        | st.just(class_labels(np.random.default_rng(seed).integers(0, 5, rows)))
    )
    groups = draw(st.none() | st.lists(st.integers(-1, 9), min_size=rows, max_size=rows))
    extra = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
    return {"labels": labels, "rows": rows, "groups": groups, "always_training": extra, "seed": seed}


def too_small(problem: dict, count: int) -> bool:
    """Whether fewer rows or groups than folds take part."""
    extra = problem["always_training"] or [False] * problem["rows"]
    groups = problem["groups"] or [-1] * problem["rows"]
    free = [group for group, alone in zip(groups, extra, strict=True) if not alone]
    return len(set(free) - {-1}) + free.count(-1) < count


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(2, 5))
def test_every_row_is_held_out_once_and_no_group_is_cut(problem: dict, count: int) -> None:
    if too_small(problem, count):
        with pytest.raises(DataError, match="fewer"):
            split(**problem, count=count)
        return
    folds = split(**problem, count=count)
    extra = np.zeros(problem["rows"], bool) if problem["always_training"] is None else problem["always_training"]
    np.testing.assert_array_equal(folds.fold == ALWAYS_TRAINING, extra)
    held = np.concatenate([folds.held_out(fold) for fold in folds.evaluated])
    assert sorted(held) == np.flatnonzero(~np.asarray(extra)).tolist()
    assert (folds.sizes > 0).all()
    for fold in folds.evaluated:
        assert not set(folds.held_out(fold)) & set(folds.training(fold))
        assert len(folds.held_out(fold)) + len(folds.training(fold)) == problem["rows"]
    if problem["groups"] is not None:
        pairs = {(g, f) for g, f in zip(problem["groups"], folds.fold, strict=True) if g >= 0 and f >= 0}
        assert len(pairs) == len({group for group, _ in pairs})


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_same_seed_gives_the_same_folds_whatever_the_types(problem: dict) -> None:
    if too_small(problem, 3):
        return
    folds = split(**problem, count=3)
    if problem["groups"] is not None:
        problem["groups"] = ["" if group < 0 else f"group {group}" for group in problem["groups"]]
    if problem["always_training"] is not None:
        problem["always_training"] = np.array(problem["always_training"], dtype=np.int8)
    again = split(**problem, count=3)
    np.testing.assert_array_equal(folds.fold, again.fold)
    assert folds.sentences == again.sentences


@pytest.mark.parametrize("method", ["plain", "stratified", "multilabel", "grouped", "stratified_grouped"])
def test_another_seed_gives_other_folds(method: str) -> None:
    groups = np.arange(400) // 2 if "grouped" in method else None
    folds = [split(mixed_labels(400), 400, method=method, groups=groups, seed=seed).fold for seed in (0, 1)]
    assert (folds[0] != folds[1]).mean() > 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 200), st.integers(2, 10), st.integers(0, 9))
def test_sizes_and_classes_differ_by_one_row(rows: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 6, rows)
    for method in ("plain", "stratified"):
        assert np.ptp(split(class_labels(codes), rows, count=count, method=method, seed=seed).sizes) <= 1
    folds = split(class_labels(codes), rows, count=count, seed=seed)
    for code in range(6):
        assert np.ptp(np.bincount(folds.fold[codes == code], minlength=count)) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 300), st.integers(2, 10), st.integers(0, 9))
def test_multilabel_sizes_are_balanced(rows: int, count: int, seed: int) -> None:
    folds = split(mixed_labels(rows, seed=seed), rows, count=count, seed=seed)
    assert folds.method == "multilabel"
    assert np.ptp(folds.sizes) <= max(3, 0.1 * rows / count)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=10, max_size=60), st.integers(2, 5))
def test_grouped_sizes_differ_by_one_group(sizes: list[int], count: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    folds = split(None, len(groups), count=count, groups=groups)
    assert np.ptp(folds.sizes) <= max(sizes)


def test_the_tree_is_balanced_at_every_level() -> None:
    labels = tree_labels(700)
    folds = split(labels, 700)
    assert folds.method == "stratified"
    for level in ("supergroup", "group", "module"):
        for code in range(24):
            assert np.ptp(np.bincount(folds.fold[labels.column(level) == code], minlength=5)) <= 1


def test_multilabel_is_as_even_as_iterative_stratification() -> None:
    stratifiers = pytest.importorskip("iterstrat.ml_stratifiers")
    labels = mixed_labels(1500, binaries=12)
    reference = np.empty(1500, dtype=np.int32)
    splitter = stratifiers.MultilabelStratifiedKFold(5, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(labels.binary_codes, labels.binary_codes)):
        reference[held_out] = fold
    assert spread(split(labels, 1500).fold, labels) <= spread(reference, labels) + 0.01


def test_groups_are_as_even_as_scikit_learns() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    generator = np.random.default_rng(0)
    codes, groups = generator.integers(0, 6, 2000), generator.integers(0, 500, 2000)
    reference = np.empty(2000, dtype=np.int32)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(codes, codes, groups)):
        reference[held_out] = fold
    folds = split(class_labels(codes), 2000, groups=groups)
    one_hot = Labels(Task(tuple(Binary(str(i)) for i in range(6))), np.eye(6, dtype=np.int32)[codes])
    assert folds.method == "stratified_grouped"
    assert spread(folds.fold, one_hot) <= spread(reference, one_hot) + 0.01


def spread(fold: np.ndarray, labels: Labels) -> float:
    """Mean over the binaries of the deviation of their rates between folds, relative to the rate."""
    rates = np.array([labels.binary_codes[fold == number].mean(axis=0) for number in range(5)])
    return float((rates.std(axis=0) / rates.mean(axis=0)).mean())


def test_auto_chooses_by_the_task() -> None:
    rows, groups = 60, np.arange(60) // 3
    assert split(None, rows).method == "plain"
    assert split(None, rows, groups=groups).method == "grouped"
    assert split(mixed_labels(rows), rows, groups=groups).method == "stratified_grouped"
    assert split(mixed_labels(rows), rows, groups=groups, method="plain").method == "grouped"
    assert split(mixed_labels(rows), rows).method == "multilabel"
    assert split(mixed_labels(rows, 0), rows).method == "stratified"
    assert split(tree_labels(rows), rows).method == "stratified"


def test_wide_categoricals_are_left_out_aloud() -> None:
    folds = split(tree_labels(600), 600, method="multilabel")
    assert any("many classes: brand" in sentence for sentence in folds.sentences)


def test_many_labels_keep_the_most_frequent_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivefold.data.split.CELLS", 3 * 200)
    folds = split(mixed_labels(200), 200)
    assert any("3 most frequent of 10 labels" in sentence for sentence in folds.sentences)


def test_labels_that_are_missing_count_for_nothing() -> None:
    labels = mixed_labels(100)
    labels.codes[::3] = -1
    assert np.ptp(split(labels, 100).sizes) <= 3


def test_merged_groups_are_connected_components() -> None:
    users = ["u", "u", "v", "w", None, None]
    near = [-1, 3, 3, -1, 7, 7]
    np.testing.assert_array_equal(merge_groups(users, near), [0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(number_groups(["x", "", "x", float("nan"), None]), [0, 1, 0, 2, 3])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=40))
def test_merged_groups_keep_together_what_either_does(pairs: list[tuple[int, int]]) -> None:
    first, second = (list(values) for values in zip(*pairs, strict=True))
    merged = merge_groups(first, second)
    for values in (first, second):
        for value in set(values) - {-1}:
            assert len({int(m) for m, v in zip(merged, values, strict=True) if v == value}) == 1
    np.testing.assert_array_equal(merged, merge_groups(second, first))


def test_hold_out_evaluates_one_fold() -> None:
    folds = split(None, 20, only=2)
    assert folds.evaluated == (2,)
    assert len(folds.held_out(2)) == 4
    assert len(folds.training(2)) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 3}, "fewer rows"),
        ({"rows": 9, "groups": [0, 0, 0, 1, 1, 1, 2, 2, 2]}, "fewer groups"),
        ({"rows": 9, "count": 1}, "at least two folds"),
        ({"rows": 9, "only": 5}, "isn't there"),
        ({"rows": 9, "method": "stratified"}, "needs labels"),
        ({"rows": 9, "method": "grouped"}, "needs groups"),
        ({"rows": 9, "method": "random"}, "isn't known"),
        ({"rows": 9, "groups": [1, 2]}, "same rows"),
        ({"rows": 9, "always_training": [True] * 6 + [False] * 3}, "fewer rows"),
    ],
)
def test_mistakes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(None, **arguments)


def test_several_binaries_have_no_strata() -> None:
    labels = Labels(Task((Binary("a"), Binary("b"))), np.zeros((9, 2), dtype=np.int32))
    with pytest.raises(DataError, match="one label column"):
        split(labels, 9, method="stratified")


def test_rare_labels_and_one_class_training_rows_are_said_aloud() -> None:
    codes = np.zeros((20, 3), dtype=np.int32)
    codes[:10, 0] = 1
    codes[0, 1] = 1
    folds = split(Labels(Task((Binary("even"), Binary("rare"), Binary("never"))), codes), 20)
    alone = int(folds.fold[0])
    assert "Fewer rows than the 5 folds" in folds.sentences[0]
    assert "rare (1), never (0)" in folds.sentences[0]
    assert any(f"fold {alone}, 'rare' is always '0'" in sentence for sentence in folds.sentences)
    assert sum("'never' is always" in sentence for sentence in folds.sentences) == 5
    assert not any("even" in sentence for sentence in folds.sentences)


def test_leaks_and_large_groups_are_said_aloud() -> None:
    groups = [0] * 12 + list(range(1, 9))
    folds = split(None, 20, groups=groups, always_training=[True] + [False] * 19, count=4)
    assert any("share a group with rows held out: 1;" in sentence for sentence in folds.sentences)
    assert any("largest group" in sentence for sentence in folds.sentences)


def test_given_folds_may_be_numbers_or_names() -> None:
    numbers = given_folds([10, 2, -1, None, 2.0, 10])
    np.testing.assert_array_equal(numbers.fold, [1, 0, -1, -1, 0, 1])
    assert "2, 10" in numbers.sentences[0]
    assert numbers.method == "given"
    names = given_folds(pl.Series(["west", "east", "", None, "west"]).to_list(), only=1)
    np.testing.assert_array_equal(names.fold, [1, 0, -1, -1, 1])
    assert given_folds([0, 1, 0, 1]).sentences == ()
    assert "more than one fold" in given_folds([0, 1], groups=np.array([4, 4], dtype=np.int32)).sentences[0]
    with pytest.raises(DataError, match="at least two folds"):
        given_folds([3, 3, None])


def test_folds_are_reused_by_id(tmp_path: Path) -> None:
    path, ids = tmp_path / "folds.parquet", [f"row {i}" for i in range(30)]
    folds = split(class_labels(np.arange(30) % 3), 30, seed=4, count=3, always_training=np.arange(30) < 5)
    save_folds(path, ids, folds)
    assert pl.read_parquet(path).columns == ["id", "fold"]
    same = load_folds(path, ids)
    np.testing.assert_array_equal(same.fold, folds.fold)
    assert (same.method, same.seed, same.count, same.sentences) == ("stratified", 4, 3, folds.sentences)
    np.testing.assert_array_equal(load_folds(path, ids[::-1]).fold, folds.fold[::-1])
    assert len(load_folds(path, ids[5:])) == 25
    extra = load_folds(path, [*ids, "new"], always_training=np.arange(31) == 30)
    assert extra.fold[-1] == ALWAYS_TRAINING
    for wrong in (ids[:-1], [*ids, "new"], [*ids, ids[0]]):
        with pytest.raises(DataError, match="don't match by id"):
            load_folds(path, wrong)


def test_a_plain_file_of_folds_is_read_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pl.DataFrame({"id": [1, 2, 3], "fold": ["x", "y", None]}).write_parquet(path)
    folds = load_folds(path, ["3", "2", "1"])
    np.testing.assert_array_equal(folds.fold, [-1, 1, 0])
    assert isinstance(folds, Folds)
    assert folds.seed is None
    pl.DataFrame({"id": [1]}).write_parquet(path)
    with pytest.raises(DataError, match="no file of folds"):
        load_folds(path, ["1"])
    with pytest.raises(DataError, match="no file of folds"):
        load_folds(tmp_path / "absent.parquet", ["1"])
    path.write_text("id,fold")
    with pytest.raises(DataError, match="can't be read"):
        load_folds(path, ["1"])
