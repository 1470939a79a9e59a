from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_decoder import VARIANTS, made, tweets
from tests.models.tiny_decoders import save_decoder

from fivefold.errors import RunError
from fivefold.models.backbones.backbone import load_decoder
from fivefold.models.networks import expense, network
from fivefold.models.networks.expense import (
    Size,
    activation_bytes,
    check_room,
    free_bytes,
    measured,
    peak_bytes,
    size_of,
)
from fivefold.training import timing

pytestmark = pytest.mark.usefixtures("fp32")

CPU = torch.device("cpu")
LINEAR = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
"""Weights in the tiny Llama's linear layers: two of queries and outputs, two of keys and values, three of the MLP."""
EMBEDDED, NORMS, HEAD = 512 * 32, 5 * 32, 11 * 32 + 11
ADAPTED = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
"""Weights of adapters of rank 4 on all of them."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("variant", ["lora", "nf4", "int8"])
def test_weights_are_counted_by_what_they_stand_for(variant: str, llama: Path) -> None:
    task, corpus = tweets(24)
    net = made(task, llama, **VARIANTS[variant]).build(corpus.rows().labels, 0)
    size = size_of(net)
    assert size.parameters == EMBEDDED + LINEAR + NORMS + ADAPTED + HEAD
    assert size.trained == ADAPTED + HEAD
    bytes_a_weight = {"lora": 4, "nf4": 0.5, "int8": 1}[variant]
    assert size.held == LINEAR * bytes_a_weight + (EMBEDDED + NORMS + ADAPTED + HEAD) * 4
    whole = size_of(made(task, llama).build(corpus.rows().labels, 0))
    assert whole.trained == whole.parameters == size.parameters - ADAPTED


def test_the_cost_of_a_fit(llama: Path) -> None:
    task, corpus = tweets(24)
    fitted = made(task, llama, **VARIANTS["lora"])
    cost = fitted.cost(corpus.rows())
    assert (cost.parameters, cost.trained) == (EMBEDDED + LINEAR + NORMS + ADAPTED + HEAD, ADAPTED + HEAD)
    assert 0 < cost.seconds < 60
    assert cost.bytes > cost.parameters * 4
    assert fitted.net is None, "the fold's own net comes later"
    assert fitted.home is not None, "but the backbone stays"
    assert not fitted.home.names, "without the adapter that was timed"


@pytest.mark.parametrize("variant", ["lora", "top", "frozen"])
def test_asking_changes_nothing_of_a_fit(variant: str, llama: Path) -> None:
    task, corpus = tweets(24)
    model = VARIANTS[variant] | {"head_dropout": 0.5}
    plain, asked = made(task, llama, **model), made(task, llama, **model)
    plain.fit(corpus.rows(), None)
    expected = plain.score(corpus.rows()).logits
    del plain
    state, drawn = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = made(task, llama, **model)
    first.cost(corpus.rows(np.arange(16)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], drawn)
    if first.home is not None:
        backbone = first.home.loaded.model
        kept = load_decoder(first.origin, first.tokenizer, seed=0).model
        assert all(torch.equal(a, b) for a, b in zip(backbone.buffers(), kept.buffers(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), kept.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in backbone.parameters())
    asked.fit(corpus.rows(), None)
    assert np.array_equal(asked.score(corpus.rows()).logits, expected)


def test_time_grows_with_epochs_and_rows(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A token costs three seconds in training and one in scoring.
    monkeypatch.setattr(timing, "seconds_a_token", lambda *_: 3.0)
    monkeypatch.setattr(network, "seconds_a_token", lambda *_: 1.0)
    monkeypatch.setattr(timing, "update_seconds", lambda *_: 0.0)
    task, corpus = tweets(48)

    def seconds(rows: int, **training: Any) -> float:
        return made(task, llama, training, **VARIANTS["lora"]).cost(corpus.rows(np.arange(rows))).seconds

    assert seconds(24, epochs=4) - seconds(24, epochs=2) == 2 * (seconds(24, epochs=2) - seconds(24, epochs=1))
    assert seconds(40, epochs=9) > seconds(24, epochs=9)


def test_a_step_that_a_gpu_has_no_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, size = torch.device("cuda"), Size(5_000_000, 1_000_000, 20_000_000)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 100_000_000)
    monkeypatch.setattr(expense, "free_bytes", lambda _: 8e9)
    with pytest.raises(RunError, match=r"8\.0 GB are free on the GPU"), measured(size, gpu):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with measured(size, gpu):
        assert peak_bytes(size, 0.0, gpu) == 108_000_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_says_what_its_passes_took(llama: Path) -> None:
    task, corpus = tweets(24)
    cost = made(task, llama, **VARIANTS["lora"]).cost(corpus.rows())
    assert cost.parameters * 4 < cost.bytes < 1e9
    assert torch.cuda.memory_allocated() < cost.bytes


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU says itself what it holds")
@pytest.mark.parametrize("variant", ["whole", "lora", "top"])
def test_what_a_pass_keeps_is_told_from_two_of_its_rows(
    variant: str, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(network, "activation_bytes", lambda *each, **how: seen.append(kept(*each, **how)) or 0.0)

    def kept(trainee: Any, batches: Any, precision: Any, *, checkpointed: bool) -> int:
        told = activation_bytes(trainee, batches, precision, checkpointed=checkpointed)
        longest = max((part for step in trainee.steps(0) for part in step), key=batches.tokens)
        storages = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        trainee.module.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = timing.loss_of(trainee, longest, precision, CPU)
        for parameter in trainee.module.parameters():
            storages.pop(parameter.untyped_storage().data_ptr(), None)
        assert told == pytest.approx(sum(storages.values()), rel=0.15)
        assert loss.requires_grad
        assert len(longest) > 4
        return int(told)

    task, corpus = tweets(24)
    made(task, llama, **VARIANTS[variant]).cost(corpus.rows())
    assert seen[0] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU says itself what it holds")
def test_checkpoints_keep_less(llama: Path) -> None:
    task, corpus = tweets(24)
    whole, less = (made(task, llama, {"gradient_checkpointing": on}).cost(corpus.rows()).bytes for on in (False, True))
    assert less < whole


def test_a_fit_without_room_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Size(70_000_000_000, 70_000_000_000, 280_000_000_000)
    with pytest.raises(RunError, match=r"1120\.0 GB for 70,000 million weights"):
        check_room(large, CPU)
    task, corpus = tweets(24)
    monkeypatch.setattr(expense, "free_bytes", lambda _: 100_000.0)
    with pytest.raises(RunError, match=r"model\.weights: nf4"):
        made(task, llama, **VARIANTS["lora"]).cost(corpus.rows())
    monkeypatch.setattr(expense, "free_bytes", lambda _: None)
    check_room(large, CPU)


def test_memory_that_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = free_bytes(CPU)
    assert free is None or 1e8 < free < 1e14
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(expense, "CONTROL_GROUP", limit)
    limit.write_text("12345678\n")
    assert free_bytes(CPU) == 12345678
    limit.write_text("max\n")
    assert free_bytes(CPU) != 12345678
