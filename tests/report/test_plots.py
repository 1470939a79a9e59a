from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from fivefold.report.bars import class_imbalance, label_bars, label_counts
from fivefold.report.canvas import calm_style
from fivefold.report.confusion import MOST_CLASSES, OTHER, confusion_matrix, count_confusion
from fivefold.report.curves import STEPS, f1_by_threshold, threshold_curves
from fivefold.report.dots import fold_spread, metric_intervals
from fivefold.report.plots import save_pictures
from fivefold.report.reliability import BINS, pooled_binaries, top_class
from fivefold.scores import Scores, id_array, sigmoid, to_logits
from fivefold.task import Binary, Categorical, Labels, Task


def test_every_shape_has_its_pictures(written):
    names = {path.stem for path in (written.folder / "pictures").iterdir()}
    task = written.content.task
    expected = {"metrics", "folds", "label_bars", "reliability", "imbalance"}
    expected |= {"thresholds"} if task.binaries else set()
    expected |= {f"confusion_{i}" for i, _ in enumerate(task.categoricals, start=1)}
    assert names == expected


def test_pictures_are_png_and_valid_undated_svg(written):
    pictures = written.folder / "pictures"
    for path in pictures.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    for path in pictures.glob("*.svg"):
        ElementTree.parse(path)
        assert "dc:date" not in path.read_text()
    assert len(list(pictures.glob("*.png"))) == len(list(pictures.glob("*.svg")))


def test_names_and_counts_are_in_the_pictures(written, strange):
    drawn = "".join(ElementTree.parse(written.folder / "pictures" / "label_bars.svg").getroot().itertext())
    for line in written.content.evaluation.labels:
        assert f"{line.support:,}" in drawn
    assert strange[:15] in drawn or strange not in str(written.content.task)


@pytest.mark.parametrize("written", ["mixed"], indirect=True)
def test_same_content_gives_same_bytes(written, tmp_path):
    for again in save_pictures(written.content, tmp_path):
        for path in (again.png, again.svg):
            assert path.read_bytes() == (written.folder / "pictures" / path.name).read_bytes()


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    with calm_style():
        assert matplotlib.rcParams["svg.hashsalt"] == "fivefold"
    assert dict(matplotlib.rcParams) == before


def test_f1_by_threshold_agrees_with_deciding_anew(make, tasks):
    content = make(tasks["multi_label"])
    curves = f1_by_threshold(content.scores, content.labels)
    assert curves.shape == (3, STEPS)
    for step in (0, 40, 100, 199):
        said = sigmoid(content.scores.logits) >= step / STEPS
        for label in range(3):
            known = content.labels.codes[:, label] >= 0
            true = content.labels.codes[known, label] == 1
            hits = (said[known, label] & true).sum()
            assert curves[label, step] == pytest.approx(2 * hits / (said[known, label].sum() + true.sum()))


def test_reliability_error_by_hand():
    task = Task((Binary("a"), Binary("b")))
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.1]], dtype=np.float32)
    codes = np.array([[1, 0], [0, 0], [-1, 0]], dtype=np.int32)
    found = pooled_binaries(Scores(task, id_array("xyz"), to_logits(task, probabilities)), Labels(task, codes))
    assert found.counts.sum() == 5
    assert found.counts[int(0.9 * BINS)] == 2
    # Two answers at 0.9 of which one is right, three at 0.1 of which none is.
    assert found.error == pytest.approx((2 * 0.4 + 3 * 0.1) / 5, abs=1e-6)


def test_top_class_reliability_by_hand():
    task = Task((Categorical("c", ("x", "y", "z")),))
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)
    labels = Labels(task, np.array([[0], [2]], dtype=np.int32))
    found = top_class(Scores(task, id_array("ab"), to_logits(task, probabilities)), labels, "c")
    assert found.right.sum() == 1
    assert found.error == pytest.approx(0.3, abs=1e-6)


def test_confusion_by_hand():
    target = Categorical("c", ("x", "y"))
    found = count_confusion(target, np.array([0, 1, 1, 1, -1]), np.array([0, 0, 1, 1, 1]))
    assert found.classes == ("y", "x")
    assert found.counts.tolist() == [[2, 1], [0, 1]]
    assert found.shares.tolist() == [[2 / 3, 1 / 3], [0, 1]]


def test_rare_classes_are_counted_together():
    target = Categorical("c", tuple(f"c{i}" for i in range(40)))
    codes = np.repeat(np.arange(40), np.arange(40, 0, -1)).astype(np.int32)
    found = count_confusion(target, codes, codes)
    assert found.classes == (*(f"c{i}" for i in range(MOST_CLASSES)), OTHER)
    assert found.counts.sum() == len(codes)
    assert (found.counts == np.diag(np.diag(found.counts))).all()


def test_labels_are_counted_most_frequent_first():
    task = Task((Binary("a"), Binary("b"), Categorical("c", ("x", "y"))))
    codes = np.array([[0, 1, 1], [1, 1, 1], [-1, 1, -1]], dtype=np.int32)
    binaries, classes = label_counts(Labels(task, codes))
    assert (binaries.names, binaries.counts.tolist()) == (("b", "a"), [3, 1])
    assert (classes.names, classes.counts.tolist()) == (("y", "x"), [2, 0])


def test_ninety_labels_are_cut_to_what_is_readable(make):
    content = make(Task(tuple(Binary(f"label {i}") for i in range(95))), rows=40)
    with calm_style():
        bars, curves, imbalance = (draw(content) for draw in (label_bars, threshold_curves, class_imbalance))
    assert "The 90 most frequent of 95 labels" in bars.caption
    assert "The 24 most frequent of 95 labels" in curves.caption
    assert "90 most frequent of 95" in imbalance.figure.axes[0].get_title(loc="left")
    assert len(bars.figure.axes) == len(imbalance.figure.axes) == 2


def test_metrics_on_other_scales_have_their_own_axis(make, tasks):
    content = make(tasks["categorical"])
    with calm_style():
        unit, other = metric_intervals(content).figure.axes
    assert [label.get_text() for label in unit.get_yticklabels()] == ["Macro F1", "Accuracy"]
    assert [label.get_text() for label in other.get_yticklabels()] == ["Log loss"]


def test_folds_without_a_figure_are_left_out(make, tasks):
    content = dataclasses.replace(make(tasks["categorical"]), folds=(0.5, math.nan, 0.7))
    with calm_style():
        drawing = fold_spread(content)
    assert [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()] == ["fold 1", "fold 3"]
    assert "0.141" in drawing.caption


def test_confusion_caption_says_what_is_left_out(make):
    content = make(Task((Categorical("c", tuple(f"c{i}" for i in range(300))),)), rows=400)
    with calm_style():
        drawing = confusion_matrix(content, content.task.categoricals[0], "confusion_1")
    assert "25 most frequent of 300 classes" in drawing.caption


@pytest.mark.parametrize("change", [{"decisions": np.zeros((3, 1), dtype=np.int32)}, {"texts": ("one",)}])
def test_rows_must_agree(make, tasks, change):
    with pytest.raises(ValueError, match=r"rows|shape"):
        dataclasses.replace(make(tasks["categorical"]), **change)
