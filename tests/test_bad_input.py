"""What users bring and break: each is one message with the next step and exit code 2, or simply works."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from fivefold.cli import main
from fivefold.errors import RunError
from fivefold.pipeline.store import writing

QUICK = ["--set", "model.char_ngrams=null", "--set", "model.min_df=1", "--set", "folds.count=2"]

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes ten times as long as the rest of so small a fit."""
    monkeypatch.setattr("fivefold.pipeline.fit.publish", lambda folder, texts: (folder / "report.html").touch())


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Refuse:
    """Runs a command that must fail as a user's mistake; its message."""

    def refuse(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        message = capsys.readouterr().err
        assert message.count("fivefold: ") == 1
        assert "bug" not in message
        return message[message.index("fivefold: ") :]

    return refuse


def text(row: int) -> str:
    return f"word{row % 7} other{row % 5} more{row % 3} words{row}"


def table(header: str, cells: Callable[[int], str], rows: int = 24) -> str:
    return f"{header}\n" + "".join(f"{text(i)},{cells(i)}\n" for i in range(rows))


def lines(row: Callable[[int], dict[str, object]], rows: int = 24) -> str:
    return "".join(json.dumps({"text": text(i), "label": "ab"[i % 2]} | row(i)) + "\n" for i in range(rows))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


GOOD = table("text,label", lambda i: "ab"[i % 2])
FLAGS = "text,one,two,kind"
SIDES = "prompt,response_a,response_b,winner"
SWAP = "task.swap={fields: [[response_a, response_b]], target: winner, classes: {a: b, b: a}}"


def pairs(winners: str) -> str:
    return (
        SIDES
        + "\n"
        + "".join(f"{text(i)},{text(i + 1)},{text(i + 2)},{winners[i % len(winners)]}\n" for i in range(24))
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    data = write(folder / "data.csv", table(FLAGS, lambda i: f"{i % 2},{int(i % 3 == 0)},{'abc'[i % 3]}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fivefold.pipeline.fit.publish", lambda run, texts: (run / "report.html").touch())
        assert main(["fit", str(data), *QUICK, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def sign(stage: Path) -> None:
    """Make the stage's manifest agree with its files, as a careful forger would."""
    files = (path for path in stage.rglob("*") if path.is_file() and path.name != "manifest.json")
    digests = {str(path.relative_to(stage)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (stage / "manifest.json").write_text(json.dumps(digests), "utf-8")


@pytest.mark.parametrize(
    ("name", "content", "changes", "words"),
    [
        ("d.csv", bytes(range(256)) * 20, [], "holds no text"),
        ("d.csv", b"\0" * 500, [], "500 of its 500 bytes are zero"),
        ("d.csv", GOOD.encode("utf-16-le"), [], "UTF-16 without a mark"),
        ("d.csv.gz", b"\x1f\x8b" + bytes(range(100)), [], "can't be read"),
        ("d.csv", table("text,label", lambda i: ["1", "0", "nan", "inf"][i % 4]), ["task.binary=[label]"], "'inf' (6"),
        ("d.csv", table("text,label", lambda i: str(i / 7)), [], "numbers that aren't whole"),
        ("d.csv", table("text,label,fold", lambda i: f"{'ab'[i % 2]},0"), [], "at least two folds"),
        ("d.csv", table("text,label,group", lambda i: f"{'ab'[i % 2]},g"), [], "fewer groups"),
        ("d.csv", GOOD, ["folds.count=99"], "at most 24 folds"),
        ("d.csv", "text,label\n" + ",a\n,b\n" * 9, ["data.text=[text]"], "No n-gram is left"),
        *(
            (
                "d.csv",
                table("text,label,weight", lambda i, w=weight: f"{'ab'[i % 2]},{w if i == 3 else 1}"),
                ["data.weight=weight"],
                "in rows [3]",
            )
            for weight in ("-1", "", "nan", "inf", "heavy")
        ),
        ("d.jsonl", lines(lambda _: {"text": {"en": "words"}}), [], "Struct"),
        ("d.jsonl", lines(lambda i: {"label": {"x": i}}), [], "objects or dates"),
        ("d.csv", pairs("a"), [], "one class only"),
        ("d.csv", GOOD, ["data.extra=MISSING.csv"], "MISSING.csv"),
        ("d.csv", GOOD, ["data.test=MISSING.csv"], "MISSING.csv"),
        (
            "d.csv",
            table("text,label,weight", lambda i: f"{'ab'[i % 2]},{'1e39' if i == 3 else 1}"),
            ["data.weight=weight"],
            "weight",
        ),
        (
            "d.csv",
            table("text,label,weight", lambda i: f"{'ab'[i % 2]},0"),
            ["data.weight=weight"],
            "weight",
        ),
        (
            "d.csv",
            table("text,id", lambda i: "ab"[i % 2]),
            ["task.categorical=[id]"],
            "id",
        ),
        (
            "d.csv",
            GOOD,
            ["task.binary=[label]", "task.categorical=[label]"],
            "label",
        ),
        ("d.csv", GOOD, ["data.text=[text,label]", "task.categorical=[label]"], "label"),
        ("d.jsonl", lines(lambda i: {"group": [i]}), [], "group"),
        (
            "d.csv",
            pairs("ab"),
            ["data.text=[prompt]", "task.categorical=[winner]", SWAP],
            "response_a",
        ),
        ("d.csv", GOOD, ["model.C=.inf"], "model.C"),
        ("d.csv", GOOD, ["data.train=[]"], "data.train"),
        (
            "d.csv",
            table("text,a,b", lambda i: ["x,", "y,", ",p", ",q"][i % 4]),
            ["task.categorical=[a,b]", "task.tree=[a,b]"],
            "no row has a class at every level",
        ),
        ("d.csv", table("text,y=a,y=b", lambda i: "0.5,0.7" if i == 3 else "0.5,0.5"), [], "row 3: 0.5, 0.7"),
        ("d.csv", table("text,label", lambda i: "ab"[i % 2]), ["task.categorical.label=[yes,no]"], "in quotes"),
        ("d.csv", GOOD, ["data.group=label", "task.categorical=[label]"], "data.group and task.categorical both name"),
        ("d.csv", pairs("ab"), [SWAP.replace("response_b", "response_a")], "'response_a'] stand here more than once"),
    ],
)
def test_data_and_recipes_that_can_not_be_used(
    name: str, content: str | bytes, changes: list[str], words: str, tmp_path: Path, refused: Refuse
) -> None:
    assert words in refused(
        "fit", write(tmp_path / name, content), *QUICK[:4], *folds(changes), "--out", tmp_path / "r"
    )


def folds(changes: list[str]) -> list[str]:
    """The changes, with two folds unless they say otherwise."""
    return sets(*changes, *([] if any(change.startswith("folds.count") for change in changes) else ["folds.count=2"]))


ODD = ["a,b", 'q"uote', "new\nline", "😀", "x=y", "<b>html</b>", "  space ", "a;b", "$x_1^2$", "%s{}"]


@pytest.mark.parametrize(
    ("name", "content", "changes"),
    [
        ("d.csv", GOOD.replace("\n", "\r\n"), []),
        ("d.csv", GOOD.replace("\n", "\r"), []),
        ("d.csv", "\ufeff" + GOOD, []),
        ("d.csv", GOOD.replace("other", "o\u2028\u2029\x85\x0b\x0c\x00"), []),
        (
            "d.csv",
            GOOD.replace("text,label", "my text,the label"),
            ["data.text=[my text]", "task.categorical=[the label]"],
        ),
        ("d.csv", GOOD.replace("text,label", "id,label"), ["data.text=[id]"]),
        ("d.csv", "text,label\n" + "the same words,a\nthe same words,b\n" * 9, []),
        ("d.csv", table("text,label,fold", lambda i: f"{'ab'[i < 12]},{int(i < 12)}"), []),
        ("d.csv", GOOD + "the only one,c\n", []),
        ("d.csv", table("text,label,weight", lambda i: f"{'ab'[i % 2]},{i % 2}"), []),
        ("d.csv", table("text,one,two", lambda i: f"0,{i % 2}"), ["task.binary=[one,two]"]),
        ("d.tsv", "text\tlabel\n" + "".join(f'said "{text(i)}" so\t{"ab"[i % 2]}\n' for i in range(24)), []),
        ("d.jsonl", lines(lambda i: {"meta": {"a": {"b": [i]}}, "more": {}}), []),
        ("d.jsonl", lines(lambda i: {"label": f"{'ab'[i % 2]}\ud83d"}), []),
        ("d.csv", pairs("ab"), []),
        ("d.csv", pairs("at"), []),
        (
            "d.csv",
            table("text,label,group", lambda i: f"{'ab'[i % 2]},{i if i % 3 else ''}"),
            [],
        ),
    ],
)
def test_odd_data_that_can_be_used(name: str, content: str, changes: list[str], tmp_path: Path) -> None:
    data = write(tmp_path / name, content)
    assert main(["fit", str(data), *QUICK, *sets(*changes), "--out", str(tmp_path / "run")]) == 0
    assert main(["predict", str(tmp_path / "run"), str(data), "--out", str(tmp_path / "new/folder/p.csv")]) == 0


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_odd_names_survive_fit_and_predict(ending: str, tmp_path: Path) -> None:
    rows = pl.DataFrame({"text": [text(i) for i in range(40)], "label": [ODD[i % 10] for i in range(40)]})
    rows = rows.with_columns(pl.Series(name, [(i + k) % 2 for i in range(40)]) for k, name in enumerate(ODD))
    rows.write_parquet(tmp_path / "d.parquet")
    changes = sets("data.text=[text]", "task.categorical=[label]", f"task.binary={json.dumps(ODD, ensure_ascii=False)}")
    assert main(["fit", str(tmp_path / "d.parquet"), *QUICK, *changes, "--out", str(tmp_path / "run")]) == 0
    out = tmp_path / f"p.{ending}"
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "d.parquet"), "--out", str(out)]) == 0
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "d.parquet")]) == 0
    if ending == "parquet":
        assert pl.read_parquet(out).columns == ["id", *ODD, "label"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("txt,kind\na b,a\n", "did you mean 'txt'"),
        ("", "is empty"),
        ("text\n", "header but no rows"),
    ],
)
def test_tables_that_can_not_be_predicted(content: str, words: str, run: Path, tmp_path: Path, refused: Refuse) -> None:
    assert words in refused("predict", run, write(tmp_path / "d.csv", content), "--out", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table(FLAGS, lambda i: "1,0,zz"), "'zz' (24 times)"),
        (table(FLAGS, lambda i: "1,7,a"), "'7' (24 times)"),
        ("text\na b\n", "no column for 3 targets"),
        (table(FLAGS, lambda i: ",,"), "label"),
    ],
)
def test_tables_that_can_not_be_evaluated(content: str, words: str, run: Path, tmp_path: Path, refused: Refuse) -> None:
    assert words in refused("evaluate", run, write(tmp_path / "d.csv", content))


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "RUN", "DATA", "--out", "DATA/p.csv"],
        ["fit", "DATA", "--out", "DATA"],
        ["fit", "DATA", "--out", "DATA/run"],
        ["fit", "DATA", "--out", "FOLDER"],
        ["fit", "DATA", "--out", "FOLDER", "--overwrite"],
        ["fit", "FOLDER", "--out", "NEW"],
        ["predict", "DATA", "DATA", "--out", "p.csv"],
        ["predict", "RUN", "DATA", "--out", "DATA"],
        ["predict", "RUN", "DATA", "--out", "FOLDER.csv"],
        ["fit", "DATA", "--out", "DATA", "--overwrite"],
        ["init", "DATA", "--out", "FOLDER.csv"],
        ["demo", "tweets", "--rows", "9", "--out", "DATA"],
        ["fit", "FOLDER.yaml", "--out", "NEW"],
    ],
)
def test_paths_that_are_something_else(arguments: list[str], run: Path, tmp_path: Path, refused: Refuse) -> None:
    data = write(tmp_path / "data.csv", table(FLAGS, lambda i: f"{i % 2},{int(i % 3 == 0)},{'abc'[i % 3]}"))
    for name in ("FOLDER", "FOLDER.csv", "FOLDER.yaml"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "precious.txt", "precious")
    places = {"RUN": str(run), "DATA": str(data)}
    named = [
        part if part.startswith("--") or part.islower() or part.lstrip("-").isdigit() else place(part, places, tmp_path)
        for part in arguments
    ]
    before = data.read_bytes()
    refused(*named)
    assert data.read_bytes() == before
    assert (tmp_path / "FOLDER/precious.txt").exists()


def place(part: str, places: dict[str, str], folder: Path) -> str:
    head, slash, tail = part.partition("/")
    return places.get(head, str(folder / head)) + slash + tail


def test_a_run_that_another_process_holds(run: Path, broken: Path, refused: Refuse) -> None:
    with FileLock(broken / ".lock"):
        assert "Another process" in refused("fit", run.parent / "data.csv", *QUICK, "--out", broken)


def test_a_run_that_another_process_holds_is_not_overwritten(run: Path, broken: Path, refused: Refuse) -> None:
    with FileLock(broken / ".lock"):
        assert "Another process" in refused("fit", run.parent / "data.csv", *QUICK, "--out", broken, "--overwrite")
    assert (broken / "decision/rule.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("No space left on device (os error 28)"),
        pl.exceptions.ComputeError("parquet: underlying IO error: (os error 28)"),
    ],
    ids=["python", "polars", "parquet"],
)
def test_a_full_disk_however_it_is_told(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is full"), writing(tmp_path):
        raise error


@pytest.mark.parametrize("change", ["decision.metric=hierarchical_f1", "data.test=TEST"])
def test_mistakes_are_told_before_anything_is_fitted(change: str, tmp_path: Path, refused: Refuse) -> None:
    test = write(tmp_path / "test.csv", "words\na b\n")
    data = write(tmp_path / "d.csv", GOOD)
    refused("fit", data, *QUICK, *sets(change.replace("TEST", str(test))), "--out", tmp_path / "run")
    assert not (tmp_path / "run/folds").exists()


def test_heads_that_the_task_does_not_have_are_told_before_a_run_begins(tmp_path: Path, refused: Refuse) -> None:
    data = write(tmp_path / "d.csv", GOOD)
    weights = ["--set", "model.family=encoder", "--set", "objective.head_weights={colour: 2}"]
    assert "got: colour" in refused("fit", data, *weights, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_where_only_a_backbone_failed_takes_the_mended_recipe(tmp_path: Path, refused: Refuse) -> None:
    data, run = write(tmp_path / "d.csv", GOOD), tmp_path / "run"
    nowhere = ["--set", "model.family=encoder", "--set", f"model.backbone={tmp_path / 'nowhere'}"]
    assert "isn't a folder" in refused("fit", data, *nowhere, "--out", run)
    assert main(["fit", str(data), *QUICK, "--out", str(run)]) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 99}', "newer Fivefold"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 99, "versions": []}', "newer Fivefold"),
    ],
)
def test_a_run_json_that_does_not_fit(content: str, words: str, run: Path, broken: Path, refused: Refuse) -> None:
    write(broken / "run.json", content)
    assert words in refused("fit", run.parent / "data.csv", *QUICK, "--out", broken)
    assert (broken / "decision/rule.json").exists()


ARTEFACTS = [
    "data/task.json",
    "data/folds.parquet",
    "data/rows.parquet",
    "scores/oof.parquet",
    "decision/rule.json",
    "decision/metrics.json",
    "folds/0/model/head.safetensors",
    "folds/0/model/tfidf.safetensors",
]


def stage_of(folder: Path, name: str) -> Path:
    parts = name.split("/")
    return folder.joinpath(*parts[: 2 if parts[0] == "folds" else 1])


def command_of(name: str, run: Path, broken: Path) -> list[object]:
    """The command that reads an artefact."""
    if name == "decision/metrics.json":
        return ["evaluate", broken]
    if name.endswith(".parquet"):
        return ["compare", broken, run]
    return ["predict", broken, run.parent / "data.csv", "--out", broken.parent / "p.csv"]


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_changed_artefact(name: str, run: Path, broken: Path, refused: Refuse) -> None:
    content = (broken / name).read_bytes()
    write(broken / name, content[: len(content) // 2])
    assert f"altered: {Path(name).name}" in refused(*command_of(name, run, broken)).replace("model/", "")


@pytest.mark.parametrize(
    "name",
    ARTEFACTS,
)
def test_a_changed_artefact_with_a_manifest_that_agrees(name: str, run: Path, broken: Path, refused: Refuse) -> None:
    content = (broken / name).read_bytes()
    write(broken / name, content[: len(content) // 2])
    sign(stage_of(broken, name))
    assert refused(*command_of(name, run, broken))


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: write(run / "data/manifest.json", "{"),
        lambda run: write(run / "decision/manifest.json", "[]"),
        lambda run: shutil.rmtree(run / "folds/1"),
        lambda run: shutil.rmtree(run / "folds"),
        lambda run: edit(run / "recipe.yaml", "- text", "- kind"),
        lambda run: write(run / "recipe.yaml", "name: ["),
        lambda run: (run / "recipe.yaml").unlink(),
        lambda run: (run / "decision/manifest.json").unlink(),
        lambda run: write(run / "data/new.txt", "new"),
    ],
    ids=range(9),
)
def test_a_damaged_run_does_not_predict(
    damage: Callable[[Path], object], run: Path, broken: Path, refused: Refuse
) -> None:
    damage(broken)
    assert refused("predict", broken, run.parent / "data.csv", "--out", broken.parent / "p.csv")


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_text("utf-8")
    assert old in content
    path.write_text(content.replace(old, new), "utf-8")


@pytest.mark.parametrize(
    "lost",
    [
        "folds/1",
        "scores",
        "decision",
        "report.html",
    ],
)
def test_a_lost_stage_is_made_again(lost: str, run: Path, broken: Path) -> None:
    if (broken / lost).is_dir():
        shutil.rmtree(broken / lost)
    else:
        (broken / lost).unlink()
    assert main(["fit", str(run.parent / "data.csv"), *QUICK, "--out", str(broken)]) == 0
    for name in ("folds/1/held_out.parquet", "scores/oof.parquet", "decision/rule.json"):
        assert (broken / name).read_bytes() == (run / name).read_bytes()
