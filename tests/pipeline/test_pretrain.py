from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fivefold.data.demo import demo
from fivefold.errors import FivefoldError, RecipeError, RunError
from fivefold.models.pretraining.language_model import LanguageModelling
from fivefold.pipeline import fit as fit_module
from fivefold.pipeline.fit import fit_unpublished
from fivefold.pipeline.prepare import prepare
from fivefold.pipeline.pretrain import gather, pretrain, pretraining_texts
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe

ARCHITECTURE = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 48,
}
TRAINING = {"epochs": 1, "learning_rate": 1e-2, "precision": "fp32", "checkpoint_minutes": 0}
NAMES = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>"}


@pytest.fixture(autouse=True)
def _nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return demo("tweets", 60, seed=4).select("id", "text", "joy", "anger")


@pytest.fixture(scope="module")
def tokenizer(rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tokenizer that knows the words of the rows."""
    words = {word for text in rows["text"] for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text.lower())}
    vocabulary = {token: i for i, token in enumerate([*NAMES.values(), "zebra", *sorted(words - {"zebra"})])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("<cls>", "<sep>")]
    backend.post_processor = processors.TemplateProcessing(single="<cls> $A <sep>", special_tokens=ends)
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES).save_pretrained(folder)
    return folder


def plain_recipe(tokenizer: str, **sections: Any) -> dict[str, Any]:
    return {
        "seed": 5,
        "data": {"text": ["text"]},
        "task": {"binary": ["joy", "anger"]},
        "folds": {"count": 2},
        "model": {"family": "encoder", "architecture": ARCHITECTURE, "tokenizer": tokenizer},
        "training": TRAINING,
        "pretraining": {"training": TRAINING | {"epochs": 8, "learning_rate": 3e-3, "batch_size": 8}},
        **sections,
    }


@pytest.fixture(scope="module")
def run(rows: pl.DataFrame, tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose folds learnt next to nothing after a pretraining that learnt much."""
    recipe = plain_recipe(tokenizer, training=TRAINING | {"learning_rate": 1e-9, "weight_decay": 0})
    return fit_unpublished(recipe, rows, out=tmp_path_factory.mktemp("runs") / "run")


def weights(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(folder / "model.safetensors")


def test_all_folds_start_from_the_pretrained_backbone(run: Run) -> None:
    backbone = weights(run.folder / "backbone/model")
    for fold in (0, 1):
        own = weights(run.folder / f"folds/{fold}/model")
        for name, tensor in own.items():
            np.testing.assert_allclose(tensor, backbone[f"bert.{name}"], atol=1e-6)
    figures = json.loads((run.folder / "backbone/perplexity.json").read_text())
    assert figures["after"] < figures["before"]
    assert (run.folder / "backbone/learning.jsonl").stat().st_size
    assert not list(run.folder.glob(".*scratch"))
    assert "perplexity" in (run.folder / "backbone/learning.jsonl").read_text()


def test_a_killed_pretraining_continues_to_the_same_bytes(
    run: Run, rows: pl.DataFrame, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = LanguageModelling.losses, 0

    def stop_at_fifth(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return losses(*arguments)

    recipe = plain_recipe(tokenizer, training=TRAINING | {"learning_rate": 1e-9, "weight_decay": 0})
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelling, "losses", stop_at_fifth)
        with pytest.raises(KeyboardInterrupt):
            fit_unpublished(recipe, rows, out=tmp_path / "run")
    assert not (tmp_path / "run/backbone").exists()
    with monkeypatch.context() as patch:  # a second kill, between the stages
        patch.setattr(fit_module, "fit_folds", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit_unpublished(recipe, rows, out=tmp_path / "run")
    again = fit_unpublished(recipe, rows, out=tmp_path / "run")
    for name in ("backbone/model/model.safetensors", "backbone/learning.jsonl", "scores/oof.parquet"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes(), name


def test_a_backbone_alone_is_that_of_the_fit(run: Run, rows: pl.DataFrame, tokenizer: str, tmp_path: Path) -> None:
    recipe = build_recipe(plain_recipe(tokenizer))
    folder = pretrain(recipe, rows, out=tmp_path / "alone")
    assert folder == tmp_path / "alone/backbone/model"
    ours, theirs = weights(folder), weights(run.folder / "backbone/model")
    assert all(np.array_equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert pretrain(recipe, rows, out=tmp_path / "alone") == folder
    with pytest.raises(RunError, match="--overwrite"):
        pretrain(recipe.model_copy(update={"seed": 6}), rows, out=tmp_path / "alone")
    plain = plain_recipe(tokenizer, model={"family": "encoder", "backbone": str(folder)})
    del plain["pretraining"]
    other = fit_unpublished(plain | {"training": run.recipe.training.model_dump()}, rows, out=tmp_path / "other")  # type: ignore[union-attr]
    np.testing.assert_allclose(other.out_of_fold.scores.logits, run.out_of_fold.scores.logits, atol=1e-6)


def test_a_backbone_is_pretrained_on_texts_without_labels(rows: pl.DataFrame, tokenizer: str, tmp_path: Path) -> None:
    rows.select("id", "text").write_csv(tmp_path / "texts.csv")
    recipe = plain_recipe(tokenizer, data={"unlabelled": str(tmp_path / "texts.csv")}, task={})
    whole, texts = gather(build_recipe(recipe))
    assert whole.data.text == ["text"]
    assert sorted(texts) == sorted(rows["text"])


def test_excluded_texts_are_not_pretrained_on(rows: pl.DataFrame, tokenizer: str, tmp_path: Path) -> None:
    rows.head(2).select(text=pl.col("text").str.to_uppercase()).write_csv(tmp_path / "exclude.csv")
    pl.DataFrame({"text": ["one more", rows["text"][0] + " "]}).write_csv(tmp_path / "more.csv")
    data = {"text": ["text"], "unlabelled": str(tmp_path / "more.csv"), "exclude": str(tmp_path / "exclude.csv")}
    recipe = build_recipe(plain_recipe(tokenizer, data=data))
    _, texts = gather(recipe, rows)
    assert sorted(texts) == sorted(["one more", *rows["text"][2:]])
    assert sorted(pretraining_texts(prepare(recipe, rows))) == sorted(texts)


@pytest.mark.parametrize("allowed", [False, True])
def test_texts_of_the_test_rows_are_read_only_when_allowed(
    allowed: bool, rows: pl.DataFrame, tokenizer: str, tmp_path: Path
) -> None:
    pl.DataFrame({"text": ["an unlabelled one", None]}).write_csv(tmp_path / "more.csv")
    rows.head(3).with_columns(text=pl.lit("an extra one"), id="x" + pl.col("id")).write_csv(tmp_path / "extra.csv")
    data = {"text": ["text"], "unlabelled": str(tmp_path / "more.csv"), "extra": str(tmp_path / "extra.csv")}
    recipe = build_recipe(plain_recipe(tokenizer, data=data, pretraining={"test_texts": allowed}))
    test = pl.DataFrame({"text": ["a zebra of the test"]})
    texts = pretraining_texts(prepare(recipe, rows, test))
    assert {"an unlabelled one", "an extra one", rows["text"][0]} <= set(texts)
    assert ("a zebra of the test" in texts) == allowed


def test_unlabelled_text_is_part_of_the_fingerprint_where_it_is_read(
    rows: pl.DataFrame, tokenizer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fingerprint(text: str, **sections: Any) -> str:
        pl.DataFrame({"text": [text]}).write_csv(tmp_path / "more.csv")
        data = {"text": ["text"], "unlabelled": str(tmp_path / "more.csv")}
        return prepare(build_recipe(plain_recipe(tokenizer, data=data, **sections)), rows).fingerprint

    assert fingerprint("one") != fingerprint("two")
    ensemble = {"members": {"a": {}, "b": {"model": {"family": "linear"}}}}
    assert fingerprint("one", ensemble=ensemble) != fingerprint("two", ensemble=ensemble)
    assert "isn't read" not in caplog.text
    with caplog.at_level(logging.WARNING, "fivefold"):
        assert fingerprint("one", pretraining=None) == fingerprint("two", pretraining=None)
    assert "data.unlabelled isn't read" in caplog.text


def test_members_of_an_ensemble_are_pretrained(rows: pl.DataFrame, tokenizer: str, tmp_path: Path) -> None:
    short = TRAINING | {"epochs": 1}
    members = {
        "tiny": {"pretraining": {"test_texts": True, "training": short}},
        "plain": {"model": {"family": "linear"}},
    }
    recipe = plain_recipe(tokenizer, ensemble={"members": members})
    del recipe["pretraining"]
    run = fit_unpublished(recipe, rows, test=rows.select("id", "text").head(5), out=tmp_path / "run")
    assert (run.folder / "members/tiny/backbone/model/config.json").is_file()
    assert not (run.folder / "members/plain/backbone").exists()
    assert run.predict(rows.head(3)).height == 3


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"model": {"family": "linear"}}, RecipeError, "'linear' has no backbone"),
        ({"ensemble": {"members": {"a": {}, "b": {}}}}, RecipeError, "ensemble has no backbone"),
        ({"data": {}}, RecipeError, "names no texts"),
        ({"pretraining": {"test_texts": True}}, RecipeError, "there is none"),
        ({"pretraining": {"objective": "causal"}}, RecipeError, "sees both sides"),
        ({"data": {"text": ["txt"]}}, FivefoldError, "txt"),
    ],
)
def test_mistakes_say_what_to_do(
    sections: dict[str, Any],
    error: type[FivefoldError],
    message: str,
    rows: pl.DataFrame,
    tokenizer: str,
    tmp_path: Path,
) -> None:
    plain = plain_recipe(tokenizer, **sections)
    if sections.get("model"):
        del plain["training"], plain["pretraining"]
    data = None if sections == {"data": {}} else rows
    with pytest.raises(error, match=message):
        pretrain(build_recipe(plain), data, out=tmp_path / "out")


# training.continue_from


FEEDFORWARD = {"family": "feedforward", "embedding": 8, "hidden": [8], "min_count": 1}


def feedforward(rows: pl.DataFrame, out: Path, **changes: Any) -> Run:
    training = {"epochs": 1, "learning_rate": 1e-2, "precision": "fp32"} | changes.pop("training", {})
    recipe = {
        "data": {"text": ["text"]},
        "task": {"binary": ["joy", "anger"]},
        "folds": {"count": 2},
        "model": FEEDFORWARD,
        "training": training,
        **changes,
    }
    return fit_unpublished(recipe, rows, out=out)


@pytest.fixture(scope="module")
def first(rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return feedforward(rows, tmp_path_factory.mktemp("runs") / "first")


def test_each_fold_goes_on_from_its_own_model(first: Run, rows: pl.DataFrame, tmp_path: Path) -> None:
    still = {"continue_from": str(first.folder), "learning_rate": 1e-9, "weight_decay": 0}
    second = feedforward(rows, tmp_path / "second", training=still, folds={"count": 2, "reuse": str(first.folder)})
    np.testing.assert_allclose(second.out_of_fold.scores.logits, first.out_of_fold.scores.logits, atol=1e-5)
    moved = feedforward(rows, tmp_path / "third", training={"continue_from": str(first.folder)})
    assert np.abs(moved.out_of_fold.scores.logits - first.out_of_fold.scores.logits).max() > 1e-3


def test_a_pretrained_encoder_goes_on(run: Run, rows: pl.DataFrame, tokenizer: str, tmp_path: Path) -> None:
    still = TRAINING | {"continue_from": str(run.folder), "learning_rate": 1e-9, "weight_decay": 0}
    second = fit_unpublished(plain_recipe(tokenizer, training=still, pretraining=None), rows, out=tmp_path / "second")
    np.testing.assert_allclose(second.out_of_fold.scores.logits, run.out_of_fold.scores.logits, atol=1e-5)
    with pytest.raises(RecipeError, match=r"pretraining and training\.continue_from"):
        fit_unpublished(plain_recipe(tokenizer, training=still), rows, out=tmp_path / "third")


def test_rows_that_a_model_has_seen_are_never_held_out(first: Run, rows: pl.DataFrame, tmp_path: Path) -> None:
    training = {"continue_from": str(first.folder)}
    with pytest.raises(RecipeError, match=r"set folds\.reuse"):
        feedforward(rows, tmp_path / "a", training=training, seed=9)
    renamed = rows.with_columns(id="new" + pl.col("id"))
    with pytest.raises(RecipeError, match="in none"):
        feedforward(renamed, tmp_path / "b", training=training)


def test_only_a_like_run_is_continued(first: Run, rows: pl.DataFrame, tmp_path: Path) -> None:
    training = {"continue_from": str(first.folder)}
    with pytest.raises(RecipeError, match="another task"):
        feedforward(rows, tmp_path / "a", training=training, task={"binary": ["joy"]})
    with pytest.raises(RecipeError, match="doesn't fit the recipe's section model"):
        feedforward(rows, tmp_path / "b", training=training, model=FEEDFORWARD | {"hidden": [9]})
    linear = fit_unpublished(
        {"data": {"text": ["text"]}, "task": {"binary": ["joy", "anger"]}, "folds": {"count": 2}},
        rows,
        out=tmp_path / "linear",
    )
    with pytest.raises(RecipeError, match="another family"):
        feedforward(rows, tmp_path / "c", training={"continue_from": str(linear.folder)})
    with pytest.raises(RunError, match="no run folder"):
        feedforward(rows, tmp_path / "d", training={"continue_from": str(tmp_path / "nowhere")})
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/run.json").write_bytes((first.folder / "run.json").read_bytes())
    with pytest.raises(RunError, match="isn't finished"):
        feedforward(rows, tmp_path / "e", training={"continue_from": str(tmp_path / "unfinished")})
