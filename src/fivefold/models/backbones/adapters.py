"""Low-rank adapters on a backbone: attached, drawn anew, saved and loaded in PEFT's layout.

LoRA is Hu et al. 2021 (arXiv 2106.09685), rsLoRA Kalajdzievski 2023 (arXiv 2312.03732), DoRA Liu et al. 2024
(arXiv 2402.09353).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fivefold.errors import ArtefactError, RecipeError
from fivefold.models.backbones.contents import SOURCE
from fivefold.models.backbones.encoder_decoders import is_encoder_decoder
from fivefold.models.backbones.low_rank import make_lean
from fivefold.models.backbones.places import first_line

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ROOT = "base_model.model."
"""What PEFT puts before every name of a model that it wraps."""

STARTS: tuple[Any, ...] = (True, "gaussian")
"""Ways to draw an adapter; PEFT's others change the backbone's own weights, which are not saved, or need data."""

WHOLE = ("bias", "layer_replication", "modules_to_save", "trainable_token_indices")
"""Options of PEFT's that change more of a backbone than what stands beside its weights."""


@dataclass(frozen=True)
class Adapter:
    """The adapter of a recipe's section `model.adapter`.

    Parameters
    ----------
    rank, alpha
        Of the two factors, and the scale alpha / rank of their product (alpha / √rank with `rslora`).
    dropout
        Share of an adapter's inputs dropped in training.
    targets
        "all-linear": every linear layer of the backbone; else names of its modules.
    options
        Further arguments of PEFT's `LoraConfig`.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.05
    targets: str | Sequence[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> LoraConfig:
        """As PEFT takes it.

        Raises
        ------
        RecipeError
            If an option isn't PEFT's, or can't be kept.
        """
        if whole := sorted(key for key in WHOLE if self.options.get(key, "none") not in (None, "none")):
            raise RecipeError(
                f"model.adapter.options.{whole[0]} can't be used: it trains or copies the backbone's own weights, "
                "which all folds share.",
                next_step="leave it out, or train the backbone itself (model.adapter: null)",
            )
        start = self.options.get("init_lora_weights", True)
        if start not in STARTS:
            raise RecipeError(
                "model.adapter.options.init_lora_weights can't be used.",
                allowed=", ".join(str(each).lower() for each in STARTS),
                got=str(start),
            )
        try:
            return LoraConfig(
                **{
                    "r": self.rank,
                    "lora_alpha": self.alpha,
                    "lora_dropout": self.dropout,
                    "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
                    "use_rslora": self.rslora,
                    "use_dora": self.dora,
                    **self.options,
                }
            )
        except (TypeError, ValueError) as error:
            raise RecipeError("PEFT doesn't take model.adapter.", got=str(error)) from error


def attach(backbone: Any, adapter: Adapter, seed: int, name: str) -> None:
    """Put an adapter of this name on a backbone, in place, and freeze the backbone itself.

    Raises
    ------
    RecipeError
        If the backbone has no such modules, or PEFT can't adapt them.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore")  # PEFT has doubts about several adapters on one model
        try:
            inject_adapter_in_model(adapter.config(), backbone, name)
        except (ValueError, RuntimeError) as error:  # of which what PEFT hasn't implemented is one
            raise RecipeError(
                "The backbone can't take model.adapter.",
                got=first_line(error),
                next_step="leave model.adapter.targets out, so that every linear layer is adapted",
            ) from error
    for parameter in own_weights(backbone, name):
        parameter.data = parameter.data.float()  # small steps on weights in half precision are lost
    make_lean(backbone)


def own_weights(backbone: Any, name: str) -> list[Tensor]:
    """All weights of an attached adapter."""
    return [parameter for key, parameter in backbone.named_parameters() if name in key.split(".")]


def redraw(backbone: Any, adapter: Adapter, seed: int, name: str) -> None:
    """Draw an attached adapter anew, so that it adds nothing again."""
    start = adapter.options.get("init_lora_weights", True)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        layers: list[Any] = [module for module in backbone.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            layer.reset_lora_parameters(name, start)
            if name in layer.lora_magnitude_vector:
                magnitude = layer.lora_magnitude_vector[name].weight
                magnitude.copy_(row_norms(layer).reshape(magnitude.shape))


def copy_weights(source: Any, name: str, target: Any, other: str) -> None:
    """Give an adapter the weights of one with the same settings, on the same backbone or its like."""
    own = get_peft_model_state_dict(source, adapter_name=name, save_embedding_layers=False)
    set_peft_model_state_dict(target, own, adapter_name=other)


def save_adapter(
    backbone: Any, name: str, adapter: Adapter, head: Mapping[str, Tensor], folder: Path, source: str | None
) -> None:
    """Write adapter and head as PEFT does for a model with `score` over the backbone, or for one that writes.

    A backbone with a head of its own for the next token is the whole model.

    Parameters
    ----------
    head
        Tensors by their name within the model, such as "score.weight"; none of one that writes.
    source
        Name of the backbone, for who reads it without Fivefold.
    """
    config = adapter.config()
    writes = "SEQ_2_SEQ_LM" if is_encoder_decoder(backbone.config) else "CAUSAL_LM"
    config.task_type, config.modules_to_save = ("SEQ_CLS", ["score"]) if head else (writes, None)
    config.inference_mode = True
    config.base_model_name_or_path = source
    config.save_pretrained(str(folder))
    own = get_peft_model_state_dict(backbone, adapter_name=name, save_embedding_layers=False)
    tensors = {_inside(backbone) + key.removeprefix(ROOT): each for key, each in own.items()}
    tensors |= {ROOT + key: each for key, each in head.items()}
    save_file(
        {key: each.detach().cpu().contiguous() for key, each in tensors.items()}, folder / WEIGHTS, {"format": "pt"}
    )


def load_adapter(backbone: Any, name: str, folder: Path) -> dict[str, Tensor]:
    """Read what `save_adapter` wrote into an attached adapter; returns the head.

    Raises
    ------
    ArtefactError
        If it isn't there, or belongs to another adapter or backbone.
    """
    inside = _inside(backbone)
    try:
        tensors = load_file(folder / WEIGHTS)
        own = {key.removeprefix(inside): each for key, each in tensors.items() if key.startswith(inside)}
        expected = get_peft_model_state_dict(backbone, adapter_name=name, save_embedding_layers=False)
        if set(own) != set(expected):
            raise ValueError(f"it holds {len(own)} tensors of an adapter, where {len(expected)} are expected")
        set_peft_model_state_dict(backbone, own, adapter_name=name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtefactError(f"The adapter {folder / WEIGHTS} can't be read.", got=first_line(error)) from error
    return {key.removeprefix(ROOT): each for key, each in tensors.items() if not key.startswith(inside)}


def _inside(backbone: Any) -> str:
    """What PEFT puts before the names of a backbone's weights, as the part of a model or all of it."""
    return ROOT if backbone.get_output_embeddings() is not None else f"{ROOT}{backbone.base_model_prefix}."


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Weights and head of a saved adapter, by the names in its file.

    Raises
    ------
    ArtefactError
        If they can't be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
        return tensors
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"The adapter {folder / WEIGHTS} can't be read.", got=first_line(error)) from error


def write_tensors(adapter: Adapter, tensors: Mapping[str, Tensor], like: Path, folder: Path) -> None:
    """Write an adapter as `save_adapter` does, of the backbone and the head of the one saved at `like`."""
    if (like / SOURCE).is_file():
        shutil.copy(like / SOURCE, folder / SOURCE)
    config = json.loads((like / CONFIG).read_text("utf-8")) | {"r": adapter.rank, "lora_alpha": adapter.alpha}
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def row_norms(layer: Any) -> Tensor:
    """Lengths of the rows of the weights under an adapter, which are DoRA's first magnitudes, float32 (outputs,)."""
    weight = dequantised(layer.get_base_layer())
    norms: Tensor = torch.linalg.norm(weight.float(), dim=0 if layer.fan_in_fan_out else 1)
    return norms


def dequantised(layer: Any) -> Tensor:
    """The weights of a linear layer as floats, (outputs, inputs), whatever they are held in.

    PEFT's own function takes the scales of int8 weights away from a layer on a CPU.
    """
    weight = layer.weight
    if type(weight).__name__ != "Int8Params":
        whole: Tensor = dequantize_module_weight(layer)
        return whole
    scales = layer.state.SCB if weight.SCB is None else weight.SCB
    scaled: Tensor = weight.data.float() * (scales.float()[:, None] / 127)
    return scaled
