"""A row's logits depend on that row alone: whatever its neighbours, their order, the padding and what came before."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from tests.models.tiny_encoders import ARCHITECTURES, batch_of, random_rows, tiny_tokenizer

from fivefold.errors import FivefoldError
from fivefold.models.backbones.backbone import Origin, load_decoder, load_encoder, load_masked_lm
from fivefold.models.backbones.passes import Passes
from fivefold.models.encoder.prompted import PromptedNet
from fivefold.models.pooled.net import PooledNet

TOLERANCE = 1e-5
LENGTHS = [3, 60, 9, 29, 28, 61, 128, 9]
"""Both sides of the tiny BigBird's switch at 28 tokens, of its blocks of 4 and of Longformer's windows."""

CASES = [(name, "auto", "mean") for name in ARCHITECTURES]
CASES += [("big_bird", "sparse", "mean"), ("big_bird", "full", "mean")]
CASES += [("bert", "auto", pooling) for pooling in ("cls", "max", "attention")]
NEWER_DEBERTA = {**ARCHITECTURES["deberta"], "legacy": False}


@cache
def trunk(name: str, attention: Any) -> Any:
    return load_encoder(Origin(architecture=ARCHITECTURES[name], attention=attention), tiny_tokenizer(), seed=1).model


@pytest.mark.parametrize(("name", "attention", "pooling"), CASES)
def test_neighbours_order_and_padding_leave_logits_alone(name: str, attention: Any, pooling: Any) -> None:
    net = PooledNet(trunk(name, attention), width=5, seed=0, pooling=pooling, attention=attention).eval()
    assert_rows_stand_alone(net, random_rows(LENGTHS))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "newer_deberta"])
def test_neighbours_leave_prompted_logits_alone(name: str) -> None:
    architecture = (ARCHITECTURES | {"newer_deberta": NEWER_DEBERTA})[name]
    masked = load_masked_lm(Origin(architecture=architecture), tiny_tokenizer(), seed=1).model
    net = PromptedNet(masked, width=2, mask=4, yes=5, no=6).eval()
    slots = [11, 7, 4, 8, 12, 13, 7, 4, 8]
    assert_rows_stand_alone(net, [[2, *slots, *row[1:]] for row in random_rows(LENGTHS)])


PHI: dict[str, Any] = {
    "model_type": "phi3",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.1,
    "max_position_embeddings": 256,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0] * 4,
        "long_factor": [9.0, 7.0, 5.0, 3.0],
        "original_max_position_embeddings": 32,
    },
}


def test_neighbours_leave_growing_rotations_alone() -> None:
    backbone = load_decoder(Origin(architecture=PHI), tiny_tokenizer(), seed=1).model
    net = PooledNet(backbone, width=5, seed=0, pooling="last").eval()
    assert not net.reentrant
    assert_rows_stand_alone(net, random_rows(LENGTHS))


@pytest.mark.parametrize("config", [transformers.FNetConfig, transformers.ConvBertConfig])
def test_backbones_that_read_padding_are_refused(config: Any) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.AutoModel.from_config(config(vocab_size=300, **small))
    with pytest.raises(FivefoldError, match="reads padding"):
        Passes(model)


@pytest.mark.parametrize("attention", ["full", "sparse"])
def test_only_big_birds_attention_is_chosen(attention: Any) -> None:
    with pytest.raises(FivefoldError, match="is BigBird's"):
        Passes(trunk("bert", "auto"), attention)


def assert_rows_stand_alone(net: Any, rows: list[list[int]]) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.no_grad():
        alone = torch.cat([net(**batch_of([row])) for row in rows])
        assert alone.std(dim=0).min() > 0.01, "rows must differ for this test to mean anything"
        for side in ("right", "left"):
            for extra, pad in ((0, 0), (19, 77)):
                together = net(**batch_of(rows, side, extra, pad))
                assert (together - alone).abs().max() < TOLERANCE, (side, extra, pad)
            shuffled = net(**batch_of([rows[i] for i in order], side))
            assert (shuffled - alone[order]).abs().max() < TOLERANCE, side
        assert (net(**batch_of(rows[1:2])) - alone[1:2]).abs().max() < TOLERANCE, "what came before"
