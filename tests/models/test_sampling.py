from __future__ import annotations

from pathlib import Path

import polars as pl

from fivefold.cli import main
from fivefold.data.demo import demo
from fivefold.models.generator.sampling import NEXT, Sampler
from fivefold.pipeline.fit import fit_unpublished as fit
from fivefold.pipeline.generate import ROWS


def test_texts_are_drawn_by_seed(folders: dict[str, Path]) -> None:
    sampler = Sampler(str(folders["llama"]), "Go on {", 6, 1.0, 1.0, "no", "fp32", batch=2)
    examples = [["one </s> two", "three"], ["four"], ["five", "six"]]
    first = sampler.write(examples, 1)
    assert len(first) == 3
    assert sampler.write(examples, 1) == first
    assert sampler.write(examples, 2) != first


def test_what_follows_a_text_is_cut() -> None:
    assert NEXT.sub("", "\nA text.\n### Still it.\n\nText 6:\nanother") == "\nA text.\n### Still it."


def test_the_command_writes_rows(folders: dict[str, Path], tmp_path: Path) -> None:
    demo("tweets", 60, seed=0).write_csv(tmp_path / "train.csv")
    fit({"data": {"train": str(tmp_path / "train.csv")}, "folds": {"count": 2}}, out=tmp_path / "run")
    command = ["generate", str(tmp_path / "run"), "--backbone", str(folders["llama"]), "--count", "3", "--tokens", "8"]
    assert main([*command, "--out", str(tmp_path / "made")]) == 0
    assert pl.read_parquet(tmp_path / "made" / ROWS).height == 3
    assert main([*command, "--out", str(tmp_path / "made")]) == 2
    assert main([*command, "--temperature", "0", "--out", str(tmp_path / "other")]) == 2
