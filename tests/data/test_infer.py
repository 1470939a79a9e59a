from pathlib import Path

import polars as pl
import pytest

from fivefold.data.infer import infer
from fivefold.data.load import read_table
from fivefold.errors import DataError, LabelError
from fivefold.task import Swap

SHARED = Path(__file__).parents[3] / "shared" / "data"
SENTENCES = [f"This is sentence number {i} of quite a few others here today." for i in range(60)]
data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder isn't here")


def _frame(**columns):
    return pl.DataFrame({"text": SENTENCES, **{name: (cells * 60)[:60] for name, cells in columns.items()}})


def _shared(name):
    return infer(read_table(SHARED / name))


@data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "text", "binaries", "categoricals", "extra"),
    [
        ("banking77/train.csv", ["text"], 0, ["label"], {}),
        ("codiesp/train.jsonl.gz", ["text"], 21, [], {"id": "id"}),
        ("cuad/train.jsonl.gz", ["text"], 33, ["governing_law"], {"unused": ("document_name",)}),
        ("reuters21578/train.jsonl.gz", ["text"], 0, [], {"label_list": "topics", "unused": ("places",)}),
        ("semeval2018_ec/train.csv", ["text"], 11, [], {"id": "id"}),
        ("trec/train.csv", ["text"], 0, ["coarse", "fine"], {"tree": ("coarse", "fine")}),
        (
            "bigbasket/train.csv",
            ["description"],
            0,
            ["category", "sub_category", "type", "brand"],
            {"tree": ("category", "sub_category", "type"), "unused": ("price", "market_price")},
        ),
        (
            "pref_qafeedback/train.jsonl.gz",
            ["prompt", "context", "response_a", "response_b"],
            0,
            ["winner"],
            {"group": "group", "swap": Swap((("response_a", "response_b"),), "winner", {"a": "b", "b": "a"})},
        ),
        (
            "pref_alpacaeval_gpt4/all.jsonl.gz",
            ["prompt", "response_a", "response_b"],
            0,
            ["winner"],
            {"group": "group", "unused": ("dataset", "model_a", "model_b")},
        ),
    ],
)
def test_shared_data(name, text, binaries, categoricals, extra):
    found = _shared(name)
    assert list(found.text) == text
    assert len(found.binaries) == binaries
    assert list(found.categoricals) == categoricals
    assert {key: getattr(found, key) for key in extra} == extra


@data
@pytest.mark.data
def test_shared_files_without_labels():
    frame = read_table(SHARED / "semeval2018_ec" / "test_unlabelled.csv")
    assert infer(frame, labels=()).text == ("text",)
    with pytest.raises(DataError, match=r"(?s)No column can be taken as label.*task\.binary"):
        infer(frame)


def test_numbers_are_named_but_not_used():
    found = _frame(price=[1.5, 2.25, 3.0], brand=["x", "y"])
    assert infer(found).unused == ("price",)
    assert "name it in data.text" in " ".join(infer(found).sentences)
    assert infer(found, text=["text", "price"]).text == ("text", "price")


def test_a_column_named_label_is_the_only_label():
    found = infer(_frame(label=["x", "y"], verified=[0, 1], topic=["p", "q", "r"]))
    assert (found.categoricals, found.binaries, found.unused) == (("label",), (), ("verified", "topic"))
    assert "could be a label" in found.sentences[-1]


def test_a_label_of_two_values_is_binary():
    assert infer(_frame(label=["yes", "no", None])).binaries == ("label",)
    assert infer(_frame(label=[0.25, 1.0, 0.0])).binaries == ("label",)
    assert infer(_frame(label=[1, 2, 3])).categoricals == ("label",)
    with pytest.raises(DataError, match="numbers that aren't whole"):
        infer(_frame(label=[1.5, 2.25]))
    with pytest.raises(DataError, match="one class only"):
        infer(_frame(label=["x"]))


def test_role_columns_need_fitting_cells():
    ids = [f"r{i}" for i in range(60)]
    found = infer(_frame(label=["x", "y"], weight=[1.0, 2.5], fold=["x", "y", None], group=["g", "h"], row_id=ids))
    assert (found.id, found.group, found.weight, found.fold) == ("row_id", "group", "weight", "fold")
    heavy = infer(_frame(label=["x", "y"], weight=["500 g", "1 kg"]))
    assert heavy.weight is None
    assert any("isn't all numbers from 0" in sentence for sentence in heavy.sentences)


@pytest.mark.parametrize(
    "cells", [[["a", "b"], ["c"], []], ['["a", "b"]', '["c"]', "[]"], ["a;b", "c", "a;c"], ["a|b|c", "a|c", "b"]]
)
def test_lists_of_labels_in_every_spelling(cells):
    found = infer(_frame(tags=cells))
    assert found.label_list == "tags"
    assert (found.binaries, found.categoricals) == ((), ())


def test_separators_inside_classes_make_no_list():
    assert infer(_frame(kind=["A|B", "C|D", "E"])).categoricals == ("kind",)


def test_winner_columns_of_the_arena():
    flags = {"winner_model_a": [1, 0, 0], "winner_model_b": [0, 1, 0], "winner_tie": [0, 0, 1]}
    found = infer(_frame(**flags, response_a=SENTENCES, response_b=SENTENCES[::-1]))
    assert (found.winner, found.categoricals) == (tuple(flags), ("winner",))
    assert found.swap == Swap((("response_a", "response_b"),), "winner", {"a": "b", "b": "a"})
    named = infer(_frame(winner=["model_a", "model_b", "tie (bothbad)"], response_a=SENTENCES, response_b=SENTENCES))
    assert named.swap.classes == {"model_a": "model_b", "model_b": "model_a"}
    unclear = infer(_frame(winner=["left", "right"], response_a=SENTENCES, response_b=SENTENCES))
    assert unclear.swap is None
    assert any("write task.swap" in sentence for sentence in unclear.sentences)


def test_probabilities_are_one_categorical():
    columns = {"mood=good": [0.2, 1.0], "mood=bad": [0.8, 0.0]}
    assert infer(_frame(**columns)).categoricals == ("mood",)
    assert infer(_frame(**columns), labels=list(columns)).categoricals == ("mood",)


def test_columns_named_as_probabilities_that_hold_none():
    for cells in ([0.2, -0.5], [0.2, 0.9]):
        columns = {"mood=good": cells, "mood=bad": [0.8, 0.5]}
        with pytest.raises(LabelError, match=r"(?s)'mood=good', 'mood=bad' are named as the probabilities.*row 1: "):
            infer(_frame(**columns))
    with pytest.raises(LabelError, match=r"row 1: -0\.5, 0\.5"):
        infer(_frame(**{"mood=good": [0.2, -0.5], "mood=bad": [0.8, 0.5]}), labels=["mood=good", "mood=bad"])
    # Both labels of a row: no probabilities, yet fine as binaries that the recipe names.
    infer(_frame(**{"mood=good": [1, 0], "mood=bad": [1, 1]}), labels=["mood=good", "mood=bad"])


@pytest.mark.parametrize("cells", [[1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"], [1.0, 2.0, 5.0]])
def test_few_whole_numbers_called_a_rating_are_classes(cells):
    found = infer(_frame(Stars=cells))
    assert found.categoricals == ("Stars",)
    assert any("'Stars', a categorical" in sentence for sentence in found.sentences)
    assert infer(_frame(label=["x", "y"], stars=cells)).unused == ("stars",)
    assert infer(_frame(kind=["x", "y"], score=list(range(60)))).unused == ("score",)
    assert infer(_frame(kind=["x", "y"], rating=[1.5, 2.25])).unused == ("rating",)


def test_a_text_may_be_the_group_too():
    found = infer(_frame(kind=["x", "y"], more=SENTENCES), text=["text", "more"], group="more")
    assert (found.text, found.group, found.categoricals) == (("text", "more"), "more", ("kind",))
    assert infer(_frame(kind=["x", "y"]), group="text", text=["text"]).group == "text"


def test_free_text_without_a_conventional_name():
    found = infer(_frame(label=["x", "y"]).rename({"text": "narrative"}))
    assert found.text == ("narrative",)
    assert "read like free text (60 distinct in 60 rows" in found.sentences[1]
    with pytest.raises(DataError, match=r"(?s)taken as text.*'label': names.*data\.text"):
        infer(_frame(label=["x", "y"]).drop("text"))


def test_independent_categoricals_have_no_tree():
    found = infer(_frame(colour=["r", "g"], size=["s", "m", "l"], parent=["x", "y"]))
    assert found.tree == ()
    assert infer(_frame(leaf=["a1", "a2", "b1", "b2"], root=["a", "a", "b", "b"])).tree == ("root", "leaf")


def test_a_level_called_group_is_a_label():
    levels = {"super": list("aabb") * 2, "group": list("pqrs") * 2, "module": list("ijklmnop")}
    found = infer(_frame(**levels))
    assert (found.group, found.tree) == (None, ("super", "group", "module"))
    assert infer(_frame(**levels, label=["x", "y"])).group == "group"
    assert infer(_frame(group=list("pqrs"), kind=["x", "y", "z"])).group == "group"


def test_what_the_table_to_predict_holds_is_no_label():
    frame = _frame(shop=["s", "t", "u"], kind=["x", "y"])
    found = infer(frame, test_columns=["text", "shop"])
    assert (found.categoricals, found.unused) == (("kind",), ("shop",))
    assert infer(frame, test_columns=frame.columns).categoricals == ("shop", "kind")


def test_names_that_do_not_exist():
    with pytest.raises(DataError, match=r"no column 'txet', wanted as text(?s:.*)did you mean 'text'"):
        infer(_frame(label=["x", "y"]), text=["txet"])
    with pytest.raises(DataError, match="wanted as group"):
        infer(_frame(label=["x", "y"]), group="family")
