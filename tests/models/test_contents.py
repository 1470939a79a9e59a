"""Weights that lie elsewhere are known again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fivefold.errors import ArtefactError
from fivefold.models.backbones.contents import ENDS, SOURCE, check_source, digest, keep_source


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors").write_bytes(bytes(3 * ENDS))
    return folder


def test_a_copy_is_the_same_wherever_it_lies(backbone: Path, tmp_path: Path) -> None:
    (model := tmp_path / "model").mkdir()
    keep_source(model, str(backbone))
    shutil.copytree(backbone, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("A note.", "utf-8")
    check_source(model, str(tmp_path / "copy"))
    assert digest(backbone / "config.json") != digest(backbone / "model.safetensors")


@pytest.mark.parametrize("place", [0, 3 * ENDS - 1])
def test_other_weights_are_refused(backbone: Path, tmp_path: Path, place: int) -> None:
    (model := tmp_path / "model").mkdir()
    keep_source(model, str(backbone))
    with (backbone / "model.safetensors").open("r+b") as weights:
        weights.seek(place)
        weights.write(b"\x01")
    with pytest.raises(ArtefactError, match="isn't the one"):
        check_source(model, str(backbone))


def test_hub_ids_and_models_without_a_source_are_believed(backbone: Path, tmp_path: Path) -> None:
    check_source(tmp_path, str(backbone))
    keep_source(tmp_path, "an/id")
    check_source(tmp_path, "an/id")
    check_source(tmp_path, str(backbone))
    assert '"backbone": "an/id"' in (tmp_path / SOURCE).read_text("utf-8")
