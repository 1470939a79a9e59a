"""Fine-tuning MiniLM on multi-label texts: Hugging Face's Trainer against Fivefold's loop.

    python bench/training.py --data FOLDER [--out bench/results/training.json] [--steps 20] [--rounds 3]
    python bench/training.py --data FOLDER --quality [--rounds 1]

FOLDER holds SemEval-2018 E-c's train.csv and dev.csv (id, text, 11 labels). Each contender runs in a process of its
own, contenders in turn; figures are medians over the rounds.

    default   transformers' run_classification.py as it comes: inputs padded to --max_seq_length 128, fp32.
              The text-classification guide pads to the model's 512 instead, so 128 is the kinder default.
              The mixture is padded to 512, as 128 would cut its texts.
    best      what transformers documents as fastest for the Trainer: DataCollatorWithPadding,
              group_by_length, fused AdamW, bf16 where the chip computes in it, and on a GPU loader processes with
              pinned memory. Grouping sorts pools of 50 steps, which it does by itself only from 200 steps on, and
              the rows are batches out of such a pool, so that few steps pad like many
    ours      EncoderClassifier.fit with the recipe's defaults
    folds     the same for as many folds at a time as there are cores, as `fivefold fit --folds-at-once` does: its
              tokens are those of all folds, its seconds run from the first loop's begin to the last one's end

    E-c       tweets as they are
    mixture   tweets joined to 10 to 500 tokens, log-uniform

All take the same rows, steps, batch size, learning rate and schedule, after a few steps on other rows. Speed is real
tokens, padding not counted, over the seconds of the training loop: for the Trainer from on_epoch_begin to
on_epoch_end, for ours the sum over steps that the loop reports. `whole_seconds` runs from texts to a trained model,
loading the weights included. `flops_share` is 6 FLOPs for each weight of the layers and real token, over the measured
peak of a matrix product in the precision that "auto" chooses.

--quality trains one epoch on all of train.csv, a seed a round, and compares macro-F1 on dev.csv, at .5 and with
thresholds swept on those rows alike for all, with intervals of 1,000 bootstraps over rows.

Exits with 1 if ours, or folds where it is measured, isn't as many times faster as claimed; with --quality, if the
interval of ours minus best lies below zero.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from typing import Any

import numpy as np

import peers

CONTENDERS = ("default", "best", "ours", "folds")
CLAIMS = {"default": 3.0, "best": 1.4}
PADDED_TO = {"E-c": 128, "mixture": 512}
LEARNING_RATE = 5e-5
BOOTSTRAPS = 1000


def main() -> int:
    parser = peers.options_of(__doc__, steps=20, warmup=3, batch=32)
    parser.add_argument("--mixture-steps", type=int, default=4, help="steps of the mixture; default 4")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--quality", action="store_true", help="compare macro-F1 after an epoch instead of speed")
    parser.add_argument("--rows", type=int, help="with --quality: train on so many rows only")
    options = parser.parse_args()
    if options.job:
        print(json.dumps(work(peers.read_job(options.job))))
        return 0
    if options.quality:
        options.contenders = [name for name in options.contenders if name != "folds"]
    figures, code = quality(options) if options.quality else speed(options)
    if options.out:
        options.out.write_text(json.dumps({"machine": peers.machine(), **figures}, indent=1) + "\n")
    return code


def speed(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Medians of every workload and contender, and whether the claims hold."""
    train = peers.read(options.data / "train.csv")
    results, rounds, lengths = {}, {}, {}
    for name in options.workloads:
        steps = options.mixture_steps if name == "mixture" else options.steps
        warm = options.warmup * options.batch
        table = peers.workload(name, train, warm + max(peers.POOL, steps) * options.batch, seed=0)
        chosen = peers.out_of_pool(peers.lengths_of(table.texts), warm, steps, options.batch)
        parts = {"warm": table.take(range(warm)), "train": table.take(chosen)}
        lengths[name] = peers.lengths_of(parts["train"].texts)
        print(f"{name}: {steps} steps of {options.batch} rows, {sum(lengths[name]):,} tokens")
        common = {"padded_to": PADDED_TO[name], "batch": options.batch, "tokens": sum(lengths[name]), **parts}
        rounds[name] = peers.in_turn(
            __file__,
            options.contenders,
            options.rounds,
            lambda c, turn, job=common: job | {"contender": c, "seed": turn},
        )
        peak = max(run["peak"] for runs in rounds[name].values() for run in runs)
        results[name] = {contender: peers.medians(runs) for contender, runs in rounds[name].items()}
        for found in results[name].values():
            found["flops_share"] = round(found.pop("flops_a_second") / peak, 3)
            found["peak"] = peak
    figures = {
        "batch_size": options.batch,
        "lengths": {name: peers.histogram(found) for name, found in lengths.items()},
        "medians": results,
        "rounds": rounds,
    }
    return figures, print_speed(results)


def print_speed(results: dict[str, Any]) -> int:
    """The table of all figures, and of what is claimed."""
    print(f"\n{'workload':10} {'contender':12} {'loop s':>8} {'whole s':>8} {'padding':>8} {'of peak':>8}")
    for name, rungs in results.items():
        for rung, f in rungs.items():
            figures = f"{f['seconds']:8.1f} {f['whole_seconds']:8.1f} {f['padding']:8.1%} {f['flops_share']:8.1%}"
            print(f"{name:10} {rung:12} {figures}")
    codes = [
        peers.verdict(results, CLAIMS, "tokens_a_second", "tokens/s", mine)
        for mine in ("ours", "folds")
        if all(mine in rungs for rungs in results.values())
    ]
    return codes[-1] if codes else 0


def quality(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Macro-F1 of every contender after an epoch, and whether ours is as good as best."""
    train, dev = (peers.read(options.data / f"{part}.csv") for part in ("train", "dev"))
    train = train.take(range(options.rows or len(train.texts)))
    common = {"padded_to": PADDED_TO["E-c"], "batch": options.batch, "train": train, "dev": dev}
    common["tokens"] = sum(peers.lengths_of(train.texts))
    runs = peers.in_turn(
        __file__, options.contenders, options.rounds, lambda c, turn: common | {"contender": c, "seed": turn}
    )
    samples = np.random.default_rng(0).multinomial(
        len(dev.texts), np.full(len(dev.texts), 1 / len(dev.texts)), BOOTSTRAPS
    )
    samples = np.concatenate([np.ones((1, len(dev.texts)), dtype=int), samples])
    figures: dict[str, Any] = {"rounds": options.rounds, "train_rows": len(train.texts), "contenders": {}}
    values = {name: f1_values([run["logits"] for run in found], dev, samples) for name, found in runs.items()}
    for name, by_cut in values.items():
        figures["contenders"][name] = {cut: interval(f1) for cut, f1 in by_cut.items()} | peers.medians(runs[name])
        print(f"{name:8} {figures['contenders'][name]}")
    if not {"best", "ours"} <= set(values):
        return figures, 0
    gaps = {cut: interval(values["ours"][cut] - values["best"][cut]) for cut in values["ours"]}
    print(f"ours - best: {gaps}")
    return figures | {"ours_minus_best": gaps}, int(gaps["swept"]["high"] < 0)


def f1_values(logits: list[list[list[float]]], dev: peers.Table, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Macro-F1 of the rows and of each bootstrap, its mean over seeds, (1 + bootstraps,) at .5 and swept."""
    from fivefold.decisions.rule import fit_rule
    from fivefold.scores import Scores, id_array
    from fivefold.task import Binary, Labels, Task

    labels = np.array(dev.labels, dtype=np.int32)
    task = Task(tuple(Binary(str(column)) for column in range(labels.shape[1])))
    known = Labels(task, labels)
    found: dict[str, list[np.ndarray]] = {"half": [], "swept": []}
    for each in logits:
        scores = Scores(task, id_array(range(len(labels))), np.array(each, dtype=np.float32))
        swept = fit_rule(scores, known, metric="f1_macro").decide(scores)
        found["half"].append(macro_f1(labels, scores.logits > 0, samples))
        found["swept"].append(macro_f1(labels, swept == 1, samples))
    return {cut: np.mean(values, axis=0) for cut, values in found.items()}


def macro_f1(labels: np.ndarray, decided: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Mean over labels of 2 tp / (2 tp + fp + fn), for each row of counts in `samples`; (samples,)."""
    hits = samples @ (labels * decided)
    claimed = samples @ (labels + decided)
    return np.where(claimed > 0, 2 * hits / np.maximum(claimed, 1), 0.0).mean(axis=1)


def interval(values: np.ndarray) -> dict[str, float]:
    """The figure of the rows themselves, and 95 % of the bootstraps."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": round(float(values[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in this process: trained on the warm-up rows, if any, then on the rows that are timed."""
    from fivefold.training.precision import choose_precision, default_device, matrix_peak

    train = {"ours": ours, "folds": folds}.get(job["contender"], trainer)
    if "warm" in job and train is not folds:
        train({**job, "train": job["warm"]})
    start = time.perf_counter()
    found = train(job)
    seconds = found["seconds"]
    found["whole_seconds"] = time.perf_counter() - start - found.pop("scoring", 0.0)
    tokens = job["tokens"] * found.get("folds", 1)
    found["tokens_a_second"] = tokens / seconds
    found["flops_a_second"] = 6 * found.pop("weights") * tokens / seconds
    device = default_device()
    found["peak"] = matrix_peak(device, choose_precision("auto", device))
    return found


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Fivefold's loop for one epoch; the seconds are its own, of all steps with their batches."""
    model = peers.classifier(
        len(job["train"].labels[0]), job["seed"], epochs=1, batch_size=job["batch"], learning_rate=LEARNING_RATE
    )
    history = model.fit(peers.rows_of(job["train"], model.task), None)
    found = {
        "seconds": history.figures["training_seconds"],
        "padding": history.figures["padding_share"],
        "weights": layer_weights(model.net.backbone),
    }
    if "dev" in job:
        start = time.perf_counter()
        found["logits"] = model.score(peers.rows_of(job["dev"], model.task)).logits.tolist()
        found["scoring"] = time.perf_counter() - start
    return found


def folds(job: dict[str, Any]) -> dict[str, Any]:
    """Fivefold's loop in as many processes as there are cores, each after a warm-up of its own."""
    from fivefold.pipeline.executor import each

    cores = len(os.sched_getaffinity(0))
    runs = list(each(partial(one_of_several, job), range(cores), cores))
    seconds = max(run["ended"] for run in runs) - min(run["ended"] - run["seconds"] for run in runs)
    return {"seconds": seconds, "folds": len(runs), **{key: runs[0][key] for key in ("padding", "weights")}}


def one_of_several(job: dict[str, Any], seed: int) -> dict[str, Any]:
    """One of the folds, and when its loop ended on the clock that all processes share."""
    for part in ("warm", "train"):
        found = ours({**job, "train": job[part], "seed": seed}) | {"ended": time.monotonic()}
    return found


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' Trainer for one epoch."""
    import torch
    import transformers

    from fivefold.models.backbones.places import resolve

    folder = resolve(None).name
    transformers.set_seed(job["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(job["train"].labels[0]),
        problem_type="multi_label_classification",
        dtype=torch.float32,
    )
    best = job["contender"] == "best"
    fixed = {} if best else {"padding": "max_length"}
    limit = {"truncation": True, "max_length": 512 if best else job["padded_to"]}
    places: list[int] = []
    model.register_forward_pre_hook(lambda _, __, batch: places.append(batch["input_ids"].numel()), with_kwargs=True)
    clock = peers.loop_clock()
    with tempfile.TemporaryDirectory() as scratch:
        engine = (peers.grouping_trainer(job["batch"]) if best else transformers.Trainer)(
            model,
            peers.arguments(job, scratch, best, LEARNING_RATE),
            train_dataset=examples(job["train"], tokenizer, **fixed, **limit),
            data_collator=(
                transformers.DataCollatorWithPadding(tokenizer) if best else transformers.default_data_collator
            ),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        engine.train()
        padding = 1 - job["tokens"] / sum(places)
        found = {"seconds": clock.seconds, "padding": padding, "weights": layer_weights(model.base_model)}
        if "dev" in job:
            start = time.perf_counter()
            logits = engine.predict(examples(job["dev"], tokenizer, **fixed, **limit)).predictions
            found["logits"] = np.asarray(logits, dtype=np.float32).tolist()
            found["scoring"] = time.perf_counter() - start
    return found


def examples(table: peers.Table, tokenizer: Any, **how: Any) -> list[dict[str, Any]]:
    """Encoded rows, a dictionary each: less work to read than a `datasets.Dataset`."""
    encoded = tokenizer(table.texts, **how)
    rows = zip(*encoded.values(), table.labels, strict=True)
    return [dict(zip((*encoded, "labels"), (*row[:-1], [float(x) for x in row[-1]]), strict=True)) for row in rows]


def layer_weights(trunk: Any) -> int:
    """Weights of a BERT's layers: without embeddings, pooler and head."""
    return sum(parameter.numel() for parameter in trunk.encoder.parameters())


if __name__ == "__main__":
    sys.exit(main())
