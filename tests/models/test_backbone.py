from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.models.tiny_encoders import ARCHITECTURES, batch_of, random_rows, tiny_tokenizer

from fivefold.errors import FivefoldError
from fivefold.models.backbones import places
from fivefold.models.backbones.architectures import PositionLimit, Stack, depth_of, position_limit, set_dropouts
from fivefold.models.backbones.backbone import (
    Origin,
    load_config,
    load_encoder,
    load_masked_lm,
    load_tokenizer,
    save_backbone,
)
from fivefold.models.backbones.places import EMBEDDED, EMBEDDED_PACKAGE, quiet, resolve
from fivefold.models.pooled.net import PooledNet


def config(name: str, **changes: Any) -> Any:
    return load_config(Origin(architecture=ARCHITECTURES[name] | changes), tiny_tokenizer())


def saved(tmp_path: Path, name: str = "bert") -> Path:
    tokenizer = tiny_tokenizer()
    save_backbone(load_encoder(Origin(architecture=ARCHITECTURES[name]), tokenizer, seed=1).model, tokenizer, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "tokens", "hard"),
    [
        ("bert", 256, True),
        ("roberta", 255, True),
        ("distilbert", 256, True),
        ("deberta", 256, False),
        ("mpnet", 254, True),
        ("modernbert", 256, False),
        ("big_bird", 256, True),
        ("longformer", 257, True),
    ],
)
def test_position_limits(name: str, tokens: int, hard: bool) -> None:
    limit = position_limit(config(name))
    assert (limit.tokens, limit.hard) == (tokens, hard)
    model = load_encoder(Origin(architecture=ARCHITECTURES[name]), tiny_tokenizer(), seed=0).model.eval()
    net = PooledNet(model, width=1, seed=0).eval()
    with torch.no_grad():
        assert net(**batch_of(random_rows([tokens]))).isfinite().all()
        if not hard:
            assert net(**batch_of(random_rows([tokens + 9]))).isfinite().all()
        else:
            with pytest.raises((IndexError, RuntimeError)):
                net(**batch_of(random_rows([tokens + 9])))


def test_robertas_514_positions_hold_512_tokens() -> None:
    assert position_limit(transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1)).tokens == 512
    assert position_limit(transformers.LongformerConfig(max_position_embeddings=4098, pad_token_id=1)).tokens == 4096
    assert position_limit(transformers.ModernBertConfig()).tokens == 8192
    assert position_limit(transformers.MPNetConfig(max_position_embeddings=514)).tokens == 512


def test_a_sparse_big_bird_stops_at_a_whole_block() -> None:
    assert position_limit(config("big_bird", max_position_embeddings=130)).tokens == 128


@pytest.mark.skipif(resolve(None).name == EMBEDDED, reason="the package with MiniLM isn't installed")
def test_the_embedded_minilm() -> None:
    assert Path(resolve(EMBEDDED).name).is_dir()
    assert EMBEDDED_PACKAGE not in sys.modules
    tokenizer = load_tokenizer(None)
    minilm = load_encoder(Origin(), tokenizer, seed=0)
    assert minilm.remarks == ()
    assert minilm.model.dtype == torch.float32
    assert position_limit(minilm.model.config).tokens == 512
    assert load_masked_lm(Origin(), tokenizer, seed=0).remarks == (
        "The backbone has no pretrained masked-language-model head; a random one is trained.",
    )


def test_without_the_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EMBEDDED_PACKAGE", "no_such_package_anywhere")
    assert resolve(None).name == EMBEDDED


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_isnt_there(name: str) -> None:
    with pytest.raises(FivefoldError, match="isn't a folder"):
        resolve(name)


def test_a_hub_that_cant_be_reached_says_how_to_work_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, lambda name: load_encoder(Origin(name), tiny_tokenizer(), seed=0)):
        with pytest.raises(FivefoldError, match="HF_HUB_OFFLINE") as caught:
            load("nobody-at-all/nothing-here")
        assert "hf download nobody-at-all/nothing-here" in str(caught.value)


def test_damaged_folders(tmp_path: Path) -> None:
    folder = saved(tmp_path / "whole")
    tokenizer = load_tokenizer(str(folder))
    for file, content in (("model.safetensors", b"rubbish"), ("config.json", b"{"), ("config.json", b"{}")):
        damaged = tmp_path / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(folder, damaged)
        (damaged / file).write_bytes(content)
        with pytest.raises(FivefoldError, match="can't be loaded"):
            load_encoder(Origin(str(damaged)), tokenizer, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FivefoldError, match="can't be loaded"):
        load_tokenizer(str(tmp_path / "empty"))


def test_remote_code_needs_a_word(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    with pytest.raises(FivefoldError, match="trust_remote_code: true"):
        load_config(Origin(str(tmp_path)), tiny_tokenizer())


def test_weights_that_arent_there_are_said_and_seeded(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    weights = load_file(folder / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    save_file({n: t for n, t in weights.items() if n != gone}, folder / "model.safetensors", {"format": "pt"})
    drawn = [load_encoder(Origin(str(folder)), tiny_tokenizer(), seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].missing == (gone,)
    assert gone in drawn[0].remarks[0]
    first, second, other = (each.model.state_dict()[gone] for each in drawn)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_weights_are_fp32_whatever_the_checkpoint_holds(tmp_path: Path) -> None:
    model = load_encoder(Origin(architecture=ARCHITECTURES["bert"]), tiny_tokenizer(), seed=1).model.bfloat16()
    save_backbone(model, tiny_tokenizer(), tmp_path)
    assert load_encoder(Origin(str(tmp_path)), tiny_tokenizer(), seed=1).model.dtype == torch.float32


def test_a_masked_lm_becomes_an_encoder(tmp_path: Path) -> None:
    for name, architecture in (ARCHITECTURES | {"newer": ARCHITECTURES["deberta"] | {"legacy": False}}).items():
        masked = load_masked_lm(Origin(architecture=architecture), tiny_tokenizer(), seed=1)
        save_backbone(masked.model, tiny_tokenizer(), tmp_path / name)
        encoder = load_encoder(Origin(str(tmp_path / name)), tiny_tokenizer(), seed=2)
        again = load_masked_lm(Origin(str(tmp_path / name)), tiny_tokenizer(), seed=2)
        assert encoder.remarks == again.remarks == (), name
        for weights in (encoder.model, again.model.base_model):
            for a, b in zip(weights.parameters(), masked.model.base_model.parameters(), strict=True):
                assert torch.equal(a, b), name


def test_the_head_that_deberta_v3_checkpoints_hold(tmp_path: Path) -> None:
    newer = ARCHITECTURES["deberta"] | {"legacy": False}
    save_backbone(
        load_masked_lm(Origin(architecture=newer), tiny_tokenizer(), seed=1).model, tiny_tokenizer(), tmp_path
    )
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["legacy"]  # as on the hub, where transformers then builds the other head
    (tmp_path / "config.json").write_text(json.dumps(stored))
    loaded = load_masked_lm(Origin(str(tmp_path)), tiny_tokenizer(), seed=2)
    assert loaded.remarks == ()
    assert not loaded.model.config.legacy


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dropouts_reach_the_config(name: str) -> None:
    settings = Origin(architecture=ARCHITECTURES[name], dropout=0.31, attention_dropout=0.17)
    changed = load_config(settings, tiny_tokenizer())
    model = load_encoder(settings, tiny_tokenizer(), seed=0).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert 0.31 in rates
    assert 0.17 in {value for key, value in changed.to_dict().items() if "attention" in key and "drop" in key}
    assert rates <= {0.31, 0.17, 0.0}


def test_dropouts_of_all_names_are_set() -> None:
    changed = transformers.GPT2Config()
    set_dropouts(changed, 0.0, 0.0)
    assert (changed.embd_pdrop, changed.resid_pdrop, changed.attn_pdrop) == (0, 0, 0)
    changed = transformers.FalconConfig()
    set_dropouts(changed, 0.2, None)
    assert changed.hidden_dropout == 0.2


def test_limits_that_nobody_states_are_none() -> None:
    for unbounded in (transformers.BloomConfig(), transformers.XLNetConfig()):
        assert position_limit(unbounded) == PositionLimit(512, hard=False)


def test_a_dynamic_rotation_may_not_grow() -> None:
    turned = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    for rotation, hard in ((turned, True), ({**turned, "rope_type": "linear"}, False)):
        assert position_limit(transformers.LlamaConfig(rope_parameters=rotation)).hard == hard


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("decoder.final_layer_norm.weight", 3),
        ("final_layernorm.weight", 3),
        ("encoder.emb_layer_norm_after.weight", 3),
        ("norm_f.weight", 3),
        ("embeddings.norm.weight", 0),
        ("encoder.LayerNorm.weight", 0),
        ("decoder.layers.1.final_layer_norm.weight", 2),
    ],
)
def test_depths(name: str, depth: int) -> None:
    assert depth_of(name, (Stack("", "decoder.layers", 3),)) == depth


def test_a_dropout_that_an_architecture_lacks() -> None:
    with pytest.raises(FivefoldError, match="no such dropout"):
        set_dropouts(transformers.PretrainedConfig(), 0.1, None)


def test_pad_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<sep>"
    assert config("bert").pad_token_id == 0
    assert config("bert").vocab_size == len(tiny_tokenizer())


def test_a_tokenizer_that_knows_too_much(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["more", "words"])
    with pytest.raises(FivefoldError, match="knows 101 tokens"):
        load_config(Origin(str(folder)), tokenizer)


@pytest.mark.parametrize(
    "changes", [{"model_type": "berd"}, {"hidden_size": 33}, {"num_hidden_layers": "two"}, {"hidden_act": "nonesuch"}]
)
def test_architectures_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(FivefoldError, match="architecture doesn't make"):
        load_encoder(Origin(architecture=ARCHITECTURES["bert"] | changes), tiny_tokenizer(), seed=0)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(FivefoldError, match="encoder-decoder"):
        load_config(Origin(str(tmp_path)), tiny_tokenizer())


def test_loading_is_quiet_and_leaves_settings_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    folder = saved(tmp_path)
    load_masked_lm(Origin(str(folder)), load_tokenizer(str(folder)), seed=0)
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
