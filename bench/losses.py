"""Losses, thresholds and training options on one multi-label task, all on the same folds.

    python bench/losses.py --data FOLDER --runs FOLDER [--out bench/results/losses.json] [--set KEY=VALUE ...]
                           [--recipe recipes/emotions/small/minilm.yaml] [--only bce weighted ...] [--score-only]

FOLDER of --data holds train.csv and dev.csv. Each variant is a fit of the recipe with a few keys changed, into a folder
of --runs; a killed one continues, and finished ones are read. `--set folds.only=0` trains one fold instead of all.

    bce        binary cross-entropy          weighted   class_weights: positive
    focal      focal loss, gamma 2           asymmetric asymmetric loss
    lovasz-rows, lovasz-labels               symmetric Lovász hinge by row and by label
    rdrop      bce with R-Drop, alpha 1      ema        bce, moving average of weights, decay .99
    layers     bce, rates lower by .8 a layer

Each variant is decided three ways: every label at .5, at one threshold for all, and at one a label. Figures are
macro-F1, cross-fitted: the rows that are scored didn't choose their thresholds. Intervals and paired differences to
`bce` under the same thresholds come from the same bootstrap of rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import peers
from fivefold.decisions.rule import cross_fitted
from fivefold.errors import RunError
from fivefold.evaluation.intervals import Predictions, bootstrap, interval, paired_difference
from fivefold.evaluation.metrics import METRICS
from fivefold.pipeline.compare import align
from fivefold.pipeline.decide import rule_fitter
from fivefold.pipeline.fit import fit
from fivefold.pipeline.run import Run
from fivefold.recipe import load_recipe
from fivefold.recipe.settings import DecisionSettings

VARIANTS = {
    "bce": [],
    "weighted": ["objective.class_weights=positive"],
    "focal": ["objective.binary=focal"],
    "asymmetric": ["objective.binary=asymmetric"],
    "lovasz-rows": ["objective.binary=lovasz_rows"],
    "lovasz-labels": ["objective.binary=lovasz_labels"],
    "rdrop": ["objective.rdrop_alpha=1"],
    "ema": ["training.ema=0.99"],
    "layers": ["training.layer_decay=0.8"],
}
THRESHOLDS: dict[str, Any] = {"half": 0.5, "common": "common", "per_label": "sweep"}
BASELINE = "bce"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and dev.csv")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, a folder each")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/emotions/small/minilm.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe of all")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--score-only", action="store_true", help="read the finished runs, fit none")
    options = parser.parse_args()
    if not options.score_only:
        for name in options.only:
            fit_variant(name, options)
    runs = finished(options)
    if BASELINE not in runs:
        print(f"no finished run of {BASELINE}, which all others are compared to", file=sys.stderr)
        return 1
    table = figures(runs)
    print_table(table)
    if options.out:
        folds = sorted(set(runs[BASELINE].out_of_fold.folds.tolist()))
        about = {"machine": peers.machine(), "rows": len(runs[BASELINE].out_of_fold.labels), "folds": folds}
        options.out.write_text(json.dumps({**about, "table": table}, indent=1) + "\n")
    return 0


def fit_variant(name: str, options: argparse.Namespace) -> None:
    """Fit one variant, or go on where it was killed."""
    data = [f"data.train={options.data / part}.csv" for part in ("train", "dev")]
    fit(load_recipe(options.recipe, [*data, *options.set, *VARIANTS[name]]), out=options.runs / name)


def finished(options: argparse.Namespace) -> dict[str, Run]:
    """The runs that can be read."""
    found = {}
    for name in options.only:
        try:
            run = Run.open(options.runs / name)
            _ = run.rule
            found[name] = run
        except RunError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found


def figures(runs: dict[str, Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Macro-F1 of each variant under each kind of threshold, {variant: {thresholds: figures}}."""
    metric, rows = METRICS["f1_macro"], runs[BASELINE].out_of_fold
    table: dict[str, dict[str, dict[str, float]]] = {name: {} for name in runs}
    for kind, thresholds in THRESHOLDS.items():
        decided = {name: decisions(run, thresholds, rows.scores.ids) for name, run in runs.items()}
        for name, each in decided.items():
            prepared = {name: metric.prepare(rows.labels, each.decisions, each.scores)}
            value = float(prepared[name](np.ones((1, len(rows.labels))))[0])
            low, high = interval(bootstrap(prepared, len(rows.labels), seed=0)[name])
            gap = paired_difference(rows.labels, each, decided[BASELINE], metric, seed=0)
            table[name][kind] = {"f1_macro": value, "low": low, "high": high}
            table[name][kind] |= {"gain": gap.difference, "gain_low": gap.low, "gain_high": gap.high}
    return table


def decisions(run: Run, thresholds: Any, ids: Any) -> Predictions:
    """Cross-fitted decisions of a run under other thresholds, rows in the order of `ids`."""
    rows = run.out_of_fold
    rule = rule_fitter(DecisionSettings(metric="f1_macro", thresholds=thresholds), run.task)
    found = cross_fitted(rows.scores, rows.labels, rows.folds, rule, seed=run.recipe.seed)
    return align(Predictions(found.decisions, found.scores), ids)


def print_table(table: dict[str, dict[str, dict[str, float]]]) -> None:
    """A Markdown table: figures, and gains over the baseline with their intervals."""
    print(
        "| | "
        + " | ".join(THRESHOLDS)
        + " | "
        + " | ".join(f"{kind}, gain over {BASELINE}" for kind in THRESHOLDS)
        + " |"
    )
    print("|---" * (1 + 2 * len(THRESHOLDS)) + "|")
    for name, kinds in table.items():
        values = [f"{short(f['f1_macro'])} [{short(f['low'])}, {short(f['high'])}]" for f in kinds.values()]
        gains = [f"{f['gain']:+.3f} [{f['gain_low']:+.3f}, {f['gain_high']:+.3f}]" for f in kinds.values()]
        print(f"| {name} | " + " | ".join([*values, *(gains if name != BASELINE else ["–"] * len(gains))]) + " |")


def short(value: float) -> str:
    """A share without its leading zero."""
    return f"{value:.4f}".removeprefix("0")


if __name__ == "__main__":
    sys.exit(main())
