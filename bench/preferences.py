"""Log loss of several ways to tell which of two answers people prefer, on the same folds, and what length alone tells.

    python bench/preferences.py --data FOLDER --runs FOLDER [--out bench/results/preferences.json]
                                [--only linear best ...] [--set KEY=VALUE ...] [--score-only]

FOLDER of --data holds train.jsonl.gz with the columns prompt, context, response_a, response_b, winner (a, b, tie), id
and group. Each variant is a fit into a folder of --runs; a killed one continues, finished ones are read. All but the
first reuse its folds, which keep a prompt's rows together. With --set folds.only=0 a variant is scored on that fold's
rows alone, and compared on them.

    linear          recipes/preference/linear.yaml, both orders, without the passage
    context         the same with the passage
    own-order       with the passage, in the order that people saw
    best            recipes/preference/small/best.yaml
    encoder         MiniLM on all four texts, trained and scored in both orders
    encoder-plain   trained in its own order and scored in both
    encoder-once    the nets of `encoder`, scored in their own order; no fit
    reward          MiniLM that reads each answer alone and compares two rewards
    decoder         recipes/preference/small/smollm2.yaml
    decoder-plain, decoder-once   as with the encoder
    decoder-begun   begins with an adapter of other preferences: --set training.adapter_from=RUN

`prior` is the class rates of the other folds, `length` a logistic regression on the difference of the answers' log
lengths in words and its size. Intervals and paired differences, to `linear` and to what a variant changes, draw whole
prompts.
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
from fivefold.decisions.rule import cross_fitted
from fivefold.evaluation.intervals import Predictions, bootstrap, interval, paired_difference
from fivefold.evaluation.metrics import METRICS
from fivefold.models.networks.network import Network
from fivefold.models.rules import RuledClassifier
from fivefold.pipeline.compare import align, predictions_of
from fivefold.pipeline.decide import OutOfFold, rule_fitter
from fivefold.pipeline.fit import fit
from fivefold.pipeline.judging import rows_of
from fivefold.pipeline.run import Run
from fivefold.pipeline.trained import trained_rows
from fivefold.recipe import load_recipe
from fivefold.scores import EDGE, Scores

LOSS = METRICS["log_loss"]
RECIPES = Path(__file__).parent.parent / "recipes" / "preference"
WHOLE = [f"data.text={name}" for name in ("prompt", "context", "response_a", "response_b")]
MINILM = [
    "model={family: encoder, max_tokens: 384, field_tokens: {prompt: 48, context: 160}}",
    "training={epochs: 1, learning_rate: 5.0e-5, head_learning_rate: 5.0e-4}",
]
PLAIN = ["training.swapped_training=false"]
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "linear": ("linear.yaml", []),
    "context": ("linear.yaml", [*WHOLE, "model.C=0.01"]),
    "own-order": ("linear.yaml", [*WHOLE, "model.C=0.01", "model.both_orders=false"]),
    "best": ("small/best.yaml", []),
    "encoder": ("linear.yaml", [*WHOLE, *MINILM]),
    "encoder-plain": ("linear.yaml", [*WHOLE, *MINILM, *PLAIN]),
    "reward": ("linear.yaml", [*WHOLE, *MINILM, "model.head=reward"]),
    "decoder": ("small/smollm2.yaml", []),
    "decoder-plain": ("small/smollm2.yaml", PLAIN),
    "decoder-begun": ("small/smollm2.yaml", []),
}
BASELINE = "linear"
ONCE = {"encoder-once": "encoder", "decoder-once": "decoder"}
CHANGED = ONCE | {
    "own-order": "context",
    "best": "own-order",
    "encoder-plain": "encoder",
    "reward": "encoder",
    "decoder-plain": "decoder",
    "decoder-begun": "decoder",
}
"""What a variant is compared with beside the baseline."""

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
    """Log loss of each variant on the rows that it scored, with its paired differences."""
    base = Run.load(options.runs / BASELINE)
    decided = {name: make(base, options.data) for name, make in SIMPLE.items()}
    for name in VARIANTS:
        if (options.runs / name / "decision").exists():
            run = Run.open(options.runs / name)
            decided[name] = predictions_of(run, run.out_of_fold)
            decided |= {once: scored_once(run) for once, of in ONCE.items() if of == name}
    table = {}
    for name, each in decided.items():
        table[name] = loss_of(base.out_of_fold, each)
        table[name] |= difference_to("difference", base.out_of_fold, each, decided[BASELINE])
        if CHANGED.get(name) in decided:
            table[name] |= difference_to("changed", base.out_of_fold, each, decided[CHANGED[name]])
    return table


def scored_once(run: Run) -> Predictions:
    """What the run's nets say of the rows that they held out, in the order in which the answers stand."""
    known, corpus = run.out_of_fold, rows_of(run, trained_rows(run)).corpus
    logits = np.empty_like(known.scores.logits)
    for fold, model in zip(run.folds.evaluated, run.models, strict=True):
        held_out = known.folds == fold
        net = model.inner if isinstance(model, RuledClassifier) else model
        assert isinstance(net, Network)
        net.training["swapped_scoring"] = False
        logits[held_out] = model.score(corpus.rows(np.flatnonzero(run.folds.fold == fold))).logits
    scores = Scores(run.task, known.scores.ids, logits)
    return cross_fitted(
        scores, known.labels, known.folds, rule_fitter(run.recipe.decision, run.task), seed=run.recipe.seed
    )


def loss_of(rows: OutOfFold, each: Predictions) -> dict[str, float]:
    """Log loss with its interval."""
    found = np.flatnonzero(np.isin(rows.scores.ids, each.scores.ids))
    each, labels, groups = align(each, rows.scores.ids[found]), rows.labels.take(found), grouped(rows)[found]
    prepared = {"": LOSS.prepare(labels, each.decisions, each.scores)}
    low, high = interval(bootstrap(prepared, len(labels), seed=0, groups=groups)[""])
    return {"rows": len(found), "log_loss": float(prepared[""](np.ones((1, len(labels))))[0]), "low": low, "high": high}


def difference_to(name: str, rows: OutOfFold, each: Predictions, other: Predictions) -> dict[str, float]:
    """Difference of two log losses on the rows that both scored, with its interval."""
    found = np.flatnonzero(np.isin(rows.scores.ids, each.scores.ids) & np.isin(rows.scores.ids, other.scores.ids))
    pair = [align(one, rows.scores.ids[found]) for one in (each, other)]
    gap = paired_difference(rows.labels.take(found), *pair, LOSS, seed=0, groups=grouped(rows)[found])
    return {name: gap.difference, f"{name}_low": gap.low, f"{name}_high": gap.high}


def grouped(rows: OutOfFold) -> Any:
    """The group of each row."""
    assert rows.groups is not None
    return rows.groups


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
    print(f"| | rows | log loss | beside {BASELINE} | beside what it changes |\n|---|---|---|---|---|")
    for name, found in table.items():
        value = f"{found['log_loss']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        gaps = ["–" if name == BASELINE else told(found, key) for key in ("difference", "changed")]
        print(f"| {name} | {found['rows']:,} | {value} | {' | '.join(gaps)} |")


def told(found: dict[str, float], key: str) -> str:
    """A difference with its interval, or nothing where there is none."""
    if key not in found:
        return "–"
    return f"{found[key]:+.4f} [{found[f'{key}_low']:+.4f}, {found[f'{key}_high']:+.4f}]"


if __name__ == "__main__":
    sys.exit(main())
