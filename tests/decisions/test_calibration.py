import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from fivefold.decisions.calibration import (
    FITS,
    Isotonic,
    Temperature,
    Uncalibrated,
    fit_isotonic,
    fit_temperature,
    from_json,
)
from fivefold.errors import ArtefactError, LabelError
from fivefold.evaluation.metrics import METRICS
from fivefold.evaluation.probabilities import row_losses
from fivefold.scores import CHUNK, Scores, id_array, sigmoid
from fivefold.task import MISSING, Binary, Categorical, Labels, Task

TASK = Task((Binary("a"), Categorical("c", ("x", "y", "z"))))


def draw(rows: int, scale: float, seed: int) -> tuple[Scores, Labels]:
    """Honest logits, then multiplied by `scale`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, 4)).astype(np.float32) * 1.5
    honest = Scores(TASK, id_array(range(rows)), logits).probabilities()
    a = generator.random(rows) < honest[:, 0]
    c = (generator.random((rows, 1)) > np.cumsum(honest[:, 1:3], axis=1)).sum(axis=1)
    labels = Labels(TASK, np.stack([a, c], axis=1).astype(np.int32))
    return Scores(TASK, id_array(range(rows)), logits * np.float32(scale)), labels


def losses(scores: Scores, labels: Labels) -> np.ndarray:
    return np.nanmean(row_losses(labels, scores), axis=0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_scale(scale: float) -> None:
    scores, labels = draw(CHUNK + 2000, scale, 0)
    found = fit_temperature(scores, labels)
    assert found.temperatures["a"] == pytest.approx(scale, rel=0.1)
    assert found.temperatures["c"] == pytest.approx(scale, rel=0.1)


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.01, 100), rows=st.integers(1, 40), seed=st.integers(0, 9))
def test_temperature_never_raises_log_loss_on_its_own_rows(scale: float, rows: int, seed: int) -> None:
    scores, labels = draw(rows, scale, seed)
    after = losses(fit_temperature(scores, labels).apply(scores), labels)
    assert (after <= losses(scores, labels) * (1 + 1e-5) + 1e-6).all()


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.1, 5), rows=st.integers(1, 60), seed=st.integers(0, 9))
def test_isotonic_never_raises_a_binarys_log_loss_on_its_own_rows(scale: float, rows: int, seed: int) -> None:
    scores, labels = draw(rows, scale, seed)
    after = losses(fit_isotonic(scores, labels).apply(scores), labels)
    assert after[0] <= losses(scores, labels)[0] * (1 + 1e-5) + 1e-5


def test_isotonic_is_scikit_learns() -> None:
    scores, labels = draw(200, 2.0, 1)
    calibrated = fit_isotonic(scores, labels).apply(scores)
    expected = IsotonicRegression(out_of_bounds="clip").fit_transform(scores.logits[:, 0], labels.codes[:, 0])
    assert sigmoid(calibrated.logits[:, 0]) == pytest.approx(expected, abs=1e-5)
    assert calibrated.probabilities()[:, 1:].sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_calibration_helps_new_rows() -> None:
    scores, labels = draw(3000, 4.0, 2)
    fresh, truth = draw(3000, 4.0, 3)
    for name in ("temperature", "isotonic"):
        after = FITS[name](scores, labels).apply(fresh)
        for metric in ("log_loss", "ece"):
            figure = METRICS[metric].function
            assert figure(truth, truth.codes, after) < 0.7 * figure(truth, truth.codes, fresh), (name, metric)


def test_soft_labels_pull_the_temperature() -> None:
    scores, labels = draw(500, 1.0, 4)
    uniform = {"c": np.full((500, 3), 1 / 3, dtype=np.float32)}
    soft = fit_temperature(scores, Labels(TASK, labels.codes, uniform))
    assert soft.temperatures["c"] == pytest.approx(20, rel=0.01)
    assert soft.temperatures["a"] == fit_temperature(scores, labels).temperatures["a"]


def test_soft_labels_draw_the_isotonic_curve() -> None:
    scores, labels = draw(400, 2.0, 4)
    honest = Scores(TASK, scores.ids, scores.logits / np.float32(2)).probabilities()
    soft = {"a": honest[:, :1], "c": honest[:, 1:]}
    calibrated = fit_isotonic(scores, Labels(TASK, labels.codes, soft)).apply(scores)
    assert calibrated.probabilities()[:, 0] == pytest.approx(honest[:, 0], abs=1e-5)


@pytest.mark.parametrize("fit", [fit_temperature, fit_isotonic])
def test_missing_cells_take_no_part(fit: object) -> None:
    scores, labels = draw(300, 2.0, 5)
    hidden = Labels(TASK, labels.codes.copy())
    hidden.codes[200:] = MISSING
    rows = np.arange(200)
    assert fit(scores, hidden) == fit(scores.take(rows), labels.take(rows))


def test_a_target_without_labels_keeps_its_temperature() -> None:
    scores, labels = draw(50, 2.0, 6)
    labels.codes[:, 0] = MISSING
    assert fit_temperature(scores, labels).temperatures["a"] == 1
    with pytest.raises(LabelError, match="a"):
        fit_isotonic(scores, labels)


def test_a_row_whose_classes_all_fall_to_zero_keeps_its_own_probabilities() -> None:
    scores, labels = draw(100, 1.0, 7)
    found = fit_isotonic(scores, labels)
    low = scores.take(np.array([0]))
    flat = Isotonic((found.curves[0], *(type(curve)((0.0,), (0.0,)) for curve in found.curves[1:])))
    assert flat.apply(low).probabilities()[:, 1:] == pytest.approx(low.probabilities()[:, 1:], rel=1e-4)


def test_chunks_change_nothing() -> None:
    scores, labels = draw(CHUNK + 10, 2.0, 8)
    for name, fit in FITS.items():
        rule = fit(scores, labels)
        alone = np.concatenate([rule.apply(scores.take(np.array([row]))).logits for row in (0, CHUNK, CHUNK + 9)])
        whole = rule.apply(scores).logits[[0, CHUNK, CHUNK + 9]]
        assert whole == pytest.approx(alone, abs=1e-5), name


@pytest.mark.parametrize("name", list(FITS))
def test_json_gives_the_same_calibration(name: str) -> None:
    fitted = FITS[name](*draw(100, 2.0, 9))
    assert isinstance(fitted, Uncalibrated | Temperature | Isotonic)
    assert from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_an_unknown_calibration_is_refused() -> None:
    with pytest.raises(ArtefactError, match="platt"):
        from_json({"kind": "platt"})
