from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.models.tiny_decoders import save_decoder

from fivefold import cli
from fivefold.cli import main
from fivefold.data.demo import demo
from fivefold.errors import RecipeError, RunError
from fivefold.evaluation.intervals import Difference
from fivefold.models.backbones.adapters import read_tensors
from fivefold.pipeline import average
from fivefold.pipeline.average import average_run, render
from fivefold.pipeline.candidates import WAYS
from fivefold.pipeline.compare import evaluate_run
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.judging import Judge, Way, judging_rows
from fivefold.pipeline.run import Run

pytestmark = pytest.mark.usefixtures("fp32")

TRAIN, FRESH = demo("preferences", 48, seed=3), demo("preferences", 30, seed=11)
SWAP = {"fields": [["response_a", "response_b"]], "target": "winner", "classes": {"a": "b", "b": "a"}}


def recipe(backbone: Path, adapter_from: Path | None = None, **adapter: Any) -> dict[str, Any]:
    return {
        "data": {"text": ["prompt", "response_a", "response_b"], "id": "id"},
        "task": {"categorical": {"winner": ["a", "b", "tie"]}, "swap": SWAP},
        "folds": {"count": 3},
        "model": {"family": "decoder", "backbone": str(backbone), "max_tokens": 96, "adapter": {"rank": 4, **adapter}},
        "training": {"epochs": 1, "learning_rate": 3e-3, "batch_size": 16}
        | ({} if adapter_from is None else {"adapter_from": str(adapter_from)}),
    }


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def fitted(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    TRAIN.write_csv(folder / "train.csv")
    made = recipe(backbone)
    made["data"]["train"] = str(folder / "train.csv")
    return fit_unpublished(made, out=folder / "folds").folder


def test_three_ways_beside_the_ensemble(fitted: Path, tmp_path: Path) -> None:
    found = average_run(fitted, tmp_path / "one", FRESH, accept=True)
    assert [way.name for way in found.ways] == ["factors", "exact", "rank"]
    factors, exact, rank = found.ways
    assert (factors.rank, exact.rank, rank.rank) == (4, 12, 4)
    assert exact.error < 1e-5 < rank.error <= factors.error
    assert found.ensemble.value == pytest.approx(evaluate_run(fitted, FRESH).headline.value, abs=1e-6)
    chosen = next(way for way in found.ways if way.name == found.chosen)
    assert chosen.estimate.value == min(way.estimate.value for way in found.ways)
    run = Run.load(tmp_path / "one")
    assert len(run.models) == 1
    assert evaluate_run(run.folder).headline.value == pytest.approx(chosen.estimate.value, abs=1e-6)
    assert evaluate_run(run.folder, FRESH).headline.value == pytest.approx(chosen.estimate.value, abs=1e-6)
    assert json.loads((run.folder / "average" / "ways.json").read_text())["chosen"] == found.chosen
    assert f"→ {found.chosen}" in render(found)
    assert "30 rows that no fold saw" in render(found)


def test_the_exact_mean_is_the_mean_of_what_the_folds_add(fitted: Path, tmp_path: Path) -> None:
    average_run(fitted, tmp_path / "one", FRESH, way="exact", accept=True)
    run = Run.load(fitted)
    folds = [read_tensors(run.store.path(f"folds/{fold}") / "model") for fold in range(3)]
    mean = read_tensors(tmp_path / "one" / "average" / "model")
    first = next(name for name in mean if name.endswith("lora_A.weight"))
    second = first.replace("lora_A", "lora_B")
    added = [32 / 4 * fold[second] @ fold[first] for fold in folds]
    config = json.loads((tmp_path / "one" / "average" / "model" / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    np.testing.assert_allclose(scale * mean[second] @ mean[first], np.mean(added, axis=0), atol=1e-5)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("held", ["auto", "nf4", "int8"])
def test_a_merged_average_says_the_same(backbone: Path, tmp_path: Path, weights: str, held: str) -> None:
    quick = recipe(backbone)
    quick["model"]["weights"] = held
    quick["folds"] = {"count": 2}
    folder = fit_unpublished(quick, TRAIN, out=tmp_path / "folds").folder
    plain = average_run(folder, tmp_path / "plain", FRESH, way="rank", accept=True)
    average_run(folder, tmp_path / "merged", FRESH, way="rank", accept=True, weights=weights)
    assert not (tmp_path / "merged" / "average" / "model" / "adapter_config.json").exists()
    one, whole = (Run.load(path).predict_proba(FRESH) for path in (plain.folder, tmp_path / "merged"))
    tolerance = 1e-3 if weights == "fp32" and held != "int8" else 0.05
    for name in ("winner=a", "winner=b", "winner=tie"):
        np.testing.assert_allclose(whole[name], one[name], atol=tolerance)


def test_a_merge_that_says_something_else_is_refused(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(average, "PARITY", dict.fromkeys(average.PARITY, -1.0))
    with pytest.raises(Exception, match="doesn't score as the adapter does"):
        average_run(fitted, tmp_path / "one", FRESH, weights="fp32", accept=True)


def test_a_worse_average_is_refused_unless_accepted(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "is_worse", lambda judge, way: True)
    with pytest.raises(RunError, match=r"worse than the ensemble(.|\n)*--accept"):
        average_run(fitted, tmp_path / "one", FRESH)
    assert not (tmp_path / "one" / "average").exists()
    assert average_run(fitted, tmp_path / "one", FRESH, accept=True).folder == tmp_path / "one"


def test_without_rows_of_its_own_the_caveat_is_said(fitted: Path, tmp_path: Path) -> None:
    found = average_run(fitted, tmp_path / "one", way="factors", accept=True)
    assert "which nearly all folds saw" in render(found)
    assert Run.load(tmp_path / "one").evaluation == Run.load(fitted).evaluation
    with pytest.raises(RunError, match="48 of 48 rows have the texts of a training row"):
        average_run(fitted, tmp_path / "two", TRAIN)


def test_what_has_no_adapters_is_refused(tmp_path: Path) -> None:
    run = fit_unpublished({"folds": {"count": 2}}, demo("tweets", 60, seed=1), out=tmp_path / "linear")
    with pytest.raises(RunError, match=r"no adapters of folds(.|\n)*family 'linear'"):
        average_run(run.folder, tmp_path / "one")


def test_a_folder_that_holds_another_average_is_refused_before_anything_is_scored(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    average_run(fitted, tmp_path / "one", FRESH, way="factors", accept=True)
    assert average_run(fitted, tmp_path / "one", FRESH, way="factors", accept=True).chosen == "factors"
    with monkeypatch.context() as patched:
        patched.setattr(average, "make_ways", None)
        with pytest.raises(RunError, match="--overwrite"):
            average_run(fitted, tmp_path / "one", FRESH, way="rank", accept=True)
    assert average_run(fitted, tmp_path / "one", FRESH, way="rank", accept=True, overwrite=True).chosen == "rank"
    assert (cli.WAYS, cli.MERGED) == (WAYS, average.MERGED)


@pytest.mark.parametrize(
    ("metric", "low", "high", "worse"),
    [
        ("log_loss", 0.01, 0.02, True),
        ("log_loss", -0.01, 0.02, False),
        ("log_loss", -0.02, -0.01, False),
        ("accuracy", -0.02, -0.01, True),
        ("accuracy", -0.02, 0.01, False),
        ("accuracy", 0.01, 0.02, False),
    ],
)
def test_worse_is_an_interval_on_the_wrong_side(
    fitted: Path, metric: str, low: float, high: float, worse: bool
) -> None:
    run = Run.load(fitted)
    judge = Judge(run, judging_rows(run, FRESH))
    judge.metric = metric
    gap = Difference(metric, (low + high) / 2, low, high, share_better=0.5, p_value=1.0)
    steps = {"better": 0.1, "other": -0.1} if metric == "accuracy" else {"other": 0.1, "better": -0.1}
    value = judge.ensemble_estimate.value
    ways = [
        Way(name, 4, 0.0, 0.1, replace(judge.ensemble_estimate, value=value + step), gap)
        for name, step in steps.items()
    ]
    assert min(ways, key=judge.loss).name == "better"
    assert judge.is_worse(ways[0]) is worse


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"way": "mean"}, "factors, exact, rank"),
        ({"weights": "nf4"}, "fp32, bf16"),
        ({"way": "exact", "rank": 2}, "rank"),
    ],
)
def test_choices_that_are_not_there(fitted: Path, tmp_path: Path, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said):
        average_run(fitted, tmp_path / "one", FRESH, **choices)


def test_a_merged_run_reads_no_key_of_training_layers(backbone: Path, tmp_path: Path) -> None:
    layered = recipe(backbone)
    layered["folds"] = {"count": 2}
    layered["training"] |= {"layer_decay": 0.9, "gradient_checkpointing": True}
    folder = fit_unpublished(layered, TRAIN, out=tmp_path / "folds").folder
    average_run(folder, tmp_path / "one", FRESH, weights="fp32", accept=True)
    assert Run.load(tmp_path / "one").predict(FRESH).height == 30
    with pytest.raises(RunError, match="average of folds"):
        _ = Run.load(tmp_path / "one").out_of_fold


def test_the_command(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRESH.write_csv(tmp_path / "fresh.csv")
    arguments = ["average", str(fitted), str(tmp_path / "fresh.csv"), "--out", str(tmp_path / "one"), "--accept"]
    assert main([*arguments, "--way", "rank", "--rank", "2", "--merge", "fp32"]) == 0
    assert "ensemble" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "one"), str(tmp_path / "fresh.csv"), "--out", str(tmp_path / "p.csv")]) == 0
    assert pl.read_csv(tmp_path / "p.csv").height == 30
    assert main([*arguments, "--rank", "99", "--overwrite"]) == 2
    assert "1 to 12" in capsys.readouterr().err


def test_an_adapter_begins_where_another_ended(backbone: Path, tmp_path: Path) -> None:
    first = recipe(backbone)
    first["folds"] = {"count": 3, "only": 0}
    before = fit_unpublished(first, FRESH, out=tmp_path / "before").folder
    again = recipe(backbone, adapter_from=before)
    again["training"] |= {"learning_rate": 1e-12, "head_learning_rate": 1e-3}
    run = fit_unpublished(again, TRAIN, out=tmp_path / "after")
    old = read_tensors(before / "folds" / "0" / "model")
    for fold in range(3):
        new = read_tensors(run.store.path(f"folds/{fold}") / "model")
        for name, tensor in old.items():
            if "lora_" in name:
                np.testing.assert_allclose(new[name], tensor, atol=1e-6)
        assert not np.allclose(new["base_model.model.score.weight"], old["base_model.model.score.weight"])
    with pytest.raises(RecipeError, match="without such an adapter"):
        fit_unpublished(recipe(backbone, adapter_from=before, alpha=7), TRAIN, out=tmp_path / "other")


def test_an_adapter_that_knows_held_out_rows_is_refused(backbone: Path, fitted: Path, tmp_path: Path) -> None:
    for name, frame in (("train", TRAIN), ("both", pl.concat([TRAIN.head(5), FRESH]).drop("id"))):
        frame.write_csv(tmp_path / f"{name}.csv")
    first = recipe(backbone)
    first["folds"] = {"count": 3, "only": 0}
    first["data"] |= {"train": str(tmp_path / "both.csv"), "id": None}
    before = fit_unpublished(first, out=tmp_path / "before").folder
    again = recipe(backbone, adapter_from=before)
    with pytest.raises(RecipeError, match=r"5 rows of 48(.|\n)*data.exclude"):
        fit_unpublished(again, TRAIN, out=tmp_path / "after")
    first["data"]["exclude"] = str(tmp_path / "train.csv")
    clean = fit_unpublished(first, out=tmp_path / "clean")
    assert clean.rows.height == 30
    assert (
        fit_unpublished(recipe(backbone, adapter_from=clean.folder), TRAIN, out=tmp_path / "next").evaluation.rows == 48
    )
    with pytest.raises(RecipeError, match=r"adapter a fold(.|\n)*fivefold average"):
        fit_unpublished(recipe(backbone, adapter_from=fitted), FRESH, out=tmp_path / "several")
