from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.models.servers import Served, serving
from tests.models.test_generator import goods, made
from tests.models.tiny import unfitted

from fivefold.data.corpus import build_corpus
from fivefold.data.labels import learn_task
from fivefold.errors import FivefoldError, RecipeError, RunError
from fivefold.models.generator import endpoint
from fivefold.models.generator.remote import RemoteClassifier
from fivefold.pipeline.fit import fit_unpublished as fit
from fivefold.pipeline.run import Run
from fivefold.recipe import build_recipe
from fivefold.task import Task

pytestmark = pytest.mark.usefixtures("fp32")

KEY = "sk-not-to-be-seen"


@pytest.fixture(scope="module")
def only_server(folders: dict[str, Path]) -> Iterator[Served]:
    with serving(folders["llama"]) as served:
        yield served


@pytest.fixture
def server(only_server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server as new, and a cache that nobody wrote into."""
    monkeypatch.setenv("FIVEFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(endpoint, "_said", set())
    only_server.asked.clear()
    only_server.headers.clear()
    only_server.plan.clear()
    only_server.says = "prompt"
    return only_server


def section(server: Served, folders: dict[str, Path], at: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    where = {"url": server.url, "model": "tiny", "retries": 2, "concurrency": 2} | (at or {})
    common = {"family": "generator", "tokenizer": str(folders["llama"]), "max_tokens": 200}
    return {**common, "endpoint": where, **model}


def remote(task: Task, server: Served, folders: dict[str, Path], at: Any = None, **model: Any) -> RemoteClassifier:
    classifier = unfitted(task, model=section(server, folders, at, **model), training={"epochs": 0})
    assert isinstance(classifier, RemoteClassifier)
    return classifier


def two_labels() -> Any:
    frame = pl.DataFrame({"text": ["one", "two", "three", "four"], "a": [1, 0, 1, 0], "b": [1, 0, 0, 0]})
    task = learn_task(frame, binary=["a", "b"], categorical={}, tree=(), swap=None)
    return task, build_corpus(frame, text=["text"], task=task)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"normalise": "length", "contextual": True},
        {"write": "path", "shots": {"count": 2}},
        {"write": "list"},
        {"prompts": ["{title}", "A good: {title}"], "choices": "letters"},
    ],
    ids=lambda model: "-".join(model) or "questions",
)
def test_a_server_says_what_the_model_says_here(
    model: dict[str, Any], server: Served, folders: dict[str, Path], tmp_path: Path
) -> None:
    task, corpus = two_labels() if model.get("write") == "list" else goods(8)
    far, near = (
        remote(task, server, folders, **model),
        made(task, folders["llama"], {"epochs": 0}, max_tokens=200, **model),
    )
    for each in (far, near):
        each.fit(corpus.rows(), None)
    expected = near.score(corpus.rows()).logits
    np.testing.assert_allclose(far.score(corpus.rows()).logits, expected, atol=1e-3)
    sent = len(server.asked)
    assert sent > 0
    assert all(each["max_tokens"] == 1 and each["echo"] and each["logprobs"] == 1 for each in server.asked)
    prompts = [tuple(each["prompt"]) for each in server.asked]
    assert len(set(prompts)) == len(prompts)
    far.save(tmp_path)
    again = remote(task, server, folders, **model)
    again.load(tmp_path)
    np.testing.assert_array_equal(again.score(corpus.rows()).logits, far.score(corpus.rows()).logits)
    assert len(server.asked) == sent, "all of it was kept"


def test_what_was_answered_is_asked_again_of_another_model(server: Served, folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    sent = []
    for name in ("tiny", "tiny", "other"):
        classifier = remote(task, server, folders, {"model": name})
        classifier.fit(corpus.rows(), None)
        classifier.score(corpus.rows())
        sent.append(len(server.asked))
    assert sent == [sent[0], sent[0], 2 * sent[0]]


def test_a_busy_server_is_asked_again(server: Served, folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    server.plan += [429, 503, 429]
    classifier = remote(task, server, folders, {"retries": 5, "concurrency": 1})
    classifier.fit(corpus.rows(), None)
    assert np.isfinite(classifier.score(corpus.rows()).logits).all()
    prompts = [tuple(each["prompt"]) for each in server.asked]
    assert len(prompts) == len(set(prompts)) + 3


def test_a_silent_server_is_asked_again(server: Served, folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    server.plan.append(0)
    classifier = remote(task, server, folders, {"retries": 5, "concurrency": 1, "timeout": 2})
    classifier.fit(corpus.rows(), None)
    assert np.isfinite(classifier.score(corpus.rows(np.arange(1))).logits).all()
    prompts = [tuple(each["prompt"]) for each in server.asked]
    assert len(prompts) > len(set(prompts))


def test_a_server_in_trouble_ends_the_run_and_what_it_said_is_kept(server: Served, folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    server.plan += [200, 200, 500, 500, 500]
    classifier = remote(task, server, folders, {"concurrency": 1})
    classifier.fit(corpus.rows(), None)
    with pytest.raises(RunError, match=r"HTTP 500(.|\n)*asked 3 times"):
        classifier.score(corpus.rows())
    assert len(server.asked) == 5
    classifier.score(corpus.rows())
    assert len(server.asked) == 3 + len({tuple(each["prompt"]) for each in server.asked})


def test_nobody_there(folders: dict[str, Path], server: Served) -> None:
    task, corpus = goods(6)
    with socket.socket() as bound:  # listens to nobody
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        classifier = remote(task, server, folders, {"url": url, "retries": 1, "timeout": 2})
        classifier.fit(corpus.rows(), None)
        with pytest.raises(RunError, match="ConnectionRefused"):
            classifier.score(corpus.rows())


@pytest.mark.parametrize("says", ["written", "nothing"])
def test_a_server_without_log_probabilities(says: str, server: Served, folders: dict[str, Path]) -> None:
    task, corpus = goods(6)
    server.says = says
    classifier = remote(task, server, folders)
    classifier.fit(corpus.rows(), None)
    with pytest.raises(RunError, match=r"gives no log-probabilities(.|\n)*vLLM"):
        classifier.score(corpus.rows())


def test_a_key_is_sent_and_never_shown(
    server: Served, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, corpus = goods(6)
    classifier = remote(task, server, folders, {"api_key_env": "TINY_KEY"})
    with pytest.raises(RecipeError, match="TINY_KEY, which isn't set"):
        classifier.cost(corpus.rows())
    monkeypatch.setenv("TINY_KEY", KEY)
    classifier.fit(corpus.rows(), None)
    server.plan.append(401)
    with pytest.raises(RunError, match="HTTP 401") as caught:  # this server's error repeats the key
        classifier.score(corpus.rows())
    assert KEY not in str(caught.value)
    assert "Bearer (the API key)" in str(caught.value)
    assert all(each["Authorization"] == f"Bearer {KEY}" for each in server.headers)


def recipe_at(server: Served, folders: dict[str, Path]) -> dict[str, Any]:
    at = {"api_key_env": "TINY_KEY", "price": 2.0}
    return {
        "data": {"text": ["title"], "id": "id"},
        "task": {"binary": ["good"]},
        "folds": {"count": 3},
        "model": section(server, folders, at, shots={"count": 3}),
        "training": {"epochs": 0},
    }


def planted() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [str(row) for row in range(18)],
            "title": [f"text{row:03d}x" for row in range(18)],
            "good": [row % 2 for row in range(18)],
        }
    )


def test_a_run_at_an_endpoint(
    server: Served,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    frame, recipe = planted(), recipe_at(server, folders)
    with caplog.at_level(logging.WARNING):
        run = fit(recipe, frame, out=tmp_path / "run")
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert f"The texts of records are sent to {host}" in caplog.text
    told = re.search(
        r"about every row: ([\d,]+) requests of ([\d,]+) prompt tokens, [\d.]+ at 2 a million", caplog.text
    )
    assert told is not None
    assert int(told[1]) == len(server.asked) == 36
    exact = sum(len(each["prompt"]) for each in server.asked)
    assert int(told[2].replace(",", "")) == pytest.approx(exact, rel=0.1)

    tokenizer = run.models[0].tokenizer  # type: ignore[attr-defined]
    for each in server.asked:
        text = tokenizer.decode(each["prompt"])
        *examples, record = [int(row) for row in re.findall(r"text(\d{3})x", text)]
        assert len(examples) == 3
        fold = run.folds.fold[record]
        assert all(run.folds.fold[row] != fold for row in examples), "examples are rows that the fold trains on"

    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in [*files, *(tmp_path / "cache").rglob("*.sqlite")])
    sent = len(server.asked)
    again = fit(recipe, frame, out=tmp_path / "again")
    np.testing.assert_array_equal(again.out_of_fold.scores.logits, run.out_of_fold.scores.logits)
    assert len(server.asked) == sent
    new = pl.DataFrame({"id": ["a"], "title": ["new"]})
    first = Run.load(tmp_path / "run").scores(new).logits
    assert len(server.asked) == sent + 6
    np.testing.assert_array_equal(Run.load(tmp_path / "run").scores(new).logits, first)
    assert len(server.asked) == sent + 6


def test_without_an_endpoint_no_text_leaves_the_machine(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")
    tried: list[Any] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        tried.append(arguments)
        raise OSError("no socket may open here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = {"family": "generator", "backbone": str(folders["llama"]), "shots": {"count": 2}, "max_tokens": 200}
    recipe = {
        "data": {"text": ["title"], "id": "id"},
        "task": {"binary": ["good"]},
        "folds": {"count": 2},
        "model": model,
        "training": {"epochs": 0},
    }
    run = fit(recipe, planted(), out=tmp_path / "run")
    run.scores(planted())
    assert not tried


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"tokenizer": None}, "an endpoint needs tokenizer"),
        ({"max_tokens": None}, "an endpoint needs max_tokens"),
        ({"backbone": "a/b"}, "an endpoint doesn't use backbone"),
        ({"adapter": {}}, "an endpoint doesn't use adapter"),
        ({"endpoint": {"url": "localhost:8000", "model": "m"}}, "must be an address"),
        ({"endpoint": {"url": "http://me:secret@there/v1", "model": "m"}}, "no user or password"),
        ({"training": {"epochs": 1}}, "model.endpoint are for a model as it is"),
    ],
)
def test_recipes_that_can_not_be_asked(model: dict[str, Any], said: str) -> None:
    sections: dict[str, Any] = {"training": {"epochs": 0}} | {k: model[k] for k in model if k == "training"}
    keys = {"tokenizer": "a/b", "max_tokens": 64, "endpoint": {"url": "http://localhost:8000/v1", "model": "m"}}
    keys |= {key: value for key, value in model.items() if key != "training"}
    with pytest.raises(FivefoldError, match=said):
        build_recipe({**sections, "model": {"family": "generator", **keys}})
