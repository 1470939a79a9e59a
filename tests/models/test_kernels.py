"""Kernels of packages that aren't here: fakes of them note how they are called."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_decoder import VARIANTS, made, tweets
from tests.models.tiny_decoders import save_decoder
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from fivefold.errors import FivefoldError, MissingExtraError, RecipeError
from fivefold.models.backbones import kernels
from fivefold.models.backbones.backbone import Origin, load_decoder, load_tokenizer
from fivefold.models.backbones.kernels import check_kernels, usable
from fivefold.recipe import build_recipe

pytestmark = pytest.mark.usefixtures("fp32")

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
KINDS: Any = ("liger", "unsloth")
LORA = VARIANTS["lora"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that says it is a GPU to who asks about kernels, and to nobody else."""
    monkeypatch.setattr(kernels, "default_device", lambda: CUDA)
    monkeypatch.setattr(kernels, "choose_precision", lambda asked, device: "bf16")


def module(name: str, monkeypatch: pytest.MonkeyPatch, **inside: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    made.__dict__.update(inside)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def liger(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A Liger for Llama that replaces a class of transformers, as the real one does; returns its calls."""
    calls = []

    def apply(model: Any, **named: Any) -> None:
        calls.append({"model": model, **named})
        modeling_llama.LlamaRMSNorm = None

    module("liger_kernel", monkeypatch)
    module("liger_kernel.transformers", monkeypatch, _apply_liger_kernel_to_instance=apply)
    module("liger_kernel.transformers.monkey_patch", monkeypatch, MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": apply})
    return calls


def unsloth(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """An Unsloth that loads with transformers; returns its calls."""
    calls = []

    def load(**named: Any) -> tuple[Any, Any]:
        calls.append(named)
        torch.manual_seed(named["random_state"])
        return AutoModelForCausalLM.from_pretrained(named["model_name"], dtype=named["dtype"]), None

    module("unsloth", monkeypatch, FastLanguageModel=SimpleNamespace(from_pretrained=load))
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_without_a_gpu_is_refused(kind: Any, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "default_device", lambda: CPU)
    task, corpus = tweets(24)
    with pytest.raises(FivefoldError, match=r"(?s)CUDA GPU only.*model\.kernels=none"):
        made(task, llama, kernels=kind, **LORA).cost(corpus.rows())


@pytest.mark.parametrize(("kind", "package"), [("liger", "liger-kernel"), ("unsloth", "unsloth")])
def test_a_package_that_is_missing_is_named(kind: Any, package: str, gpu: None, llama: Path) -> None:
    with pytest.raises(MissingExtraError, match=f"pip install {package}"):
        check_kernels(kind)
    assert usable(kind) == usable("none") == "none"


def test_liger_works_on_this_model_alone(gpu: None, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, norm = liger(monkeypatch), modeling_llama.LlamaRMSNorm
    tokenizer = load_tokenizer(str(llama))
    model = load_decoder(Origin(str(llama), kernels="liger"), tokenizer, seed=0).model
    off = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
    assert calls == [{"model": model, **off}]
    assert modeling_llama.LlamaRMSNorm is norm


def test_liger_says_what_it_knows(
    gpu: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    liger(monkeypatch)
    folder = save_decoder("qwen2", tmp_path_factory.mktemp("qwen2"))
    with pytest.raises(RecipeError, match=r"(?s)none for this backbone.*of llama\n.*qwen2"):
        load_decoder(Origin(str(folder), kernels="liger"), load_tokenizer(str(folder)), seed=0)


@pytest.mark.parametrize("weights", ["fp32", "nf4"])
def test_unsloth_loads_the_backbone(weights: Any, gpu: None, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, tokenizer = unsloth(monkeypatch), load_tokenizer(str(llama))
    state = torch.random.get_rng_state()
    model = load_decoder(Origin(str(llama), kernels="unsloth", weights=weights), tokenizer, seed=5).model
    assert type(model).__name__ == "LlamaModel"
    assert not model.config.use_cache
    assert torch.equal(torch.random.get_rng_state(), state)
    (call,) = calls
    quantised = weights == "nf4"
    assert call["dtype"] == (torch.bfloat16 if quantised else torch.float32)
    assert (call["load_in_4bit"], call["load_in_8bit"], call["use_exact_model_name"]) == (quantised, False, True)
    assert call["max_seq_length"] == model.config.max_position_embeddings
    assert (call["model_name"], call["random_state"]) == (str(llama), 5)


def test_unsloth_reads_no_gguf(gpu: None, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsloth(monkeypatch)
    with pytest.raises(FivefoldError, match="reads no GGUF"):
        kernels.unsloth_model(kernels.Place("models", "llama.gguf"), None, "bf16", trust_remote_code=False, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_kernels_fitted_is_scored_without_them(
    kind: Any, gpu: None, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"liger": liger, "unsloth": unsloth}[kind](monkeypatch)
    task, corpus = tweets(24)
    fitted = made(task, llama, kernels=kind, **LORA)
    fitted.fit(corpus.rows(), None)
    fitted.save(tmp_path / "fitted")
    assert len(calls) == 1
    plain = made(task, llama, **LORA)
    plain.fit(corpus.rows(), None)
    plain.save(tmp_path / "plain")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "fitted" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    monkeypatch.setattr(kernels, "default_device", lambda: CPU)
    again = made(task, llama, kernels=kind, **LORA)
    again.load(tmp_path / "fitted")
    assert again.origin.kernels == "none"
    assert np.array_equal(again.score(corpus.rows()).logits, plain.score(corpus.rows()).logits)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"kernels": "unsloth"}, "are for an adapter"),
        ({"kernels": "unsloth", "adapter": {}, "attention_dropout": 0.1}, "drop nothing"),
        ({"kernels": "ligger"}, "model.kernels"),
    ],
)
def test_recipes_that_can_not_be(model: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        build_recipe({"model": {"family": "decoder", "backbone": "some/model", **model}})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ligers_own_kernels_say_what_torch_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("liger_kernel")
    folder = save_decoder("llama", tmp_path_factory.mktemp("liger"))
    tokenizer, ids = load_tokenizer(str(folder)), torch.arange(40, device=CUDA).view(2, 20)
    plain, fast = (
        load_decoder(Origin(str(folder), kernels=kind), tokenizer, seed=0).model.to(CUDA).eval()
        for kind in ("none", "liger")
    )
    with torch.no_grad():
        torch.testing.assert_close(fast(ids).last_hidden_state, plain(ids).last_hidden_state, atol=1e-3, rtol=1e-3)
