from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.tiny_encoders import ARCHITECTURES, batch_of, random_rows, tiny_tokenizer

from fivefold.errors import FivefoldError
from fivefold.models.backbones.backbone import Origin, load_masked_lm
from fivefold.models.encoder.prompted import PromptedNet, answer_id, prompt_lead
from fivefold.task import Binary, Categorical, Task

TASK = Task((Binary("word1_word2"), Binary("word3"), Categorical("word4", ("word5", "word6"))))
PROMPT = "{label}? {mask}."
TOKENIZER = tiny_tokenizer()
LEAD = prompt_lead(TASK, TOKENIZER, PROMPT, {"word3": "word80 word81"})
ROWS = [[2, *LEAD.tolist(), *row[1:]] for row in random_rows([9, 33, 5])]


def make(name: str = "bert", **settings: Any) -> PromptedNet:
    architecture = (ARCHITECTURES | {"newer_deberta": ARCHITECTURES["deberta"] | {"legacy": False}})[name]
    model = load_masked_lm(Origin(architecture=architecture), TOKENIZER, seed=1).model
    return PromptedNet(model, **({"width": 4, "mask": 4, "yes": 5, "no": 6} | settings))


def test_every_logit_has_a_slot_in_order() -> None:
    assert TOKENIZER.decode(LEAD).replace(" ?", "?").replace(" .", ".") == (
        "word1 word2? <mask>. word80 word81? <mask>. word4 word5? <mask>. word4 word6? <mask>."
    )
    assert LEAD.dtype == "int32"


def test_words_that_name_no_logit_or_hold_special_tokens() -> None:
    with pytest.raises(FivefoldError, match=r"\['word4'\]"):
        prompt_lead(TASK, TOKENIZER, PROMPT, {"word4": "anything"})
    for words in ("a <mask> b", "a <sep> b"):
        with pytest.raises(FivefoldError, match="special token"):
            prompt_lead(TASK, TOKENIZER, PROMPT, {"word3": words})


def test_a_tokenizer_without_a_mask() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(FivefoldError, match="mask token"):
        prompt_lead(TASK, tokenizer, PROMPT, {})


def test_answers_are_single_tokens() -> None:
    assert (answer_id(TOKENIZER, "yes"), answer_id(TOKENIZER, "no")) == (5, 6)
    for word in ("yes no", "unheard"):
        with pytest.raises(FivefoldError, match="isn't one token"):
            answer_id(TOKENIZER, word)


@pytest.mark.parametrize("name", [*(name for name in ARCHITECTURES if name != "longformer"), "newer_deberta"])
def test_scores_are_those_of_the_whole_masked_language_model(name: str) -> None:
    net = make(name).eval()
    row = torch.tensor([ROWS[0]])
    with torch.no_grad():
        logits = net.backbone(input_ids=row, attention_mask=torch.ones_like(row)).logits[0][row[0] == 4]
        batch = batch_of(ROWS)
        batch["token_type_ids"] *= 0
        assert torch.allclose(net(**batch)[0], logits[:, 5] - logits[:, 6], atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert", "newer_deberta"])
def test_only_slots_reach_the_head_and_every_weight_learns(name: str) -> None:
    net = make(name).train()
    net(**batch_of(ROWS)).square().sum().backward()
    grads = {name: weight.grad for name, weight in net.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()] == []
    assert not net.trunk._forward_hooks
    groups = net.layers()
    assert sum(map(len, groups)) == len(grads)
    assert groups[-1]
    assert not any(key.startswith(f"backbone.{net.backbone.base_model_prefix}.") for key in groups[-1])


def test_parts_of_a_row_merge_by_their_logits() -> None:
    net = make(fields="max").eval()
    with torch.no_grad():
        alone = torch.cat([net(**batch_of([row])) for row in ROWS])
        merged = net(**(batch_of(ROWS) | {"owner": torch.tensor([0, 0, 1])}))
    assert torch.allclose(merged, torch.stack([alone[:2].amax(dim=0), alone[2]]), atol=1e-5)


def test_a_sequence_without_its_slots_is_a_bug() -> None:
    with pytest.raises(ValueError, match="slots"):
        make()(**batch_of(random_rows([9])))


def test_slots_are_global_in_a_longformer() -> None:
    net = make("longformer").eval()
    seen: list[torch.Tensor] = []
    net.trunk.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["global_attention_mask"]), with_kwargs=True
    )
    net(**batch_of(ROWS))
    last = ROWS[0].index(4, len(LEAD) - 3)
    assert seen[0].sum(dim=1).tolist() == [last + 1] * 3


def test_frozen_layers_and_saving(tmp_path: Path) -> None:
    net = make(unfrozen_layers=1)
    assert [all(p.requires_grad for p in group.values()) for group in net.layers()] == [False, False, True, True]
    net.eval().save(tmp_path, TOKENIZER)
    again = PromptedNet(
        load_masked_lm(Origin(str(tmp_path)), TOKENIZER, seed=5).model, width=4, mask=4, yes=5, no=6
    ).eval()
    with torch.no_grad():
        assert torch.allclose(net(**batch_of(ROWS)), again(**batch_of(ROWS)), atol=1e-6)
