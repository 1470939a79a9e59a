from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_encoders import ARCHITECTURES
from transformers import AutoConfig, AutoModel

from fivefold.models.backbones.architectures import count_full_attention, is_block_sparse, longest_full, position_limit
from fivefold.models.backbones.big_bird import mend

LONGEST_FULL = 28  # (5 + 2) blocks of 4


def original(**changes: Any) -> Any:
    torch.manual_seed(0)
    settings = ARCHITECTURES["big_bird"] | {"vocab_size": 99, "pad_token_id": 0} | changes
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AutoModel.from_config(AutoConfig.for_model(**settings), add_pooling_layer=False)


def inputs(tokens: int, real: int | None = None, rows: int = 3) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 99, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    mask[1, real:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("tokens", [32, 40, 64, 128, 256])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("random_blocks", [1, 2])
def test_sparse_passes_equal_those_of_transformers(tokens: int, training: bool, random_blocks: int) -> None:
    theirs = original(num_random_blocks=random_blocks).train(training)
    if tokens <= longest_full(theirs.config):
        tokens = longest_full(theirs.config) + 4
    ours = copy.deepcopy(theirs)
    mend(ours)
    batch = inputs(tokens, real=tokens - 3)
    real = batch["attention_mask"] == 1
    first, second = (model(**batch).last_hidden_state[real] for model in (theirs, ours))
    assert torch.allclose(first, second, atol=2e-6)
    for output in (first, second):
        output.square().sum().backward()
    for (name, weight), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if weight.grad is not None:
            assert other.grad is not None, name
            assert torch.allclose(weight.grad, other.grad, atol=2e-4), name


@pytest.mark.parametrize("tokens", [1024, 3072])
def test_the_papers_own_plan_of_random_blocks(tokens: int) -> None:
    theirs = original(num_hidden_layers=1, block_size=64, max_position_embeddings=4096).train()
    ours = copy.deepcopy(theirs)
    mend(ours)
    batch = inputs(tokens, rows=2)
    with torch.no_grad():
        assert torch.allclose(theirs(**batch).last_hidden_state, ours(**batch).last_hidden_state, atol=2e-6)


def test_short_passes_are_full_and_dont_stick() -> None:
    model = original().eval()
    full = copy.deepcopy(model)
    full.set_attention_type("original_full")
    mend(model)
    short, long = inputs(LONGEST_FULL, real=20), inputs(LONGEST_FULL + 4)
    with torch.no_grad():
        before = model(**long).last_hidden_state
        real = short["attention_mask"] == 1
        assert torch.allclose(model(**short).last_hidden_state[real], full(**short).last_hidden_state[real], atol=1e-6)
        assert torch.equal(model(**long).last_hidden_state, before)
        assert not torch.allclose(full(**long).last_hidden_state, before, atol=1e-3)


def test_generators_are_left_alone() -> None:
    model = original().train()
    mend(model)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    state = torch.get_rng_state()
    for tokens in (LONGEST_FULL, 40, LONGEST_FULL):
        model(**inputs(tokens))
    assert np.random.random() == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_gradient_checkpointing_across_the_switch() -> None:
    grads = []
    for checkpointing in (False, True):
        model = original().train()
        mend(model)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        outputs = [model(**inputs(tokens)).last_hidden_state.square().mean() for tokens in (40, LONGEST_FULL)]
        torch.stack(outputs).sum().backward()
        grads.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_names_of_weights_stay_and_copies_are_whole() -> None:
    model = original()
    names = set(model.state_dict())
    mend(model)
    assert set(model.state_dict()) == names
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert model.encoder.layer[0].attention.self.query.weight.abs().sum() > 0


def test_bf16_autocast() -> None:
    model = original().train()
    mend(model)
    batch = inputs(40, real=30)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch).last_hidden_state
    assert torch.allclose(output.float(), model(**batch).last_hidden_state, atol=0.1)
    output.float().sum().backward()


def test_how_many_inputs_are_read_in_full() -> None:
    config = original().config
    assert is_block_sparse(config)
    assert longest_full(config) == LONGEST_FULL
    assert count_full_attention(config, np.array([3, 28, 29, 100])) == 2
    assert position_limit(config).tokens == 256
    config.attention_type = "original_full"
    assert count_full_attention(config, np.array([3, 28, 29, 100])) == 0
