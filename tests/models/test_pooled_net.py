from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_encoders import ARCHITECTURES, batch_of, random_rows, tiny_tokenizer

from fivefold.errors import ArtefactError, FivefoldError
from fivefold.models.backbones.architectures import layer_path
from fivefold.models.backbones.backbone import Origin, load_encoder
from fivefold.models.pooled.net import PooledHead, PooledNet
from fivefold.models.pooled.pooling import mean_pool

ROWS = random_rows([9, 33, 5])


def make(name: str = "bert", **settings: Any) -> PooledNet:
    model = load_encoder(Origin(architecture=ARCHITECTURES[name]), tiny_tokenizer(), seed=1).model
    return PooledNet(model, **({"width": 4, "seed": 0} | settings))


def test_linear_head_on_the_mean() -> None:
    net = make(biases=[0.5, -1.0, 2.0, 0.0]).eval()
    batch = batch_of(ROWS)
    with torch.no_grad():
        hidden = net.backbone(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
        vectors = mean_pool(hidden.last_hidden_state, batch["attention_mask"])
        head = net.head[-1]
        expected = vectors @ head.weight.T + torch.tensor([0.5, -1.0, 2.0, 0.0])
        assert torch.allclose(net(**batch), expected, atol=1e-5)


def test_mlp_head_has_a_hidden_layer() -> None:
    net = make(head="mlp")
    assert [tuple(p.shape) for p in net.head.parameters()] == [(32, 32), (32,), (4, 32), (4,)]


@pytest.mark.parametrize("fields", ["max", "mean"])
def test_parts_of_a_row_merge_by_their_logits(fields: Any) -> None:
    net = make(fields=fields).eval()
    batch = batch_of(ROWS) | {"owner": torch.tensor([0, 0, 1])}
    with torch.no_grad():
        alone = torch.cat([net(**batch_of([row])) for row in ROWS])
        merged = alone[:2].amax(dim=0) if fields == "max" else alone[:2].mean(dim=0)
        assert torch.allclose(net(**batch), torch.stack([merged, alone[2]]), atol=1e-5)


@pytest.mark.parametrize("windows", ["mean", "max", "attention"])
def test_windows_of_a_part_merge_by_their_vectors(windows: Any) -> None:
    net = make(windows=windows).eval()
    batch = batch_of(ROWS) | {"part": torch.tensor([0, 0, 1]), "owner": torch.tensor([0, 1])}
    with torch.no_grad():
        vectors = net.vectors(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        merged = vectors[:2].amax(dim=0) if windows == "max" else vectors[:2].mean(dim=0)
        assert torch.allclose(net(**batch), net.head(torch.stack([merged, vectors[2]])), atol=1e-5)


def test_what_is_pooled_gives_the_same_logits() -> None:
    net = make(fields="max", windows="max").eval()
    batch = batch_of(ROWS) | {"part": torch.tensor([0, 0, 1]), "owner": torch.tensor([0, 0])}
    with torch.no_grad():
        pooled = net.pooled(**batch)
        assert pooled.shape == (2, 32)
        assert torch.equal(PooledHead(net)(pooled, batch["owner"]), net(**batch))
    assert not net.trains_pooling
    with pytest.raises(ValueError, match="trained"):
        make(pooling="attention").pooled(**batch)


def test_position_ids_and_types_beyond_the_table_are_harmless() -> None:
    net = make("roberta").eval()
    batch = batch_of(ROWS)
    with torch.no_grad():
        given = net(**batch, position_ids=torch.full_like(batch["input_ids"], 10_000))
        assert torch.equal(given, net(**(batch | {"token_type_ids": batch["token_type_ids"] * 0})))


def test_the_pads_id_inside_a_text_is_text() -> None:
    rows = [[2, 9, 0, 0, 11, 3], [2, 9, 0, 0, 11, 12, 13, 14, 3]]
    for name in ("bert", "roberta", "longformer"):
        net = make(name).eval()
        with torch.no_grad():
            alone = torch.cat([net(**batch_of([row])) for row in rows])
            assert torch.allclose(net(**batch_of(rows, "left", 3, pad=1)), alone, atol=1e-5), name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_hold_every_weight_once_in_order(name: str) -> None:
    net = make(name)
    groups = net.layers()
    depth = net.backbone.config.num_hidden_layers
    assert len(groups) == depth + 2
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    path = layer_path(net.backbone)
    for i in range(depth):
        assert any(f"{path}.{i}." in name for name in groups[i + 1])
        assert all(f"{path}.{j}." not in name for j in range(depth) if j != i for name in groups[i + 1])
    assert any("embeddings" in name for name in groups[0])
    assert all(name.startswith("head.") for name in groups[-1])
    assert not any("final_norm" in name for name in groups[0])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_gets_a_finite_gradient(name: str) -> None:
    net = make(name).train()
    net(**batch_of(ROWS)).square().sum().backward()
    grads = {name: weight.grad for name, weight in net.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()] == []


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("unfrozen", [0, 1])
def test_frozen_layers_neither_learn_nor_drop(name: str, unfrozen: int) -> None:
    net = make(name, unfrozen_layers=unfrozen).train()
    groups = net.layers()
    frozen = len(groups) - 1 - unfrozen
    assert not any(p.requires_grad for group in groups[:frozen] for p in group.values())
    assert all(p.requires_grad for group in groups[frozen:] for p in group.values())
    path = layer_path(net.backbone)
    layers = net.backbone.get_submodule(path)
    assert [layer.training for layer in layers] == [i + 1 >= frozen for i in range(len(layers))]
    assert not any(module.training for layer in layers[: frozen - 1] for module in layer.modules())
    assert not any(module.training for module in net.backbone.embeddings.modules())
    if unfrozen == 0:
        batch = batch_of(ROWS)
        assert torch.equal(net.pooled(**batch), net.pooled(**batch))
    net(**batch_of(ROWS)).sum().backward()
    assert all(p.grad is None for group in groups[:frozen] for p in group.values())


def test_more_unfrozen_layers_than_there_are() -> None:
    with pytest.raises(FivefoldError, match="has 2 layers"):
        make(unfrozen_layers=3)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mpnet"])
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    grads = []
    for checkpointing in (False, True):
        net = make(name, head_dropout=0.0).train()
        if checkpointing:
            net.gradient_checkpointing_enable()
        torch.manual_seed(7)
        net(**batch_of(ROWS)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.allclose(*grads, atol=1e-4)


def test_mpnet_says_that_it_cant_checkpoint() -> None:
    with pytest.raises(FivefoldError, match="'mpnet' backbone can't be trained with gradient checkpointing"):
        make("mpnet").gradient_checkpointing_enable()


def test_sparse_attention_is_big_birds() -> None:
    with pytest.raises(FivefoldError, match="'sparse' is BigBird's"):
        make("bert", attention="sparse")
    short = Origin(architecture=ARCHITECTURES["big_bird"] | {"max_position_embeddings": 30})
    model = load_encoder(short, tiny_tokenizer(), seed=0).model
    with pytest.raises(FivefoldError, match="needs inputs of 32 tokens"):
        PooledNet(model, width=1, seed=0, attention="sparse")


def test_seeds_reach_every_drawn_weight_and_nothing_else() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.head[-1].weight, other.head[-1].weight)
    other.reset_head(1)
    assert torch.equal(first.head[-1].weight, other.head[-1].weight)
    drawn = load_encoder(Origin(architecture=ARCHITECTURES["bert"]), tiny_tokenizer(), seed=2).model
    table = first.backbone.embeddings.word_embeddings.weight
    assert not torch.equal(drawn.embeddings.word_embeddings.weight, table)


LOAD = """
import sys, numpy as np, torch
from pathlib import Path
from fivefold.models.backbones.backbone import Origin, load_encoder, load_tokenizer
from fivefold.models.pooled.net import PooledNet
from tests.models.tiny_encoders import batch_of, random_rows
for folder in map(Path, sys.argv[1:]):
    model = load_encoder(Origin(str(folder)), load_tokenizer(str(folder)), seed=9).model
    net = PooledNet(model, width=4, seed=9, pooling="attention").eval()
    net.load_head(folder)
    with torch.no_grad():
        np.save(folder / "logits.npy", net(**batch_of(random_rows([9, 33, 5]))).numpy())
"""


def test_a_new_process_says_the_same_and_nothing_else(tmp_path: Path) -> None:
    nets = {
        name: make(name, pooling="attention", biases=[1.0, 2.0, 3.0, 4.0]).eval() for name in ("roberta", "big_bird")
    }
    for name, net in nets.items():
        assert net.token_attention is not None
        torch.nn.init.normal_(net.token_attention.scores.weight)
        net.save(tmp_path / name, tiny_tokenizer())
    folders = [str(tmp_path / name) for name in nets]
    done = subprocess.run([sys.executable, "-c", LOAD, *folders], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name, net in nets.items():
        with torch.no_grad():
            assert np.allclose(np.load(tmp_path / name / "logits.npy"), net(**batch_of(ROWS)).numpy(), atol=1e-6)
        assert not [path for path in (tmp_path / name).iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_a_head_of_other_settings_is_refused(tmp_path: Path) -> None:
    make().save(tmp_path, tiny_tokenizer())
    for settings in ({"width": 5}, {"head": "mlp"}, {"pooling": "attention"}):
        with pytest.raises(ArtefactError, match="head"):
            make(**settings).load_head(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtefactError, match="head"):
        make().load_head(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(ArtefactError, match="head"):
        make().load_head(tmp_path)


def test_copies_are_whole() -> None:
    net = make("big_bird").eval()
    copied = copy.deepcopy(net)
    with torch.no_grad():
        before = net(**batch_of(ROWS))
        assert torch.equal(copied(**batch_of(ROWS)), before)
        for weight in copied.parameters():
            weight.zero_()
        assert torch.equal(net(**batch_of(ROWS)), before)
