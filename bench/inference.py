"""Scoring texts with a MiniLM classifier: transformers' pipeline against Fivefold's scoring by length.

    python bench/inference.py --data FOLDER [--out bench/results/inference.json] [--rows 886] [--rounds 3]

FOLDER holds SemEval-2018 E-c's train.csv and dev.csv (id, text, 11 labels). Each contender runs in a process of its
own, contenders in turn; figures are medians over the rounds. Seconds run from texts in memory to probabilities,
tokenising included, loading the model not, after a few other texts; no token ids are kept on disk.

    default   pipeline("text-classification", top_k=None) on the list of texts, which it takes one by one
    best      the same with batch_size=32, the batching its guide describes; batches are in the order of the texts
    ours      EncoderClassifier.score: all texts tokenised at once, in passes of like lengths

    E-c       dev.csv as it is
    mixture   tweets joined to 10 to 500 tokens, log-uniform; a quarter of the rows

All run the same backbone in fp32 under an untrained head. The pipeline's head reads the first token through one more
384 x 384 matrix and ours the mean of all tokens, so probabilities differ and only speed is compared.

Exits with 1 if ours isn't as many times faster as claimed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import peers

CONTENDERS = ("default", "best", "ours")
CLAIMS = {"default": 5.0, "best": 1.5}
WARM = 32
MIXTURE_SHARE = 4


def main() -> int:
    parser = peers.options_of(__doc__, rows=886)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(work(peers.read_job(options.job))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        peers.run_job(__file__, {"contender": "nobody", "save": folder})
        figures = measure(options, folder)
    if options.out:
        options.out.write_text(json.dumps({"machine": peers.machine(), **figures}, indent=1) + "\n")
    return peers.verdict(figures["medians"], CLAIMS, "texts_a_second", "texts/s")


def measure(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Medians and rounds of every workload and contender."""
    dev, train = (peers.read(options.data / f"{part}.csv") for part in ("dev", "train"))
    results, rounds, lengths = {}, {}, {}
    for name in options.workloads:
        table = peers.workload(name, dev, max(1, options.rows // (MIXTURE_SHARE if name == "mixture" else 1)), seed=0)
        tokens = peers.lengths_of(table.texts)
        print(f"{name}: {len(table.texts)} texts, {sum(tokens):,} tokens")
        job = {
            "model": folder,
            "table": table,
            "warm": peers.workload(name, train, WARM, seed=1),
            "tokens": sum(tokens),
        }
        rounds[name] = peers.in_turn(
            __file__, CONTENDERS, options.rounds, lambda contender, _, job=job: job | {"contender": contender}
        )
        results[name] = {contender: peers.medians(runs) for contender, runs in rounds[name].items()}
        lengths[name] = peers.histogram(tokens)
    return {"lengths": lengths, "medians": results, "rounds": rounds}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in this process."""
    if "save" in job:
        save_model(job["save"])
        return {}
    score = ours(job) if job["contender"] == "ours" else pipeline(job)
    score(job["warm"])
    start = time.perf_counter()
    scored = score(job["table"])
    seconds = time.perf_counter() - start
    assert scored == len(job["table"].texts)
    return {"seconds": seconds, "texts_a_second": scored / seconds, "tokens_a_second": job["tokens"] / seconds}


def save_model(folder: str) -> None:
    """MiniLM under an untrained head, as a folder that a pipeline loads."""
    import torch
    import transformers

    from fivefold.models.backbones.places import resolve

    transformers.set_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        resolve(None).name, num_labels=11, problem_type="multi_label_classification", dtype=torch.float32
    )
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(resolve(None).name).save_pretrained(folder)


def pipeline(job: dict[str, Any]) -> Callable[[peers.Table], int]:
    """transformers' pipeline; how many texts it gave probabilities for."""
    import torch
    import transformers

    batching = {"batch_size": 32} if job["contender"] == "best" else {}
    classify = transformers.pipeline(
        "text-classification", model=job["model"], top_k=None, device=0 if torch.cuda.is_available() else -1, **batching
    )
    return lambda table: len(classify(table.texts))


def ours(job: dict[str, Any]) -> Callable[[peers.Table], int]:
    """Fivefold's scoring; how many texts it gave probabilities for."""
    model = peers.classifier(len(job["table"].labels[0]), seed=0)
    model.net = model.build(None, 0).eval()
    return lambda table: len(model.score(peers.rows_of(table, model.task)).probabilities())


if __name__ == "__main__":
    sys.exit(main())
