import gzip
import io
import json
import logging
import sys
import types
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.data.corpus import build_corpus
from fivefold.data.load import content_hash, read_table
from fivefold.errors import DataError, MissingExtraError

TABLE = pl.DataFrame({"id": ["007", "010"], "text": ["a, b", 'say "é"\nnow'], "label": ["N/A", "None"]})
WRITERS = {
    ".csv": lambda frame: frame.write_csv().encode(),
    ".tsv": lambda frame: frame.write_csv(separator="\t").encode(),
    ".jsonl": lambda frame: frame.write_ndjson().encode(),
    ".parquet": lambda frame: _parquet(frame),
}


def _parquet(frame):
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refused(folder, name, content):
    with pytest.raises(DataError) as caught:
        read_table(_write(folder, name, content))
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_table(tmp_path, ending, packed):
    content = WRITERS[ending](TABLE)
    path = _write(
        tmp_path, "t" + ending + (".gz" if packed else ""), gzip.compress(content, mtime=0) if packed else content
    )
    assert read_table(path).equals(TABLE)
    assert read_table(str(path)).equals(TABLE)


def test_cells_of_csv_stay_as_written(tmp_path):
    path = _write(tmp_path, "t.csv", '\ufeffid,label,price,note\n007,1.0,169.0,""\n1e3,NA,,x\n\n')
    frame = read_table(path)
    assert frame.columns == ["id", "label", "price", "note"]
    assert frame.rows() == [("007", "1.0", "169.0", None), ("1e3", "NA", None, "x")]


def test_lone_quotation_marks_within_cells(tmp_path):
    frame = read_table(_write(tmp_path, "t.csv", 'text,label\n5" disk,a\n6" disk,b\n\nx,"say ""y"""\n'))
    assert frame.rows() == [('5" disk', "a"), ('6" disk', "b"), ("x", 'say "y"')]


def test_cells_of_a_megabyte(tmp_path):
    long = "word " * 250_000
    path = _write(tmp_path, "t.csv", f'text,label\n"{long}",\n"{long}",b\n')
    assert read_table(path)["text"].str.len_chars().to_list() == [len(long)] * 2


def test_json_types(tmp_path):
    rows = [
        {"n": 1, "mixed": 1, "labels": ["a"], "half": "x\ud83d", "long": 1, "items": [1, "x"]},
        {"n": 2.5, "mixed": "b", "labels": [], "long": 99999999999999999999},
        {"mixed": True, "items": []},
    ]
    frame = read_table(_write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert frame["n"].to_list() == [1.0, 2.5, None]
    assert frame["mixed"].to_list() == ["1", "b", "true"]
    assert frame["labels"].to_list() == [["a"], [], None]
    assert frame["long"].to_list() == ["1", "99999999999999999999", None]
    assert frame["items"].to_list() == [["1", "x"], None, []]
    assert frame["half"].to_list() == ["x\ufffd", None, None]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", ["is empty"]),
        ("t.csv", "text,label\n", ["header but no rows"]),
        ("t.csv", "text;label\na;b\nc,d;e\n", ["delimiter is not the comma", "semicolon would give 2 columns"]),
        ("t.tsv", "text,label\na,b\n", ["delimiter is not the tab"]),
        ("t.csv", "text\tlabel\na\tb\n", ["a tab would give", "name the file .tsv"]),
        ("t.csv", "text|label\na|b\n", ["a bar would give"]),
        ("t.csv", "text,label\nok,a\na, b,c\n", ["line 3 has 3 cells", "2, as in the header"]),
        ("t.csv", "text,label\nok,a\nonly\n", ["line 3 has 1 cell."]),
        ("t.csv", 'text,label\nok,a\n"never closed,a\nb,c\n', ["starts on line 3", "doesn't close it"]),
        ("t.csv", 'text,label\nok,"a" and\n', ["starts on line 2"]),
        ("t.csv", '"text";"label"\n"a";"b"\n', ["semicolon would give 2 columns"]),
        ("t.csv", "a,a\n1,2\n", ["several columns named 'a'"]),
        ("t.csv", b"text,label\nok,a\ncaf\xe9,b\n", ["not UTF-8: byte 19 on line 3", "cp1252", "café", "iconv"]),
        ("t.csv", "text,label\né,b\n".encode("utf-16"), ["utf-16"]),
        ("t.jsonl", '{"a": 1}\n\n{"a": }\n', ["line 3 is no JSON", "mend that line"]),
        ("t.jsonl", '[{"a": 1}]\n', ["line 1 is a JSON list", "jq -c"]),
        ("t.jsonl", '{"a": [1]}\n{"a": 2}\n', ["'a' mixes lists", "line 1"]),
        ("t.parquet", b"not parquet", ["no Parquet file"]),
        ("t.csv.gz", gzip.compress(b"text,label\na,b\n" * 99, mtime=0)[:-9], ["can't be read"]),
        ("t.xlsx", b"PK", ["known format", ".parquet", "got: .xlsx"]),
        ("t.json", b"[]", ["jq -c"]),
    ],
)
def test_mistakes_in_files(tmp_path, name, content, words):
    message = _refused(tmp_path, name, content)
    assert [word for word in words if word not in message] == []


def test_missing_files_suggest_near_names(tmp_path):
    _write(tmp_path, "train.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"did you mean '.*train\.csv'"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(DataError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "train.csv")
    (tmp_path / "more.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path / "more.csv")


def test_lists_of_sources_are_united(tmp_path):
    first = _write(tmp_path, "a.csv", "text,label\nx,1\n")
    second = _write(tmp_path, "b.jsonl", '{"text": "y", "label": 2, "id": "q"}')
    frame = read_table([first, second, pl.DataFrame({"text": ["z"]})])
    assert frame.rows() == [("x", "1", None), ("y", "2", "q"), ("z", None, None)]
    with pytest.raises(DataError, match="lists in one table and plain values in another: 'label'"):
        read_table([first, pl.DataFrame({"label": [["a"]]})])
    with pytest.raises(DataError, match="list of sources is empty"):
        read_table([])


def test_tables_of_other_libraries():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    expected = pl.DataFrame({"text": ["x", None], "label": ["u", "v"]})
    assert read_table(pandas.DataFrame({"text": ["x", None], "label": pandas.Categorical(["u", "v"])})).equals(expected)
    assert read_table(pyarrow.table({"text": ["x", None], "label": ["u", "v"]})).equals(expected)
    assert read_table(expected.lazy()).equals(expected)
    with pytest.raises(DataError, match=r"got: builtins\.int"):
        read_table(3)
    with pytest.raises(DataError, match="no rows"):
        read_table(expected.head(0))


def test_datasets_take_the_names_of_classes():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["p", "q"])),
        }
    )
    rows = {"text": ["x", "y", "z"], "label": [1, 0, -1], "tags": [[0, 1], [], [1]]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    frame = read_table(dataset.select([2, 0]))
    assert frame.rows() == [("z", None, ["q"]), ("x", "good", ["p", "q"])]
    with pytest.raises(DataError, match=r"dataset\['train'\]"):
        read_table(datasets.DatasetDict({"train": dataset}))
    with pytest.raises(DataError, match="stream"):
        read_table(dataset.to_iterable_dataset())


def test_addresses_of_the_hub(monkeypatch, tmp_path, caplog):
    calls = []

    def load_dataset(*names, split):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        calls.append((*names, split))
        raise {"gone": ConnectionError("no network"), "odd": ValueError("Unknown split")}[split]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"(?s)can't be reached.*HF_HOME"):
        read_table("hf://owner/name/gone")
    with pytest.raises(DataError, match="Unknown split"):
        read_table("hf://owner/name/configuration/odd")
    assert calls == [("owner/name", "gone"), ("owner/name", "configuration", "odd")]
    assert "Retrying" not in caplog.text
    with pytest.raises(DataError, match="names no dataset"):
        read_table("hf://owner/name")
    path = _write(tmp_path, "t.csv", "text,label\na,b\n")
    hub = types.SimpleNamespace(hf_hub_download=lambda *names, repo_type: str(path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert read_table("hf://owner/name/data/t.csv").rows() == [("a", "b")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"fivefold\[hub\]"):
        read_table("hf://owner/name/train")


def test_content_hash_follows_content_only(tmp_path):
    paths = [_write(tmp_path, "t" + ending, write(TABLE)) for ending, write in WRITERS.items()]
    assert {content_hash(read_table(path)) for path in paths} == {content_hash(TABLE[:, ::-1])}
    blank = pl.DataFrame({"a": ["", None]})
    variants = [blank, blank[::-1], blank.rename({"a": "b"}), pl.DataFrame({"a": ["x", None]})]
    assert len({content_hash(frame) for frame in variants}) == len(variants)
    lists = pl.DataFrame({"a": [["x", "y"], None]})
    assert content_hash(lists) == content_hash(lists.clone()) != content_hash(pl.DataFrame({"a": [["x"], ["y"]]}))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT), min_size=1, max_size=6), st.sampled_from(sorted(WRITERS)))
def test_any_text_survives_any_format(tmp_path_factory, rows, ending):
    frame = pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String}, orient="row")
    path: Path = tmp_path_factory.mktemp("formats") / f"t{ending}"
    path.write_bytes(WRITERS[ending](frame))
    assert read_table(path).rows() == frame.rows()


def test_replacements_are_made_in_every_text() -> None:
    frame = pl.DataFrame({"text": ["He fell.Then 2.5 m", None], "other": ["a.b", "c"]})
    corpus = build_corpus(frame, text=["text", "other"], replace=[(r"\.(?=[A-Za-z])", ". "), ("Then", "then")])
    assert corpus.fields == {"text": ["He fell. then 2.5 m", ""], "other": ["a. b", "c"]}
