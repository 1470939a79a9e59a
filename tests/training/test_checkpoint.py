import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fivefold.training.checkpoint import (
    Checkpoints,
    optimiser_tensors,
    restore_optimiser,
    restore_weights,
)


def write(checkpoints: Checkpoints, step: int, *, well: bool = True) -> None:
    tensors: dict[str, dict[str, Tensor]] = {"weights": {"a": torch.full((3,), float(step))}, "optimiser": {}}
    checkpoints.write(tensors, {"progress": {"step": step}, "well": well})


def steps(checkpoints: Checkpoints) -> list[int]:
    return [json.loads((path / "plain.json").read_text())["progress"]["step"] for path in checkpoints._written()]


def step_of(found: Any) -> int | None:
    assert found is None or float(found.tensors["weights"]["a"][0]) == found.step
    return None if found is None else int(found.step)


def test_the_newest_and_the_good_one_before_it_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is checkpoints.good() is checkpoints.furthest() is None
    for step, well in ((5, True), (10, True), (15, True), (20, False), (25, False)):
        write(checkpoints, step, well=well)
    assert steps(checkpoints) == [25, 15]
    assert step_of(checkpoints.newest()) == 25
    assert step_of(checkpoints.good()) == 15
    write(checkpoints, 0)
    assert steps(checkpoints) == [0, 15]
    assert step_of(checkpoints.newest()) == step_of(checkpoints.good()) == 0
    assert step_of(checkpoints.furthest()) == 15


@pytest.mark.parametrize("damage", ["truncated", "deleted", "plain", "half a header"])
def test_a_damaged_newest_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 5)
    write(checkpoints, 10)
    newest = checkpoints._written()[0]
    weights = newest / "weights.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-2])
    if damage == "half a header":
        weights.write_bytes(weights.read_bytes()[:5])
    if damage == "deleted":
        weights.unlink()
    if damage == "plain":
        (newest / "plain.json").write_text('{"progress": {"st')
    assert step_of(checkpoints.newest()) == step_of(checkpoints.good()) == 5
    write(checkpoints, 15)
    assert step_of(checkpoints.newest()) == 15


def test_what_a_kill_leaves_half_written_is_not_seen(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 5)
    partial = tmp_path / ".00000001.partial"
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes(b"half")
    assert step_of(checkpoints.newest()) == 5
    write(checkpoints, 10)
    assert not partial.exists()
    assert step_of(checkpoints.newest()) == 10


def test_tied_and_strided_weights(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    module.register_parameter("turned", nn.Parameter(torch.arange(6.0).reshape(2, 3).T))
    named = dict(module.named_parameters())
    assert sorted(named) == ["0.bias", "0.weight", "1.bias", "turned"]
    Checkpoints(tmp_path).write({"weights": named}, {"progress": {"step": 1}, "well": True})
    before = {name: p.detach().clone() for name, p in named.items()}
    with torch.no_grad():
        for parameter in named.values():
            parameter.zero_()
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    restore_weights(named, found.tensors["weights"])
    assert all(torch.equal(before[name], named[name]) for name in named)
    assert second.weight is first.weight


def test_an_optimiser_comes_back_in_full_and_empty() -> None:
    parameters = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2))]
    optimiser = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    empty = optimiser_tensors(optimiser)
    assert empty == {}
    (parameters[0].sum() + parameters[1].square().sum()).backward()
    optimiser.step()
    full = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()}
    assert sorted(full) == [f"{i}.{key}" for i in range(2) for key in ("exp_avg", "exp_avg_sq", "step")]
    optimiser.param_groups[0]["lr"] = 0.7
    restore_optimiser(optimiser, empty)
    assert not optimiser.state
    restore_optimiser(optimiser, full)
    again = optimiser_tensors(optimiser)
    assert all(torch.equal(full[name], again[name]) and full[name].dtype == again[name].dtype for name in full)
    assert optimiser.param_groups[0]["lr"] == 0.7
