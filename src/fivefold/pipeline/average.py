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

from fivefold.data.load import content_hash
from fivefold.errors import ArtefactError, RunError
from fivefold.evaluation.summary import Estimate
from fivefold.models.base import PARITY_ROWS
from fivefold.models.rules import FILE, RuledClassifier
from fivefold.pipeline.candidates import WAYS, Candidate, adapters_of, make_ways, merged_recipe
from fivefold.pipeline.folds import write_json
from fivefold.pipeline.judging import Judge, Way, judging_rows
from fivefold.pipeline.run import AVERAGE, MODEL, Run, classifier_maker
from fivefold.pipeline.store import Store
from fivefold.recipe import dump_recipe

log = logging.getLogger("fivefold")

MERGED = ("fp32", "bf16", "fp16")
"""How merged weights may be held."""

PARITY = {"fp32": 1e-3, "nf4": 1e-3, "fp16": 5e-2, "bf16": 3e-1, "int8": 3e-1}
"""Largest difference of a logit that merging may make, by how weights are held before and after: floats are rounded to
their type, and int8 rounds what it multiplies as well."""


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
        Labelled rows that no fold saw; None: a sample of the training rows, which nearly all folds saw.
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
    check_unenriched(run)
    folds = adapters_of(run)
    rows = judging_rows(run, data)
    store = Store(Path(out))
    asked = (run.store.description["fingerprint"], content_hash(rows.frame), way, rank, weights)
    fingerprint = hashlib.sha256(repr(asked).encode()).hexdigest()
    with store.held(), tempfile.TemporaryDirectory() as scratch:
        if overwrite:
            store.clear()
        store.vacant(fingerprint)
        made = make_ways(run, folds, Path(scratch), way, rank)
        judge = Judge(run, rows)
        ways = tuple(judge.way(each) for each in made.values())
        best = min(ways, key=judge.loss)
        found = Averaged(Path(out), judge.metric, rows.told, len(folds), judge.ensemble_estimate, ways, best.name)
        if judge.is_worse(best) and not accept:
            raise RunError(
                f"Every average that was asked for is worse than the ensemble of the folds.\n{render(found)}",
                next_step="keep the ensemble, or add --accept to take the average all the same",
            )
        keep(store, fingerprint, made[best.name], judge, found, weights)
    return found


def check_unenriched(run: Run) -> None:
    """Refuse a run whose folds read what their neighbours give: an average has no fold to look neighbours up for.

    Raises
    ------
    RunError
        If it is one.
    """
    if run.recipe.enrichment is not None:
        raise RunError(
            f"The folds of {run.folder} read neighbours (enrichment), which an average doesn't find.",
            next_step="keep the ensemble of the folds, or fit without the section enrichment",
        )


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


def keep(
    store: Store, fingerprint: str, candidate: Candidate, judge: Judge, found: Averaged, weights: str | None
) -> None:
    """Write the new run: data as in the source, the model, and the rule with its figures."""
    run = judge.run
    recipe = candidate.recipe if weights is None else merged_recipe(candidate.recipe, weights)
    store.begin(fingerprint, dump_recipe(recipe), recipe.seed)
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
                merge_into(folder / MODEL, candidate, judge, weights)
    if not store.has("decision"):
        with store.stage("decision") as folder:
            shutil.copy(run.store.path("decision") / "rule.json", folder / "rule.json")
            write_json(folder / "metrics.json", judge.figures(Run.open(store.folder).models[0]).to_json())


def merge_into(folder: Path, candidate: Candidate, judge: Judge, weights: Any) -> None:
    """Merge an adapter into its backbone, write it, and compare what was written.

    Raises
    ------
    ArtefactError
        If a logit differs by more than the type of the weights explains.
    """
    from fivefold.models.decoder.classifier import DecoderClassifier
    from fivefold.models.decoder.merging import merged

    model = candidate.load(judge.run)
    inner = model.inner if isinstance(model, RuledClassifier) else model
    assert isinstance(inner, DecoderClassifier)
    merged(inner, weights).save(folder)
    if isinstance(model, RuledClassifier):
        model.rules.save(folder / FILE)
    written = classifier_maker(merged_recipe(candidate.recipe, weights), judge.run.task)()
    written.load(folder)
    allowed = max(PARITY[weights], PARITY[inner.origin.weights])
    some = judge.rows.take(np.arange(min(PARITY_ROWS, len(judge.rows))))
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
