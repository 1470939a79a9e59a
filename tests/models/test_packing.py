"""A packed batch says what the padded one says: first that, then speed."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.tiny_encoders import ARCHITECTURES, COMMON, batch_of, random_rows, tiny_tokenizer
from torch import Tensor
from torch.nn.attention import varlen
from transformers import AutoConfig, AutoModel

from fivefold.models.backbones import packing
from fivefold.models.backbones.architectures import layer_path
from fivefold.models.backbones.backbone import Origin, load_causal_lm, load_encoder, load_masked_lm
from fivefold.models.backbones.packing import ATTENTION, attend, segments_of
from fivefold.models.backbones.passes import Sequences, real_first
from fivefold.models.encoder.prompted import PromptedNet
from fivefold.models.pooled.net import PooledNet
from fivefold.models.pretraining.language_model import LanguageNet
from fivefold.models.pretraining.passages import IGNORED

ALL = ARCHITECTURES | {
    "camembert": {"model_type": "camembert", **COMMON, "type_vocab_size": 1},
    "electra": {"model_type": "electra", **COMMON, "embedding_size": 16},
    "xlm-roberta": {"model_type": "xlm-roberta", **COMMON, "type_vocab_size": 1},
}
PACKED = ["bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"]
PADDED = ["deberta", "mpnet", "big_bird", "big_bird_full", "longformer"]
POOLINGS = ["cls", "mean", "max", "attention"]

ROWS = [*random_rows([9, 60, 2, 33]), [2], [2, 9, 0, 0, 11, 3]]
"""Longer than ModernBERT's windows of 16, of one token alone, and with the pad's id inside a text."""

BATCHES = {"several": ROWS, "one": ROWS[1:2], "one token": ROWS[4:5], "equal lengths": random_rows([9, 9])}

TOLERANCE = 1e-5
HALF_TOLERANCE = 0.05
"""Of hidden states about 1 in bf16, whose numbers next to 1 are 0.008 apart, after a few layers."""


def trunk(name: str, **dropouts: float) -> Any:
    model = load_encoder(Origin(architecture=ALL[name], **dropouts), tiny_tokenizer(), seed=1).model
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
    return model


def make(name: str = "bert", **settings: Any) -> PooledNet:
    model = trunk(name, dropout=0.0, attention_dropout=0.0)
    net = PooledNet(model, **({"width": 4, "seed": 0, "head_dropout": 0.0} | settings))
    if net.token_attention is not None:
        torch.nn.init.normal_(net.token_attention.scores.weight, 0, 0.1, generator=torch.Generator().manual_seed(6))
    return net


def vectors(net: PooledNet, packing: str, batch: dict[str, Tensor]) -> Tensor:
    net.trunk.packing = packing
    return net.vectors(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])


def sequences(batch: dict[str, Tensor]) -> Sequences:
    return real_first(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])


def seen(net: Any, batch: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """Shapes of what the first layer is given while the net runs."""
    shapes: list[tuple[int, ...]] = []
    first = net.trunk.get_submodule(layer_path(net.trunk))[0]
    hook = first.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape[:2])))
    net(**batch)
    hook.remove()
    return shapes


@pytest.mark.parametrize("name", PACKED)
def test_only_real_tokens_reach_the_layers(name: str) -> None:
    net = make(name).eval()
    batch = batch_of(ROWS, extra=7)
    assert seen(net, batch) == [(len(ROWS), 67)]
    net.trunk.packing = "always"
    assert seen(net, batch) == [(1, sum(map(len, ROWS)))]
    net.trunk.packing = "never"
    assert seen(net, batch) == [(len(ROWS), 67)]


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", PACKED)
def test_vectors_are_those_of_the_padded_batch(name: str, pooling: Any, rows: str) -> None:
    net = make(name, pooling=pooling).eval()
    with torch.no_grad():
        for batch in (batch_of(BATCHES[rows]), batch_of(BATCHES[rows], "left", extra=5, pad=77)):
            padded = vectors(net, "never", batch)
            assert padded.std() > 0.1, "vectors must differ for this test to mean anything"
            assert (vectors(net, "always", batch) - padded).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", PACKED)
def test_hidden_states_come_back_where_they_were(name: str) -> None:
    net = make(name).eval()
    batch = batch_of(ROWS)
    (each,) = net.passes(sequences(batch))
    real = each.mask.bool()
    with torch.no_grad():
        padded = net.trunk(**each.inputs).last_hidden_state
        net.trunk.packing = "always"
        packed = net.trunk(**each.inputs).last_hidden_state
    assert packed.shape == padded.shape
    assert (packed - padded)[real].abs().max() < TOLERANCE
    assert packed.isfinite().all()


@pytest.mark.parametrize(("pooling", "checkpointing"), [*((each, False) for each in POOLINGS), ("mean", True)])
@pytest.mark.parametrize("name", PACKED)
def test_gradients_are_those_of_the_padded_batch(
    name: str, pooling: Any, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision throughout: in single precision some gradients are cancellation and little else."""
    single = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else single(tensor))
    net = make(name, pooling=pooling).double().train()
    if checkpointing:
        net.gradient_checkpointing_enable()
    logits, grads = [], []
    for net.trunk.packing in ("never", "always"):
        said = net(**batch_of(ROWS))
        logits.append(said.detach())
        grads.append(torch.autograd.grad((said * said.cos()).sum(), list(net.parameters())))
    assert (logits[1] - logits[0]).abs().max() < 1e-12
    for padded, packed in zip(*grads, strict=True):
        assert padded.norm() > 0
        assert (packed - padded).norm() < 1e-10 * max(1.0, float(padded.norm()))


@pytest.mark.parametrize("name", PACKED)
def test_batch_mates_leave_packed_logits_alone(name: str) -> None:
    net = make(name).eval()
    net.trunk.packing = "always"
    with torch.no_grad():
        alone = torch.cat([net(**batch_of([row])) for row in ROWS])
        assert (net(**batch_of(ROWS)) - alone).abs().max() < TOLERANCE
        assert (net(**batch_of(ROWS[::-1])) - alone.flip(0)).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", PADDED)
def test_other_attention_stays_padded(name: str) -> None:
    net = make(name).eval()
    net.trunk.packing = "always"
    assert net.trunk.config._attn_implementation != ATTENTION
    assert (1, 69) not in seen(net, batch_of(ROWS[:2]))


def test_decoders_stay_padded() -> None:
    for is_decoder in (True, False):
        origin = Origin(architecture=ALL["bert"] | {"is_decoder": is_decoder})
        config = load_causal_lm(origin, tiny_tokenizer(), seed=1).model.config
        assert (config._attn_implementation == ATTENTION) != is_decoder


def test_classes_of_others_stay_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModel.from_config(copy.deepcopy(trunk("bert").config), attn_implementation="sdpa")
    assert packing.packable(model)
    monkeypatch.setattr(type(model), "__module__", "transformers_modules.somebody.modeling_bert")
    assert not packing.packable(model)


def test_dropped_attention_stays_padded_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "flash_runs", lambda config, device: True)
    batch, packed, padded = batch_of(ROWS), [(1, sum(map(len, ROWS)))], [(len(ROWS), 60)]
    for share, training, shapes in ((0.1, True, padded), (0.1, False, packed), (0.0, True, packed)):
        for name in PACKED:
            net = PooledNet(trunk(name, attention_dropout=share), width=2, seed=0).train(training)
            assert seen(net, batch) == shapes, (name, share, training)
    query = torch.ones(1, 2, 4, 8)
    with pytest.raises(ValueError, match="drops no attention"):
        attend(net, query, query, query, None, dropout=0.1, segments=segments_of(torch.ones(1, 4)))


def test_a_cpu_never_packs_by_itself() -> None:
    net = make().train()
    with torch.autocast("cpu", torch.bfloat16):
        assert seen(net, batch_of(ROWS)) == [(len(ROWS), 60)]


def test_positions_that_transformers_counts_stay_padded() -> None:
    model = trunk("roberta").eval()
    batch = {name: batch_of(ROWS, pad=1)[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        plain = model(**batch).last_hidden_state
        model.packing = "always"
        assert torch.equal(model(**batch).last_hidden_state, plain)


@pytest.mark.parametrize("name", PACKED)
def test_prompted_logits_are_those_of_the_padded_batch(name: str) -> None:
    model = load_masked_lm(Origin(architecture=ALL[name]), tiny_tokenizer(), seed=1).model
    net = PromptedNet(model, width=2, mask=4, yes=5, no=6).eval()
    batch = batch_of([[2, 11, 7, 4, 8, 12, 13, 7, 4, 8, *row[1:]] for row in random_rows([9, 33, 3])])
    with torch.no_grad():
        padded = net(**batch)
        net.trunk.packing = "always"
        assert seen(net, batch) == [(1, 45 + 27)]
        assert (net(**batch) - padded).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", PACKED)
def test_losses_of_a_language_model_are_those_of_the_padded_batch(name: str) -> None:
    net = LanguageNet(load_masked_lm(Origin(architecture=ALL[name]), tiny_tokenizer(), seed=1).model).eval()
    batch = {n: batch_of(ROWS)[n] for n in ("input_ids", "attention_mask", "token_type_ids")}
    guessed = (torch.arange(60) % 3 == 0) & (batch["attention_mask"] == 1)
    batch["targets"] = torch.where(guessed, batch["input_ids"], IGNORED)
    with torch.no_grad():
        padded = net(**batch)
        net.trunk.packing = "always"
        assert seen(net, batch) == [(1, sum(map(len, ROWS)))]
        assert (net(**batch) - padded).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", PACKED)
def test_what_was_packed_loads_in_plain_transformers(name: str, tmp_path: Path) -> None:
    net = make(name).eval()
    net.trunk.packing = "always"
    (each,) = net.passes(sequences(batch_of(ROWS)))
    with torch.no_grad():
        packed = net.trunk(**each.inputs).last_hidden_state
        net.save(tmp_path, tiny_tokenizer())
        plain = AutoModel.from_pretrained(tmp_path).eval()
        assert ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
        assert plain.config._attn_implementation == "sdpa"
        real = each.mask.bool()
        assert (plain(**each.inputs).last_hidden_state - packed)[real].abs().max() < TOLERANCE


def test_copies_pack_too() -> None:
    net = make().eval()
    net.trunk.packing = "always"
    copied = copy.deepcopy(net)
    batch = batch_of(ROWS)
    with torch.no_grad():
        before = net(**batch)
        assert seen(copied, batch) == [(1, sum(map(len, ROWS)))]
        assert torch.equal(copied(**batch), before)


def test_segments_by_hand() -> None:
    segments = segments_of(torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 0]]))
    assert segments.place.tolist() == [0, 1, 3, 4, 5, 7]
    assert segments.starts.tolist() == [0, 2, 5, 6]
    assert segments.starts.dtype == torch.int32
    assert segments.pack(torch.arange(9).view(3, 3)).tolist() == [[0, 1, 3, 4, 5, 7]]
    assert segments.pack(torch.arange(3)[None]).tolist() == [[0, 1, 0, 1, 2, 1]]
    hidden = torch.arange(1.0, 7.0).view(1, 6, 1)
    assert segments.unpack(hidden)[..., 0].tolist() == [[1, 2, 0], [3, 4, 5], [0, 6, 0]]


def test_local_attention_by_hand() -> None:
    """Two segments of 3 and 2 tokens; a window of 2 sees the neighbours, values say which tokens were seen."""
    segments = segments_of(torch.tensor([[1, 1, 1], [1, 1, 0]]))
    query = torch.zeros(1, 1, 5, 1)
    value = torch.tensor([1.0, 2.0, 6.0, 10.0, 20.0]).view(1, 1, 5, 1)
    near, _ = attend(torch.nn.Identity(), query, query, value, None, segments=segments, sliding_window=2)
    assert torch.allclose(near.flatten(), torch.tensor([1.5, 3.0, 4.0, 15.0, 15.0]))
    every, _ = attend(torch.nn.Identity(), query, query, value, None, segments=segments)
    assert torch.allclose(every.flatten(), torch.tensor([3.0, 3.0, 3.0, 15.0, 15.0]))


@pytest.mark.parametrize("window", [None, 9])
def test_flash_attention_is_called_as_torch_says(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, with a function in its place that takes the same arguments and works token by token."""
    signature = inspect.signature(varlen.varlen_attn)

    def stand_in(*args: Any, **kwargs: Any) -> Tensor:
        assert set(signature.bind(*args, **kwargs).arguments) - set(list(signature.parameters)[:7]) <= {"window_size"}
        query, key, value, starts, key_starts, longest, key_longest = args
        assert starts.dtype == key_starts.dtype == torch.int32
        assert longest == key_longest >= starts.diff().max()
        left, right = kwargs.get("window_size", (-1, -1))
        place = torch.arange(len(query))
        owner = torch.bucketize(place, starts.long(), right=True)
        seen = owner[:, None] == owner
        if left >= 0:
            seen &= (place >= place[:, None] - left) & (place <= place[:, None] + right)
        scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[2] ** 0.5
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(dim=2), value)

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    segments = segments_of(torch.ones(4, 70).tril(diagonal=20))
    blocks = [torch.randn(1, 2, len(segments.place), 16) for _ in range(3)]
    exact, _ = attend(torch.nn.Identity(), *blocks, None, segments=segments, sliding_window=window)
    flash = packing._at_once(*blocks, segments, None if window is None else window - 1)
    assert flash.shape == exact.shape
    assert (flash - exact).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ({}, True),
        ({"is_autocast_enabled": False}, False),
        ({"get_autocast_dtype": torch.float16}, True),
        ({"get_autocast_dtype": torch.float32}, False),
        ({"cuda.get_device_capability": (7, 5)}, False),
        ({"backends.cuda.is_flash_attention_available": False}, False),
    ],
)
def test_where_flash_attention_runs(changed: dict[str, Any], runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "is_autocast_enabled": True,
        "get_autocast_dtype": torch.bfloat16,
        "cuda.get_device_capability": (9, 0),
        "backends.cuda.is_flash_attention_available": True,
    }
    for place, answer in (answers | changed).items():
        monkeypatch.setattr(f"torch.{place}", lambda *args, answer=answer: answer)
    for name in PACKED:
        assert packing.flash_runs(trunk(name).config, torch.device("cuda")) == runs
    assert not packing.flash_runs(trunk("bert").config, torch.device("cpu"))
    odd = AutoConfig.for_model("bert", hidden_size=36, num_attention_heads=3)
    wide = AutoConfig.for_model("bert", hidden_size=1024, num_attention_heads=4)
    assert not packing.flash_runs(odd, torch.device("cuda"))
    assert not packing.flash_runs(wide, torch.device("cuda"))
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, value, is_causal=False: None)  # as torch 2.10 has it
    assert not packing.flash_runs(trunk("modernbert").config, torch.device("cuda"))


def on_gpu(name: str, **settings: Any) -> tuple[PooledNet, dict[str, Tensor]]:
    return make(name, **settings).cuda(), {n: t.cuda() for n, t in batch_of(ROWS).items()}


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", PACKED)
def test_flash_attention_is_that_of_the_padded_batch_in_half_precision(name: str) -> None:
    net, batch = on_gpu(name)
    grads, outputs = [], []
    for kind, shape in (("never", (len(ROWS), 60)), ("auto", (1, sum(map(len, ROWS))))):
        net.zero_grad()
        net.train().trunk.packing = kind
        with torch.autocast("cuda", torch.bfloat16):
            assert seen(net, batch) == [shape]
            pooled = vectors(net, kind, batch)
        pooled.square().mean().backward()
        outputs.append(pooled.detach())
        grads.append(torch.cat([p.grad.flatten() for p in net.trunk.parameters() if p.grad is not None]))
    assert (outputs[1] - outputs[0]).abs().max() < HALF_TOLERANCE * outputs[0].abs().max()
    assert (grads[1] - grads[0]).norm() < HALF_TOLERANCE * grads[0].norm()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 9])
def test_flash_attention_is_that_of_the_reference(window: int | None, dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    segments = segments_of(torch.ones(4, 70, device="cuda").tril(diagonal=20))
    tokens = len(segments.place)
    blocks = [torch.randn(1, 2, tokens, 16, device="cuda", dtype=dtype, generator=generator) for _ in range(3)]
    flash, _ = attend(torch.nn.Identity(), *blocks, None, segments=segments, sliding_window=window)
    exact, _ = attend(torch.nn.Identity(), *(b.float() for b in blocks), None, segments=segments, sliding_window=window)
    assert (flash.float() - exact).abs().max() < 0.02


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_step_on_a_gpu_learns(name: str) -> None:
    net, batch = on_gpu(name)
    net.gradient_checkpointing_enable()
    optimiser = torch.optim.AdamW(net.train().parameters(), lr=1e-2)
    targets = torch.arange(len(ROWS), device="cuda") % 4
    losses = []
    for _ in range(8):
        with torch.autocast("cuda", torch.bfloat16):
            assert seen(net, batch) == [(1, sum(map(len, ROWS)))]
            loss = torch.nn.functional.cross_entropy(net(**batch), targets)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.gpu
@needs_gpu
def test_scores_on_a_gpu_stay_padded_in_full_precision() -> None:
    net, batch = on_gpu("bert")
    with torch.inference_mode():
        assert seen(net.eval(), batch) == [(len(ROWS), 60)]
