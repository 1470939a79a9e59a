"""Kernels of other packages for a decoder's layers: Liger's in a backbone that is loaded, or Unsloth's own backbone.

Liger is Hsu et al. 2024 (arXiv 2410.10989); Unsloth is github.com/unslothai/unsloth. Both run on CUDA alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, Literal

from fivefold.errors import FivefoldError, MissingExtraError, RecipeError
from fivefold.models.backbones.places import Place, first_line
from fivefold.training.precision import DTYPES, choose_precision, default_device

Kernels = Literal["none", "liger", "unsloth"]

PACKAGES = {"liger": ("liger_kernel", "liger-kernel"), "unsloth": ("unsloth", "unsloth")}
"""Kernels to the module that has them, and to what installs it."""

NOT_IN_LAYERS = ("rope", "cross_entropy", "fused_linear_cross_entropy")
"""Liger's kernels that replace functions of transformers for every model of the process, or stand in a head."""


def check_kernels(kernels: Kernels) -> None:
    """Nothing, if these kernels can run here.

    Raises
    ------
    FivefoldError
        If there is no CUDA device.
    MissingExtraError
        If their package isn't installed.
    """
    if kernels == "none":
        return
    if (device := default_device().type) != "cuda":
        raise FivefoldError(
            f"model.kernels '{kernels}' runs on a CUDA GPU only.",
            allowed="model.kernels: none on other devices",
            got=f"the device '{device}'",
            next_step="add --set model.kernels=none, or fit where there is such a GPU",
        )
    module, package = PACKAGES[kernels]
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, None, f"model.kernels {kernels}")


def usable(kernels: Kernels) -> Kernels:
    """These kernels, or none where they can't run: what was fitted with them is scored anywhere."""
    try:
        check_kernels(kernels)
    except FivefoldError:
        return "none"
    return kernels


def apply_liger(model: Any) -> None:
    """Have the norms and feed-forward layers of this model computed by Liger, and those of no other model.

    Raises
    ------
    RecipeError
        If Liger has none for its architecture.
    """
    known = importlib.import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    apply = importlib.import_module("liger_kernel.transformers")._apply_liger_kernel_to_instance
    modelling = vars(sys.modules[type(model).__module__])
    before = dict(modelling)
    try:
        if model.config.model_type not in known:
            raise TypeError(model.config.model_type)
        apply(model=model, **dict.fromkeys(NOT_IN_LAYERS, False))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            "model.kernels 'liger' has none for this backbone.",
            allowed=f"an architecture of {', '.join(sorted(known))}",
            got=first_line(error),
            next_step="add --set model.kernels=none",
        ) from error
    finally:
        modelling.update(before)  # Liger replaces classes there too, which later models would be made of


def unsloth_model(place: Place, config: Any, weights: str, *, trust_remote_code: bool, seed: int) -> Any:
    """Unsloth's model without its head for the next token; `weights` as in `Origin`.

    Raises
    ------
    FivefoldError
        If it is a GGUF file.
    """
    if place.gguf is not None:
        raise FivefoldError(
            "model.kernels 'unsloth' reads no GGUF file.",
            got=str(place),
            next_step="name the model's safetensors in model.backbone, or add --set model.kernels=none",
        )
    model, _ = importlib.import_module("unsloth").FastLanguageModel.from_pretrained(
        model_name=place.name,
        max_seq_length=config.max_position_embeddings,
        dtype=DTYPES.get(weights, DTYPES[choose_precision("auto", default_device())]),
        load_in_4bit=weights == "nf4",
        load_in_8bit=weights == "int8",
        use_exact_model_name=True,
        use_gradient_checkpointing=False,  # training.gradient_checkpointing says so
        trust_remote_code=trust_remote_code,
        random_state=seed,
    )
    trunk = model.base_model
    trunk.config.use_cache = False
    return trunk
