from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.test_decoder import VARIANTS, made, tweets
from tests.models.tiny_decoders import save_decoder

from fivefold.errors import RunError
from fivefold.models.networks import expense
from fivefold.models.networks.expense import Size, activation_bytes, check_room, free_bytes, size_of

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
    assert size.multiplied == size.parameters - EMBEDDED
    assert size.trained == size.learnt == ADAPTED + HEAD
    assert size.adapted
    bytes_a_weight = {"lora": 4, "nf4": 0.5, "int8": 1}[variant]
    assert size.held == LINEAR * bytes_a_weight + (EMBEDDED + NORMS + ADAPTED + HEAD) * 4
    assert size.training_flops() == 2 * (2 * size.multiplied + size.learnt)


def test_a_whole_backbone_learns_six_operations_a_weight(llama: Path) -> None:
    task, corpus = tweets(24)
    size = size_of(made(task, llama).build(corpus.rows().labels, 0))
    assert size.trained == size.parameters
    assert size.training_flops() == 6 * size.multiplied
    assert size.scoring_flops() == 2 * size.multiplied


def test_the_cost_of_a_fit(llama: Path) -> None:
    task, corpus = tweets(24)
    fitted = made(task, llama, **VARIANTS["lora"])
    cost = fitted.cost(corpus.rows())
    assert (cost.parameters, cost.trained) == (EMBEDDED + LINEAR + NORMS + ADAPTED + HEAD, ADAPTED + HEAD)
    assert 0 < cost.seconds < 60
    assert cost.bytes > cost.parameters * 4
    assert fitted.net is None, "the fold's own net comes later"
    assert fitted.home is not None, "but the backbone stays"


def test_activations_grow_with_tokens_and_shrink_with_checkpoints(llama: Path) -> None:
    task, corpus = tweets(24)
    backbone = made(task, llama).build(corpus.rows().labels, 0).backbone
    whole = activation_bytes(backbone, 100, "fp32", checkpointed=False)
    assert whole == 100 * 32 * 4 * 2 * 17
    assert activation_bytes(backbone, 100, "bf16", checkpointed=False) == whole / 2
    assert activation_bytes(backbone, 100, "fp32", checkpointed=True) < whole
    assert activation_bytes(None, 100, "fp32", checkpointed=False) == 0


def test_a_fit_without_room_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Size(70_000_000_000, 70_000_000_000, 70_000_000_000, 70_000_000_000, 280_000_000_000, adapted=False)
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
