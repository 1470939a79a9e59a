"""An adapter as part of the weights under it, so that a model is one backbone and needs no PEFT."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from fivefold.models.backbones.adapters import attach, dequantised
from fivefold.models.backbones.backbone import QUANTISED, Weights, load_decoder
from fivefold.models.backbones.resident import TRAINED
from fivefold.models.decoder.classifier import DecoderClassifier
from fivefold.models.decoder.net import AdaptedNet

QUANTISED_TYPES = ("Params4bit", "Int8Params")
"""The classes of bitsandbytes's weights."""


def merged(classifier: DecoderClassifier, weights: Weights) -> DecoderClassifier:
    """A classifier without an adapter that says what this one does.

    The adapter learnt on the weights as they were held, so quantised ones are merged into what they stand for, not
    into those that they were made of.

    Parameters
    ----------
    weights
        How the merged weights are held: fp32, bf16 or fp16.
    """
    net, adapter = classifier.net, classifier.adapter
    assert isinstance(net, AdaptedNet), "only an adapter is merged"
    assert adapter is not None
    plain = load_decoder(replace(classifier.origin, weights=weights), classifier.tokenizer, seed=classifier.seed).model
    if classifier.origin.weights in QUANTISED:
        copy_dequantised(net.backbone, plain)
    attach(plain, adapter, classifier.seed, TRAINED)
    own = get_peft_model_state_dict(net.backbone, adapter_name=net.name, save_embedding_layers=False)
    set_peft_model_state_dict(plain, own, adapter_name=TRAINED)
    fold_in(plain)
    whole = copy.copy(classifier)
    whole.adapter, whole.home, whole.origin = None, None, replace(classifier.origin, weights=weights)
    whole.net = whole.over(plain, None, classifier.seed)
    whole.net.load_scores(net.scores())
    whole.net.eval()
    return whole


@torch.no_grad()
def copy_dequantised(source: Any, target: Any) -> None:
    """Give a model in floats the weights that those of its quantised twin stand for, adapters aside."""
    for name, module in source.named_modules():
        base = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if type(getattr(base, "weight", None)).__name__ in QUANTISED_TYPES and not name.endswith(".base_layer"):
            weight = target.get_submodule(name).weight
            weight.copy_(dequantised(base).to(weight.dtype))


def fold_in(model: Any) -> None:
    """Add the adapter named `TRAINED` to the weights under it, and leave plain layers."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        each: Any = layer
        each.merge(safe_merge=True, adapter_names=[TRAINED])
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, each.get_base_layer())
    del model.peft_config
