import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.data.check import check
from fivefold.data.duplicates import _signatures, duplicate_groups, near_duplicate_groups
from fivefold.data.implications import implications
from fivefold.data.labels import learn_task
from fivefold.data.load import read_table
from fivefold.errors import DataError
from fivefold.task import Binary, Task

SHARED = Path(__file__).parents[3] / "shared" / "data"
WORDS = np.array(["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet"])


def _sentences(count, length=12, seed=0):
    picks = np.random.default_rng(seed).choice(WORDS, (count, length))
    return [" ".join(words) + f" {i}" for i, words in enumerate(picks)]


def _named(report):
    return {finding.name: finding for finding in report.findings}


def test_a_clean_table_has_notes_only():
    frame = pl.DataFrame({"text": _sentences(40), "label": ["x", "y"] * 20})
    report = check(frame, text=["text"], task=learn_task(frame, categorical={"label": ()}))
    assert report.ok
    assert {finding.severity for finding in report.findings} == {"note"}
    assert report.render().startswith("40 rows checked (numbered from 0): 0 errors, 0 warnings, 2 notes")


def test_everything_wrong_is_told_in_one_go():
    base = _sentences(30)
    long = " ".join(_sentences(20, seed=1))
    texts = [*base, base[0].upper() + " ", "", "  ", "caf\u00c3\u00a9", "\ufffd", "one\\nTwo", long, long + " more"]
    count = len(texts)
    frame = pl.DataFrame(
        {
            "id": ["same", "same", *map(str, range(count - 2))],
            "text": texts,
            "sub": [1] * 12 + [0] * (count - 12),
            "super": [1] * 20 + [0] * (count - 20),
            "always": [1] * count,
            "kind": ["x", "X"] * (count // 2 - 1) + ["rare", None],
        }
    )
    task = learn_task(frame, binary=["sub", "super", "always"], categorical={"kind": ()})
    test_frame = pl.DataFrame({"text": [base[3], long + " also", "new"], "kind": ["x", "strange", None]})
    report = check(frame, text=["text"], task=task, id="id", test_frame=test_frame)
    found = _named(report)
    assert set(found) == {
        *("duplicate_ids", "empty_text", "mojibake", "replacement_characters", "literal_escapes", "lengths"),
        *("duplicates", "near_duplicates", "conflicting_labels", "test_duplicates", "test_near_duplicates"),
        *("missing_labels", "constant_label", "rare_classes", "similar_classes", "implied_labels", "balance"),
        "unknown_test_labels",
    }
    assert report.findings[0].name == "duplicate_ids"
    assert not report.ok
    assert found["empty_text"].count == 2
    assert found["conflicting_labels"].count == 2
    assert found["near_duplicates"].count == 2
    assert found["test_near_duplicates"].count == 1
    assert "sub -> super (100.0% of 12 rows)" in found["implied_labels"].examples
    assert found["unknown_test_labels"].examples == ("strange (1 row)",)
    assert found["lengths"].figures["characters_max"] == len(long) + 5
    assert json.loads(json.dumps(report.to_json()))["rows"] == count


def test_labels_that_do_not_fit_are_a_finding():
    frame = pl.DataFrame({"text": _sentences(3), "hot": ["1", "maybe", "0"]})
    finding = _named(check(frame, text=["text"], task=Task((Binary("hot"),))))["labels"]
    assert finding.severity == "error"
    assert "'maybe'" in finding.message


def test_text_and_labels_that_are_never_filled():
    frame = pl.DataFrame({"text": ["", None, " "], "kind": [None, None, None], "id": ["a", None, "b"]})
    task = learn_task(pl.DataFrame({"kind": ["x", "y"]}), categorical={"kind": ()})
    errors = [f.name for f in check(frame, text=["text"], task=task, id="id").findings if f.severity == "error"]
    assert sorted(errors) == ["empty_text", "missing_ids", "missing_labels"]


def test_categoricals_that_decide_one_another():
    frame = pl.DataFrame(
        {"text": _sentences(40), "leaf": ["a1", "a2", "b1", "b2"] * 10, "root": ["a", "a", "b", "b"] * 10}
    )
    names = {"leaf": (), "root": ()}
    finding = _named(check(frame, text=["text"], task=learn_task(frame, categorical=names)))["tree"]
    assert finding.examples == ("leaf -> root: 100.0% of rows, 0 of 4 classes under several parents",)
    whole = learn_task(frame, categorical=names, tree=["root", "leaf"])
    assert "tree" not in _named(check(frame, text=["text"], task=whole))


def test_given_groups_silence_duplicates_within_them():
    texts = _sentences(10)
    frame = pl.DataFrame({"text": [*texts, *texts], "group": [*range(10), *range(10)]})
    assert "near_duplicates" not in _named(check(frame, text=["text"], group="group"))
    apart = frame.with_columns(group=pl.int_range(20))
    assert _named(check(apart, text=["text"], group="group"))["near_duplicates"].count == 20
    nowhere = frame.with_columns(group=pl.lit(None, dtype=pl.String))
    assert _named(check(nowhere, text=["text"], group="group"))["near_duplicates"].count == 20
    with pytest.raises(DataError, match=r"'group' holds lists(?s:.*)List\(Int"):
        check(frame.with_columns(pl.concat_list("group")), text=["text"], group="group")


def test_several_text_columns_are_compared_together():
    frame = pl.DataFrame({"a": ["same text here", "same text here"], "b": ["first thing", "another one"]})
    found = _named(check(frame, text=["a", "b"], threshold=0.9))
    assert "duplicates" not in found
    assert [f.message[:3] for f in check(frame, text=["a", "b"]).findings if f.name == "lengths"] == ["'a'", "'b'"]


def test_equal_texts_share_a_group():
    assert duplicate_groups(["A b", "c", "a  B ", "", ""]).tolist() == [0, 1, 0, 2, 3]
    assert duplicate_groups([]).tolist() == []


def test_near_texts_share_a_group():
    base = _sentences(300, 40)
    texts = [*base, *(text + " indeed" for text in base[:50]), "", "", "abc", "abc!"]
    groups = near_duplicate_groups(texts)
    assert groups[300:350].tolist() == groups[:50].tolist() == list(range(50))
    assert len(set(groups[:300].tolist())) == 300
    assert len(set(groups[350:].tolist())) == 4
    np.testing.assert_array_equal(groups, near_duplicate_groups(texts))
    assert near_duplicate_groups([]).tolist() == []
    with pytest.raises(ValueError, match="threshold must be in"):
        near_duplicate_groups(texts, 0)


def test_the_search_finds_what_comparing_all_pairs_finds():
    random = np.random.default_rng(3)
    texts = []
    for text in _sentences(60, 20):
        words = text.split()
        texts.append(text)
        for _ in range(2):
            words[random.integers(len(words))] = str(random.choice(WORDS))
            texts.append(" ".join(words))
    shingles = [{f"{t:5}"[i : i + 5] for i in range(max(len(t) - 4, 1))} for t in texts]
    alike = np.array([[len(a & b) >= 0.8 * len(a | b) for b in shingles] for a in shingles])
    reach = np.linalg.matrix_power(alike.astype(float) + np.eye(len(texts)), 8) > 0
    groups = near_duplicate_groups(texts)
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], reach)


def test_the_seed_reaches_the_search():
    signatures = [_signatures(["one text", "two texts"], seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(signatures[0], signatures[1])
    assert (signatures[0] != signatures[2]).mean() > 0.9


def test_many_alike_texts_stay_one_group():
    alike = [f"A template of some length that all of these rows share, word for word, number {i}" for i in range(500)]
    assert len(set(near_duplicate_groups(alike, 0.7).tolist())) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=12))
def test_groups_are_numbered_as_they_appear(texts):
    groups = near_duplicate_groups(texts).tolist()
    assert list(dict.fromkeys(groups)) == list(range(len(set(groups))))
    exact = duplicate_groups(texts)
    assert all(groups[i] == groups[j] for i in range(len(texts)) for j in range(i) if exact[i] == exact[j])


def test_implied_binaries():
    codes = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 0, -1]] * 10, dtype=np.int32)
    found = implications(codes, ["a", "b", "c"])
    assert [(pair.first, pair.second, pair.rows, pair.share) for pair in found] == [
        ("a", "b", 20, 1.0),
        ("c", "a", 10, 1.0),
        ("c", "b", 10, 1.0),
    ]


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder isn't here")
def test_known_leaks_of_trec():
    train, test = (read_table(SHARED / "trec" / f"{part}.csv") for part in ("train", "test"))
    task = learn_task(train, categorical={"coarse": (), "fine": ()}, tree=("coarse", "fine"))
    found = _named(check(train, text=["text"], task=task, test_frame=test))
    assert found["test_duplicates"].count == 11
    assert found["conflicting_labels"].count == 2
