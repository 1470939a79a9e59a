"""Scoring every answer that a language model may write: one tree in one pass against what transformers offers.

    python bench/labels.py [--out bench/results/labels.json] [--rounds 3] [--backbone NAME]

    labels      200 labels of four random tokens behind a prompt of 100 tokens, log-probabilities of all of them
        each        a forward a label, in batches, prompts and labels of equal length, so that nothing is padded
        generate    `generate` with `prefix_allowed_tokens_fn` and 200 beams, which is what gives every label a score
        ours        the tree of all labels behind the prompt in one pass
    questions   23 questions of 12 tokens, answered by one of two tokens, about a record of 300 tokens
        each        a forward a question
        ours        the record once, all questions behind it

All in fp32 in this process, contenders in turn after a pass of each that isn't timed; figures are medians of wall
seconds a row, `difference` the largest one of a log-probability to `each`. `generate` is checked by its best label.

Exits with 1 if ours isn't as many times faster as claimed, or says something else than `each`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import peers

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
CLAIMS = {"labels": {"each": 10.0, "generate": 5.0}, "questions": {"each": 5.0}}
LABELS, LABEL_TOKENS, PROMPT = 200, 4, 100
QUESTIONS, QUESTION_TOKENS, RECORD = 23, 12, 300
TOLERANCE = 1e-3
BATCH_TOKENS = 4096
"""Tokens of a batch of the contenders that pass rows side by side."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--backbone", default=SMOLLM, help=f"default {SMOLLM}")
    options = parser.parse_args()
    model, tokenizer = loaded(options.backbone)
    with torch.inference_mode():
        results = {
            "labels": measured(labels(model, tokenizer), options.rounds),
            "questions": measured(questions(model, tokenizer), options.rounds),
        }
    code = verdict(results)
    if options.out:
        options.out.write_text(json.dumps({"machine": peers.machine(), "medians": results}, indent=1) + "\n")
    return code


def loaded(backbone: str) -> tuple[Any, Any]:
    """The model in fp32 on the device that there is, and its tokenizer."""
    from fivefold.models.backbones.backbone import Origin, load_tokenizer, load_writer
    from fivefold.training.precision import default_device

    tokenizer = load_tokenizer(backbone)
    found = load_writer(Origin(backbone), tokenizer, seed=0)
    found.whole.to(default_device()).eval()
    return found, tokenizer


Contenders = dict[str, Callable[[], Tensor]]


def labels(model: Any, tokenizer: Any) -> Contenders:
    """Log-probabilities of all labels, each contender's in the same order."""
    random = np.random.default_rng(0)
    prompt = ids_of(random, tokenizer, PROMPT)
    each = [tuple(ids_of(random, tokenizer, LABEL_TOKENS)) for _ in range(LABELS)]
    return {
        "each": lambda: sequences(model, [prompt] * LABELS, each),
        "generate": lambda: generated(model, tokenizer, prompt, each),
        "ours": lambda: tree(model, prompt, [((), each)]),
    }


def questions(model: Any, tokenizer: Any) -> Contenders:
    """Log-probabilities of both answers to every question."""
    random = np.random.default_rng(1)
    record = ids_of(random, tokenizer, RECORD)
    asked = [tuple(ids_of(random, tokenizer, QUESTION_TOKENS)) for _ in range(QUESTIONS)]
    answers = [(token,) for token in ids_of(random, tokenizer, 2)]
    return {
        "each": lambda: answered(model, [[*record, *question] for question in asked], answers),
        "ours": lambda: tree(model, record, [(question, answers) for question in asked]),
    }


def ids_of(random: np.random.Generator, tokenizer: Any, count: int) -> list[int]:
    """Random ids that aren't special tokens."""
    found = random.choice(np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids), count)
    return [int(token) for token in found]


def sequences(model: Any, prompts: Sequence[Sequence[int]], each: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probability of each sequence behind its prompt, against the whole vocabulary."""
    ids = torch.tensor([[*prompt, *label] for prompt, label in zip(prompts, each, strict=True)])
    begin, totals = len(prompts[0]), []
    for some in ids.to(model.model.device).split(max(1, BATCH_TOKENS // ids.shape[1])):
        logits = model.whole(input_ids=some, logits_to_keep=len(each[0]) + 1).logits[:, :-1].float().log_softmax(-1)
        totals.append(logits.gather(2, some[:, begin:, None]).sum(dim=(1, 2)))
    return torch.cat(totals)


def answered(model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probability of each one-token answer behind each prompt, among the answers."""
    ids = torch.tensor(prompts).to(model.model.device)
    words = [answer[0] for answer in answers]
    parts = ids.split(max(1, BATCH_TOKENS // ids.shape[1]))
    logits = [model.whole(input_ids=some, logits_to_keep=1).logits[:, 0, words].float() for some in parts]
    return torch.cat(logits).log_softmax(-1).flatten()


def generated(model: Any, tokenizer: Any, prompt: Sequence[int], each: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probability of each label that the beams end with, -inf of the others."""
    follow: dict[tuple[int, ...], set[int]] = {}
    for label in each:
        for place, token in enumerate(label):
            follow.setdefault(label[:place], set()).add(token)

    def allowed(_: int, sent: Tensor) -> list[int]:
        return sorted(follow[tuple(sent[len(prompt) :].tolist())])

    found = model.whole.generate(
        torch.tensor([prompt]).to(model.model.device),
        max_new_tokens=LABEL_TOKENS,
        min_new_tokens=LABEL_TOKENS,
        num_beams=len(each),
        num_return_sequences=len(each),
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=tokenizer.pad_token_id,
        renormalize_logits=False,
    )
    scores = {
        tuple(row): float(score)
        for row, score in zip(found.sequences[:, len(prompt) :].tolist(), found.sequences_scores, strict=True)
    }
    return torch.tensor([scores.get(label, -np.inf) for label in each])


Asked = Sequence[tuple[tuple[int, ...], Sequence[tuple[int, ...]]]]


def tree(model: Any, prompt: Sequence[int], asked: Asked) -> Tensor:
    """Log-probability of every candidate of every question, by one pass over the tree of all."""
    from fivefold.models.backbones.passes import Sequences
    from fivefold.models.generator.answers import Question, grow
    from fivefold.models.generator.asking import Asking
    from fivefold.models.generator.choices import Columns
    from fivefold.models.generator.net import WriterNet
    from fivefold.models.generator.writing import Questionnaire

    answers = grow([Question(given, tuple(candidates)) for given, candidates in asked])
    no_columns = Columns(*[torch.zeros(1, dtype=torch.int64)] * 4)
    script = Asking(Questionnaire((), answers, no_columns), "branches" if len(asked) > 1 else "sequence")
    ids = torch.tensor([prompt]).to(model.model.device)
    net = WriterNet(model, script).eval()
    return script.candidates(net, Sequences(ids, torch.ones_like(ids), torch.zeros_like(ids)))[0]


def measured(contenders: Contenders, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each, and how far its answers are from those of `each`."""
    answers = {name: contend().cpu() for name, contend in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            contenders[name]().cpu()
            seconds[name].append(time.perf_counter() - start)
    results = {name: {"seconds": statistics.median(each)} for name, each in seconds.items()}
    for name, found in answers.items():
        known = found.isfinite()
        results[name]["difference"] = float((found - answers["each"])[known].abs().max())
    return results


def verdict(results: dict[str, dict[str, dict[str, float]]]) -> int:
    """Print the table; 1 if a claim falls short or answers differ."""
    sound = True
    print(f"{'workload':10} {'contender':10} {'seconds':>9} {'difference':>11} {'ours is':>9} {'claimed':>9}")
    for workload, rungs in results.items():
        mine = rungs["ours"]
        sound &= mine["difference"] <= TOLERANCE
        for name, found in rungs.items():
            claim, ratio = CLAIMS[workload].get(name), found["seconds"] / mine["seconds"]
            sound &= claim is None or ratio >= claim
            said = "" if claim is None else f">= {claim:g}x" + ("" if ratio >= claim else "  MISSED")
            print(
                f"{workload:10} {name:10} {found['seconds']:9.3f} {found['difference']:11.1e} {ratio:8.1f}x {said:>9}"
            )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
