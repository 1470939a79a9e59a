"""Weights that lie elsewhere are known again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fivefold.errors import ArtefactError
from fivefold.models.backbones.contents import ENDS, SOURCE, check_source, digest, keep_source


def test_a_copy_is_the_same_wherever_it_lies(weights: Path, tmp_path: Path) -> None:
    (model := tmp_path / "model").mkdir()
    keep_source(model, str(weights))
    shutil.copytree(weights, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("A note.", "utf-8")
    check_source(model, str(tmp_path / "copy"))
    assert digest(weights / "config.json") != digest(weights / "model.safetensors")


@pytest.mark.parametrize("place", [0, 3 * ENDS - 1])
def test_other_weights_are_refused(weights: Path, tmp_path: Path, place: int) -> None:
    (model := tmp_path / "model").mkdir()
    keep_source(model, str(weights))
    with (weights / "model.safetensors").open("r+b") as file:
        file.seek(place)
        file.write(b"\x01")
    with pytest.raises(ArtefactError, match="isn't the one"):
        check_source(model, str(weights))


def test_hub_ids_and_models_without_a_source_are_believed(weights: Path, tmp_path: Path) -> None:
    check_source(tmp_path, str(weights))
    keep_source(tmp_path, "an/id")
    check_source(tmp_path, "an/id")
    check_source(tmp_path, str(weights))
    assert '"backbone": "an/id"' in (tmp_path / SOURCE).read_text("utf-8")
