from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.data.corpus import build_corpus
from fivefold.data.files import READERS
from fivefold.data.labels import labels_frame, learn_classes, learn_task, read_labels
from fivefold.data.layout import Layout, join_lists, learn_layout, normalise, probability_frame, submission_frame
from fivefold.errors import DataError, LabelError
from fivefold.task import Binary, Categorical, Swap, Task

TASK = Task((Binary("hot"), Categorical("kind", ("p", "q"))))
ARENA = ("winner_model_a", "winner_model_b", "winner_tie")


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        ([0, 1, None], [0, 1, -1]),
        ([True, False, None], [1, 0, -1]),
        (["Yes", " no", "TRUE", "0"], [1, 0, 1, 0]),
        (["1.0", "0.0", None], [1, 0, -1]),
        ([1.0, float("nan"), None], [1, -1, -1]),
        ([None, None], [-1, -1]),
    ],
)
def test_cells_of_a_binary(cells, codes):
    labels = read_labels(pl.DataFrame({"hot": cells}), Task((Binary("hot"),)))
    assert labels.codes[:, 0].tolist() == codes
    assert labels.codes.dtype == np.int32
    assert labels.soft == {}


def test_soft_cells():
    frame = pl.DataFrame({"hot": ["0.75", "1", None], "kind=p": [0.25, None, 1.0], "kind=q": [0.75, None, 0.0]})
    labels = read_labels(frame, TASK)
    assert labels.codes.tolist() == [[1, 1], [1, -1], [-1, 0]]
    np.testing.assert_array_equal(labels.soft["hot"], np.float32([[0.75], [1], [np.nan]]))
    np.testing.assert_array_equal(labels.soft["kind"], np.float32([[0.25, 0.75], [np.nan, np.nan], [1, 0]]))
    mixed = read_labels(frame.with_columns(kind=pl.Series(["q", "p", None])), TASK)
    np.testing.assert_array_equal(mixed.soft["kind"], np.float32([[0.25, 0.75], [1, 0], [1, 0]]))


def test_all_conflicts_in_one_message():
    frame = pl.DataFrame({"hot": ["maybe", "2", "1"], "kind": ["p", "r", "r"]})
    with pytest.raises(LabelError) as caught:
        read_labels(frame, TASK)
    message = str(caught.value)
    assert "'hot': 2 cells not 0/1" in message
    assert "'2' (1 time), 'maybe' (1 time); rows [0, 1]" in message
    assert "'kind': 2 cells no class of 'p', 'q': 'r' (2 times); rows [1, 2]" in message
    soft = pl.DataFrame({"hot": [1, 1], "kind=p": [0.5, 0.6], "kind=q": [0.5, 0.6]})
    with pytest.raises(LabelError, match=r"1 row of probabilities .* \(row 1: 0.6, 0.6\)"):
        read_labels(soft, TASK)
    with pytest.raises(LabelError, match="lack the columns 'kind=q'"):
        read_labels(soft.drop("kind=q"), TASK)
    with pytest.raises(LabelError, match=r"(?s)'hot': cells are lists.*'kind': cells are lists"):
        read_labels(pl.DataFrame({"hot": [["a"]], "kind": [["p"]]}), TASK)


def test_absent_label_columns():
    unlabelled = pl.DataFrame({"text": ["x"]})
    assert read_labels(unlabelled, TASK, required=False) is None
    empty = pl.DataFrame({"hot": [None], "kind": [None]}, schema={"hot": pl.String, "kind": pl.Null})
    assert read_labels(empty, TASK, required=False) is None
    with pytest.raises(LabelError, match="2 targets: 'hot', 'kind'"):
        read_labels(unlabelled, TASK)
    with pytest.raises(LabelError, match=r"1 target: 'kind'(?s:.*)did you mean 'Kind'"):
        read_labels(pl.DataFrame({"hot": [1], "Kind": ["p"]}), TASK, required=False)


def test_classes_are_sorted():
    assert learn_classes(pl.DataFrame({"c": ["b", None, "a", "10"]}), "c") == ("10", "a", "b")
    assert learn_classes(pl.DataFrame({"c": [10, 9, None]}), "c") == ("9", "10")
    assert learn_classes(pl.DataFrame({"c": [10.0, 9.0, None]}), "c") == ("9", "10")
    assert learn_classes(pl.DataFrame({"c": ["007", "7"]}), "c") == ("007", "7")
    assert learn_classes(pl.DataFrame({"c=y": [0.5], "c=x": [0.5]}), "c") == ("x", "y")
    with pytest.raises(LabelError, match="fewer than two classes"):
        learn_classes(pl.DataFrame({"c": ["a", None]}), "c")


def test_a_task_is_learnt_with_its_tree():
    frame = pl.DataFrame({"on": [1, 0, 1], "root": ["a", "a", "b"], "leaf": ["a1", "a2", "b1"]})
    categorical = {"root": ["a", "b"], "leaf": []}
    task = learn_task(frame, binary=["on"], categorical=categorical, tree=["root", "leaf"])
    assert task.names == ("on", "root", "leaf")
    assert task.tree.paths == ((0, 0), (0, 1), (1, 2))
    assert (
        learn_task(frame, categorical={"root": ()}, swap=Swap((), "root", {"a": "b", "b": "a"})).swap.target == "root"
    )


@pytest.mark.parametrize(
    "cells", [[["b", "a"], [], ["a"]], ['["b", "a"]', "[]", '["a"]'], ["b; a", None, "a"], ["b|a", "", "a"]]
)
def test_lists_become_binaries_and_lists_again(cells):
    frame = pl.DataFrame({"text": ["x", "y", "z"], "labels": cells})
    layout = learn_layout(frame, label_list="labels")
    assert Layout.from_json(layout.to_json()) == layout
    flat = normalise(frame, layout)
    assert flat.columns == ["text", "a", "b"]
    assert flat.select("a", "b").rows() == [(1, 1), (0, 0), (1, 0)]
    task = learn_task(flat, binary=layout.classes)
    back = submission_frame(layout, task, read_labels(flat, task).codes)
    assert back.columns == ["labels"]
    assert normalise(back, layout).rows() == flat.select("a", "b").rows()
    assert join_lists(back)["labels"].dtype == pl.String


def test_odd_lists():
    frame = pl.DataFrame({"labels": [["a", "b"], None, ["c"]], "b": [1, 2, 3]})
    layout = learn_layout(frame.drop("b"), label_list="labels")
    assert normalise(frame.drop("b"), layout)["a"].to_list() == [1, None, 0]
    with pytest.raises(LabelError, match="named like other columns: 'b'"):
        normalise(frame, layout)
    with pytest.raises(LabelError, match=r"lists 1 label not known to the task: 'z' \(1 time\)"):
        normalise(pl.DataFrame({"labels": [["z"]]}), layout)
    assert normalise(pl.DataFrame({"labels": ["a;c", "b"]}), layout).rows() == [(1, 0, 1), (0, 1, 0)]
    assert normalise(pl.DataFrame({"text": ["x"], "labels": [None]}), layout).columns == ["text"]
    assert normalise(pl.DataFrame({"text": ["x"]}), layout).columns == ["text"]


def test_winner_columns_become_one_target_and_three_again():
    rows = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (None, None, None)]
    frame = pl.DataFrame(rows, schema=list(ARENA), orient="row")
    layout = learn_layout(frame, winner=ARENA)
    flat = normalise(frame, layout)
    assert flat["winner"].to_list() == ["a", "b", "tie", None]
    task = learn_task(flat, categorical={"winner": ()})
    assert submission_frame(layout, task, read_labels(flat, task).codes).rows() == rows
    soft = normalise(pl.DataFrame([(0.5, 0.25, 0.25)], schema=list(ARENA), orient="row"), layout)
    assert soft.columns == ["winner=a", "winner=b", "winner=tie"]
    assert probability_frame(layout, task, read_labels(soft, task).soft["winner"]).columns == list(ARENA)
    with pytest.raises(LabelError, match=r"1 row without one winner(?s:.*)row 0: \[1.0, 1.0, 0.0\]"):
        normalise(pl.DataFrame([(1, 1, 0)], schema=list(ARENA), orient="row"), layout)
    with pytest.raises(LabelError, match="wrong number"):
        learn_layout(frame, winner=ARENA[:2])


def test_probabilities_are_named_by_target():
    frame = probability_frame(Layout(), TASK, np.float32([[0.5, 0.25, 0.75]]))
    assert frame.to_dicts() == [{"hot": 0.5, "kind=p": 0.25, "kind=q": 0.75}]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=8), st.booleans())
def test_codes_survive_a_frame(rows, as_csv):
    codes = np.array(rows, dtype=np.int32)
    frame = labels_frame(TASK, codes)
    frame = pl.read_csv(frame.write_csv().encode(), infer_schema=False) if as_csv else frame
    np.testing.assert_array_equal(read_labels(frame, TASK).codes, codes)


NAMES = st.text("abc\"\\ é,[]'", min_size=1, max_size=4).filter(lambda name: name == name.strip())


AWKWARD = st.text('a;| \n[]"\\é', min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(AWKWARD, min_size=2, max_size=4, unique=True), st.data())
def test_lists_of_any_names_survive_csv(names, data):
    layout = Layout("labels", tuple(sorted(names)), "list")
    task = Task(tuple(Binary(name) for name in layout.classes))
    row = st.lists(st.integers(0, 1), min_size=len(names), max_size=len(names))
    codes = np.array(data.draw(st.lists(row, min_size=1, max_size=5).filter(lambda rows: any(map(any, rows)))))
    frame = join_lists(submission_frame(layout, task, codes.astype(np.int32))).with_row_index("id")
    back = READERS[".csv"](frame.write_csv().encode(), Path("submission.csv"))
    np.testing.assert_array_equal(read_labels(normalise(back, layout), task).codes, codes)


def test_flags_of_every_type_are_read_alike():
    cells = {"text": ["1", "0", None], "whole": [1, 0, None], "truth": [True, False, None], "real": [1.0, 0.0, None]}
    frame = pl.DataFrame({**cells, "small": pl.Series([1, 0, None], dtype=pl.UInt8), "odd": ["Yes", "no", None]})
    labels = read_labels(frame, Task(tuple(Binary(name) for name in frame.columns)))
    assert labels.codes.tolist() == [[1] * 6, [0] * 6, [-1] * 6]
    with pytest.raises(LabelError, match=r"'whole': 1 cell not 0/1.*'7' \(1 time\); rows \[0\]"):
        read_labels(pl.DataFrame({"whole": [7, 0]}), Task((Binary("whole"),)))


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=4, unique=True), st.data(), st.sampled_from(["list", "json", ";"]))
def test_codes_survive_a_list(names, data, spelling):
    layout = Layout("labels", tuple(sorted(names)), spelling)
    task = Task(tuple(Binary(name) for name in layout.classes))
    one_row = st.lists(st.integers(0, 1), min_size=len(names), max_size=len(names))
    codes = np.array(data.draw(st.lists(one_row, min_size=1, max_size=5).filter(lambda rows: any(map(any, rows)))))
    flat = normalise(submission_frame(layout, task, codes.astype(np.int32)), layout)
    np.testing.assert_array_equal(read_labels(flat, task).codes, codes)


def test_a_corpus_of_fields():
    frame = pl.DataFrame(
        {
            "id": [7, 8],
            "text": ['["hi", null, "you"]', None],
            "turns": [["a", "b"], None],
            "price": [169.0, 2.5],
            "w": ["1", "0.5"],
            "hot": [1, 0],
            "kind": ["p", "q"],
        }
    )
    corpus = build_corpus(frame, text=["text", "turns", "price"], id="id", weight="w", task=TASK)
    assert corpus.ids.tolist() == ["7", "8"]
    assert corpus.fields == {"text": ["hi\n\n\n\nyou", ""], "turns": ["a\n\nb", ""], "price": ["169.0", "2.5"]}
    assert corpus.weights.tolist() == [1.0, 0.5]
    assert corpus.labels.codes.tolist() == [[1, 0], [0, 1]]
    plain = build_corpus(frame.select("text"), text=["text"], task=TASK)
    assert (plain.ids.tolist(), plain.labels, plain.weights) == (["0", "1"], None, None)


def test_text_that_only_looks_like_turns():
    texts = ['["unclosed]', '["a", 1]', "[1, 2]", '["a"] and more']
    assert build_corpus(pl.DataFrame({"text": texts}), text=["text"]).fields["text"] == texts
    half = build_corpus(pl.DataFrame({"text": ['["\\ud83d"]']}), text=["text"])
    assert half.fields["text"] == ["\ufffd"]


@pytest.mark.parametrize(
    ("columns", "arguments", "words"),
    [
        ({"id": ["a", "a", "b"]}, {"id": "id"}, r"repeats 1 id, in 2 rows(?s:.*)'a'"),
        ({"id": ["a", None, "b"]}, {"id": "id"}, r"1 empty cell(?s:.*)rows \[1\](?s:.*)in data.extra too"),
        ({"w": [1.0, float("nan"), None]}, {"weight": "w"}, "2 cells without a weight"),
        ({"w": [1, -1, 1]}, {"weight": "w"}, r"\[-1\] in rows \[1\]"),
        ({"w": [1.0, 1e39, 1.0]}, {"weight": "w"}, r"\[1e\+39\] in rows \[1\]"),
        ({"w": [0, 0, 0]}, {"weight": "w"}, "0 in every row"),
        ({"w": [1, 1, 1]}, {"weight": "W"}, "did you mean 'w'"),
        ({"w": [1, 1, 1]}, {"id": "idd"}, "no column 'idd', wanted as id"),
        ({"parts": [{"a": 1}] * 3}, {"text": ["parts"]}, "can't be read as text"),
    ],
)
def test_mistakes_in_a_corpus(columns, arguments, words):
    frame = pl.DataFrame({"text": ["x", "y", "z"], **columns})
    with pytest.raises(DataError, match=words):
        build_corpus(frame, **{"text": ["text"], **arguments})
