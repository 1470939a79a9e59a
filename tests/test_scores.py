from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fivefold import scores as module
from fivefold.errors import ArtefactError, DataError
from fivefold.scores import Scores, empty, id_array, log_softmax, mean, sigmoid, to_logits, to_probabilities
from fivefold.task import Binary, Categorical, Task

TASK = Task((Binary("x"), Categorical("c", ("a", "b", "d"))))
LOGITS = hnp.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32))


def scores(logits: np.ndarray, task: Task = TASK) -> Scores:
    return Scores(task, id_array(range(len(logits))), logits.astype(np.float32))


@given(LOGITS)
def test_probabilities_and_logits_are_inverse(logits: np.ndarray) -> None:
    probabilities = to_probabilities(TASK, logits)
    np.testing.assert_allclose(probabilities[:, 1:].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(to_probabilities(TASK, to_logits(TASK, probabilities)), probabilities, atol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    huge = np.array([[1e4, -1e4, 0, 1e4]], dtype=np.float32)
    assert np.isfinite(to_logits(TASK, to_probabilities(TASK, huge))).all()
    assert sigmoid(np.array([-1e4, 1e4], dtype=np.float32)).tolist() == [0, 1]
    np.testing.assert_allclose(log_softmax(huge[:, 1:]), [[-20000, -10000, 0]])


def test_align_restores_the_order_of_ids_and_names_lost_ones() -> None:
    made = scores(np.arange(12).reshape(3, 4))
    assert made.align(["2", "0"]).logits[:, 0].tolist() == [8, 0]
    with pytest.raises(DataError, match="'7'"):
        made.align(["7"])
    with pytest.raises(DataError, match="twice"):
        Scores(TASK, id_array(["a", "a"]), np.zeros((2, 4), np.float32)).align(["a"])


@settings(max_examples=20)
@given(LOGITS)
def test_parquet_keeps_every_bit(tmp_path_factory: pytest.TempPathFactory, logits: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("scores") / "oof.parquet"
    scores(logits).save(path)
    loaded = Scores.load(path, TASK)
    assert loaded.ids.tolist() == ["0", "1", "2"]
    assert loaded.logits.tobytes() == logits.tobytes()


def test_scores_of_another_task_are_refused(tmp_path: Path) -> None:
    scores(np.zeros((1, 4))).save(tmp_path / "s.parquet")
    with pytest.raises(ArtefactError, match="another task"):
        Scores.load(tmp_path / "s.parquet", Task((Binary("y"),)))


def test_wide_scores_are_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDE", 3)
    path = tmp_path / "oof.parquet"
    filled = empty(TASK, id_array("ab"), path)
    filled.logits[:] = np.arange(8).reshape(2, 4)
    filled.save(path)
    loaded = Scores.load(path, TASK)
    assert isinstance(loaded.logits, np.memmap)
    np.testing.assert_array_equal(loaded.logits, np.arange(8).reshape(2, 4))
    loaded.save(tmp_path / "copy.parquet")
    np.testing.assert_array_equal(Scores.load(tmp_path / "copy.parquet", TASK).logits, loaded.logits)
    assert [len(part) for part in loaded.chunks(1)] == [1, 1]


def test_mean_is_of_probabilities() -> None:
    low, high = scores(np.full((1, 4), -2.0)), scores(np.array([[3.0, 1, 0, 0]]))
    expected = (low.probabilities() + high.probabilities()) / 2
    np.testing.assert_allclose(mean([low, high]).probabilities(), expected, rtol=1e-5)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="must have shape"):
        scores(np.zeros((2, 3)))
