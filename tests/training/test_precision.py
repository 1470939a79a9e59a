import pytest
import torch

import fivefold.training.precision as precision
from fivefold.errors import MissingExtraError, RecipeError
from fivefold.training.precision import choose_precision, computes_bf16, default_device, matrix_peak
from fivefold.training.trackers import require_trackers

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "bf16", "chosen"),
    [(CPU, True, "bf16"), (CPU, False, "fp32"), (GPU, True, "bf16"), (GPU, False, "fp16")],
)
def test_auto(device: torch.device, bf16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda device: bf16)
    assert choose_precision("auto", device) == chosen


def test_what_is_asked_for_is_given_or_refused() -> None:
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("fp32", CPU) == "fp32"
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        choose_precision("fp16", CPU)


def test_the_device_is_there() -> None:
    device = default_device()
    assert torch.zeros(1, device=device).device.type == device.type
    assert computes_bf16(device) in (True, False)


def test_matrix_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(precision.PEAK_SIZE, "cpu", 256)
    assert 1e8 < matrix_peak(CPU, "fp32") < 1e14


def test_trackers_that_are_not_installed() -> None:
    require_trackers(())
    with pytest.raises(MissingExtraError, match="pip install comet-ml"):
        require_trackers(("comet_ml",))
