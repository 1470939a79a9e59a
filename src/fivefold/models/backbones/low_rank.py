"""LoRA's linear layers with fewer walks through memory on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fivefold.training.dropout import dropped_places, zeroed


class LeanLinear(Linear):
    """PEFT's layer, y = x Wᵀ + s drop(x) Aᵀ Bᵀ, summed within the product by B.

    PEFT multiplies by s and adds in walks of their own over all of y, forward and back, and drops by a mask. Under
    bf16 autocast the frozen weights are rounded once, not in every pass. Quantised layers, DoRA, other precisions and
    other devices go PEFT's way.
    """

    rounded: tuple[tuple[int, int], Tensor] | None = None
    """Where and in which version the frozen weights lay that were rounded last, and what came of it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Inputs of any leading shape, (..., inputs) -> (..., outputs)."""
        name = None if args or kwargs else self._lean_adapter(x)
        if name is None:
            other: Tensor = super().forward(x, *args, **kwargs)
            return other
        base, dropout = self.base_layer, self.lora_dropout[name]
        share = dropout.p if dropout.training and isinstance(dropout, nn.Dropout) else 0.0
        factors = self.lora_A[name].weight, self.lora_B[name].weight
        weight = self._rounded() if torch.is_autocast_enabled("cpu") else base.weight
        added: Tensor = _Added.apply(  # type: ignore[no-untyped-call]
            x, weight, base.bias, *factors, self.scaling[name], share
        )
        return added

    def _rounded(self) -> Tensor:
        """The frozen weights in bf16."""
        weight: Any = self.base_layer.weight
        version = weight.data_ptr(), weight._version
        if self.rounded is None or self.rounded[0] != version:
            with torch.inference_mode(False):  # what is made in it can't be kept for a way back later
                self.rounded = version, weight.detach().to(torch.bfloat16)
        return self.rounded[1]

    def _lean_adapter(self, x: Tensor) -> str | None:
        """The one active adapter, if it is plain LoRA on a CPU."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        (name,) = self.active_adapters
        plain = name in self.lora_A and name not in self.lora_variant and self.lora_B[name].bias is None
        weight: Any = self.base_layer.weight
        if not plain or not self._multiplies(x, weight) or x.device.type != "cpu" or weight.requires_grad:
            return None
        return str(name) if getattr(self.lora_dropout[name], "p", 0.0) < 1 else None

    def _multiplies(self, x: Tensor, weight: Tensor) -> bool:
        """Whether these are multiplied in fp32, under bf16 autocast, or in bf16 for scores alone, where PEFT would
        multiply by its factors in fp32."""
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu") == torch.bfloat16 and weight.is_floating_point()
        scored = x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
        return x.dtype == weight.dtype and (scored or x.dtype == torch.float32)


class _Added(torch.autograd.Function):
    """A frozen linear layer and its adapter; gradients for the inputs and the two factors."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, share: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        down, up = down.to(weight.dtype), up.to(weight.dtype)
        places = dropped_places(flat.numel(), share) if share else None
        kept = flat if places is None else zeroed(flat.clone(), places)
        thin = kept @ down.T
        ctx.save_for_backward(kept, weight, down, up, thin, places)
        ctx.shape, ctx.scale = x.shape, scale / (1 - share)
        mixed = functional.linear(flat, weight, None if bias is None else bias.to(weight.dtype)).addmm_(
            thin, up.T, alpha=ctx.scale
        )
        return mixed.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, down, up, thin, places = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        back = (flat @ up).mul_(ctx.scale)
        below = None
        if ctx.needs_input_grad[0]:
            below = flat @ weight
            if places is None:
                below.addmm_(back, down)
            else:
                below += zeroed(back @ down, places)
            below = below.view(ctx.shape)
        return below, None, None, back.T @ kept, (flat.T @ thin).mul_(ctx.scale), None, None


def make_lean(backbone: nn.Module) -> None:
    """Have the LoRA layers over plain linear ones, which keep weights and names, compute leanly."""
    for module in backbone.modules():
        if type(module) is Linear and type(module.get_base_layer()) is nn.Linear:
            module.__class__ = LeanLinear
