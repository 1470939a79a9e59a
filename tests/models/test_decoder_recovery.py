"""A decoder's adapter outlives kills, steps without a finite loss, and divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_decoder import VARIANTS, made, tweets
from tests.models.tiny_decoders import save_decoder
from torch import Tensor

from fivefold.models.decoder.classifier import DecoderClassifier
from fivefold.models.networks.supervised import Supervised
from fivefold.training.loop import SEED_STRIDE, mixed_seed

pytestmark = pytest.mark.usefixtures("fp32")

SEED = 7
"""Of the classifiers that `made` makes."""

LONG = {"epochs": 8, "batch_size": 8, "schedule": "constant", "warmup": 0.0, "checkpoint_minutes": 0}
"""48 steps of 48 rows."""

Plant = Callable[[Supervised, Tensor, int, int], Tensor]


class Killed(BaseException):
    """What a test raises where a process would die."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads cost a tiny network far more than they give."""
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


def plant(patch: pytest.MonkeyPatch, planted: Plant) -> None:
    """Let `planted` see and change the losses of every micro-batch, at their step, after so many returns."""
    plain = Supervised.losses

    def losses(self: Supervised, module: Any, rows: Any, step: int) -> tuple[Tensor, Tensor]:
        found, weights = plain(self, module, rows, step)
        return planted(self, found, step, attempt(step)), weights

    patch.setattr(Supervised, "losses", losses)


def attempt(step: int) -> int:
    """How often training has gone back, told from the seed of the step."""
    seed = torch.initial_seed() % 2**64
    return next(n for n in range(9) if mixed_seed(SEED, n, step, 0) == seed)


def kill_after(calls: int) -> Plant:
    """Die in the so-many-th forward pass, wherever in its step that is."""
    left = iter(range(calls))

    def planted(trainee: Supervised, losses: Tensor, step: int, attempt: int) -> Tensor:
        if next(left, None) is None:
            raise Killed
        return losses

    return planted


@pytest.mark.parametrize("variant", ["lora", "dora", "nf4"])
def test_killed_again_and_again_at_random_moments(variant: str, llama: Path, tmp_path: Path) -> None:
    task, corpus = tweets(24)
    training = {"epochs": 3, "batch_size": 8, "checkpoint_minutes": 0, "tokens_per_pass": 128}
    model = {**VARIANTS[variant], "adapter": {**VARIANTS[variant]["adapter"], "dropout": 0.2}}
    folders = {name: tmp_path / name for name in ("whole", "cut", "whole_model", "cut_model")}
    for folder in folders.values():
        folder.mkdir()
    whole = made(task, llama, training, **model)
    whole.fit(corpus.rows(), None, folders["whole"])
    whole.save(folders["whole_model"])
    expected = whole.score(corpus.rows()).logits
    moments, kills = np.random.default_rng(len(variant)), 0
    while True:
        cut = made(task, llama, training, **model)
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, kill_after(int(moments.integers(4, 16))))
            try:
                cut.fit(corpus.rows(), None, folders["cut"])
                break
            except Killed:
                kills += 1
    assert kills >= 2
    assert cut.score(corpus.rows()).logits.tobytes() == expected.tobytes()
    cut.save(folders["cut_model"])
    name = "adapter_model.safetensors"
    assert (folders["cut_model"] / name).read_bytes() == (folders["whole_model"] / name).read_bytes()


def test_a_step_without_a_finite_loss_is_skipped_and_counted(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, corpus = tweets()
    plant(monkeypatch, lambda trainee, losses, step, attempt: losses * math.nan if step in {1, 4} else losses)
    fitted = made(task, llama, {"epochs": 1, "batch_size": 8}, **VARIANTS["lora"])
    history = fitted.fit(corpus.rows(), None)
    assert (history.figures["steps"], history.figures["skipped_steps"], history.figures["restarts"]) == (6, 2, 0)
    assert "2 training steps had no finite loss and gradient and were skipped." in history.remarks
    assert np.isfinite(fitted.score(corpus.rows()).logits).all()


def thrown(seen: dict[int, dict[str, Tensor]]) -> Plant:
    """At step 12 the head is thrown far off, the first time; `seen` gets what each attempt begins with."""

    def planted(trainee: Supervised, losses: Tensor, step: int, attempt: int) -> Tensor:
        head = trainee.module.get_parameter("head.1.weight")
        if step == 12 and attempt == 0:
            head.data.mul_(-1000)
            losses = losses + 1e4  # as it would be with this head, so that the checkpoint isn't a good one
        if attempt not in seen:
            named = trainee.module.named_parameters()
            seen[attempt] = {name: p.detach().clone() for name, p in named if p.requires_grad}
        return losses

    return planted


@pytest.mark.parametrize("variant", ["lora", "nf4"])
def test_divergence_begins_again_with_another_adapter(
    variant: str, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, corpus = tweets()
    seen: dict[int, dict[str, Tensor]] = {}
    plant(monkeypatch, thrown(seen))
    fitted = made(task, llama, LONG, **VARIANTS[variant])
    history = fitted.fit(corpus.rows(), None)
    assert (history.figures["steps"], history.figures["restarts"]) == (48, 1)
    for name, first in seen[0].items():
        if "lora_B" in name:
            assert not seen[1][name].any()
        elif "lora_A" in name or name == "head.1.weight":
            assert not torch.equal(first, seen[1][name])
    expected = made(task, llama, LONG, **VARIANTS[variant])
    expected.net = expected.build(corpus.rows().labels, SEED)
    redrawn = expected.fresh_weights(corpus.rows().labels, SEED + SEED_STRIDE)
    assert all(torch.equal(redrawn[name], weight) for name, weight in seen[1].items())
    assert log_loss(fitted, corpus) < log_loss(expected, corpus) - 0.02


def log_loss(model: DecoderClassifier, corpus: Any) -> float:
    """Mean binary log loss on the rows themselves."""
    logits = torch.from_numpy(model.score(corpus.rows()).logits)
    codes = torch.from_numpy(corpus.rows().labels.codes).float()
    return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, codes))


def test_killed_after_it_went_back(llama: Path, tmp_path: Path) -> None:
    task, corpus = tweets()
    figures, logits = [], []
    for name, calls in (("whole", 10_000), ("cut", 60)):
        scratch = tmp_path / name
        scratch.mkdir()
        for left in (calls, 10_000):
            fitted = made(task, llama, LONG, **VARIANTS["lora"])
            with pytest.MonkeyPatch.context() as patch:
                plant(patch, thrown({}))
                plant(patch, kill_after(left))
                try:
                    history = fitted.fit(corpus.rows(), None, scratch)
                    break
                except Killed:
                    assert name == "cut"
        figures.append(history.figures)
        logits.append(fitted.score(corpus.rows()).logits)
    assert figures[0]["restarts"] == figures[1]["restarts"] == 1
    np.testing.assert_array_equal(*logits)
