"""LoRA computed leanly says what PEFT says, forward and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from tests.models.tiny_decoders import DECODERS, bytes_tokenizer, save_decoder
from torch import Tensor, nn

from fivefold.models.backbones.adapters import Adapter, attach
from fivefold.models.backbones.backbone import Origin, load_decoder
from fivefold.models.backbones.low_rank import LeanLinear, make_lean
from fivefold.models.backbones.passes import Passes, real_first
from fivefold.training.dropout import dropped_places


def adapted(dropout: float = 0.0, bias: bool = False, **options: Any) -> Any:
    """A linear layer of 24 inputs and 40 outputs with an adapter that adds something, as PEFT makes it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 40, bias=bias))
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["0"], **options)
    inject_adapter_in_model(config, net, "default")
    nn.init.normal_(net[0].lora_B["default"].weight)
    return net


def told(net: Any, x: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of the inputs and both factors."""
    x = x.clone().requires_grad_()
    y = net(x)
    y.square().sum().backward()
    factors = [p for name, p in net.named_parameters() if "lora_" in name]
    return [y.detach(), x.grad, *(p.grad for p in factors)]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24)])
def test_lean_is_pefts(bias: bool, shape: tuple[int, ...]) -> None:
    net, lean, x = adapted(bias=bias), adapted(bias=bias), torch.randn(*shape)
    make_lean(lean)
    assert type(lean[0]) is LeanLinear
    for expected, found in zip(told(net, x), told(lean, x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(lean.eval()(x), net.eval()(x), atol=1e-5, rtol=1e-5)


def test_dropout_is_that_of_the_places_drawn() -> None:
    net, lean, x = adapted(), adapted(dropout=0.3), torch.randn(11, 24)
    make_lean(lean)
    torch.manual_seed(5)
    places = dropped_places(x.numel(), 0.3)
    mask = torch.ones(x.numel()).index_fill(0, places, 0.0).view_as(x) / 0.7

    def masked(x: Tensor) -> Tensor:
        layer = net[0]
        added = layer.lora_B["default"](layer.lora_A["default"](x * mask))
        return layer.base_layer(x) + layer.scaling["default"] * added

    net.forward = masked
    torch.manual_seed(5)
    for expected, found in zip(told(net, x), told(lean, x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_gradients_are_those_of_small_steps() -> None:
    lean = adapted().double()
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    layer = lean[0]
    weights = layer.base_layer.weight, None, layer.lora_A["default"].weight, layer.lora_B["default"].weight

    def seeded(x: Tensor, *weights: Any) -> Any:
        torch.manual_seed(1)
        from fivefold.models.backbones.low_rank import _Added

        return _Added.apply(x, *weights, 2.0, 0.2)

    assert torch.autograd.gradcheck(seeded, (x, *weights))


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda: adapted(use_dora=True), "DoRA"),
        (lambda: adapted(lora_bias=True), "a bias beside B"),
        (lambda: adapted().double(), "another precision"),
    ],
)
def test_what_is_not_plain_goes_pefts_way(net: Any, why: str) -> None:
    plain, lean = net(), net()
    make_lean(lean)
    x = torch.randn(5, 24, dtype=plain[0].base_layer.weight.dtype)
    assert lean[0]._lean_adapter(x) is None, why
    assert torch.equal(lean(x), plain(x))


@pytest.mark.parametrize("bias", [False, True])
def test_under_bf16_autocast_lean_is_pefts(bias: bool) -> None:
    net, lean, x = adapted(bias=bias), adapted(bias=bias), torch.randn(2, 5, 24)
    make_lean(lean)
    with torch.autocast("cpu", torch.bfloat16):
        assert lean[0]._lean_adapter(x) == "default"
        expected, found = told(net, x), told(lean, x)
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b.float(), a.float(), atol=0.02 * float(a.abs().max()), rtol=0.0)


def test_scoring_in_bf16_lean_is_nearly_pefts() -> None:
    net, lean, x = adapted().bfloat16(), adapted().bfloat16(), torch.randn(9, 24).bfloat16()
    for each in (net, lean):
        for name, parameter in each.named_parameters():
            if "lora" in name:
                parameter.data = parameter.data.float()
    make_lean(lean)
    assert lean[0]._lean_adapter(x) is None  # what learns is multiplied as PEFT does
    with torch.no_grad():
        assert lean[0]._lean_adapter(x) == "default"
        expected, found = net(x), lean(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), atol=0.02 * float(expected.abs().max()), rtol=0.0)


def test_frozen_weights_that_change_are_rounded_anew() -> None:
    lean, x = adapted(), torch.randn(5, 24)
    make_lean(lean)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        before, rounded = lean(x), lean[0]._rounded()
        assert lean[0]._rounded() is rounded
        lean[0].base_layer.weight.mul_(2.0)
        assert torch.equal(lean[0]._rounded(), 2 * rounded)
        assert not torch.equal(lean(x), before)


def test_weights_first_rounded_in_scoring_serve_training() -> None:
    lean, x = adapted(), torch.randn(5, 24)
    make_lean(lean)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            lean(x)
        assert all(gradient is not None for gradient in told(lean, x))


def test_in_fp16_and_merged_it_is_pefts() -> None:
    lean, x = adapted(), torch.randn(5, 24)
    make_lean(lean)
    with torch.autocast("cpu", torch.float16):
        assert lean[0]._lean_adapter(x) is None
    lean[0].merge()
    assert lean[0]._lean_adapter(x) is None


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_sees_no_mask_and_its_adapters_are_lean(name: str, tmp_path: Path) -> None:
    save_decoder(name, tmp_path)
    model = load_decoder(Origin(str(tmp_path)), bytes_tokenizer(), seed=0).model.eval()
    attach(model, Adapter(rank=2), 1, "default")
    assert {type(module) for module in model.modules() if isinstance(module, Linear)} == {LeanLinear}
    ids = torch.randint(3, 300, (3, 40), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(40) < torch.tensor([[40], [17], [3]])).long()
    (each,) = Passes(model)(real_first(ids, mask, torch.zeros_like(ids)))
    assert "attention_mask" not in each.inputs
    with torch.no_grad():
        masked = model(**each.inputs, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(
            model(**each.inputs).last_hidden_state[mask == 1], masked[mask == 1], atol=1e-5, rtol=1e-5
        )


def test_a_bidirectional_reader_keeps_its_mask() -> None:
    architecture = {**DECODERS["gemma3"], "use_bidirectional_attention": True}
    model = load_decoder(Origin(architecture=architecture), bytes_tokenizer(), seed=0).model
    assert Passes(model).masked
