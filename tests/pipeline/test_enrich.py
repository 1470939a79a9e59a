from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fivefold.cli import main

ROWS = pl.DataFrame({"id": ["1", "2", "3", "4"], "title": ["green tea", "olive oil", "GREEN  tea", ""]})
CATALOGUE = pl.DataFrame(
    {
        "name": ["Olive Oil", "green tea", "basmati rice", "green tea"],
        "about": ["pressed", "a drink", "a grain", "again"],
    }
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    ROWS.write_csv("rows.csv")
    CATALOGUE.write_csv("catalogue.csv")
    searched = ["--catalogue", "catalogue.csv", "--match", "name", "--take", "about"]
    return ["enrich", "rows.csv", *searched, "--query", "title"]


def test_a_table_is_enriched(command: list[str], sentence_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--neighbours", "1", "--backbone", str(sentence_encoder), "--field", "near", "--index", "flat"]
    assert main([*command, *options, "--out", "out/rows.csv"]) == 0
    found = pl.read_csv("out/rows.csv").with_columns(pl.col("near").fill_null(""))
    assert found.columns == [*ROWS.columns, "near", "near_similarity"]
    assert found["near"].to_list() == ["a drink", "pressed", "a drink", ""]
    assert found["near_similarity"].to_list()[:3] == pytest.approx([1, 1, 1], abs=1e-3)
    assert found["near_similarity"][3] is None
    printed = capsys.readouterr().out
    assert printed.startswith("3 of 4 rows have a neighbour; similarity of the nearest 1.00 / 1.00 / 1.00 (quartiles)")
    assert "→ " in printed
    assert "Table: out/rows.csv" in printed


def test_texts_are_inferred(command: list[str], sentence_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backbone", str(sentence_encoder), "--similarity", "0.99"]
    assert main([*command[:-2], *options, "--out", "rows.parquet"]) == 0
    assert "Table: rows.parquet" in capsys.readouterr().out
    assert pl.read_parquet("rows.parquet")["neighbours"].to_list() == ["a drink", "pressed", "a drink", ""]


WRONG = {
    "column": (["--match", "nam"], "did you mean 'name' instead of 'nam'?"),
    "similarity": (["--similarity", "3"], "enrichment.similarity: input should be less than or equal to 1. Got 3"),
    "query": (["--query", "titel"], "did you mean 'title' instead of 'titel'?"),
    "ending": (["--out", "rows.xlsx"], "A table can't be written as '.xlsx'"),
    "field": (["--field", "id"], "The table has a column 'id' already."),
    "votes": (["--take", "labels"], "take 'labels' are the votes of training rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told(case: str, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options, message = WRONG[case]
    assert main([*command, "--out", "rows.csv.out.csv", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("rows.csv.out.csv").exists()
