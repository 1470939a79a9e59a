"""Small made-up runs of the four shapes of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fivefold.evaluation.summary import Estimate, Evaluation, LabelReport
from fivefold.report.content import ReportContent
from fivefold.report.write import write_report
from fivefold.scores import Scores, id_array, log_softmax
from fivefold.task import MISSING, Binary, Categorical, Labels, Task, Tree

STRANGE = '<script>alert("x")</script> $a_b$ | 100 %: #1'
"""A label name that HTML, Markdown, YAML and mathtext would each misread in their own way."""

TASKS = {
    "multi_label": Task((Binary("toxic"), Binary(STRANGE), Binary("threat"))),
    "categorical": Task((Categorical("stance", ("favour", "against", "neither")),)),
    "mixed": Task((Binary("spam"), Binary("insult"), Categorical("lang: kind", ("de", "en", STRANGE)))),
    "tree": Task(
        (Categorical("area", ("arts", "science")), Categorical("field", ("music", "film", "physics", "biology"))),
        Tree(("area", "field"), ((0, 0), (0, 1), (1, 2), (1, 3))),
    ),
}

Maker = Callable[..., ReportContent]


@dataclass(frozen=True)
class Written:
    """A report's content and the folder it was written to."""

    content: ReportContent
    folder: Path

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    @property
    def card(self) -> str:
        return (self.folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session", params=sorted(TASKS))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    content = make_content(TASKS[request.param])
    folder = tmp_path_factory.mktemp("report")
    assert write_report(content, folder) == folder / "report.html"
    return Written(content, folder)


@pytest.fixture
def make() -> Maker:
    return make_content


@pytest.fixture
def tasks() -> dict[str, Task]:
    return TASKS


@pytest.fixture
def strange() -> str:
    return STRANGE


def make_content(task: Task, rows: int = 120, seed: int = 0) -> ReportContent:
    """A run that is right most of the time, with one row unlabelled."""
    generator = np.random.default_rng(seed)
    codes, blocks = [], []
    for target in task.targets:
        code, block = _target(target, rows, generator)
        codes.append(code)
        blocks.append(block)
    labels = Labels(task, np.stack(codes, axis=1))
    logits = np.concatenate(blocks, axis=1)
    scores = Scores(task, id_array([f"row {i}" for i in range(rows)]), logits)
    decisions = np.stack([_decide(scores.block(name)) for name in task.names], axis=1)
    return ReportContent(
        title="Toxic comments",
        labels=labels,
        scores=scores,
        decisions=decisions,
        evaluation=_evaluation(labels, decisions),
        thresholds={target.name: 0.5 for target in task.binaries},
        folds=(0.81, 0.84, 0.79, 0.83, 0.8),
        texts=[f"Text {i} says <b>more</b> & more. " * 12 for i in range(rows)],
        learnt={"data": "comments.csv", "folds": "5, stratified", "model": "linear, word and character n-grams"},
        warnings=("12 rows occur twice with different labels.",),
        explanations={STRANGE: [("<i>you", 2.5), ("fool", 1.25)], "toxic": [(" idi", 3.0), ("thank", -1.0)]},
    )


def _target(target, rows, generator):
    if isinstance(target, Binary):
        code = (generator.random(rows) < 0.25).astype(np.int32)
        block = (np.where(code == 1, 1.5, -2.0) + generator.normal(0, 1.5, rows))[:, None].astype(np.float32)
    else:
        frequency = 1 / np.arange(1, target.width + 1)
        code = generator.choice(target.width, rows, p=frequency / frequency.sum()).astype(np.int32)
        block = generator.normal(0, 1, (rows, target.width)).astype(np.float32)
        block[np.arange(rows), code] += 2.5
        block = log_softmax(block)
    code[0] = MISSING
    return code, block


def _decide(block):
    return (block[:, 0] > 0 if block.shape[1] == 1 else block.argmax(axis=1)).astype(np.int32)


def _evaluation(labels, decisions):
    estimates = {
        "macro_f1": Estimate(0.8126, 0.78, 0.84),
        "accuracy": Estimate(0.9, 0.88, 0.92),
        "log_loss": Estimate(1.37, 1.2, 1.5),
        "roc_auc": Estimate(float("nan"), float("nan"), float("nan")),
    }
    lines = []
    for place, target in enumerate(labels.task.targets):
        true, said = labels.codes[:, place], decisions[:, place]
        codes = [1] if isinstance(target, Binary) else np.argsort(-np.bincount(true[true >= 0]))[:200].tolist()
        for code in codes:
            label = target.name if isinstance(target, Binary) else target.classes[code]
            lines.append(_line(target.name, label, true == code, said == code))
    return Evaluation("macro_f1", int((labels.codes != MISSING).any(axis=1).sum()), estimates, tuple(lines),
                      {"macro_f1": 0.8345})  # fmt: skip


def _line(target, label, true, said):
    hits = int((true & said).sum())
    precision, recall = hits / max(said.sum(), 1), hits / max(true.sum(), 1)
    f1 = 2 * hits / max(true.sum() + said.sum(), 1)
    return LabelReport(target, label, float(precision), float(recall), float(f1), int(true.sum()), int(said.sum()))
