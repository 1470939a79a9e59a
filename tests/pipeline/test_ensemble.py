from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from fivefold import FivefoldClassifier
from fivefold.data.demo import demo
from fivefold.errors import ArtefactError, RunError
from fivefold.pipeline import ensemble as ensemble_module
from fivefold.pipeline import fit as fit_module
from fivefold.pipeline import prepare as prepare_module
from fivefold.pipeline.compare import compare_runs, evaluate_run
from fivefold.pipeline.fit import fit, fit_unpublished
from fivefold.pipeline.inspect import describe_recipe
from fivefold.pipeline.predict import FORMS, predict_file
from fivefold.pipeline.publish import learning, model_facts, publish
from fivefold.pipeline.run import Run, load
from fivefold.pipeline.store import digests
from fivefold.recipe import build_recipe

WORDS = {"model": {"char_ngrams": None}}
CHARS = {"model": {"solver": "svm", "word_ngrams": None, "char_ngrams": [2, 3]}}
TREES = {"model": {"solver": "boosting", "char_ngrams": None, "trees": 3, "leaves": 4}}
RECIPE = {"name": "two", "folds": {"count": 3}, "ensemble": {"members": {"words": WORDS, "chars": CHARS}}}


@pytest.fixture(scope="module")
def run(tweets: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    test = tweets.select("id", "text").head(20)
    return fit(RECIPE, tweets, test=test, out=tmp_path_factory.mktemp("ensemble") / "run")


def bytes_of_results(folder: Path) -> dict[str, bytes]:
    files = [*folder.rglob("scores/oof.*"), *folder.glob("predictions/*"), *folder.glob("ensemble/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "manifest.json"}


def test_members_are_runs_on_the_same_rows_and_folds(run: Run) -> None:
    assert list(run.members) == ["words", "chars"]
    for name, member in run.members.items():
        np.testing.assert_array_equal(member.folds.fold, run.folds.fold)
        assert member.out_of_fold.scores.ids.tolist() == run.out_of_fold.scores.ids.tolist()
        assert load(member.folder).recipe.name == f"two: {name}"
        assert not (member.folder / "predictions").exists()
    difference = compare_runs(run.folder, run.members["words"].folder)
    assert difference.low <= difference.difference <= difference.high


def test_the_data_is_read_once(tweets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(prepare_module, "read_source", lambda source: read.append(source) or source)
    fit_unpublished(RECIPE, tweets.head(90), out=tmp_path / "run")
    assert len(read) == 1


def test_weights_are_a_mixture_that_no_judged_row_chose(run: Run) -> None:
    assert sum(run.weights.values()) == pytest.approx(1)
    assert min(run.weights.values()) >= 0
    plain = json.loads((run.folder / "ensemble/weights.json").read_text("utf-8"))
    rows, members = run.out_of_fold, [member.out_of_fold.scores for member in run.members.values()]
    assert plain["cross_fitted"].keys() == {"0", "1", "2"}
    for fold, weights in plain["cross_fitted"].items():
        held_out = rows.folds == int(fold)
        expected = sum(m.probabilities()[held_out] * w for m, w in zip(members, weights, strict=True))
        np.testing.assert_allclose(rows.scores.probabilities()[held_out], expected, atol=1e-5)


def test_the_mixture_has_less_log_loss_than_its_members(run: Run) -> None:
    own = run.evaluation.estimates["log_loss"].value
    assert own < max(member.evaluation.estimates["log_loss"].value for member in run.members.values())


def test_new_rows_are_scored_by_the_members_models(run: Run, tweets: pl.DataFrame) -> None:
    loaded = load(run.folder)
    rows = tweets.select("id", "text").head(20)
    members = [member.scores(rows).probabilities() for member in map(load, (m.folder for m in run.members.values()))]
    expected = sum(p * w for p, w in zip(members, run.weights.values(), strict=True))
    np.testing.assert_allclose(loaded.scores(rows).probabilities(), expected, atol=1e-5)
    assert len(loaded.models) == 6
    stored = pl.read_csv(run.folder / "predictions/test.csv")
    assert stored.equals(loaded.predict(rows).with_columns(pl.exclude("id").cast(pl.Int64)))


def test_a_member_without_weight_is_not_run(run: Run, tweets: pl.DataFrame) -> None:
    alone = Run.open(run.folder)
    alone.__dict__["weights"] = {"words": 0.0, "chars": 1.0}
    expected = load(run.members["chars"].folder).scores(tweets.head(9)).probabilities()
    np.testing.assert_allclose(alone.scores(tweets.head(9)).probabilities(), expected, atol=1e-5)
    assert len(alone.models) == 3
    assert "models" not in alone.members["words"].__dict__


def test_files_are_predicted_and_judged(run: Run, tweets: pl.DataFrame, tmp_path: Path) -> None:
    assert predict_file(run.folder, tweets.head(5), tmp_path / "p.csv", FORMS["probabilities"]) == 5
    seen = evaluate_run(run.folder, tweets)
    assert seen.headline.value > evaluate_run(run.folder).headline.value


def test_the_report_names_members_and_weights(run: Run) -> None:
    page, card = ((run.folder / name).read_text("utf-8") for name in ("report.html", "README.md"))
    for name, member in run.members.items():
        headline = member.evaluation.headline
        for text in (page, card):
            assert name in text
            assert f"{run.weights[name]:.2f}" in text
            assert f"{headline.value:.3f}" in text
            assert f"{headline.low:.3f} to {headline.high:.3f}" in text
    assert 'id="features"' in page
    assert publish(run.members["words"].folder, {}).is_file()


def test_a_stopped_ensemble_continues_to_the_same_bytes(
    run: Run, tweets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> Run:
        return fit_unpublished(RECIPE, tweets, test=tweets.select("id", "text").head(20), out=tmp_path / "run")

    def stopped(module: object, name: str, call: int) -> None:
        calls, original = [], getattr(module, name)

        def stop(*arguments: object) -> object:
            calls.append(name)
            if len(calls) == call:
                raise KeyboardInterrupt
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            with pytest.raises(KeyboardInterrupt):
                again()

    stopped(ensemble_module, "share_data", 1)
    stopped(fit_module, "decide", 1)
    stopped(fit_module, "gather", 1)
    first = (tmp_path / "run/members/words/scores/oof.parquet").stat().st_mtime_ns
    stopped(ensemble_module, "weigh", 1)
    stopped(ensemble_module, "mix_out_of_fold", 1)
    stopped(fit_module, "decide", 1)
    stopped(fit_module, "predict_test", 1)
    assert bytes_of_results(again().folder) == bytes_of_results(run.folder)
    assert (tmp_path / "run/members/words/scores/oof.parquet").stat().st_mtime_ns == first


def test_what_is_lost_of_a_member_is_fitted_again(run: Run, tweets: pl.DataFrame, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/members/words/folds/1")
    with pytest.raises(RunError, match="resumes"):
        load(tmp_path / "run")
    again = fit_unpublished(RECIPE, tweets, test=tweets.select("id", "text").head(20), out=tmp_path / "run")
    assert bytes_of_results(again.folder) == bytes_of_results(run.folder)


def test_damage_is_found(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run/ensemble/weights.json").write_text("{}", "utf-8")
    with pytest.raises(ArtefactError, match="changed after it was written"):
        load(tmp_path / "run")


def test_other_members_are_another_run(run: Run, tweets: pl.DataFrame) -> None:
    other = RECIPE | {"ensemble": {"members": {"words": WORDS, "chars": WORDS}}}
    with pytest.raises(RunError, match="another recipe"):
        fit_unpublished(other, tweets, test=tweets.select("id", "text").head(20), out=run.folder)


@pytest.mark.parametrize(("shape", "third"), [("preferences", CHARS), ("products", {}), ("topics", TREES)])
def test_other_tasks_and_three_members(shape: str, third: dict, tmp_path: Path) -> None:
    frame = demo(shape, 100, seed=0)
    three = {"members": {"words": WORDS, "all": {"objective": {"class_weights": "balanced"}}, "third": third}}
    recipe = {"folds": {"count": 2}, "model": {"char_ngrams": [2, 3]}, "ensemble": three}
    run = fit_unpublished(recipe, frame, out=tmp_path / "run")
    assert run.predict(frame.head(7)).height == 7
    assert np.isfinite(run.out_of_fold.scores.logits).all()


def test_a_single_hold_out(tweets: pl.DataFrame, tmp_path: Path) -> None:
    run = fit_unpublished(RECIPE | {"folds": {"count": 3, "only": 1}}, tweets, out=tmp_path / "run")
    plain = json.loads((run.folder / "ensemble/weights.json").read_text("utf-8"))
    assert plain["cross_fitted"].keys() == {"0", "1"}
    assert len(run.models) == 2


def test_a_preset_from_python(tweets: pl.DataFrame, tmp_path: Path) -> None:
    run = fit_unpublished({"folds": {"count": 2}}, tweets.head(90), preset="fast", out=tmp_path / "run")
    assert run.recipe.model.family == "linear"
    assert run.recipe.ensemble is None


def test_scikit_learns_estimator_fits_ensembles(tweets: pl.DataFrame) -> None:
    texts, joy = tweets["text"].to_list(), tweets["joy"].to_numpy()
    classifier = FivefoldClassifier({"ensemble": RECIPE["ensemble"]}, folds=2).fit(texts, joy)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(texts[:5]), classifier.predict_proba(texts[:5]))


def test_an_inferred_recipe_keeps_its_members(tweets: pl.DataFrame, tmp_path: Path) -> None:
    tweets.head(60).write_csv(tmp_path / "t.csv")
    asked = build_recipe({"data": {"train": str(tmp_path / "t.csv")}}, preset="balanced")
    plain = yaml.safe_load(describe_recipe(asked))
    assert "model" not in plain
    assert plain["ensemble"]["members"]["linear"] == {"model": {"family": "linear"}}
    assert plain["ensemble"]["members"]["minilm"]["model"] == {"family": "encoder"}
    assert build_recipe(plain).member("minilm") == asked.member("minilm").model_copy(
        update={"data": build_recipe(plain).data, "task": build_recipe(plain).task}
    )


def test_learning_curves_and_choices_of_a_network_are_reported(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    lines = [{"step": 1, "epoch": 1.0, "loss": 0.5, "rate": 0.1}, {"step": 1, "epoch": 1.0, "score": 0.3}]
    for fold in range(3):
        stage = tmp_path / f"run/members/chars/folds/{fold}"
        (stage / "learning.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        (stage / "manifest.json").write_text(json.dumps(digests(stage)), "utf-8")
    copied = Run.open(tmp_path / "run")
    assert {name: len(curves) for name, curves in learning(copied).items()} == {"chars": 3}
    assert learning(run) == {}
    net = build_recipe({"model": {"family": "encoder", "pooling": "cls"}, "training": {"epochs": 2}})
    assert model_facts(net) == {"Model": "encoder, pooling cls", "Training": "epochs 2.0"}
    (stage / "learning.jsonl").write_text("{", "utf-8")
    (stage / "manifest.json").write_text(json.dumps(digests(stage)), "utf-8")
    with pytest.raises(ArtefactError, match=r"learning\.jsonl can't be read"):
        learning(Run.open(tmp_path / "run"))
