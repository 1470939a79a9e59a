import gc
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.toys import FULL, HOW, LONG, SEED, Toy, blow_up, curve, every_tenth, result, same, weights_of
from torch import Tensor

import fivefold.training.checkpoint as checkpoint_module
from fivefold.errors import MissingExtraError, RunError
from fivefold.training.loop import Training, train
from fivefold.training.optim import adamw
from fivefold.training.plan import Optimisation

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost a tiny network far more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_same_with_and_without_a_folder(tmp_path: Path) -> None:
    for how in (FULL, HOW):
        with_folder, without = result(Toy(), how, tmp_path), result(Toy(), how, None)
        assert with_folder[0] == without[0]
        assert same(with_folder[1], without[1])
        shutil.rmtree(tmp_path / "checkpoints")


def spoil(at: set[int], how: str) -> Callable[..., Tensor]:
    def planted(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
        if step not in at:
            return losses
        if how == "loss":
            return losses * math.nan
        toy_head = toy.module.get_parameter("head.weight")
        # A finite loss whose gradient isn't: the square root's slope at zero.
        return losses + (toy_head - toy_head.detach()).abs().sum().sqrt()

    return planted


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_without_a_finite_loss_or_gradient_changes_nothing(kind: str, tmp_path: Path) -> None:
    weights: dict[int, dict[str, Tensor]] = {}
    inner = spoil({4, 5}, kind)

    def planted(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
        weights.setdefault(step, weights_of(toy.module))
        return inner(toy, losses, step, attempt)

    toy = Toy(planted=planted)
    outcome = train(toy, HOW, seed=SEED, scratch=tmp_path)
    assert outcome.skipped == 2
    assert outcome.steps == 16
    assert same(weights[4], weights[6])
    assert not same(weights[3], weights[4])
    assert not same(weights[6], weights[7])
    assert all(math.isfinite(line.get("loss", 0.0)) for line in curve(tmp_path))
    assert outcome.remarks == ("2 training steps had no finite loss and gradient and were skipped.",)


def huge(at: int, attempts: set[int]) -> Callable[..., Tensor]:
    def planted(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
        if step == at and attempt in attempts:
            toy.module.get_parameter("head.weight").data.mul_(-1000)
        return losses

    return planted


@pytest.mark.parametrize("plant", [blow_up, huge])
def test_divergence_goes_back_to_the_last_good_checkpoint(
    plant: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_tenth(monkeypatch)
    toy = Toy(planted=plant(45, {0}))
    outcome = train(toy, replace(LONG, learning_rate=0.01), seed=SEED, scratch=tmp_path)
    assert (outcome.restarts, outcome.gave_up, outcome.steps) == (1, False, 80)
    steps = [step for step, _ in toy.seen]
    back = next(i for i in range(1, len(steps)) if steps[i] < steps[i - 1])
    assert steps[back] == 40
    assert steps[back - 1] - 45 <= 50
    # The same rows again, but other dropout: the losses at the steps taken twice differ.
    assert dict(reversed(toy.seen[:back]))[40] == dict(reversed(toy.seen[back:]))[40]
    lines = curve(tmp_path)
    assert [line["restarts"] for line in lines if "restarts" in line] == [1.0]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_after_going_back_the_model_draws_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_tenth(monkeypatch)
    losses: dict[tuple[int, int], Tensor] = {}
    inner = blow_up(45, {0})

    def planted(toy: Toy, loss: Tensor, step: int, attempt: int) -> Tensor:
        losses.setdefault((attempt, step), loss.detach().clone())
        return inner(toy, loss, step, attempt)

    train(Toy(planted=planted), LONG, seed=SEED, scratch=tmp_path)
    assert not torch.equal(losses[0, 40], losses[1, 40])


def test_the_second_time_it_begins_anew_and_at_last_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_tenth(monkeypatch)
    toy = Toy(planted=blow_up(45, {0, 1, 2, 3}))
    outcome = train(toy, LONG, seed=SEED, scratch=tmp_path)
    steps = [step for step, _ in toy.seen]
    returns = [steps[i] for i in range(1, len(steps)) if steps[i] < steps[i - 1]]
    assert returns == [40, 0]
    assert (outcome.restarts, outcome.gave_up, outcome.steps) == (2, True, 40)
    assert Toy.evaluate(toy, toy.module)["score"] > 0.8
    assert len(outcome.remarks) == 2


def test_without_a_folder_it_goes_to_the_beginning() -> None:
    toy = Toy(planted=blow_up(45, {0}))
    outcome = train(toy, replace(LONG, restarts=1), seed=SEED)
    assert (outcome.restarts, outcome.gave_up) == (1, False)
    steps = [step for step, _ in toy.seen]
    assert [steps[i] for i in range(1, len(steps)) if steps[i] < steps[i - 1]] == [0]
    assert all(torch.isfinite(p).all() for p in toy.module.parameters())


@pytest.mark.parametrize("restarts", [0, 1])
def test_with_nothing_to_keep_it_fails(restarts: int) -> None:
    with pytest.raises(RunError, match="before there was anything to keep"):
        train(Toy(planted=blow_up(45, {0, 1})), replace(LONG, restarts=restarts), seed=SEED)


@pytest.mark.parametrize("turning_step", [0, 80])
def test_a_loss_that_changes_its_meaning_is_not_held_against_earlier_ones(turning_step: int, tmp_path: Path) -> None:
    def planted(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
        return losses + 2.0 if step >= 80 else losses

    toy = Toy(planted=planted)
    toy.turning_step = turning_step
    outcome = train(toy, replace(LONG, epochs=16), seed=SEED, scratch=tmp_path)
    assert (outcome.restarts == 0) == (turning_step == 80)


def test_lasting_non_finite_steps_are_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_tenth(monkeypatch)
    outcome = train(Toy(planted=spoil_first_attempt), LONG, seed=SEED, scratch=tmp_path)
    assert (outcome.restarts, outcome.skipped, outcome.steps) == (1, 25, 80)


def spoil_first_attempt(toy: Toy, losses: Tensor, step: int, attempt: int) -> Tensor:
    return losses * math.nan if step > 44 and attempt == 0 else losses


def test_best_weights_outlive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_tenth(monkeypatch)
    how = replace(LONG, keep="best", evaluations_per_epoch=2, restarts=1)
    toy = Toy(planted=blow_up(45, {0, 1}))
    outcome = train(toy, how, seed=SEED, scratch=tmp_path)
    assert outcome.gave_up
    assert Toy.evaluate(toy, toy.module)["score"] == outcome.best


def test_micro_batches_are_one_batch() -> None:
    gradients = []
    for size in (8, 3, 1):
        toy = Toy(rows_per_pass=size, dropout=0.0)
        training = Training(toy, replace(HOW, clip=None), SEED, None)
        assert len(toy.steps(0)[0]) == -(-8 // size)
        loss, norm = training._gradients()
        gradients.append([p.grad.clone() for p in toy.module.parameters() if p.requires_grad and p.grad is not None])
        torch.testing.assert_close(norm, float(torch.nn.utils.get_total_norm(gradients[-1])))
    # By hand: the weighted mean over the step's rows.
    toy = Toy(dropout=0.0)
    rows = np.concatenate(toy.steps(0)[0])
    losses = torch.nn.functional.cross_entropy(toy.module(toy.x[rows]), toy.y[rows], reduction="none")
    mean = (losses * toy.weights[rows]).sum() / toy.weights[rows].sum()
    mean.backward()
    assert loss == pytest.approx(float(mean.detach()), rel=1e-6)
    for found in gradients:
        expected = [p.grad for p in toy.module.parameters() if p.grad is not None]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_it_is_plain_adamw_with_a_plain_loop() -> None:
    how = Optimisation(epochs=1, learning_rate=0.02, schedule="linear", warmup="3 steps", clip=0.5)
    toy, plain = Toy(dropout=0.0), Toy(dropout=0.0)
    train(toy, how, seed=SEED)
    optimiser = torch.optim.AdamW(
        [{**group, "lr": group["lr"]} for group in adamw(plain.groups(), 0.01).param_groups], fused=False, foreach=False
    )
    for group in optimiser.param_groups:
        group["fused"] = False
    for step, parts in enumerate(plain.steps(0)):
        rows = np.concatenate(parts)
        losses = torch.nn.functional.cross_entropy(plain.module(plain.x[rows]), plain.y[rows], reduction="none")
        ((losses * plain.weights[rows]).sum() / plain.weights[rows].sum()).backward()
        trained = [p for p in plain.module.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, 0.5)
        share = (step + 1) / 4 if step < 3 else (8 - step) / 5
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        optimiser.step()
        optimiser.zero_grad()
    for ours, theirs in zip(toy.module.parameters(), plain.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_frozen_part_is_untouched_and_not_stored(tmp_path: Path) -> None:
    toy = Toy()
    before = weights_of(toy.module)
    train(toy, FULL, seed=SEED, scratch=tmp_path)
    after = weights_of(toy.module)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("frozen"))
    assert not any(torch.equal(before[name], after[name]) for name in before if not name.startswith("frozen"))
    stored = checkpoint_module.Checkpoints(tmp_path / "checkpoints").newest()
    assert stored is not None
    assert set(stored.tensors["weights"]) == {name for name in before if not name.startswith("frozen")}
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".jsonl"}


def test_trainings_in_a_row_each_have_their_precision_and_leave_the_module_as_it_came() -> None:
    toy = Toy()
    attributes = set(vars(toy.module))
    kinds: set[Any] = set()
    toy.module.get_submodule("head").register_forward_hook(lambda *found: kinds.add(found[2].dtype))
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        kinds.clear()
        before = weights_of(toy.module)
        train(toy, replace(HOW, precision=precision, epochs=0.5), seed=SEED)  # type: ignore[arg-type]
        assert kinds == {dtype}
        assert not same(before, weights_of(toy.module))
        assert set(vars(toy.module)) == attributes
        assert not any(module.training for module in toy.module.modules())
        assert all(p.grad is None and p.dtype == torch.float32 for p in toy.module.parameters())
        assert toy.module(torch.zeros(1, 8)).dtype == torch.float32


def test_nothing_of_a_training_stays_in_memory() -> None:
    gc.collect()
    gc.disable()
    try:
        before = {id(o) for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)}
        train(Toy(), HOW, seed=SEED)
        assert {id(o) for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)} <= before
    finally:
        gc.enable()


def test_a_missing_tracker_is_refused_before_training() -> None:
    toy = Toy()
    with pytest.raises(MissingExtraError, match="clearml"):
        train(toy, replace(HOW, trackers=("clearml",)), seed=SEED)
    assert not toy.seen


def test_evaluations_and_points_are_where_they_belong(tmp_path: Path) -> None:
    train(Toy(), replace(HOW, epochs=2.5, evaluations_per_epoch=3), seed=SEED, scratch=tmp_path)
    lines = curve(tmp_path)
    assert [line["step"] for line in lines if "score" in line] == [3, 6, 8, 11, 14, 16, 19, 20]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 21))
    assert lines[-1]["epoch"] == 2.5


def test_patience_stops_and_the_best_weights_are_those_scored(tmp_path: Path) -> None:
    how = replace(HOW, epochs=30, patience=2, keep="best", ema=0.5, learning_rate=0.05)
    toy = Toy()
    outcome = train(toy, how, seed=SEED, scratch=tmp_path)
    assert outcome.steps < 240
    scores = [line["score"] for line in curve(tmp_path) if "score" in line]
    assert outcome.best == max(scores)
    assert len(scores) == scores.index(max(scores)) + 3
    assert Toy.evaluate(toy, toy.module)["score"] == outcome.best


def test_plateau_cuts_the_rate(tmp_path: Path) -> None:
    class Flat(Toy):
        def evaluate(self, module: Any) -> dict[str, float]:
            return {"score": 0.5}

    how = replace(HOW, epochs=6, schedule="plateau", warmup=0.0)
    train(Flat(), how, seed=SEED, scratch=tmp_path)
    rates = [line["rate"] for line in curve(tmp_path) if "rate" in line]
    assert rates[::8] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])
