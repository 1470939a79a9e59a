import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from fivefold.training.optim import (
    Group,
    MovingAverage,
    ScheduleName,
    adamw,
    decays,
    layer_groups,
    scale_gradients,
    schedule,
    set_rates,
    warmup_steps,
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.LayerNorm = nn.LayerNorm(4)
        self.dense = nn.Linear(4, 3)
        self.scores = nn.Parameter(torch.zeros(4))


def test_norms_and_biases_do_not_decay() -> None:
    chosen = {name for name, parameter in Block().named_parameters() if decays(name, parameter)}
    assert chosen == {"embedding.weight", "dense.weight"}


def test_groups_of_the_optimiser() -> None:
    block = Block()
    block.embedding.requires_grad_(False)
    optimiser = adamw([Group(dict(block.named_parameters()), 0.1)], weight_decay=0.3)
    assert [(group["weight_decay"], len(group["params"])) for group in optimiser.param_groups] == [(0.3, 1), (0.0, 4)]
    set_rates(optimiser, 0.5)
    assert {group["lr"] for group in optimiser.param_groups} == {0.05}
    assert {group["peak"] for group in optimiser.param_groups} == {0.1}


def test_fused_adamw_is_torchs_plain_adamw() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(nn.Sequential(OrderedDict(a=nn.Linear(6, 5), norm=nn.LayerNorm(5), b=nn.Linear(5, 1))))
    ours = adamw([Group(dict(models[0].named_parameters()), 0.01)], weight_decay=0.2)
    matrices = [models[1].a.weight, models[1].b.weight]
    others = [p for p in models[1].parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=0.01, foreach=False, fused=False)
    for _ in range(20):
        x = torch.randn(8, 6)
        for model, optimiser in zip(models, (ours, plain), strict=True):
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()
    for left, right in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_layers_learn_slower_the_deeper_they_are() -> None:
    depths = [{str(i): nn.Parameter(torch.zeros(1))} for i in range(4)]
    assert [g.learning_rate for g in layer_groups(depths, 1.0, None, 0.5)] == [0.25, 0.5, 1.0, 1.0]
    assert [g.learning_rate for g in layer_groups(depths, 1.0, 3.0, 1.0)] == [1.0, 1.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("warmup", "steps"), [(0.1, 10), (0.0, 0), ("7 steps", 7), ("2 epochs", 50), ("0.5 epochs", 12)]
)
def test_warmup_in_every_unit(warmup: float | str, steps: int) -> None:
    assert warmup_steps(warmup, total=100, per_epoch=25) == steps


def test_schedules() -> None:
    names: list[ScheduleName] = ["linear", "cosine", "constant", "plateau"]
    shares = {name: [schedule(name, 4, 14)(step) for step in range(14)] for name in names}
    for values in shares.values():
        assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares["linear"][4:] == pytest.approx(np.linspace(1, 0.1, 10).tolist())
    assert shares["cosine"][9] == pytest.approx(0.5)
    assert shares["cosine"][13] == pytest.approx((1 + math.cos(math.pi * 0.9)) / 2)
    assert shares["constant"][4:] == shares["plateau"][4:] == [1.0] * 10
    assert schedule("linear", 20, 10)(9) == pytest.approx(10 / 21)


def test_gradients_are_scaled_then_clipped() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    assert scale_gradients(gradients, 5.0, 2.0, clip=1.0) == 10.0
    torch.testing.assert_close(gradients, [torch.tensor([0.6, 0.0]), torch.tensor([[0.8]])])
    assert scale_gradients(gradients, 1.0, 0.5, clip=1.0) == 0.5
    torch.testing.assert_close(gradients, [torch.tensor([0.3, 0.0]), torch.tensor([[0.4]])])
    assert scale_gradients(gradients, 0.5, 10.0, clip=None) == 5.0
    torch.testing.assert_close(gradients, [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])])
    assert math.isnan(scale_gradients(gradients, math.nan, 2.0, clip=1.0))
    torch.testing.assert_close(gradients, [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])])


def test_moving_average() -> None:
    parameter = nn.Parameter(torch.tensor([0.0]))
    average = MovingAverage([parameter], 0.5)
    expected = 0.0
    for update in range(1, 30):
        parameter.data.fill_(float(update))
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    with average.in_place():
        assert float(parameter.detach()) == pytest.approx(expected, rel=1e-5)
        assert float(average.averages[0]) == 29
    assert float(parameter.detach()) == 29
    with pytest.raises(ValueError, match="within"), average.in_place():
        raise ValueError("within")
    assert float(parameter.detach()) == 29
