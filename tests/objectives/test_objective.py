import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from fivefold.errors import RecipeError
from fivefold.objectives.losses import asymmetric, bce, cross_entropy, focal, symmetric_lovasz
from fivefold.objectives.objective import BinaryLoss, Objective
from fivefold.objectives.targets import targets_of
from fivefold.recipe.training import ObjectiveSettings
from fivefold.task import Binary, Categorical, Labels, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d")), Binary("y"), Categorical("e", ("f", "g")), Binary("z")))
BINARIES, C, E = [0, 4, 7], slice(1, 4), slice(5, 7)
DEFAULTS: dict[str, Any] = {
    "binary": "bce",
    "binary_reduction": "mean",
    "focal_gamma": 2.0,
    "asymmetric_positive": 0.0,
    "asymmetric_negative": 4.0,
    "asymmetric_margin": 0.05,
    "label_smoothing": 0.0,
    "head_weights": {},
    "side_weights": None,
}
every_loss = pytest.mark.parametrize("binary", get_args(BinaryLoss))
row_losses = pytest.mark.parametrize("binary", [name for name in get_args(BinaryLoss) if name != "lovasz_labels"])
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def objective(task: Task = TASK, **changes: Any) -> Objective:
    return Objective(task, **DEFAULTS | changes)


def labels(rows: int = 8, seed: int = 0) -> Labels:
    random = np.random.default_rng(seed)
    codes = [random.integers(len(target.classes), size=rows) for target in TASK.targets]
    return Labels(TASK, np.stack(codes, axis=1).astype(np.int32))


def draw(rows: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(rows, TASK.width, generator=torch.Generator().manual_seed(seed))
    return logits, torch.from_numpy(targets_of(labels(rows, seed)))


def with_missing(targets: Tensor) -> Tensor:
    """The first row without any label, the second without a binary and a categorical."""
    targets = targets.clone()
    targets[0] = math.nan
    targets[1, 0] = math.nan
    targets[1, C] = math.nan
    return targets


def gradient(loss: Objective, logits: Tensor, targets: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, targets).mean().backward()
    assert leaf.grad is not None
    return leaf.grad


def sides(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 3, (TASK.width, 2)).astype(np.float32)


def test_targets_are_the_labels_probabilities() -> None:
    codes = np.array([[1, 2, 0, 1, -1], [-1, -1, 1, -1, 1]], dtype=np.int32)
    nan = math.nan
    expected = [[1, 0, 0, 1, 0, 0, 1, nan], [nan, nan, nan, nan, 1, nan, nan, 1]]
    hard = Labels(TASK, codes)
    np.testing.assert_array_equal(targets_of(hard), np.array(expected, dtype=np.float32))
    soft = replace(hard, soft={"c": np.array([[0.1, 0.2, 0.7]] * 2, np.float32), "z": np.full((2, 1), 0.4, np.float32)})
    blocks = [soft.probabilities(name) for name in TASK.names]
    np.testing.assert_array_equal(targets_of(soft), np.concatenate(blocks, axis=1))
    assert targets_of(soft).dtype == np.float32


def test_names_and_defaults_are_the_recipes() -> None:
    fields = ObjectiveSettings.model_fields
    assert fields["binary"].annotation == BinaryLoss
    assert {name: fields[name].default for name in DEFAULTS if name in fields} == {
        name: value for name, value in DEFAULTS.items() if name in fields
    }


def test_by_hand() -> None:
    task = Task((Binary("x"), Categorical("c", ("a", "b")), Binary("y")))
    logits = torch.tensor([[0.0, 0.0, math.log(3), math.log(3)]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    expected = (math.log(2) + math.log(4)) / 2 + math.log(4)
    torch.testing.assert_close(objective(task)(logits, targets), torch.tensor([expected]))


@reductions
def test_sums_its_heads(reduction: str) -> None:
    logits, targets = draw()
    heads = {"binary": 0.5, "e": 2.0}
    loss = objective(binary_reduction=reduction, head_weights=heads, label_smoothing=0.1)
    cells = bce(logits[:, BINARIES], targets[:, BINARIES])
    binary = cells.mean(1) if reduction == "mean" else cells.sum(1)
    expected = (
        0.5 * binary
        + cross_entropy(logits[:, C], targets[:, C], 0.1)
        + 2 * cross_entropy(logits[:, E], targets[:, E], 0.1)
    )
    torch.testing.assert_close(loss(logits, targets), expected)


def test_each_binary_loss_is_the_one_it_is_called() -> None:
    logits, targets = draw()
    z, y = logits[:, BINARIES], targets[:, BINARIES]
    expected = {
        "bce": bce(z, y).mean(1),
        "focal": focal(z, y, 1.5).mean(1),
        "asymmetric": asymmetric(z, y, 0.5, 3.0, 0.1).mean(1),
        "lovasz_rows": symmetric_lovasz(z, y),
        "lovasz_labels": symmetric_lovasz(z.T, y.T).mean().expand(len(z)),
    }
    keys = {"focal_gamma": 1.5, "asymmetric_positive": 0.5, "asymmetric_negative": 3.0, "asymmetric_margin": 0.1}
    assert set(expected) == set(get_args(BinaryLoss))
    for name, value in expected.items():
        loss = objective(binary=name, head_weights={"c": 0.0, "e": 0.0}, **keys)
        torch.testing.assert_close(loss(logits, targets), value)


@every_loss
@reductions
def test_missing_cells_add_nothing(binary: str, reduction: str) -> None:
    logits, targets = draw()
    loss, missing = objective(binary=binary, binary_reduction=reduction, side_weights=sides()), with_missing(targets)
    slopes = gradient(loss, logits, missing)
    assert slopes.isfinite().all()
    assert not slopes[missing.isnan()].any()
    moved = torch.where(missing.isnan(), 1e4, logits)
    torch.testing.assert_close(loss(moved, missing), loss(logits, missing))


@row_losses
@reductions
def test_a_row_without_labels_costs_nothing_and_a_mean_is_over_what_is_there(binary: str, reduction: str) -> None:
    logits, targets = draw()
    losses = objective(binary=binary, binary_reduction=reduction)(logits, with_missing(targets))
    assert losses[0] == 0
    fewer = Task((Categorical("e", ("f", "g")), Binary("y"), Binary("z")))
    columns = [5, 6, 4, 7]
    alone = objective(fewer, binary=binary, binary_reduction=reduction)
    torch.testing.assert_close(losses[1], alone(logits[1:2, columns], targets[1:2, columns])[0])


@reductions
def test_lovasz_labels_skips_labels_that_the_batch_does_not_know(reduction: str) -> None:
    logits, targets = draw()
    loss = objective(binary="lovasz_labels", binary_reduction=reduction, head_weights={"c": 0.0, "e": 0.0})
    targets[:, 4] = math.nan
    values = symmetric_lovasz(logits[:, [0, 7]].T, targets[:, [0, 7]].T)
    expected = values.mean() if reduction == "mean" else values.sum()
    torch.testing.assert_close(loss(logits, targets), expected.expand(len(logits)))


@every_loss
def test_extreme_logits_have_finite_losses_and_gradients(binary: str) -> None:
    logits, targets = draw()
    loss, huge = objective(binary=binary, label_smoothing=0.1), 1e4 * logits.sign()
    assert loss(huge, targets).isfinite().all()
    assert gradient(loss, huge, targets).isfinite().all()


@row_losses
def test_a_row_depends_on_itself_alone(binary: str) -> None:
    logits, targets = draw()
    loss = objective(binary=binary, side_weights=sides())
    torch.testing.assert_close(loss(logits, targets)[2:3], loss(logits[2:3], targets[2:3]))
    alone = gradient(loss, logits[2:3], targets[2:3])
    torch.testing.assert_close(len(logits) * gradient(loss, logits, targets)[2:3], alone)


@every_loss
def test_the_order_of_rows_means_nothing(binary: str) -> None:
    logits, targets = draw()
    loss, order = objective(binary=binary, side_weights=sides()), torch.arange(7, -1, -1)
    torch.testing.assert_close(loss(logits[order], targets[order]), loss(logits, targets)[order])


@every_loss
def test_the_order_of_targets_means_nothing(binary: str) -> None:
    logits, targets = draw()
    order = [7, 5, 6, 4, 1, 2, 3, 0]
    turned = objective(Task(TASK.targets[::-1]), binary=binary, side_weights=sides()[order])
    straight = objective(binary=binary, side_weights=sides())
    torch.testing.assert_close(turned(logits[:, order], targets[:, order]), straight(logits, targets))


@every_loss
def test_side_weights_of_one_are_none(binary: str) -> None:
    logits, targets = draw()
    ones = objective(binary=binary, side_weights=np.ones((TASK.width, 2), dtype=np.float32))
    torch.testing.assert_close(ones(logits, targets), objective(binary=binary)(logits, targets))


def test_side_weights_by_hand() -> None:
    logits, targets = draw()
    table = torch.from_numpy(sides())
    y = targets[:, BINARIES]
    cells = torch.where(y == 1, table[BINARIES, 1], table[BINARIES, 0]) * bce(logits[:, BINARIES], y)
    expected = cells.mean(1)
    for block in (C, E):
        expected = expected + targets[:, block] @ table[block, 1] * cross_entropy(
            logits[:, block], targets[:, block], 0
        )
    torch.testing.assert_close(objective(side_weights=sides())(logits, targets), expected)


def test_a_task_of_one_kind() -> None:
    logits, targets = draw()
    binaries = objective(Task(TASK.binaries))(logits[:, BINARIES], targets[:, BINARIES])
    classes = objective(Task(TASK.categoricals))(logits[:, 1:4].repeat(1, 2)[:, :5], targets[:, [1, 2, 3, 5, 6]])
    assert binaries.shape == classes.shape == (8,)
    torch.testing.assert_close(binaries, bce(logits[:, BINARIES], targets[:, BINARIES]).mean(1))


@every_loss
def test_no_rows(binary: str) -> None:
    logits, targets = draw()
    assert objective(binary=binary)(logits[:0], targets[:0]).shape == (0,)


@every_loss
def test_half_precision_logits_are_measured_in_full(binary: str) -> None:
    logits, targets = draw()
    loss = objective(binary=binary, side_weights=sides())
    rounded = logits.bfloat16()
    assert loss(rounded, targets).dtype == torch.float32
    torch.testing.assert_close(loss(rounded, targets), loss(rounded.float(), targets))


def test_unknown_heads_are_named() -> None:
    with pytest.raises(RecipeError, match="allowed: binary, c, e\n  got: x, colour"):
        objective(head_weights={"x": 1.0, "colour": 2.0, "c": 1.0})
    with pytest.raises(RecipeError, match="allowed: c, e\n  got: binary"):
        objective(Task(TASK.categoricals), head_weights={"binary": 1.0})
