"""What the benches against transformers share: tweets and texts of all lengths, rungs in turn, ratios of medians."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WORKLOADS = ("E-c", "mixture")
SHORTEST, LONGEST = 10, 500
"""Content tokens of the mixture's texts."""

POOL = 50
"""Steps whose rows a long training sorts by length together, the Trainer's as ours."""

TOKEN_BOUNDS = (0, 16, 32, 64, 128, 256, 513)
"""Edges of the length histogram."""


@dataclass(frozen=True)
class Table:
    """Texts and 0/1 labels, (rows, labels)."""

    texts: list[str]
    labels: list[list[int]]

    def take(self, index: Sequence[int]) -> Table:
        """The rows at these positions."""
        return Table([self.texts[i] for i in index], [self.labels[i] for i in index])


def options_of(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
    """A parser with what both benches ask for, and whole numbers of their own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with SemEval-2018 E-c's train.csv and dev.csv")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    for name, value in {"rounds": 3, **numbers}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    return parser


def read(path: Path) -> Table:
    """A table of id, text and 0/1 labels."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return Table([row[1] for row in rows], [[int(cell) for cell in row[2:]] for row in rows])


def mixture(table: Table, rows: int, seed: int) -> Table:
    """Texts of 10 to 500 tokens, log-uniform: tweets joined and cut, with the labels of all of them."""
    from fivefold.models.backbones.backbone import load_tokenizer

    random = np.random.default_rng(seed)
    encode = load_tokenizer(None).backend_tokenizer
    encode.no_truncation()
    encode.no_padding()
    texts, labels = [], []
    for tokens in np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST), rows)).astype(int):
        picked = random.integers(len(table.texts), size=LONGEST)
        pieces, so_far = [], 0
        for place in picked:
            pieces.append(table.texts[place])
            so_far += len(encode.encode(table.texts[place], add_special_tokens=False).ids)
            if so_far >= tokens:
                break
        text = " ".join(pieces)
        end = encode.encode(text, add_special_tokens=False).offsets[tokens - 1][1]
        texts.append(text[:end])
        labels.append(np.max([table.labels[place] for place in picked[: len(pieces)]], axis=0).tolist())
    return Table(texts, labels)


def workload(name: str, source: Table, rows: int, seed: int) -> Table:
    """So many rows of a workload."""
    if name == "mixture":
        return mixture(source, rows, seed)
    return source.take(np.random.default_rng(seed).permutation(len(source.texts))[:rows].tolist())


def out_of_pool(lengths: Sequence[int], first: int, steps: int, batch: int) -> list[int]:
    """Rows from `first` on that are whole batches of a pool sorted by length, evenly chosen.

    Both sides sort pools of 50 steps in a long training. A short bench pads like one if its few batches come from one.
    """
    pool = sorted(range(first, len(lengths)), key=lambda k: lengths[k])
    batches = len(pool) // batch
    starts = [int((step + 0.5) * batches / steps) * batch for step in range(steps)]
    return [row for start in starts for row in pool[start : start + batch]]


def in_turn(script: str, contenders: Sequence[str], rounds: int, job: Callable[[str, int], dict[str, Any]]) -> Any:
    """Figures of every round of every contender, {contender: [figures]}, each run in a process of its own.

    The order turns by one a round, so that none always follows the same other.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in (*contenders[turn % len(contenders) :], *contenders[: turn % len(contenders)]):
            found[name].append(run_job(script, job(name, turn)))
            shown = {key: value for key, value in found[name][-1].items() if not isinstance(value, list)}
            print(f"round {turn} {name:8} {shown}", flush=True)
    return found


def run_job(script: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """One job in a fresh process; its last line is what it found. Nothing is fetched, no token ids are kept."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job, default=asdict))
        quiet = {"HF_HUB_OFFLINE": "1", "FIVEFOLD_CACHE": "off", "TOKENIZERS_PARALLELISM": "true"}
        quiet |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, script, "--job", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | quiet)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_job(path: Path) -> dict[str, Any]:
    """A job with its tables."""
    job = json.loads(path.read_text())
    return {key: Table(**value) if isinstance(value, dict) else value for key, value in job.items()}


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each number over the rounds."""
    keys = [key for key, value in runs[0].items() if isinstance(value, int | float)]
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def verdict(results: Mapping[str, Any], claims: Mapping[str, float], speed: str, unit: str, ours: str = "ours") -> int:
    """Print a table of speeds and what ours is of each peer's; 1 if a claim falls short."""
    sound = True
    print(f"\n{'workload':10} {'contender':12} {unit:>14} {ours + ' is':>9} {'claimed':>9}")
    for name, rungs in results.items():
        mine = rungs[ours][speed]
        for rung, figures in rungs.items():
            ratio = mine / figures[speed]
            claim = claims.get(rung)
            sound &= claim is None or ratio >= claim
            claimed = "" if claim is None else f">= {claim}x" + ("" if ratio >= claim else "  MISSED")
            print(f"{name:10} {rung:12} {figures[speed]:14,.1f} {ratio:8.2f}x {claimed:>9}")
    return 0 if sound else 1


def lengths_of(texts: Sequence[str]) -> list[int]:
    """Tokens of each text for the backbone, special ones included."""
    from fivefold.models.backbones.backbone import load_tokenizer

    tokenizer = load_tokenizer(None)
    return [len(ids) for ids in tokenizer(list(texts), truncation=True, verbose=False)["input_ids"]]


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """How many texts have so many tokens."""
    counts, _ = np.histogram(lengths, TOKEN_BOUNDS)
    edges = itertools.pairwise(TOKEN_BOUNDS)
    return {f"{low}-{high - 1}": int(n) for (low, high), n in zip(edges, counts, strict=True)}


def classifier(labels: int, seed: int, **training: Any) -> Any:
    """Fivefold's encoder family over the embedded MiniLM, as a recipe would make it."""
    from fivefold.task import Binary, Task

    task = Task(tuple(Binary(str(label)) for label in range(labels)))
    return network(task, {"family": "encoder"}, seed, metric="f1_macro", **training)


def network(task: Any, model: Mapping[str, Any], seed: int, *, metric: str, **training: Any) -> Any:
    """A family of networks, as a recipe with these sections `model` and `training` would make it."""
    from fivefold.models.families import maker
    from fivefold.recipe import build_recipe

    recipe = build_recipe({"model": model, "training": training})
    assert recipe.training is not None
    settings = recipe.model.model_dump(exclude={"family"}) | {"metric": metric}
    settings |= {"objective": recipe.objective.model_dump(), "training": recipe.training.model_dump()}
    return maker(task, model["family"], seed, settings)()


def rows_of(table: Table, task: Any) -> Any:
    """A table as Fivefold's rows."""
    from fivefold.data.compose import Corpus
    from fivefold.scores import id_array
    from fivefold.task import Labels

    labels = Labels(task, np.array(table.labels, dtype=np.int32))
    return Corpus(id_array(range(len(table.texts))), {"text": table.texts}, labels).rows()


def arguments(job: Mapping[str, Any], scratch: str, best: bool, learning_rate: float) -> Any:
    """Arguments of the Trainer; batch size, rate and schedule are ours, so that only speed differs."""
    import torch
    from transformers import TrainingArguments

    from fivefold.training.precision import computes_bf16, default_device

    fastest: dict[str, Any] = {
        "optim": "adamw_torch_fused",
        "bf16": computes_bf16(default_device()),
        "use_cpu": not torch.cuda.is_available(),  # without it bf16 is refused on a CPU
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": 4 if torch.cuda.is_available() else 0,
    }
    return TrainingArguments(
        scratch,
        num_train_epochs=1,
        per_device_train_batch_size=job["batch"],
        per_device_eval_batch_size=job["batch"],
        learning_rate=learning_rate,
        weight_decay=0.01,
        warmup_steps=0.1,
        seed=job["seed"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **(fastest if best else {}),
    )


def grouping_trainer(batch: int) -> Any:
    """A Trainer whose group_by_length sorts pools of 50 steps however few rows there are.

    By itself it sorts pools of a quarter of the steps, at most 50, which would make a short bench pad more than a
    real training.
    """
    import transformers
    from transformers.trainer_pt_utils import get_length_grouped_indices

    class Grouping(transformers.Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> list[int]:
            lengths = [len(row["input_ids"]) for row in self.train_dataset]
            return get_length_grouped_indices(lengths, batch, mega_batch_mult=POOL)

    return Grouping


def loop_clock() -> Any:
    """A callback that takes the seconds, and the processor's, from the first step's batch to the last step's end."""
    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        seconds = processor = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.seconds -= now()
            self.processor -= time.process_time()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.seconds += now()
            self.processor += time.process_time()

    return Clock()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    from fivefold.training.precision import computes_bf16, default_device

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    device = default_device()
    return {
        "processor": about.get("model name") or platform.processor(),
        "cores": os.cpu_count() or 0,
        "flags": [flag for flag in wanted if flag in about.get("flags", "").split()],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "bf16": computes_bf16(device),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")},
    }
