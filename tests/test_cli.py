from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from fivefold.cli import main
from fivefold.data.demo import write_demo
from fivefold.pipeline.run import Run

QUICK = ["--set", "model.char_ngrams=null", "--set", "folds.count=2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_demo("tweets", tmp_path_factory.mktemp("data"), rows=160)


@pytest.fixture(scope="module")
def run(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["fit", str(files["train"]), *QUICK, "--out", str(folder)]) == 0
    return folder


def test_init_writes_a_recipe_that_fits(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert main(["init", str(files["train"]), "--out", str(recipe)]) == 0
    assert "# Labels: 11 binary" in recipe.read_text("utf-8")
    assert main(["check", str(recipe)]) == 0
    assert "rows checked" in capsys.readouterr().out
    assert main(["init", str(files["train"])]) == 0
    assert "binary:" in capsys.readouterr().out


def test_init_keeps_what_was_refused(files: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["init", str(files["train"]), "--set", "data.id=null"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["id"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [("enrichment.query=joy", "enrichment.query"), ("decision.metric=hierarchical_f1", "hierarchical_f1")],
)
def test_check_refuses_what_a_fit_would(
    change: str, said: str, files: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    assert main(["check", str(files["train"]), "--set", change]) == 2
    assert said in capsys.readouterr().err


def test_check_as_json(files: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(files["train"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 160


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_predict_writes_by_ending(run: Path, files: dict[str, Path], tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"predictions.{ending}"
    assert main(["predict", str(run), str(files["test"]), "--out", str(out)]) == 0
    frame = {
        "csv": pl.read_csv,
        "tsv": lambda path: pl.read_csv(path, separator="\t"),
        "jsonl": pl.read_ndjson,
        "parquet": pl.read_parquet,
    }[ending](out)
    assert frame.columns[:3] == ["id", "anger", "anticipation"]
    assert frame["id"].to_list() == pl.read_csv(files["test"])["id"].to_list()
    assert set(frame["anger"].to_list()) <= {0, 1}


def test_predicted_probabilities(run: Path, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert main(["predict", str(run), str(files["test"]), "--out", str(out), "--probabilities"]) == 0
    values = pl.read_csv(out).drop("id").to_numpy()
    assert ((values > 0) & (values < 1)).all()


def test_submission_has_the_training_files_columns(run: Path, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    assert main(["predict", str(run), str(files["test"]), "--out", str(out), "--submission"]) == 0
    labels = [name for name in pl.read_csv(files["train"]).columns if name not in ("id", "text")]
    assert pl.read_csv(out).columns == ["id", *labels]


def test_evaluate_compare_report(run: Path, files: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(run)]) == 0
    assert main(["evaluate", str(run), str(files["train"]), "--json"]) == 0
    assert main(["compare", str(run), str(run), "--metric", "f1_micro"]) == 0
    assert "A - B = +0.0000" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "topics", "--rows", "200", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "run/report.html").exists()
    assert (tmp_path / "run/predictions/test.csv").exists()
    assert main(["demo", "products", "--rows", "20", "--out", str(tmp_path / "d"), "--data-only"]) == 0
    assert not (tmp_path / "d/run").exists()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


GOOD = "id,text,label\n" + "".join(f"{i},some words number {i % 7} here,{'ab'[i % 2]}\n" for i in range(40))

BAD_FILES = {
    "empty": "",
    "header only": "text,label\n",
    "wrong delimiter": GOOD.replace(",", ";"),
    "unknown encoding": GOOD.encode("utf-8").replace(b"words", b"w\xf6rds"),
    "duplicate ids": GOOD.replace("\n1,", "\n0,"),
    "no label": "id,text\n1,some words here\n2,other words there\n",
    "one class": GOOD.replace(",b\n", ",a\n"),
    "fewer rows than folds": "text,label\nsome words,a\nother words,b\n",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_data_is_one_message_and_exit_code_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "data.csv", BAD_FILES[name])
    assert main(["fit", str(path), "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert message.count("fivefold: ") == 1
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.text=[missing]"], "missing"),
        (["data.id=nothing"], "nothing"),
        (["task.categorical={label: [a, c]}"], "'b' (20 times)"),
        (["model.C=-1", "folds.count=0", "seed=x", "data.tex=[a]", "decision.metric=f1"], "5 problems"),
        (["decision.metric=f1_samples"], "f1_samples"),
        (["model.min_df=900"], "min_df"),
        (["folds.method=grouped"], "group"),
    ],
)
def test_bad_recipes_are_one_message(
    changes: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write(tmp_path / "data.csv", GOOD)
    sets = [part for change in changes for part in ("--set", change)]
    assert main(["fit", str(path), "--out", str(tmp_path / "run"), *sets]) == 2
    assert words in capsys.readouterr().err


def test_odd_but_usable_data_fits(tmp_path: Path) -> None:
    rows = [("", "a"), ("word " * 200_000, "b"), ("NaN", "a"), ("plain words here", None)]
    rows += [(f"words number {i % 5}", "ab"[i % 2]) for i in range(20)]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows), "utf-8")
    assert main(["fit", str(path), *QUICK, "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "nowhere.csv", "--out", "x"], "nowhere.csv"),
        (["fit", "nowhere.yaml", "--out", "x"], "no recipe at"),
        (["predict", "nowhere", "data.csv", "--out", "p.csv"], "no run folder"),
        (["evaluate", "nowhere"], "no run folder"),
        (["report", "nowhere"], "no run folder"),
        (["compare", "nowhere", "elsewhere"], "no run folder"),
    ],
)
def test_things_that_are_not_there(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_predictions_with_an_unknown_ending(run: Path, files: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["predict", str(run), str(files["test"]), "--out", "p.xlsx"]) == 2
    assert ".parquet" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fivefold.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "init" in done.stdout
    for heavy in ("numpy", "polars", "sklearn", "numba", "pydantic"):
        assert f" {heavy}\n" not in done.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setattr(Run, "open", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", str(run)])
