"""Log loss of several ways to tell which of two answers people prefer, on the same folds, and what length alone tells.

    python bench/preferences.py --data FOLDER --runs FOLDER [--out bench/results/preferences.json]
                                [--only linear best ...] [--set KEY=VALUE ...] [--score-only]

FOLDER of --data holds train.jsonl.gz with the columns prompt, context, response_a, response_b, winner (a, b, tie), id
and group. Each variant is a fit into a folder of --runs; a killed one continues, finished ones are read. All but the
first reuse its folds, which keep a prompt's rows together.

    linear          recipes/preference/linear.yaml, both orders, without the passage
    context         the same with the passage
    own-order       with the passage, in the order that people saw
    best            recipes/preference/small/best.yaml
    encoder         MiniLM on all four texts, trained and scored in both orders
    encoder-plain   trained in its own order and scored in both
    encoder-once    trained in both orders and scored in its own
    reward          MiniLM that reads each answer alone and compares two rewards
    decoder         recipes/preference/small/smollm2.yaml
    decoder-plain, decoder-once   as with the encoder
    decoder-begun   begins with an adapter of other preferences: --set training.adapter_from=RUN

`prior` is the class rates of the other folds, `length` a logistic regression on the difference of the answers' log
lengths in words and its size. Intervals and paired differences to `linear` draw whole prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

import peers
from fivefold.data.load import read_table
from fivefold.evaluation.intervals import Predictions, bootstrap, interval, paired_difference
from fivefold.evaluation.metrics import METRICS
from fivefold.pipeline.compare import align, predictions_of
from fivefold.pipeline.fit import fit
from fivefold.pipeline.run import Run
from fivefold.recipe import load_recipe
from fivefold.scores import EDGE, Scores

RECIPES = Path(__file__).parent.parent / "recipes" / "preference"
WHOLE = [f"data.text={name}" for name in ("prompt", "context", "response_a", "response_b")]
MINILM = [
    "model={family: encoder, max_tokens: 384, field_tokens: {prompt: 48, context: 160}}",
    "training={epochs: 3, learning_rate: 5.0e-5, head_learning_rate: 5.0e-4}",
]
PLAIN, ONCE = ["training.swapped_training=false"], ["training.swapped_scoring=false"]
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "linear": ("linear.yaml", []),
    "context": ("linear.yaml", [*WHOLE, "model.C=0.01"]),
    "own-order": ("linear.yaml", [*WHOLE, "model.C=0.01", "model.both_orders=false"]),
    "best": ("small/best.yaml", []),
    "encoder": ("linear.yaml", [*WHOLE, *MINILM]),
    "encoder-plain": ("linear.yaml", [*WHOLE, *MINILM, *PLAIN]),
    "encoder-once": ("linear.yaml", [*WHOLE, *MINILM, *ONCE]),
    "reward": ("linear.yaml", [*WHOLE, *MINILM, "model.head=reward"]),
    "decoder": ("small/smollm2.yaml", []),
    "decoder-plain": ("small/smollm2.yaml", PLAIN),
    "decoder-once": ("small/smollm2.yaml", ONCE),
    "decoder-begun": ("small/smollm2.yaml", []),
}
BASELINE = "linear"
QUICK = ["linear", "context", "own-order", "best"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl.gz")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, a folder each")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=QUICK, help="default: those done in minutes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe of all")
    parser.add_argument("--score-only", action="store_true", help="read the finished runs, fit none")
    options = parser.parse_args()
    for name in [] if options.score_only else options.only:
        fit_variant(name, options)
    table = figures(options)
    print_table(table)
    if options.out:
        about = {"machine": peers.machine()}
        options.out.write_text(json.dumps({**about, "table": table}, indent=1) + "\n")
    return 0


def fit_variant(name: str, options: argparse.Namespace) -> None:
    """Fit one variant on the folds of the baseline, or go on where it was killed."""
    recipe, changes = VARIANTS[name]
    folds = [] if name == BASELINE else [f"folds.reuse={options.runs / BASELINE}"]
    data = [f"data.train={options.data / 'train.jsonl.gz'}"]
    fit(load_recipe(RECIPES / recipe, [*data, *changes, *folds, *options.set]), out=options.runs / name)


def figures(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Log loss of each variant with its interval, and the paired difference to the baseline."""
    base = Run.load(options.runs / BASELINE)
    rows, metric = base.out_of_fold, METRICS["log_loss"]
    decided = {name: make(base, options.data) for name, make in SIMPLE.items()}
    for name in VARIANTS:
        if (options.runs / name).exists():
            run = Run.open(options.runs / name)
            decided[name] = align(predictions_of(run, run.out_of_fold), rows.scores.ids)
    table = {}
    for name, each in decided.items():
        prepared = {name: metric.prepare(rows.labels, each.decisions, each.scores)}
        low, high = interval(bootstrap(prepared, len(rows.labels), seed=0, groups=rows.groups)[name])
        gap = paired_difference(rows.labels, each, decided[BASELINE], metric, seed=0, groups=rows.groups)
        value = float(prepared[name](np.ones((1, len(rows.labels))))[0])
        table[name] = {"log_loss": value, "low": low, "high": high}
        table[name] |= {"difference": gap.difference, "difference_low": gap.low, "difference_high": gap.high}
    return table


def prior(base: Run, data: Path) -> Predictions:
    """Class rates of the rows of the other folds."""
    return predicted(base, lambda train, held_out: np.tile(train.mean(axis=0), (held_out.sum(), 1)))


def length(base: Run, data: Path) -> Predictions:
    """A logistic regression on how much longer an answer is, fitted on the other folds."""
    frame = read_table(data / "train.jsonl.gz")
    words = [frame[name].str.split(" ").list.len().cast(pl.Float64).log1p().to_numpy() for name in SIDES]
    longer = words[0] - words[1]
    features = dict(zip(frame["id"].cast(pl.String).to_list(), np.stack([longer, np.abs(longer)], axis=1), strict=True))
    matrix = np.array([features[name] for name in base.out_of_fold.scores.ids])
    codes = base.out_of_fold.labels.codes[:, 0]

    def fitted(train: Any, held_out: Any) -> Any:
        model = LogisticRegression().fit(matrix[~held_out], codes[~held_out])
        return model.predict_proba(matrix[held_out])

    return predicted(base, fitted)


SIDES = ("response_a", "response_b")
SIMPLE: dict[str, Callable[[Run, Path], Predictions]] = {"prior": prior, "length": length}


def predicted(base: Run, probabilities: Callable[[Any, Any], Any]) -> Predictions:
    """Probabilities of each fold's rows, by what the other folds say."""
    rows = base.out_of_fold
    one_hot = np.eye(base.task.width)[rows.labels.codes[:, 0]]
    logits = np.empty((len(rows.labels), base.task.width), dtype=np.float32)
    for fold in np.unique(rows.folds):
        held_out = rows.folds == fold
        logits[held_out] = np.log(np.clip(probabilities(one_hot[~held_out], held_out), EDGE, 1))
    scores = Scores(base.task, rows.scores.ids, logits)
    return Predictions(logits.argmax(axis=1)[:, None].astype(np.int32), scores)


def print_table(table: dict[str, dict[str, float]]) -> None:
    """A Markdown table."""
    print(f"| | log loss | difference to {BASELINE} |\n|---|---|---|")
    for name, found in table.items():
        value = f"{found['log_loss']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        gap = f"{found['difference']:+.4f} [{found['difference_low']:+.4f}, {found['difference_high']:+.4f}]"
        print(f"| {name} | {value} | {gap if name != BASELINE else '–'} |")


if __name__ == "__main__":
    sys.exit(main())
