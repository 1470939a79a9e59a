"""The adapters of a run's folds as one model: three ways, each scored beside the ensemble of the folds."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fivefold.data.compose import Rows
from fivefold.data.corpus import build_corpus
from fivefold.data.groups import number_groups
from fivefold.data.labels import read_labels
from fivefold.data.layout import normalise
from fivefold.data.load import content_hash
from fivefold.errors import ArtefactError, FivefoldError, LabelError, RunError
from fivefold.evaluation.intervals import Difference, Predictions, paired_difference
from fivefold.evaluation.metrics import METRICS
from fivefold.evaluation.summary import Estimate, evaluate
from fivefold.models.base import PARITY_ROWS
from fivefold.models.rules import FILE, RuledClassifier
from fivefold.pipeline.candidates import WAYS, Candidate, adapters_of, make_ways, merged_recipe
from fivefold.pipeline.continuation import trained_on
from fivefold.pipeline.folds import write_json
from fivefold.pipeline.overlap import overlap
from fivefold.pipeline.prepare import read_trained
from fivefold.pipeline.run import AVERAGE, MODEL, Run, classifier_maker
from fivefold.pipeline.store import Store
from fivefold.recipe import dump_recipe
from fivefold.scores import Scores
from fivefold.task import MISSING, Labels

log = logging.getLogger("fivefold")

SAMPLE = 1000
"""Training rows on which the ways are compared where no others are given."""

MERGED = ("fp32", "bf16", "fp16")
"""How merged weights may be held."""

PARITY = {"fp32": 1e-3, "nf4": 1e-3, "fp16": 5e-2, "bf16": 3e-1, "int8": 3e-1}
"""Largest difference of a logit that merging may make, by how weights are held before and after: floats are rounded to
their type, and int8 rounds what it multiplies as well."""


@dataclass(frozen=True)
class Way:
    """One average, judged.

    Parameters
    ----------
    name, rank
        Which one, and the rank of its adapter.
    error
        Distance to the exact mean of what the folds' adapters add, as a share of that mean's size.
    megabytes
        Of its adapter and head.
    estimate
        The run's metric on the judging rows.
    difference
        To the ensemble of the folds on the same rows.
    """

    name: str
    rank: int
    error: float
    megabytes: float
    estimate: Estimate
    difference: Difference


@dataclass(frozen=True)
class Averaged:
    """What `average_run` found and kept."""

    folder: Path
    metric: str
    rows: str
    folds: int
    ensemble: Estimate
    ways: tuple[Way, ...]
    chosen: str


def average_run(
    source: str | Path,
    out: str | Path,
    data: Any = None,
    *,
    way: str | None = None,
    rank: int | None = None,
    weights: str | None = None,
    accept: bool = False,
    overwrite: bool = False,
) -> Averaged:
    """Average the adapters of a run's folds, judge each way, and write the best as a run that predicts.

    Parameters
    ----------
    source
        A finished run of the decoder family with adapters.
    out
        The folder of the new run. It has one model, the source's decision rule, and no out-of-fold scores.
    data
        Labelled rows that no fold saw; None: a sample of the training rows, which every fold but one saw.
    way
        "factors", "exact" or "rank"; None: the best on these rows.
    rank
        Of the way "rank"; None: that of the adapters.
    weights
        Merge the average into the backbone, held so: "fp32", "bf16" or "fp16"; None: keep it an adapter.
    accept
        Keep an average though it is worse than the ensemble with an interval that excludes zero.
    overwrite
        Delete the run in `out` first.

    Raises
    ------
    FivefoldError
        If the run has no adapters, the rows were trained on, or the average is worse.
    """
    check_choices(way, rank, weights)
    run = Run.load(source)
    folds = adapters_of(run)
    frame, labels, told = judging_rows(run, data)
    store = Store(Path(out))
    asked = (run.store.description["fingerprint"], content_hash(frame), way, rank, weights)
    fingerprint = hashlib.sha256(repr(asked).encode()).hexdigest()
    with store.held(), tempfile.TemporaryDirectory() as scratch:
        if overwrite:
            store.clear()
        store.vacant(fingerprint)
        made = make_ways(run, folds, Path(scratch), way, rank)
        judge = Judge(run, frame, labels)
        ways = [judge.way(made[name]) for name in made]
        best = min(ways, key=lambda each: judge.loss(each.estimate))
        found = Averaged(Path(out), judge.metric, told, len(folds), judge.ensemble_estimate, tuple(ways), best.name)
        if judge.is_worse(best) and not accept:
            raise RunError(
                f"Every average that was asked for is worse than the ensemble of the folds.\n{render(found)}",
                next_step="keep the ensemble, or add --accept to take the average all the same",
            )
        recipe = made[best.name].recipe
        if weights is not None:
            recipe = merged_recipe(recipe, weights)
        store.begin(fingerprint, dump_recipe(recipe), recipe.seed)
        if not store.has("decision"):
            keep(store, run, made[best.name], judge, found, weights, own_rows=data is None)
    return found


def check_choices(way: str | None, rank: int | None, weights: str | None) -> None:
    """Refuse what isn't a way or a type of weights, and a rank that nothing reads.

    Raises
    ------
    RunError
        Naming what there is.
    """
    if way not in (None, *WAYS):
        raise RunError("There is no such way to average.", allowed=", ".join(WAYS), got=str(way))
    if weights not in (None, *MERGED):
        raise RunError("Weights can't be merged so.", allowed=", ".join(MERGED), got=str(weights))
    if rank is not None and way not in (None, "rank"):
        raise RunError(f"The way '{way}' has no rank to choose.", allowed="--rank with --way rank, or with none")


def judging_rows(run: Run, data: Any) -> tuple[pl.DataFrame, Labels, str]:
    """The table to judge on, its labels, and what to say of it.

    Raises
    ------
    LabelError
        If it has no labels.
    RunError
        If folds were trained on some of the rows that were given.
    """
    if data is None:
        frame = read_trained(run.recipe)
        if frame.height > SAMPLE:
            frame = frame[np.sort(np.random.default_rng(run.recipe.seed).choice(frame.height, SAMPLE, replace=False))]
        told = f"{frame.height:,} training rows, which nearly all folds saw: differences count, levels are too good"
    else:
        frame = run.read(data)
        told = f"{frame.height:,} rows {unseen(run, frame)}"
    labels = read_labels(normalise(frame, run.layout), run.task)
    if (labels.codes == MISSING).all():
        raise LabelError("No label of the table is filled in.", next_step="judge on rows with labels")
    return frame, labels, told


def unseen(run: Run, frame: pl.DataFrame) -> str:
    """What to say of rows that the folds weren't trained on.

    Raises
    ------
    RunError
        If they were.
    """
    try:
        known = trained_on(run)
    except FivefoldError:
        return "that nobody compared with the training rows, whose file can't be read again"
    seen = np.any([overlap(frame, each, run.recipe, "the training data", recipe) for recipe, each in known], axis=0)
    if seen.any():
        raise RunError(
            "The folds were trained on some of the rows to judge on.",
            got=f"{int(seen.sum()):,} of {len(seen):,} rows have the texts of a training row",
            next_step="take them out, or name no file: then a sample of the training rows is taken, and said",
        )
    return "that no fold saw"


def rows_of(run: Run, frame: pl.DataFrame) -> Rows:
    """The table as models read it."""
    data = run.recipe.data
    named = data.id if data.id in frame.columns else None
    return build_corpus(frame, text=data.text, id=named, replace=data.replace).rows()


class Judge:
    """Scores averages on rows, beside the ensemble of the folds."""

    def __init__(self, run: Run, frame: pl.DataFrame, labels: Labels) -> None:
        self.run, self.rows, self.labels = run, rows_of(run, frame), labels
        group = run.recipe.data.group
        self.groups = number_groups(frame[group]) if group in frame.columns else None
        self.metric = run.evaluation.metric
        self.ensemble = self.predictions(run.raw(self.rows))
        self.ensemble_estimate = self.estimate(self.ensemble)

    def predictions(self, raw: Scores) -> Predictions:
        """Decisions by the run's own rule."""
        scores = self.run.rule.calibrate(raw)
        return Predictions(self.run.rule.decide_calibrated(scores), scores)

    def evaluation(self, predictions: Predictions) -> Any:
        """Every metric with its interval."""
        rule, seed = self.run.rule, self.run.recipe.seed
        decided = predictions.decisions, predictions.scores
        return evaluate(self.labels, *decided, self.metric, seed=seed, groups=self.groups, thresholds=rule.thresholds)

    def estimate(self, predictions: Predictions) -> Estimate:
        """The run's metric with its interval."""
        found: Estimate = self.evaluation(predictions).headline
        return found

    def way(self, candidate: Candidate) -> Way:
        """A candidate with its figures."""
        log.info("Scoring the average by '%s'", candidate.name)
        predictions = self.predictions(candidate.load(self.run).score(self.rows))
        metric, seed = METRICS[self.metric], self.run.recipe.seed
        gap = paired_difference(self.labels, predictions, self.ensemble, metric, seed=seed, groups=self.groups)
        size = sum(path.stat().st_size for path in candidate.folder.iterdir()) / 1e6
        return Way(candidate.name, candidate.rank, candidate.error, size, self.estimate(predictions), gap)

    def loss(self, estimate: Estimate) -> float:
        """What is smaller the better the metric is."""
        return -estimate.value if METRICS[self.metric].greater_is_better else estimate.value

    def is_worse(self, way: Way) -> bool:
        """Whether the interval of the difference to the ensemble lies on its wrong side."""
        gap = way.difference
        return gap.high < 0 if METRICS[self.metric].greater_is_better else gap.low > 0


def keep(
    store: Store, run: Run, candidate: Candidate, judge: Judge, found: Averaged, weights: str | None, *, own_rows: bool
) -> None:
    """Write the stages of the new run: data as in the source, the model, and the rule with its figures."""
    if not store.has("data"):
        with store.stage("data") as folder:
            shutil.copytree(run.store.path("data"), folder, dirs_exist_ok=True)
    if not store.has(AVERAGE):
        with store.stage(AVERAGE) as folder:
            write_json(folder / "ways.json", table(found))
            if weights is None:
                shutil.copytree(candidate.folder, folder / MODEL)
            else:
                (folder / MODEL).mkdir()
                merge_into(folder / MODEL, candidate, run, judge.rows, weights)
    with store.stage("decision") as folder:
        shutil.copy(run.store.path("decision") / "rule.json", folder / "rule.json")
        made = Run.open(store.folder).models[0]
        figures = run.evaluation if own_rows else judge.evaluation(judge.predictions(made.score(judge.rows)))
        write_json(folder / "metrics.json", figures.to_json())


def merge_into(folder: Path, candidate: Candidate, run: Run, rows: Rows, weights: Any) -> None:
    """Merge an adapter into its backbone, write it, and compare what was written.

    Raises
    ------
    ArtefactError
        If a logit differs by more than the type of the weights explains.
    """
    from fivefold.models.decoder.classifier import DecoderClassifier
    from fivefold.models.decoder.merging import merged

    model = candidate.load(run)
    inner = model.inner if isinstance(model, RuledClassifier) else model
    assert isinstance(inner, DecoderClassifier)
    merged(inner, weights).save(folder)
    if isinstance(model, RuledClassifier):
        model.rules.save(folder / FILE)
    written = classifier_maker(merged_recipe(candidate.recipe, weights), run.task)()
    written.load(folder)
    allowed, some = (
        max(PARITY[weights], PARITY[inner.origin.weights]),
        rows.take(np.arange(min(PARITY_ROWS, len(rows)))),
    )
    gap = float(np.abs(written.score(some).logits - model.score(some).logits).max(initial=0))
    if not gap <= allowed:
        raise ArtefactError(
            "The merged model doesn't score as the adapter does.",
            allowed=f"logits within {allowed:g} in {weights}",
            got=f"a difference of {gap:.3g} on {len(some)} rows",
            next_step="merge in fp32, or keep the adapter",
        )
    log.info("Merged in %s: logits of %d rows differ by at most %.2g (%g allowed)", weights, len(some), gap, allowed)


def table(found: Averaged) -> dict[str, Any]:
    """The comparison as plain values."""
    plain = asdict(found)
    plain["folder"] = found.folder.name
    for way in plain["ways"]:
        way["error"] = None if math.isnan(way["error"]) else way["error"]
    return plain


def render(found: Averaged) -> str:
    """The comparison as lines for a terminal."""
    lines = [
        f"{found.metric} on {found.rows}",
        f"  {'':<10} {'rank':>5} {'error':>8} {'MB':>8}  passes  {found.metric}",
    ]
    own = found.ensemble
    lines.append(
        f"  {'ensemble':<10} {'':>5} {'':>8} {'':>8}  {found.folds:>6}  {own.value:.4f} [{own.low:.4f}, {own.high:.4f}]"
    )
    for way in found.ways:
        mark = "→" if way.name == found.chosen else " "
        value, gap = way.estimate, way.difference
        error = "–" if math.isnan(way.error) else f"{way.error:.1%}"
        lines.append(
            f"{mark} {way.name:<10} {way.rank:>5} {error:>8} {way.megabytes:>8.1f}  {1:>6}  "
            f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]  "
            f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] to the ensemble"
        )
    return "\n".join(lines)
