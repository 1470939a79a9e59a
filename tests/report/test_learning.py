from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fivefold.evaluation.summary import Estimate
from fivefold.report.canvas import calm_style
from fivefold.report.content import LearningCurve, Member
from fivefold.report.learning import MOST_POINTS, learning_curves, mean_line, smoothed
from fivefold.report.page import render_page
from fivefold.report.plots import save_pictures
from fivefold.report.write import write_report

METRIC = "macro_f1"


def curve(shift: float, steps: int = 60, epochs: int = 3) -> LearningCurve:
    every = steps // epochs
    training = [{"step": s, "epoch": s / every, "loss": 1 / s + shift, "rate": 1e-4} for s in range(1, steps + 1)]
    checks = [{"step": e * every, "epoch": float(e), "score": e / 10 + shift, METRIC: e / 10} for e in (1, 2, 3)]
    return LearningCurve.from_lines(json.loads(json.dumps(training + checks)), METRIC)


def test_lines_are_training_points_and_evaluations() -> None:
    lines = [
        {"step": 1, "epoch": 0.5, "loss": 0.7, "rate": 1e-4},
        {"step": 2, "epoch": 1.0, "loss": float("nan"), "rate": 1e-4},
        {"step": 2, "epoch": 1.0, "score": -0.3, "log_loss": 0.3, "loss": 9.0},
        {"step": 4, "epoch": 2.0, "score": -0.2},
    ]
    found = LearningCurve.from_lines(lines, "log_loss")
    assert (found.epochs.tolist(), found.losses.tolist()) == ([0.5], [0.7])
    assert (found.checked.tolist(), found.values.tolist()) == ([1, 2], [0.3, -0.2])
    assert len(LearningCurve.from_lines([], METRIC).checked) == 0


def test_folds_are_thin_and_their_mean_is_bold() -> None:
    with calm_style():
        metric, loss = learning_curves([curve(0), curve(0.2), curve(0.4)], METRIC, "", "learning_1").figure.axes
    for axes in (metric, loss):
        *folds, mean = axes.get_lines()
        assert len(folds) == 3
        assert mean.get_linewidth() > 2 * folds[0].get_linewidth()
    assert metric.get_lines()[-1].get_ydata() == pytest.approx([0.1, 0.2, 0.3])
    assert metric.get_ylabel() == "Macro F1 (validation)"
    assert loss.get_xlabel() == "epoch"


def test_the_mean_ends_where_the_first_fold_stops() -> None:
    long = (np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2, 3]))
    short = (np.array([1.0, 3]), np.array([2.0, 4]))
    epochs, mean = mean_line([long, short])
    assert epochs.tolist() == [1, 2, 3]
    assert mean.tolist() == [1, 2, 3]


def test_a_smoothed_loss_is_the_mean_around_each_point() -> None:
    epochs, losses = np.arange(80.0), np.tile([0.0, 1.0], 40)
    _, smooth = smoothed(epochs, losses)
    assert smooth[40] == pytest.approx(losses[38:42].mean())
    assert smoothed(epochs[:3], losses[:3])[1].tolist() == [0, 1, 0]
    assert len(smoothed(np.arange(5000.0), np.zeros(5000))[0]) == MOST_POINTS


def test_the_page_shows_a_picture_a_member(make, tasks, tmp_path) -> None:
    content = make(tasks["mixed"])
    members = (Member("mini <LM>", "encoder", 0.7, Estimate(0.8, 0.7, 0.9)), Member("b", "x", 0.3, Estimate(0, 0, 0)))
    learning = {"mini <LM>": [curve(0), curve(0.1)], "b": [LearningCurve.from_lines([], METRIC)]}
    page = write_report(dataclasses.replace(content, members=members, learning=learning), tmp_path).read_text("utf-8")
    assert (tmp_path / "pictures/learning_1.svg").is_file()
    assert not (tmp_path / "pictures/learning_2.svg").exists()
    assert 'id="learning"' in page
    assert 'id="members"' in page
    assert "mini &lt;LM&gt;" in page
    assert "<LM>" not in page
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "| mini &lt;LM&gt; | 0.800 | 0.700 to 0.900 | 0.70 | encoder |" in card


def test_without_curves_nothing_is_said_of_learning(make, tasks, tmp_path) -> None:
    content = make(tasks["categorical"])
    page = render_page(content, save_pictures(content, tmp_path))
    assert 'href="#learning"' not in page
    assert 'href="#members"' not in page


def test_one_evaluation_is_a_dot() -> None:
    one = LearningCurve.from_lines([{"epoch": 1.0, "score": 0.5}], METRIC)
    with calm_style():
        (axes,) = learning_curves([one], METRIC, "m", "learning_1").figure.axes
    assert {line.get_marker() for line in axes.get_lines()} == {"o"}
