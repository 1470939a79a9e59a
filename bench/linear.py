"""The linear family against scikit-learn, side by side: five folds of the same features and penalty.

    python bench/linear.py --data FOLDER [--out bench/results/linear.json]

FOLDER holds semeval2018_ec/{train,dev}.csv and reuters21578/train.jsonl.gz. Each rung runs in a process of its own,
rungs in turn; seconds are from texts in memory to out-of-fold probabilities, imports left out for all.

    default   cross_val_predict over FeatureUnion(TfidfVectorizer words, characters) + OneVsRest(LogisticRegression)
    best      the same with n_jobs=2 and the quickest solver for it, liblinear's dual
    ours      the same n-grams, penalty and folds with fivefold's linear family

Exits with 1 if a claim of the last line doesn't hold.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil

DATASETS = ("semeval2018_ec", "reuters21578")
RUNGS = ("default", "best", "ours")
C = 4.0
FOLDS = 5
CLAIMS = {"gap": 0.005, "default": 8.0, "best": 4.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--repeat", type=int, default=1, help="runs of `ours` and `best`; `default` runs once")
    parser.add_argument("--rung", choices=RUNGS, help=argparse.SUPPRESS)
    parser.add_argument("--probabilities", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rung:
        print(json.dumps(measure(options)))
        return 0
    results = {name: run_dataset(name, options) for name in options.datasets}
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "C": C, "results": results}, indent=1) + "\n")
    return verdict(results)


def run_dataset(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds, peak memory and macro-F1 of every rung, the rungs taking turns."""
    found: dict[str, list[dict[str, float]]] = {rung: [] for rung in RUNGS}
    _, labels = read(options.data, name)
    for turn in range(options.repeat):
        for rung in RUNGS if turn == 0 else RUNGS[1:]:
            found[rung].append(run_rung(rung, name, labels, options.data))
            print(f"{name:16} {rung:8} {found[rung][-1]}", flush=True)
    return {rung: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for rung, runs in found.items()}


def run_rung(rung: str, name: str, labels: np.ndarray, data: Path) -> dict[str, float]:
    """One rung in a process that imports nothing but what the rung needs; macro-F1 at .5 is worked out here."""
    from sklearn.metrics import f1_score

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probabilities.npy"
        command = [sys.executable, __file__, "--data", str(data), "--datasets", name, "--rung", rung]
        command += ["--probabilities", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        macro = f1_score(labels, np.load(path) >= 0.5, average="macro", zero_division=0)
    return json.loads(done.stdout.splitlines()[-1]) | {"f1_macro": round(float(macro), 4)}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One rung in this process: seconds and peak memory of the process tree in MB."""
    texts, labels = read(options.data, options.datasets[0])
    work = ours if options.rung == "ours" else scikit_learn
    prepare_imports(options.rung)
    with PeakMemory() as memory:
        start = time.perf_counter()
        probabilities = work(texts, labels, options.rung)
        seconds = time.perf_counter() - start
    np.save(options.probabilities, probabilities)
    return {"seconds": round(seconds, 2), "megabytes": round(memory.peak / 1e6)}


def prepare_imports(rung: str) -> None:
    """Import, and for ours load the compiled kernels from their cache, before the clock starts."""
    if rung == "ours":
        few = np.eye(2, dtype=np.int32)[np.arange(20) % 2]
        ours([f"warm up {i % 3} words" for i in range(20)], few, rung)


def read(data: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Texts and 0/1 labels (rows, labels)."""
    if name == "semeval2018_ec":
        rows = []
        for part in ("train", "dev"):
            with (data / name / f"{part}.csv").open(encoding="utf-8", newline="") as file:
                rows += list(csv.reader(file))[1:]
        return [row[1] for row in rows], np.array([row[2:] for row in rows]).astype(np.int32)
    with gzip.open(data / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = sorted({topic for row in rows for topic in row["topics"]})
    return [row["text"] for row in rows], np.array(
        [[n in row["topics"] for n in names] for row in rows], dtype=np.int32
    )


def scikit_learn(texts: list[str], labels: np.ndarray, rung: str) -> np.ndarray:
    """Out-of-fold probabilities of scikit-learn's pipeline, (rows, labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline, make_union

    warnings.filterwarnings("ignore")
    plain = {"sublinear_tf": True, "min_df": 2}
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), **plain),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **plain),
    )
    model = LogisticRegression(C=C) if rung == "default" else LogisticRegression(C=C, solver="liblinear", dual=True)
    pipeline = make_pipeline(features, OneVsRestClassifier(model))
    jobs = None if rung == "default" else 2
    return cross_val_predict(pipeline, texts, labels, cv=folds(len(texts)), method="predict_proba", n_jobs=jobs)


def ours(texts: list[str], labels: np.ndarray, rung: str) -> np.ndarray:
    """Out-of-fold probabilities of fivefold's linear family, (rows, labels)."""
    from fivefold.data.compose import Corpus
    from fivefold.models.families import maker
    from fivefold.recipe import build_recipe
    from fivefold.scores import id_array
    from fivefold.task import Binary, Labels, Task

    task = Task(tuple(Binary(str(column)) for column in range(labels.shape[1])))
    corpus = Corpus(id_array(range(len(texts))), {"text": texts}, Labels(task, labels))
    recipe = build_recipe({"model": {"C": C, "word_ngrams": [1, 2], "char_ngrams": [2, 5], "min_df": 2}})
    make = maker(task, "linear", 0, recipe.model.model_dump(exclude={"family"}) | recipe.objective.model_dump())
    probabilities = np.empty(labels.shape, dtype=np.float32)
    for train, held_out in folds(len(texts)):
        model = make()
        model.fit(corpus.rows(train), None)
        probabilities[held_out] = model.score(corpus.rows(held_out)).probabilities()
    return probabilities


def folds(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out positions of each fold, the same for every rung."""
    fold = np.random.default_rng(0).permutation(rows) % FOLDS
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


class PeakMemory:
    """Largest resident memory of this process and its children, sampled every 20 ms."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._running = 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while self._running:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.02)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": psutil.cpu_count() or 0,
        "python": platform.python_version(),
    }


def verdict(results: dict[str, dict[str, dict[str, float]]]) -> int:
    """Print the figures that are claimed, last; 1 if one falls short."""
    parts, sound = [], True
    for name, rungs in results.items():
        mine = rungs["ours"]
        ratios = {rung: rungs[rung]["seconds"] / mine["seconds"] for rung in ("default", "best")}
        gap = mine["f1_macro"] - rungs["best"]["f1_macro"]
        memory = mine["megabytes"] / min(rungs[rung]["megabytes"] for rung in ("default", "best"))
        sound &= ratios["default"] >= CLAIMS["default"] and ratios["best"] >= CLAIMS["best"]
        sound &= abs(gap) <= CLAIMS["gap"] and memory <= 1
        parts.append(
            f"{name}: {ratios['default']:.1f}x default, {ratios['best']:.1f}x best, "
            f"macro-F1 {mine['f1_macro']:.4f} ({gap:+.4f}), memory {memory:.2f}x"
        )
    print("; ".join(parts))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
