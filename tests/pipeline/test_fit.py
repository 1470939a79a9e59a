from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.conftest import QUICK

from fivefold.data.demo import demo
from fivefold.errors import ArtefactError, FivefoldError, RunError
from fivefold.pipeline import fit as fit_module
from fivefold.pipeline.compare import compare_runs, evaluate_run, render, render_difference
from fivefold.pipeline.fit import fit
from fivefold.pipeline.publish import publish, training_texts
from fivefold.pipeline.run import Run, load
from fivefold.pipeline.trained import trained_rows
from fivefold.scores import Scores


@pytest.fixture(autouse=True)
def _without_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most fits here need no report, which takes longer to draw than a small fit."""
    if "report" not in request.node.name and "complete" not in request.node.name:
        monkeypatch.setattr(fit_module, "publish", lambda *_: None)


def bytes_of_scores(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("scores/oof.*"), *folder.glob("predictions/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "manifest.json"}


def test_a_run_folder_is_complete_by_itself(tweets_run: Run) -> None:
    folder = tweets_run.folder
    for name in (
        "run.json",
        "recipe.yaml",
        "report.html",
        "README.md",
        "decision/rule.json",
        "scores/oof.parquet",
        "data/check.json",
    ):
        assert (folder / name).is_file(), name
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert suffixes <= {".json", ".yaml", ".parquet", ".safetensors", ".csv", ".html", ".md", ".png", ".svg"}
    assert not list(folder.rglob("*.partial"))


def test_out_of_fold_scores_cover_every_row_once(tweets_run: Run, tweets: pl.DataFrame) -> None:
    rows = tweets_run.out_of_fold
    assert rows.scores.ids.tolist() == tweets["id"].to_list()
    assert sorted(set(rows.folds.tolist())) == [0, 1, 2]
    np.testing.assert_array_equal(rows.labels.column("joy"), tweets["joy"].to_numpy())


def test_a_held_out_row_is_scored_by_the_model_that_did_not_see_it(tweets_run: Run, tweets: pl.DataFrame) -> None:
    rows = tweets_run.out_of_fold
    frame = tweets_run.read(tweets)
    for fold, model in enumerate(tweets_run.models):
        alone = Run(tweets_run.store)
        alone.__dict__["models"] = (model,)
        held_out = rows.folds == fold
        expected = alone.scores(frame.filter(pl.Series(held_out)))
        np.testing.assert_allclose(expected.logits, rows.scores.logits[held_out], atol=1e-3)


def test_the_same_recipe_gives_the_same_bytes(tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path) -> None:
    again = fit(QUICK | {"name": "tweets"}, tweets, test=tweets.select("id", "text").head(20), out=tmp_path / "again")
    assert bytes_of_scores(again.folder) == bytes_of_scores(tweets_run.folder)


def test_a_stopped_run_continues_to_the_same_bytes(
    tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def again() -> Run:
        test = tweets.select("id", "text").head(20)
        return fit(QUICK | {"name": "tweets"}, tweets, test=test, out=tmp_path / "run")

    for stage in ("fit_folds", "gather", "decide", "predict_test", "publish"):
        with monkeypatch.context() as patch:
            patch.setattr(fit_module, stage, stop)
            with pytest.raises(KeyboardInterrupt):
                again()
    assert bytes_of_scores(again().folder) == bytes_of_scores(tweets_run.folder)


@pytest.mark.parametrize("shape", ["narratives", "preferences", "products", "topics"])
def test_every_shape_fits_from_its_table_alone(shape: str, tmp_path: Path) -> None:
    frame = demo(shape, 240, seed=0)
    run = fit(QUICK, frame, test=frame.head(7), out=tmp_path / "run")
    assert run.predict(frame.head(7)).height == 7
    headline = run.evaluation.headline
    assert headline.low <= headline.value <= headline.high


def test_swapping_a_pair_swaps_its_probabilities(tmp_path: Path) -> None:
    frame = demo("preferences", 240, seed=0)
    run = fit(QUICK, frame, out=tmp_path / "run")
    other = frame.rename({"response_a": "response_b", "response_b": "response_a"})
    straight, swapped = run.predict_proba(frame), run.predict_proba(other)
    np.testing.assert_allclose(straight["winner=a"], swapped["winner=b"], atol=1e-6)
    np.testing.assert_allclose(straight["winner=tie"], swapped["winner=tie"], atol=1e-6)


def test_a_row_scores_alike_alone_and_among_others(tweets_run: Run, tweets: pl.DataFrame) -> None:
    together = tweets_run.scores(tweets.head(9)).logits
    alone = np.concatenate([tweets_run.scores(tweets[row]).logits for row in range(9)])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_extra_rows_are_trained_on_and_never_scored(tweets: pl.DataFrame, tmp_path: Path) -> None:
    extra = tmp_path / "extra.csv"
    tweets.head(40).with_columns(pl.col("id") + "-extra", pl.col("text") + " indeed").write_csv(extra)
    run = fit(QUICK | {"data": {"extra": str(extra)}}, tweets, out=tmp_path / "run")
    assert len(run.out_of_fold.scores) == tweets.height
    figures = json.loads((run.folder / "folds/0/history.json").read_text())
    assert figures["rows"] == tweets.height - (run.out_of_fold.folds == 0).sum() + 40


def test_a_run_without_a_folder_is_named_after_its_recipe(
    tweets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(QUICK | {"name": "a/b: c"}, tweets.head(90))
    assert run.folder == Path("runs/a-b-c")
    assert run.store.has("decision")


def test_hold_out_fits_one_fold(tweets: pl.DataFrame, tmp_path: Path) -> None:
    run = fit({**QUICK, "folds": {"count": 3, "only": 1}}, tweets, out=tmp_path / "run")
    assert len(run.models) == 1
    assert 95 <= run.evaluation.rows <= 105


def test_folds_are_reused_so_that_scores_align(tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path) -> None:
    reuse = {"count": 3, "reuse": str(tweets_run.folder)}
    other = fit({"model": {"char_ngrams": None}, "folds": reuse}, tweets, out=tmp_path / "other")
    np.testing.assert_array_equal(other.out_of_fold.folds, tweets_run.out_of_fold.folds)
    difference = compare_runs(tweets_run.folder, other.folder)
    assert difference.low <= difference.difference <= difference.high
    assert "A - B" in render_difference(difference)


def test_reused_folds_may_be_a_hold_out_and_say_what_they_cut(
    tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path
) -> None:
    one = {"count": 3, "only": 2, "reuse": str(tweets_run.folder)}
    grouped = tweets.with_columns(author=pl.Series([f"a{row // 30}" for row in range(tweets.height)]))
    run = fit({**QUICK, "folds": one, "data": {"group": "author"}}, grouped, out=tmp_path / "one")
    assert set(run.out_of_fold.folds) == {2}
    assert any("more than one fold" in sentence for sentence in run.folds.sentences)
    whole = fit({**QUICK, "folds": {"reuse": str(run.folder)}}, tweets, out=tmp_path / "whole")
    assert set(whole.out_of_fold.folds) == {0, 1, 2}


def test_runs_with_other_labels_are_not_compared(tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path) -> None:
    turned = tweets.with_columns(joy=1 - tweets["joy"])
    other = fit({**QUICK, "folds": {"count": 3}}, turned, out=tmp_path / "turned")
    with pytest.raises(RunError, match="other labels"):
        compare_runs(tweets_run.folder, other.folder)


def test_rows_are_read_again_only_if_they_are_the_same(tweets: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    tweets.head(120).write_csv(path)
    run = fit({**QUICK, "data": {"replace": [["the", "THE"]]}}, str(path), out=tmp_path / "run")
    assert trained_rows(run).height == 120
    assert any("THE" in text for text in training_texts(run).values())
    for changed in (tweets.head(119), tweets.head(120).with_columns(joy=1 - pl.col("joy"))):
        changed.write_csv(path)
        with pytest.raises(RunError, match="any more"):
            trained_rows(run)
        assert training_texts(run) == {}
    given = fit({**QUICK, "data": {"train": str(path)}}, tweets.head(90), out=tmp_path / "given")
    with pytest.raises(RunError, match="given in Python"):
        trained_rows(given)


def test_a_given_fold_column(tweets: pl.DataFrame, tmp_path: Path) -> None:
    folds = pl.Series("fold", ["x", "y", None] * 100)
    recipe = {"model": QUICK["model"], "data": {"fold": "fold"}}
    run = fit(recipe, tweets.with_columns(folds), out=tmp_path / "run")
    assert run.evaluation.rows == 200
    authors = pl.Series("author", [f"a{row // 30}" for row in range(300)])
    recipe["data"] = {"fold": "fold", "group": "author"}
    cut = fit(recipe, tweets.with_columns(folds, authors), out=tmp_path / "cut")
    assert any("more than one fold" in sentence for sentence in cut.folds.sentences)


def test_near_duplicates_stay_together(tweets: pl.DataFrame, tmp_path: Path) -> None:
    twice = pl.concat([tweets.head(100), tweets.head(100).with_columns(pl.col("id") + "-copy")])
    run = fit({**QUICK, "folds": {"count": 2, "near_duplicates": 0.8}}, twice, out=tmp_path / "run")
    folds = run.out_of_fold.folds
    np.testing.assert_array_equal(folds[:100], folds[100:])


@pytest.mark.parametrize("solver", ["svm", "boosting"])
def test_other_solvers(solver: str, tmp_path: Path) -> None:
    frame = demo("narratives", 200, seed=0)
    small = {"trees": 5} if solver == "boosting" else {}
    run = fit(
        {"model": {"solver": solver, "char_ngrams": None, **small}, "folds": {"count": 2}}, frame, out=tmp_path / "r"
    )
    probabilities = run.predict_proba(frame.head(5)).drop("id").to_numpy()
    assert np.isfinite(probabilities).all()
    assert run.evaluation.headline.value > 0.2


@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_calibration_travels_with_the_run(calibration: str, tmp_path: Path) -> None:
    frame = demo("topics", 240, seed=0)
    decision = {"calibration": calibration, "metric": "log_loss"}
    run = fit(QUICK | {"decision": decision}, frame, out=tmp_path / "run")
    reread = load(run.folder)
    np.testing.assert_array_equal(reread.predict_proba(frame).to_numpy(), run.predict_proba(frame).to_numpy())


def test_class_weights_change_what_is_learnt(tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path) -> None:
    balanced = fit(QUICK | {"objective": {"class_weights": "balanced"}}, tweets, out=tmp_path / "run")
    assert balanced.out_of_fold.scores.binary.mean() > tweets_run.out_of_fold.scores.binary.mean() + 0.2


def test_evaluation_on_a_labelled_table(tweets_run: Run, tweets: pl.DataFrame) -> None:
    seen = evaluate_run(tweets_run.folder, tweets)
    assert seen.headline.value > tweets_run.evaluation.headline.value
    assert "→ f1_macro" in render(seen)
    assert "cross-fitted" in render(tweets_run.evaluation)


def test_evaluation_on_a_table_draws_whole_groups(tweets: pl.DataFrame, tmp_path: Path) -> None:
    authors = tweets.with_columns(author=pl.int_range(pl.len()) // 3)
    run = fit(QUICK | {"data": {"group": "author"}}, authors, out=tmp_path / "run")
    many = pl.concat([authors.tail(60)] * 6).drop("id")
    grouped, alone = (evaluate_run(run.folder, table).headline for table in (many, many.drop("author")))
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)  # six times the rows say no more


def test_the_report_can_be_written_again(tweets_run: Run) -> None:
    (tweets_run.folder / "report.html").unlink()
    assert "f1" in publish(tweets_run.folder).read_text("utf-8").lower()


def test_plain_texts_are_predicted(tweets_run: Run) -> None:
    predicted = tweets_run.predict(["so happy today", ""])
    assert predicted["id"].to_list() == ["0", "1"]
    assert set(predicted["joy"].to_list()) <= {0, 1}
    assert tweets_run.scores([]).logits.shape == (0, 11)


def test_another_recipe_on_one_folder_is_refused_unless_overwritten(tweets: pl.DataFrame, tmp_path: Path) -> None:
    small = tweets.head(90)
    fit(QUICK, small, out=tmp_path / "run")
    with pytest.raises(RunError, match="--overwrite"):
        fit(QUICK | {"seed": 5}, small, out=tmp_path / "run")
    assert fit(QUICK | {"seed": 5}, small, out=tmp_path / "run", overwrite=True).recipe.seed == 5


def test_a_tampered_model_is_refused(tweets: pl.DataFrame, tmp_path: Path) -> None:
    run = fit(QUICK, tweets.head(90), out=tmp_path / "run")
    weights = next((run.folder / "folds/0/model").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match="changed after it was written"):
        load(run.folder)


def test_a_run_that_is_not_finished_says_so(
    tmp_path: Path, tweets: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "decide", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(QUICK, tweets.head(90), out=tmp_path / "run")
    with pytest.raises(RunError, match="no complete 'decision'"):
        load(tmp_path / "run")


def test_labels_missing_in_places(tweets: pl.DataFrame, tmp_path: Path) -> None:
    holes = tweets.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("joy")).alias("joy")
    )
    run = fit(QUICK, holes, out=tmp_path / "run")
    support = {line.target: line.support for line in run.evaluation.labels}
    assert support["joy"] == holes["joy"].sum()


def test_soft_labels(tweets: pl.DataFrame, tmp_path: Path) -> None:
    soft = tweets.with_columns(pl.col("joy") * 0.8 + 0.1)
    run = fit(QUICK | {"task": {"binary": ["joy", "anger"]}}, soft, out=tmp_path / "run")
    assert "joy" in run.out_of_fold.labels.soft
    assert run.out_of_fold.scores.probabilities().max() < 0.97


def test_a_label_without_positive_rows_does_not_stop_a_fit(tweets: pl.DataFrame, tmp_path: Path) -> None:
    run = fit(QUICK, tweets.with_columns(trust=pl.lit(0)), out=tmp_path / "run")
    assert any("trust" in sentence for sentence in run.folds.sentences)


def test_parity_is_checked_after_saving(tweets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fivefold.models.linear.classifier import LinearClassifier

    def forgetful(self: LinearClassifier, folder: Path) -> None:
        load_model(self, folder)
        assert self.features.tfidf is not None
        self.features.tfidf.idf[:] *= 2
        self.features.tfidf.idf[0] = 0

    load_model = LinearClassifier.load
    monkeypatch.setattr(LinearClassifier, "load", forgetful)
    with pytest.raises(FivefoldError, match="doesn't score as the fitted one"):
        fit(QUICK, tweets.head(90), out=tmp_path / "run")


def test_scores_on_disk_are_what_the_run_reads(tweets_run: Run) -> None:
    direct = Scores.load(tweets_run.folder / "scores/oof.parquet", tweets_run.task)
    assert direct.logits.tobytes() == tweets_run.out_of_fold.scores.logits.tobytes()
