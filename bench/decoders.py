"""Training and scoring a decoder under LoRA: Hugging Face's Trainer with PEFT against Fivefold's loop.

    python bench/decoders.py --data FOLDER [--out bench/results/decoders.json] [--steps 4] [--rounds 3]
    python bench/decoders.py --device-shape 8b --steps 20

FOLDER holds train.jsonl.gz of preferences: prompt, response_a, response_b, winner. Each contender runs in a process of
its own, contenders in turn; figures are medians over the rounds, and ratios are what counts.

    default   Trainer and PEFT as they come: inputs padded to the longest that there may be, as run_classification.py
              does, fp32. Scoring: a plain loop over batches in file order, padded to their longest row
    tuned     padding batch by batch, batches of like lengths (train_sampling_strategy="group_by_length", which sorts
              pools of 50 steps, as ours does; a few steps are batches out of such a pool), bf16 where the chip
              computes in it, fused AdamW, nothing logged or evaluated. Scoring: the same loop, sorted by length
    ours      DecoderClassifier with the recipe's defaults

    pairs     SmolLM2-135M with three classes, question and two answers of at most 384 tokens
    8b, tiny  --device-shape: a random Llama of 8B's shape for a GPU (tiny: to try the script on a CPU), held in bf16
              and in NF4, and texts of log-uniform lengths made of a word-level tokenizer's words. Nothing is fetched

All take the same rows, batch size, rate and adapter (rank 16 on every linear layer, dropout .05), after a step on two
other rows. Speed is real tokens, padding not counted, over the seconds of the training loop. `flops_share` is the FLOPs
of the weights (forward, back through frozen ones, gradients of those that learn; attention not counted) over the
measured peak of a matrix product in the precision that "auto" chooses: the model FLOPs utilisation.

On a busy machine, OMP_NUM_THREADS=1 and --by processor judge by processor seconds, which leave other jobs' work out.

Exits with 1 if ours isn't as many times faster as claimed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import peers

CONTENDERS = ("default", "tuned", "ours")
CLAIMS = {"default": 1.3, "tuned": 1.3}
SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
CLASSES = ("a", "b", "tie")
LONGEST = 384
PAIR = "Question:\n{prompt}\n\nAnswer A:\n{response_a}\n\nAnswer B:\n{response_b}\n\nBetter:"
ADAPTER: dict[str, Any] = {"rank": 16, "alpha": 32, "dropout": 0.05}
LEARNING_RATE = 2e-4
WARM = 2
"""Rows of the step before those that are timed."""

LLAMA = {"model_type": "llama", "tie_word_embeddings": True, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128_256,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
    },
}
SHAPE_TOKENS = {"8b": (32, 512), "tiny": (8, 64)}
"""Shortest and longest text."""


def main() -> int:
    options = parsed()
    if options.job:
        print(json.dumps(work(peers.read_job(options.job))))
        return 0
    with ExitStack() as stack:
        shape = options.device_shape
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if shape else None
        figures = measure(options, folder)
    if options.out:
        options.out.write_text(json.dumps({"machine": peers.machine(), **figures}, indent=1) + "\n")
    return print_figures(figures["medians"], options.by)


def parsed() -> argparse.Namespace:
    """The command line; the default batch is the Trainer's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train.jsonl.gz")
    parser.add_argument("--device-shape", choices=SHAPES, help="a random model and made texts instead")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--by", choices=("wall", "processor"), default="wall", help="seconds that claims are judged by")
    for name, value in {"steps": 4, "rounds": 3, "batch": 8, "score": 96}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.data or options.device_shape or options.job):
        parser.error("one of --data and --device-shape is needed")
    return options


def measure(options: argparse.Namespace, folder: Path | None) -> dict[str, Any]:
    """Medians and rounds of every workload and contender."""
    rows = WARM + options.score + max(peers.POOL, options.steps) * options.batch
    if folder is None:
        model, longest, held = SMOLLM, LONGEST, ["auto"]
        table, lengths = pairs(options.data / "train.jsonl.gz", rows)
    else:
        model, longest = str(folder), SHAPE_TOKENS[options.device_shape][1]
        held = ["bf16" if options.device_shape == "8b" else "auto", "nf4"]
        make_shape(options.device_shape, folder)
        table, lengths = made_texts(options.device_shape, rows)
    parts, counted = {}, {}
    for name, index in dealt(lengths, options).items():
        parts[name] = table.take(index)
        counted[f"{name}_tokens"] = sum(lengths[k] for k in index)
    results, rounds = {}, {}
    for weights in held:
        name = "pairs" if folder is None else f"{options.device_shape} {weights}"
        print(f"{name}: {options.steps} steps of {options.batch} rows, {counted['train_tokens']:,} tokens")
        job = {"model": model, "weights": weights, "padded_to": longest, "batch": options.batch, **counted}
        rounds[name] = peers.in_turn(
            __file__,
            options.contenders,
            options.rounds,
            lambda contender, turn, job=job: {**job, **parts, "contender": contender, "seed": turn},
        )
        results[name] = with_shares(rounds[name])
    return {"batch_size": options.batch, "lengths": quartiles(lengths), "medians": results, "rounds": rounds}


def dealt(lengths: list[int], options: argparse.Namespace) -> dict[str, list[int]]:
    """Which rows warm up, are scored, and are trained on."""
    first = WARM + options.score
    train = peers.out_of_pool(lengths, first, options.steps, options.batch)
    return {"warm": list(range(WARM)), "scored": list(range(WARM, first)), "train": train}


def with_shares(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians and ranges, and the shares of the highest peak that any run saw."""
    peak = max(run["peak"] for each in runs.values() for run in each)
    found = {contender: peers.medians(each) for contender, each in runs.items()}
    for contender, figures in found.items():
        speeds = [run["tokens_a_second"] for run in runs[contender]]
        figures |= {"peak": peak, "slowest": min(speeds), "fastest": max(speeds)}
        figures["flops_share"] = figures.pop("flops_a_second") / peak
    return found


def print_figures(results: dict[str, Any], by: str) -> int:
    """All figures, then the claims on training; scoring is shown and claims nothing."""
    print(f"\n{'workload':10} {'contender':10} {'tokens/s':>9} {'range':>15} {'padding':>8} {'of peak':>8}")
    for name, rungs in results.items():
        for rung, f in rungs.items():
            span = f"{f['slowest']:,.1f}-{f['fastest']:,.1f}"
            shares = f"{f['padding']:8.1%} {f['flops_share']:8.1%}"
            print(f"{name:10} {rung:10} {f['tokens_a_second']:9,.1f} {span:>15} {shares}")
    if any("ours" not in rungs for rungs in results.values()):
        return 0
    found = {}
    for kind, claims in (("scored", {}), ("tokens", CLAIMS)):
        for clock in ("wall", "processor"):
            key = f"{kind}_a_second" if clock == "wall" else f"{kind}_a_processor_second"
            print(f"\n{'training' if kind == 'tokens' else 'scoring'}, {clock} seconds")
            found[kind, clock] = peers.verdict(results, claims, key, "tokens/s")
    return found["tokens", by]


def pairs(path: Path, rows: int) -> tuple[peers.Table, list[int]]:
    """So many random pairs of at most `LONGEST` tokens, the class of each, and their tokens."""
    from fivefold.models.backbones.backbone import load_tokenizer

    with gzip.open(path, "rt", encoding="utf-8") as file:
        read = [json.loads(line) for line in file]
    order = np.random.default_rng(0).permutation(len(read))
    texts = [PAIR.format(**read[i]) for i in order]
    lengths = [len(ids) for ids in load_tokenizer(SMOLLM)(texts, verbose=False)["input_ids"]]
    short = [k for k, length in enumerate(lengths) if length <= LONGEST][:rows]
    labels = [[CLASSES.index(read[order[k]]["winner"])] for k in short]
    return peers.Table([texts[k] for k in short], labels), [lengths[k] for k in short]


def made_texts(shape: str, rows: int) -> tuple[peers.Table, list[int]]:
    """Random words in texts of log-uniform lengths, random classes, and the tokens of each text."""
    random = np.random.default_rng(0)
    low, high = np.log(SHAPE_TOKENS[shape])
    lengths = np.exp(random.uniform(low, high, rows)).astype(int).tolist()
    words = SHAPES[shape]["vocab_size"]
    texts = [" ".join(f"w{word}" for word in random.integers(3, words, length)) for length in lengths]
    return peers.Table(texts, random.integers(len(CLASSES), size=(rows, 1)).tolist()), lengths


def make_shape(shape: str, folder: Path) -> None:
    """A random model of this shape and a tokenizer of its words, as a folder that both sides load."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = {"<unk>": 0, "</s>": 1, "<pad>": 2}
    words |= {f"w{word}": word for word in range(3, SHAPES[shape]["vocab_size"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    config = transformers.AutoConfig.for_model(**LLAMA, **SHAPES[shape], pad_token_id=2, eos_token_id=1)
    transformers.set_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def quartiles(lengths: list[int]) -> dict[str, int]:
    """Tokens of the texts at every quarter."""
    return {f"{share}%": int(np.percentile(lengths, share)) for share in (0, 25, 50, 75, 100)}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in this process: a step on other rows, then the rows that are timed, then scoring."""
    from fivefold.training.precision import choose_precision, default_device, matrix_peak

    device = default_device()
    contend = ours if job["contender"] == "ours" else trainer
    contend({**job, "train": job["warm"], "scored": None})
    found = contend(job)
    for kind, part, mark in (("tokens", "train", ""), ("scored", "scored", "scoring_")):
        found[f"{kind}_a_second"] = job[f"{part}_tokens"] / found[f"{mark}seconds"]
        found[f"{kind}_a_processor_second"] = job[f"{part}_tokens"] / found[f"{mark}processor"]
    found["flops_a_second"] = found.pop("flops") * found["tokens_a_second"]
    found["peak"] = matrix_peak(device, choose_precision("auto", device))
    return found


def timed(score: Callable[[], Any]) -> dict[str, float]:
    """Wall and processor seconds of scoring."""
    wall, processor = time.perf_counter(), time.process_time()
    score()
    return {"scoring_seconds": time.perf_counter() - wall, "scoring_processor": time.process_time() - processor}


def training_flops(model: Any, backbone: Any) -> float:
    """Of a token: two for each weight forward and two back to the adapters below, and two for a gradient."""
    from fivefold.models.networks.expense import size_of

    size, looked_up = size_of(model), size_of(backbone.get_input_embeddings())
    return 2.0 * (2 * (size.parameters - looked_up.parameters) + size.trained)


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Fivefold's loop for one epoch; the seconds are its own, of all steps with their batches."""
    from fivefold.task import Categorical, Task
    from fivefold.training.loop import Training

    task = Task((Categorical("winner", CLASSES),))
    section = {"family": "decoder", "backbone": job["model"], "max_tokens": job["padded_to"]}
    section |= {"adapter": ADAPTER, "weights": job["weights"]}
    how = {"epochs": 1, "batch_size": job["batch"], "learning_rate": LEARNING_RATE}
    model = peers.network(task, section, job["seed"], metric="log_loss", **how)
    spent, step = [0.0], Training.step

    def counted(training: Training) -> None:
        start = time.process_time()
        step(training)
        spent[0] += time.process_time() - start

    Training.step = counted
    try:
        history = model.fit(peers.rows_of(job["train"], task), None)
    finally:
        Training.step = step
    found = {
        "seconds": history.figures["training_seconds"],
        "processor": spent[0],
        "padding": history.figures["padding_share"],
        "flops": training_flops(model.net, model.net.backbone),
    }
    if job["scored"]:
        rows = peers.rows_of(job["scored"], task)
        found |= timed(lambda: model.score(rows))
    return found


def trainer(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' Trainer on PEFT's model for one epoch."""
    import transformers

    transformers.set_seed(job["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    best = job["contender"] == "tuned"
    model = adapted(job, tokenizer, best)
    places: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, batch: places.append(batch["input_ids"].numel()), with_kwargs=True
    )
    clock = peers.loop_clock()
    padding = {} if best else {"padding": "max_length"}
    with tempfile.TemporaryDirectory() as scratch:
        (peers.grouping_trainer(job["batch"]) if best else transformers.Trainer)(
            model,
            peers.arguments(job, scratch, best, LEARNING_RATE),
            train_dataset=examples(job, "train", tokenizer, **padding),
            data_collator=(
                transformers.DataCollatorWithPadding(tokenizer) if best else transformers.default_data_collator
            ),
            processing_class=tokenizer,
            callbacks=[clock],
        ).train()
    hook.remove()
    found = {"seconds": clock.seconds, "processor": clock.processor, "flops": training_flops(model, model)}
    if job["scored"]:
        found["padding"] = 1 - job["train_tokens"] / sum(places)
        found |= timed(lambda: score(model, job, tokenizer, best))
    return found


def adapted(job: dict[str, Any], tokenizer: Any, best: bool) -> Any:
    """PEFT's model under transformers' head for classes; the default is held in fp32 unless it is quantised."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForSequenceClassification

    from fivefold.models.backbones.backbone import held
    from fivefold.training.precision import choose_precision, default_device

    device = default_device()
    weights = choose_precision("auto", device) if job["weights"] == "auto" else job["weights"]
    quantised = weights == "nf4"
    how = held(weights if best or quantised else "fp32")
    placed = {"device_map": {"": device}} if quantised and device.type == "cuda" else {}
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=len(CLASSES), **how, **placed)
    model.config.pad_token_id = tokenizer.pad_token_id
    if quantised:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = {"r": ADAPTER["rank"], "lora_alpha": ADAPTER["alpha"], "lora_dropout": ADAPTER["dropout"]}
    config = LoraConfig(**lora, target_modules="all-linear", task_type=TaskType.SEQ_CLS)
    model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype is not torch.float32:
            parameter.data = parameter.data.float()
    return model


def examples(job: dict[str, Any], part: str, tokenizer: Any, **how: Any) -> list[dict[str, Any]]:
    """Encoded rows, a dictionary each."""
    table = job[part]
    encoded = tokenizer(table.texts, truncation=True, max_length=job["padded_to"], return_token_type_ids=False, **how)
    rows = zip(encoded["input_ids"], encoded["attention_mask"], table.labels, strict=True)
    return [{"input_ids": ids, "attention_mask": mask, "labels": label[0]} for ids, mask, label in rows]


def score(model: Any, job: dict[str, Any], tokenizer: Any, best: bool) -> None:
    """Logits of all rows in batches, in file order or sorted by length."""
    import torch

    from fivefold.training.precision import computes_bf16

    rows = examples(job, "scored", tokenizer)
    if best:
        rows.sort(key=lambda row: len(row["input_ids"]), reverse=True)
    device = next(model.parameters()).device
    model.eval()
    half = torch.autocast(device.type, torch.bfloat16, enabled=best and computes_bf16(device))
    with torch.inference_mode(), half:
        for start in range(0, len(rows), job["batch"]):
            few = [{k: v for k, v in row.items() if k != "labels"} for row in rows[start : start + job["batch"]]]
            model(**tokenizer.pad(few, return_tensors="pt").to(device)).logits.float().cpu()


if __name__ == "__main__":
    sys.exit(main())
