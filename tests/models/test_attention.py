"""Attention by matrix products says what torch's own says, forward and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_decoder import made, tweets
from tests.models.tiny_decoders import DECODERS, bytes_tokenizer, save_decoder
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fivefold.models.backbones import attention
from fivefold.models.backbones.attention import ATTENTION, LONGEST, attend_padded, products
from fivefold.models.backbones.backbone import Origin, load_decoder


@pytest.fixture(autouse=True)
def chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chip with bf16 instructions, which needn't be there to say the same."""
    monkeypatch.setattr(attention, "computes_bf16", lambda device: True)


def drawn(heads: int = 6, shared: int = 6, tokens: int = 7, keys: int = 7, dtype: torch.dtype = torch.float32) -> Any:
    """Queries, keys and values of three sequences."""
    torch.manual_seed(0)
    shapes = ((3, heads, tokens, 8), (3, shared, keys, 8), (3, shared, keys, 8))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def told(mixed: Tensor, blocks: list[Tensor]) -> list[Tensor]:
    """What attention says, and the gradients of a loss of it."""
    weights = torch.linspace(-1, 1, mixed.numel()).view_as(mixed)
    return [mixed.detach(), *torch.autograd.grad((mixed * weights).square().sum(), blocks)]


def torchs(blocks: list[Tensor], **how: Any) -> Tensor:
    """Attention by torch's own, laid out as `products` lays it out."""
    return scaled_dot_product_attention(*blocks, enable_gqa=True, **how).transpose(1, 2)


@pytest.fixture(params=[2, 128])
def queries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many queries at once, and with few of them few sequences."""
    monkeypatch.setattr(attention, "QUERIES", request.param)
    monkeypatch.setattr(attention, "AT_ONCE", 6 * 2 * 9 * request.param)


@pytest.mark.usefixtures("queries")
@pytest.mark.parametrize("shared", [1, 2, 6])
@pytest.mark.parametrize("mask", ["none", "seen", "added"])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_products_are_torchs(shared: int, mask: str, scaling: float | None) -> None:
    blocks = drawn(shared=shared, keys=9)
    seen = torch.rand(3, 1, 7, 9) > 0.3
    seen[..., 0] = True
    given = {"none": None, "seen": seen, "added": torch.randn(3, 1, 7, 9)}[mask]
    expected = told(torchs(blocks, attn_mask=given, scale=scaling), blocks)
    for a, b in zip(expected, told(products(*blocks, given, scaling=scaling), blocks), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("queries")
@pytest.mark.parametrize("shared", [1, 6])
def test_causal_products_are_torchs(shared: int) -> None:
    blocks = drawn(shared=shared)
    expected = told(torchs(blocks, is_causal=True), blocks)
    for a, b in zip(expected, told(products(*blocks, None, causal=True), blocks), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(products(*blocks, None, causal=True), expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("queries")
def test_scoring_takes_some_sequences_at_a_time() -> None:
    query, key, _ = (each.detach() for each in drawn(shared=2, keys=9))
    value, mask = torch.randn(3, 2, 9, 5), torch.rand(3, 1, 7, 9) > 0.3
    mask[..., 0] = True
    for given in (mask, mask[:1], mask[:, :, :1], mask[0, 0]):
        expected = torchs([query, key, value], attn_mask=given)
        torch.testing.assert_close(products(query, key, value, given), expected, atol=1e-5, rtol=1e-4)


def test_what_is_dropped_is_as_much_as_asked() -> None:
    query, key, _ = drawn(tokens=64, keys=64)
    ones = torch.ones(3, 6, 64, 8)
    torch.manual_seed(0)
    mixed = products(query, key, ones, None, dropout=0.4)
    assert float(mixed.detach().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(mixed.detach().std()) > 0.05


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_bf16_in_training_goes_by_products(causal: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "products", lambda *each: calls.append(each) or products(*each))
    module = nn.Module()
    module.is_causal = causal  # type: ignore[assignment]
    seen = (torch.arange(7) < torch.tensor([[7], [4], [2]]))[:, None, None] if masked else None
    if masked and causal:
        seen = seen & torch.ones(7, 7, dtype=torch.bool).tril()  # type: ignore[operator]
    blocks = drawn(dtype=torch.bfloat16)
    found = told(attend_padded(module, *blocks, seen)[0].float(), blocks)
    assert len(calls) == 1
    full = [block.detach().float().requires_grad_() for block in blocks]
    expected = told(attend_padded(module, *full, seen)[0], full)
    assert len(calls) == 1  # fp32 goes torch's way
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b.float(), a, atol=0.03 * float(a.abs().max()), rtol=0.0)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"keys": LONGEST + 1, "tokens": LONGEST + 1}, "too long to keep all weights"),
        ({"keys": 9}, "causal, behind a prefix"),
        ({"dtype": torch.float32}, "fp32"),
        ({"mask": torch.ones(3, 6, 7, 7, dtype=torch.bool)}, "every head sees other tokens"),
    ],
)
def test_the_rest_goes_torchs_way(how: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(attention, "products")
    module = nn.Module()
    how = {"dtype": torch.bfloat16, **how}
    mask = how.pop("mask", None)
    assert attend_padded(module, *drawn(**how), mask)[0].dtype == how["dtype"], why


def test_without_bf16_instructions_torchs_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = drawn(dtype=torch.bfloat16)
    assert attention.torch_is_slow(*blocks)
    monkeypatch.setattr(attention, "computes_bf16", lambda device: False)
    assert not attention.torch_is_slow(*blocks)


def test_large_biases_of_keys_cost_no_bits() -> None:
    query, key, value = (each.detach() for each in drawn(tokens=32, keys=32))
    query = query.bfloat16().float()
    biased = (key + 50 * torch.randn(8, generator=torch.Generator().manual_seed(0))).bfloat16().float()
    exact = products(query, biased, value, None)
    halved = products(query.bfloat16(), biased.bfloat16(), value.bfloat16(), None)
    assert (halved.float() - exact).abs().max() < 0.05


@pytest.mark.parametrize(("adapter", "weights"), [(None, "fp32"), ({"rank": 4}, "fp32"), ({"rank": 4}, "bf16")])
def test_a_decoder_trained_in_bf16_attends_by_products(
    adapter: Any, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_decoder("llama", tmp_path)
    calls = []
    monkeypatch.setattr(attention, "products", lambda *each: calls.append(each[0].dtype) or products(*each))
    task, corpus = tweets(24)
    fitted = made(task, tmp_path, {"precision": "bf16"}, adapter=adapter, weights=weights)
    fitted.fit(corpus.rows(), None)
    assert set(calls) == {torch.bfloat16}
    assert len(calls) == 2 * 2  # layers, steps
    assert np.isfinite(fitted.score(corpus.rows()).logits).all()
    assert (len(calls) > 2 * 2) == (weights == "bf16")  # scored in the precision that weights are held in


@pytest.mark.usefixtures("queries")
@pytest.mark.parametrize("name", DECODERS)
def test_decoders_attend_so_and_say_what_they_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_decoder(name, tmp_path)
    model = load_decoder(Origin(str(tmp_path)), bytes_tokenizer(), seed=0).model.eval()
    assert model.config._attn_implementation == ATTENTION
    monkeypatch.setattr(attention, "torch_is_slow", lambda *blocks: True)
    ids = torch.randint(3, 300, (3, 40), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(40) < torch.tensor([[40], [17], [3]])).long()
    inputs = [{"attention_mask": mask}, {"attention_mask": mask.flip(1)}, {}]
    by_products = [model(input_ids=ids, **each).last_hidden_state for each in inputs]
    model.set_attn_implementation("sdpa")
    for each, found in zip(inputs, by_products, strict=True):
        real = each.get("attention_mask", torch.ones_like(mask)).bool()
        assert torch.allclose(found[real], model(input_ids=ids, **each).last_hidden_state[real], atol=1e-4)
