"""Training only the embeddings that occur says and learns what training them all does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fivefold.models.backbones.vocabulary import MOST, embedding_of, occurring, only_occurring


class Reader(nn.Module):
    """A net over embeddings of 50 tokens, as transformers' models have them."""

    def __init__(self, tied: bool = False, padding: int | None = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 4, padding_idx=padding)
        self.top = nn.Linear(4, 50 if tied else 2)
        if tied:
            self.top.weight = self.words.weight

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.top(self.words(ids).mean(dim=1))
        return logits


IDS = torch.tensor([[5, 9, 3], [40, 5, 5]])


def trained(net: Reader, steps: int = 3) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(steps):
        net(IDS).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.mark.parametrize("padding", [3, None])
def test_what_is_learnt_is_the_same(padding: int | None) -> None:
    whole, cut = Reader(padding=padding), Reader(padding=padding)
    names, parameter = [name for name, _ in cut.named_parameters()], cut.words.weight
    trained(whole)
    with only_occurring(cut, cut, [IDS.numpy().astype(np.int32), np.array([7], dtype=np.int32)]) as shrink:
        assert cut.words.weight.shape == (5, 4)
        assert [name for name, _ in cut.named_parameters()] == names
        assert torch.equal(shrink({"words.weight": parameter})["words.weight"], cut.words.weight)
        trained(cut)
        with pytest.raises(IndexError):
            cut(torch.tensor([[11]]))
    assert cut.words.weight is parameter
    assert cut.words.padding_idx == padding
    assert torch.equal(cut.words.weight, whole.words.weight)
    assert torch.equal(cut(torch.tensor([[11, 5, 3]])), whole(torch.tensor([[11, 5, 3]])))


def test_all_is_back_after_a_failure() -> None:
    net = Reader()
    before = net(IDS)
    with pytest.raises(RuntimeError, match="stop"), only_occurring(net, net, [IDS.numpy()]):
        raise RuntimeError("stop")
    assert torch.equal(net(IDS), before)


def frozen() -> Reader:
    net = Reader()
    net.words.weight.requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("net", "ids", "why"),
    [
        (Reader(tied=True), IDS.numpy(), "an output layer shares them"),
        (frozen(), IDS.numpy(), "they don't learn"),
        (Reader(), np.arange(int(50 * MOST) + 1), "most tokens occur"),
    ],
)
def test_all_rows_remain_where_nothing_is_gained(net: Reader, ids: Any, why: str) -> None:
    with only_occurring(net, net, [ids]) as shrink:
        assert net.words.weight.shape == (50, 4), why
        weights = {"words.weight": net.words.weight}
        assert shrink(weights) == weights


def test_tokens_beyond_the_embeddings_are_left_out() -> None:
    assert occurring([np.array([4, 90]), np.array([[2], [4]])], 50, 0).tolist() == [0, 2, 4]


def test_a_backbone_may_not_say_what_looks_up_its_tokens() -> None:
    class Silent(Reader):
        def get_input_embeddings(self) -> nn.Embedding:
            raise NotImplementedError

    net = Silent()
    assert embedding_of(net) is None
    with only_occurring(net, net, [IDS.numpy()]):
        assert net.words.weight.shape == (50, 4)
