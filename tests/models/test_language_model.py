from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny_encoders import ARCHITECTURES, tiny_tokenizer

from fivefold.errors import DataError, FivefoldError, RecipeError
from fivefold.models.backbones.backbone import Origin, load_encoder, load_masked_lm
from fivefold.models.base import Cost
from fivefold.models.pretraining.language_model import LanguageModelling, LanguageNet
from fivefold.models.pretraining.passages import (
    IGNORED,
    KEPT_FIXED,
    MASKED,
    SWAPPED,
    Passages,
    Vocabulary,
    causal_puzzle,
    frequency_loss,
    lay_out,
    masked_puzzle,
)
from fivefold.models.pretraining.pretrainer import Beginning, Pretraining, passages_of, pretrain
from fivefold.recipe.training import OptimiserSettings
from fivefold.training.inputs import learn_template
from fivefold.training.tokens import Tokens, starts_of, tokenise

TOKENIZER = tiny_tokenizer()
VOCABULARY = Vocabulary.of(TOKENIZER)
PAD, UNK, CLS, SEP, MASK = range(5)
GPT = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}


@pytest.fixture(autouse=True)
def _nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_CACHE", "off")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny tokenizer on disk."""
    path = str(tmp_path_factory.mktemp("tokenizer"))
    TOKENIZER.save_pretrained(path)
    return path


def texts_of(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 39 of twenty words, some far more frequent than others."""
    random = np.random.default_rng(seed)
    share = 0.6 ** np.arange(20)
    return [
        " ".join(f"word{i}" for i in random.choice(20, length, p=share / share.sum()))
        for length in random.integers(3, 40, count)
    ]


def how(**changes: Any) -> Pretraining:
    settings = {"epochs": 6, "learning_rate": 1e-2, "batch_size": 8, "precision": "fp32", "checkpoint_minutes": 0}
    training = OptimiserSettings(**settings | changes.pop("training", {})).model_dump()
    common = {"objective": "masked", "layout": "lines", "block_tokens": 64, "masked_share": 0.15}
    return Pretraining(**{**common, "validation_share": 0.2, "seed": 3, "training": training, **changes})


def beginning(folder: str, architecture: str = "bert") -> Beginning:
    return Beginning(Origin(None, {**ARCHITECTURES[architecture], "initializer_range": 0.05}), folder)


def passages(texts: list[str], layout: str = "lines", share: float = 0.15, most: int = 64) -> Passages:
    tokens = tokenise(texts, TOKENIZER, None)
    inputs = lay_out(tokens, learn_template(TOKENIZER), layout, most, VOCABULARY.plain)  # type: ignore[arg-type]
    return Passages(inputs, PAD, masked_puzzle(VOCABULARY, share), seed=0)


# Puzzles


def test_special_tokens_are_neither_guessed_nor_hidden() -> None:
    texts = [f"{text} strange-word" for text in texts_of(100)]  # an unknown word in each
    found = passages(texts, share=0.9)
    batch, rows = found.batch(np.arange(100), epoch=1), found.inputs.tokens
    original = torch.from_numpy(np.stack([np.pad(rows.row(i), (0, 64 - len(rows.row(i)))) for i in range(100)]))
    original = original[:, : batch["input_ids"].shape[1]]
    special = original < len([PAD, UNK, CLS, SEP, MASK])
    assert (original == UNK).any()
    assert (batch["targets"][special] == IGNORED).all()
    assert (batch["input_ids"][special] == original[special]).all()


def test_fifteen_percent_are_guessed_of_which_ten_percent_are_swapped_and_ten_stay() -> None:
    texts = [" ".join(["word7"] * 40) for _ in range(2000)]
    found = passages(texts)
    batch = found.batch(np.arange(2000), epoch=1)
    guessed = batch["targets"] != IGNORED
    shown = batch["input_ids"][guessed]
    assert guessed.sum() / (2000 * 40) == pytest.approx(0.15)
    assert (batch["targets"][guessed] == TOKENIZER.convert_tokens_to_ids("word7")).all()
    swapped = (shown != MASK) & (shown != TOKENIZER.convert_tokens_to_ids("word7"))
    assert (shown == MASK).float().mean() == pytest.approx(MASKED, abs=0.015)
    assert swapped.float().mean() == pytest.approx(SWAPPED, abs=0.015)
    assert VOCABULARY.plain[shown[swapped].numpy()].all()
    assert len(set(shown[swapped].tolist())) > 80


def test_a_short_text_has_something_to_guess() -> None:
    batch = passages(["word1", "word2 word3"]).batch(np.arange(2), epoch=1)
    assert (batch["targets"] != IGNORED).sum(dim=1).tolist() == [1, 1]


def test_puzzles_depend_on_seed_epoch_and_row_alone() -> None:
    found = passages(texts_of(30))
    together, alone = found.batch(np.array([4, 9]), epoch=2), found.batch(np.array([9]), epoch=2)
    tokens = alone["targets"].shape[1]
    assert (together["targets"][1, :tokens] == alone["targets"][0]).all()
    assert (together["input_ids"][1, :tokens] == alone["input_ids"][0]).all()
    again = found.batch(np.array([4, 9]), epoch=3)
    assert (again["targets"] != together["targets"]).any()
    other = Passages(found.inputs, PAD, found.puzzle, seed=1).batch(np.array([4, 9]), epoch=2)
    assert (other["targets"] != together["targets"]).any()


def test_a_causal_target_is_the_next_plain_token() -> None:
    ids = np.array([CLS, 9, UNK, 10, SEP], dtype=np.int32)
    shown, targets = causal_puzzle(VOCABULARY)(ids, np.random.default_rng(0))
    assert shown.tolist() == ids.tolist()
    assert targets.tolist() == [9, IGNORED, 10, IGNORED, IGNORED]


def test_lines_cut_a_long_text_into_several_inputs() -> None:
    found = passages(["word1 word2 word3 word4 word5 word6 word7", "", "?", "unheard-of"], most=5).inputs
    rows = [found.tokens.row(i).tolist() for i in range(found.rows)]
    word = TOKENIZER.convert_tokens_to_ids("word1")
    assert rows[:3] == [
        [CLS, word, word + 1, word + 2, SEP],
        [CLS, word + 3, word + 4, word + 5, SEP],
        [CLS, word + 6, SEP],
    ]
    assert len(rows) == 4  # what is empty or unknown holds nothing to guess
    assert found.coverage.truncated == 0


def test_blocks_hold_all_texts_with_separators_between() -> None:
    template = learn_template(TOKENIZER)
    tokens = Tokens(np.arange(10, 20, dtype=np.int32), starts_of(np.array([4, 3, 3])))
    found = lay_out(tokens, template, "blocks", 8, VOCABULARY.plain)
    rows = [found.tokens.row(i).tolist() for i in range(found.rows)]
    content = [i for row in rows for i in row[1:-1]]
    assert content == [*range(10, 14), *template.middle, *range(14, 17), *template.middle, *range(17, 20)]
    assert {len(row) for row in rows[:-1]} == {8}
    assert {row[0] for row in rows} == {CLS}


def test_guessing_by_frequency_by_hand() -> None:
    learnt, watched = passages(["word1 word1 word2"]), passages(["word1"])
    plain = int(VOCABULARY.plain.sum())
    expected = -math.log((2 + 1) / (3 + plain))
    assert frequency_loss(learnt, watched, VOCABULARY.plain) == pytest.approx(expected)


def test_no_text_is_both_learnt_from_and_measured_by(folder: str) -> None:
    texts = texts_of(40) * 2
    learnt, watched = passages_of(texts, beginning(folder), how(), VOCABULARY)
    rows = [{part.inputs.tokens.row(i).tobytes() for i in range(part.inputs.rows)} for part in (learnt, watched)]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == learnt.inputs.rows + watched.inputs.rows == len(set(texts))
    assert len(rows[1]) == 8


# The net


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta", "modernbert", "big_bird", "longformer"])
def test_the_head_on_guessed_places_is_the_head_on_all(architecture: str) -> None:
    net, batch = net_and_batch(architecture)
    net(**batch).mean().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    loss = net(**batch).mean().item()
    net.zero_grad()
    full = full_losses(net, batch)
    full.mean().backward()
    assert loss == pytest.approx(full.mean().item(), abs=1e-5)
    compared = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert compared.keys() == gradients.keys()
    for name, gradient in compared.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3)


def full_losses(net: LanguageNet, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Losses with logits of every place of every pass."""
    losses = []
    chosen = batch["targets"] != IGNORED
    for i in range(len(chosen)):
        one = {name: tensor[i : i + 1, : int(batch["attention_mask"][i].sum())] for name, tensor in batch.items()}
        targets = one.pop("targets")
        from fivefold.models.backbones.passes import Sequences

        (each,) = net.passes(Sequences(*one.values()))
        logits = net.backbone(**each.inputs).logits[0, : targets.shape[1]]
        losses.append(torch.nn.functional.cross_entropy(logits, targets[0], reduction="none")[targets[0] != IGNORED])
    return torch.cat(losses)


def net_and_batch(architecture: str) -> tuple[LanguageNet, dict[str, torch.Tensor]]:
    # Longformer reads whole windows; the texts are long enough that BigBird reads sparsely.
    random = np.random.default_rng(1)
    texts = [" ".join(f"word{i}" for i in random.integers(0, 90, length)) for length in (60, 45, 5)]
    found = passages(texts, most=96)
    model = load_masked_lm(Origin(None, ARCHITECTURES[architecture]), TOKENIZER, seed=0).model
    return LanguageNet(model).eval(), found.batch(np.arange(3), epoch=1)


def test_padding_never_counts() -> None:
    net, batch = net_and_batch("bert")
    padded = {name: torch.nn.functional.pad(tensor, (0, 9)) for name, tensor in batch.items()}
    padded["targets"][:, -9:] = IGNORED
    torch.testing.assert_close(net(**padded), net(**batch), atol=1e-5, rtol=1e-4)
    assert (batch["targets"][batch["attention_mask"] == 0] == IGNORED).all()


def test_a_step_minimises_the_mean_over_guessed_tokens(folder: str) -> None:
    net, _ = net_and_batch("bert")
    found = passages(texts_of(20))
    trainee = LanguageModelling(net, found, found, how().batches(found), learning_rate=1.0, fresh=lambda seed: net)
    losses, weights = trainee.losses(net, np.arange(20), step=0)
    guessed = found.batch(np.arange(20), epoch=1)["targets"] != IGNORED
    assert len(losses) == guessed.sum()
    assert (weights == 1).all()
    figures = trainee.evaluate(net)
    assert figures["perplexity"] == pytest.approx(math.exp(-figures["score"]))
    assert len(found.targets(KEPT_FIXED)) == (found.batch(np.arange(20), KEPT_FIXED)["targets"] != IGNORED).sum()


# Pretraining


@pytest.mark.parametrize("architecture", ["bert", "big_bird", "longformer"])
def test_perplexity_falls_and_the_backbone_is_loaded_again(architecture: str, folder: str, tmp_path: Path) -> None:
    found = pretrain(texts_of(60), beginning(folder, architecture), how(), tmp_path / "scratch")
    assert found.figures["after"] < 0.5 * found.figures["before"]
    assert 1 < found.figures["baseline"] < found.figures["before"]
    assert found.remarks == ()
    found.save(tmp_path / "model")
    again = load_encoder(Origin(str(tmp_path / "model")), TOKENIZER, seed=9)
    assert again.missing == ()
    trunk = dict(found.net.trunk.named_parameters())
    assert all(torch.equal(p, trunk[name].cpu()) for name, p in again.model.named_parameters())


def test_blocks_and_gradient_checkpointing(folder: str) -> None:
    changed = how(layout="blocks", block_tokens=32, training={"epochs": 4, "gradient_checkpointing": True})
    found = pretrain(texts_of(60), beginning(folder), changed)
    assert found.figures["after"] < found.figures["before"]
    assert found.figures["inputs"] < found.figures["tokens"] / 25


def test_a_decoder_learns_the_next_token(folder: str) -> None:
    # Every word is followed by the next one, so that a decoder can know all but the first.
    random = np.random.default_rng(0)
    texts = [" ".join(f"word{(start + i) % 12}" for i in range(20)) for start in random.integers(0, 12, 200)]
    texts = [f"{text} word{20 + i % 60}" for i, text in enumerate(texts)]
    changed = how(objective="causal", training={"epochs": 12})
    found = pretrain(texts, Beginning(Origin(None, GPT), folder), changed)
    assert found.figures["after"] < 3 < found.figures["baseline"]


def test_killed_and_continued_is_as_undisturbed(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = how(training={"epochs": 2})
    undisturbed = pretrain(texts_of(40), beginning(folder), settings, tmp_path / "a")
    losses, calls = LanguageModelling.losses, 0

    def stop_at_sixth(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelling, "losses", stop_at_sixth)
        with pytest.raises(KeyboardInterrupt):
            pretrain(texts_of(40), beginning(folder), settings, tmp_path / "b")
    assert any((tmp_path / "b" / "checkpoints").iterdir())
    continued = pretrain(texts_of(40), beginning(folder), settings, tmp_path / "b")
    for (name, one), other in zip(undisturbed.net.named_parameters(), continued.net.parameters(), strict=True):
        assert torch.equal(one, other), name
    figures = {name: value for name, value in undisturbed.figures.items() if name != "training_seconds"}
    assert figures == {name: continued.figures[name] for name in figures}
    curves = [(tmp_path / name / "learning.jsonl").read_text("utf-8") for name in "ab"]
    assert curves[0] == curves[1]
    assert any("perplexity" in json.loads(line) for line in curves[0].splitlines())


def test_the_best_weights_remain(folder: str) -> None:
    # Perplexity is lowest after the first epoch of a rate that is far too high.
    settings = how(training={"epochs": 4, "learning_rate": 0.5, "schedule": "constant", "clip": None, "restarts": 0})
    found = pretrain(texts_of(60), beginning(folder), settings)
    assert found.figures["after"] > 0
    raised = found.figures["after"] > found.figures["before"]
    assert any("raised perplexity" in remark for remark in found.remarks) == raised


def test_passages_are_no_longer_than_the_backbone_reads(folder: str) -> None:
    found = pretrain(texts_of(20), beginning(folder), how(block_tokens=512, training={"epochs": 1}))
    assert "256 tokens at most" in found.remarks[0]


def mistakes() -> list[tuple[Callable[[str], Any], type[FivefoldError], str]]:
    """What is tried, and what is said."""
    texts = texts_of(10)
    return [
        (lambda f: pretrain([], beginning(f), how()), DataError, "no texts"),
        (lambda f: pretrain(["word1", "word1", ""], beginning(f), how()), DataError, "1 in 3"),
        (lambda f: pretrain(texts, beginning(f), how(objective="causal")), RecipeError, "sees both sides"),
        (lambda f: pretrain(texts, Beginning(Origin(None, GPT), f), how()), RecipeError, "objective to causal"),
    ]


@pytest.mark.parametrize(("tried", "error", "message"), mistakes())
def test_mistakes_say_what_to_do(
    tried: Callable[[str], Any], error: type[FivefoldError], message: str, folder: str
) -> None:
    with pytest.raises(error, match=message):
        tried(folder)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    bare = tiny_tokenizer()
    bare.mask_token = None
    bare.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="mask token"):
        pretrain(texts_of(10), beginning(str(tmp_path)), how())


def test_what_pretraining_takes_is_told_and_changes_nothing(folder: str) -> None:
    told: list[Cost] = []
    texts, asked = texts_of(40), how(training={"epochs": 2})
    plain = pretrain(texts, beginning(folder), asked)
    announced = pretrain(texts, beginning(folder), asked, announce=told.append)
    (cost,) = told
    assert cost.seconds > 0
    assert cost.parameters == cost.trained == sum(p.numel() for p in plain.net.parameters())
    assert cost.bytes > cost.parameters * 16
    for ours, theirs in zip(plain.net.parameters(), announced.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
