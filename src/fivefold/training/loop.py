"""The one loop: steps, skips, restarts, evaluations and checkpoints, read from top to bottom.

Data and objective vary with the `Trainee`: fine-tuning, heads on frozen activations and language modelling run here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from fivefold.errors import RunError
from fivefold.training.batches import shard
from fivefold.training.checkpoint import (
    AVERAGE,
    OPTIMISER,
    WEIGHTS,
    Checkpoint,
    Checkpoints,
    optimiser_tensors,
    restore_optimiser,
    restore_weights,
)
from fivefold.training.curve import CURVE, TRACKED, Curve
from fivefold.training.dropout import spare_dropout
from fivefold.training.optim import (
    CUT,
    CUT_PATIENCE,
    MovingAverage,
    adamw,
    scale_gradients,
    schedule,
    set_rates,
    warmup_steps,
)
from fivefold.training.plan import Figures, Optimisation, Outcome, Progress, Trainee
from fivefold.training.precision import default_device
from fivefold.training.trackers import require_trackers, started
from fivefold.training.watch import Watch

POINTS = 100
"""Training losses in a learning curve, each the mean of the steps since the one before."""

SEED_STRIDE = 7919
"""Distance of the model seeds of successive beginnings."""

BEST = "best.safetensors"

ACCELERATE = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
"""What Accelerate calls each precision."""


def train(trainee: Trainee, how: Optimisation, *, seed: int, scratch: Path | None = None) -> Outcome:
    """Train until the epochs are over or patience is; the trainee's module then holds the weights to keep.

    Parameters
    ----------
    seed
        Of dropout and everything else that the model draws from torch; the order of rows is the trainee's.
    scratch
        A folder that survives a kill: checkpoints, from which the same call goes on exactly where it was, the best
        weights, and learning.jsonl. None: nothing is written, and a diverged training starts from its beginning.

    Raises
    ------
    MissingExtraError
        If a tracker's package isn't installed.
    """
    require_trackers(how.trackers)
    training = Training(trainee, how, seed, scratch)
    training.begin()
    while not training.finished:
        training.step()
        if training.progress.watch.diverged:
            training.go_back()
            continue
        if training.evaluation_due:
            training.evaluate()
        if training.checkpoint_due:
            training.save()
    return training.close()


class Training:
    """The state of one call of `train`."""

    def __init__(self, trainee: Trainee, how: Optimisation, seed: int, scratch: Path | None) -> None:
        self.trainee, self.how, self.seed, self.scratch = trainee, how, seed, scratch
        self.accelerator = accelerator(how, scratch)
        spare_dropout(trainee.module)
        self.forward = vars(trainee.module).get("forward")
        self.adamw = adamw(trainee.groups(), how.weight_decay)
        self.model, self.optimiser = self.accelerator.prepare(trainee.module, self.adamw)
        self.trained = {name: p for name, p in trainee.module.named_parameters() if p.requires_grad}
        self.average = MovingAverage(self.trained.values(), how.ema) if how.ema else None
        self.epoch, self.epoch_steps = 0, trainee.steps(0)
        self.total = max(1, round(how.epochs * self.per_epoch))
        self.rate = schedule(how.schedule, warmup_steps(how.warmup, self.total, self.per_epoch), self.total)
        self.progress = Progress()
        self.checkpoints = Checkpoints(scratch / "checkpoints") if scratch else None
        self.curve = Curve(scratch / CURVE) if scratch and self.accelerator.is_main_process else None
        self.saved_at = time.perf_counter()
        self.best_weights: dict[str, Tensor] = {}
        self.bar: Any = None

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return len(self.epoch_steps)

    @property
    def finished(self) -> bool:
        """Whether the steps are done, patience is over, or restarts are."""
        p = self.progress
        impatient = self.how.patience is not None and p.stale >= self.how.patience
        return p.step >= self.total or impatient or p.gave_up

    @property
    def evaluation_due(self) -> bool:
        """At even distances within an epoch, and at the very end."""
        step, often = self.progress.step, self.how.evaluations_per_epoch
        crossed = step * often // self.per_epoch > (step - 1) * often // self.per_epoch
        return crossed or step == self.total

    @property
    def checkpoint_due(self) -> bool:
        """When enough time went by."""
        return not self.finished and time.perf_counter() - self.saved_at >= 60 * self.how.checkpoint_minutes

    def begin(self) -> None:
        """Take up the newest checkpoint, or start afresh."""
        if self.how.trackers:
            started(self.accelerator, asdict(self.how))
        found = self.checkpoints.newest() if self.checkpoints else None
        if found:
            self.restore(found)
        if self.curve:
            self.curve.keep(self.progress.lines)
        self.model.train()
        self.bar = tqdm(
            total=self.total, initial=self.progress.step, desc="steps", unit="step", leave=False,
            disable=None if self.accelerator.is_main_process else True,
        )  # fmt: skip

    def step(self) -> None:
        """One optimiser step; it changes nothing if its loss or gradient isn't finite."""
        start = time.perf_counter()
        p = self.progress
        if p.step == self.trainee.turning_step:
            p.watch = Watch()
        rate = self.rate(p.step) * p.share
        set_rates(self.adamw, rate)
        # Drawn anew for every step, so that a checkpoint needs no state of any generator on any process.
        seed_dropout(mixed_seed(self.seed, p.restarts, p.step, self.accelerator.process_index))
        loss, norm = self._gradients()
        if math.isfinite(loss) and math.isfinite(norm):
            # Accelerate's step looks on the disk for other optimisers each time; only fp16 needs it.
            (self.optimiser if self.accelerator.scaler else self.adamw).step()
            if self.average:
                self.average.update()
            p.watch.see(loss)
            p.loss, p.losses = p.loss + loss, p.losses + 1
        else:
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()
            p.watch.skip()
            p.skipped += 1
        self.adamw.zero_grad()
        p.step += 1
        p.seconds += time.perf_counter() - start
        self.bar.update()
        if p.losses and (p.step % max(1, self.total // POINTS) == 0 or self.evaluation_due):
            self._record({"loss": p.loss / p.losses, "rate": rate})
            p.loss, p.losses = 0.0, 0

    def _gradients(self) -> tuple[float, float]:
        """Gradients of the step's weighted mean loss, clipped; that loss, and their norm before clipping."""
        parts, counted, rows = self._parts()
        sums = torch.zeros(2, device=self.accelerator.device)
        for position, part in enumerate(parts, start=1):
            with nullcontext() if position == len(parts) else self.accelerator.no_sync(self.model):
                losses, weights = self.trainee.losses(self.model, part, self.progress.step)
                weights = weights * counted
                weighted = (losses.float() * weights).sum()
                self.accelerator.backward(weighted / rows)
            sums += torch.stack([weighted.detach(), weights.sum()])
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "sum")
        self.accelerator.unscale_gradients(self.optimiser)
        parameters = [p for group in self.adamw.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        loss, weight, length = torch.cat([sums, norm.reshape(1)]).tolist()  # the step's one wait for a GPU
        if weight <= 0:
            return math.nan, math.nan
        # Accelerate means gradients over processes; a mean over what counts is wanted.
        scale = self.accelerator.num_processes * rows / weight
        return loss / weight, scale_gradients(gradients, length, scale, self.how.clip)

    def _parts(self) -> tuple[list[npt.NDArray[np.int64]], float, int]:
        """This process's micro-batches of the step, whether they count, and rows of the step in all processes."""
        epoch, position = divmod(self.progress.step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.epoch_steps = epoch, self.trainee.steps(epoch)
        step = self.epoch_steps[position]
        mine = shard(step, self.accelerator.process_index, self.accelerator.num_processes)
        # A process without rows computes one for nothing: the others wait for its gradients.
        return mine or [step[0][:1]], 1.0 if mine else 0.0, sum(map(len, step))

    def evaluate(self) -> None:
        """Score the validation rows; keep the best weights, and cut the rate where it is due."""
        p = self.progress
        with self.average.in_place() if self.average else nullcontext():
            figures = self._figures()
            better = bool(figures) and figures["score"] > p.best
            if better and self.how.keep == "best":
                self._keep_best()
        if not figures:
            return
        self._record(figures)
        self.bar.set_postfix_str(f"score {figures['score']:.4f}")
        if better:
            p.best, p.stale, p.since_cut = figures["score"], 0, 0
            return
        p.stale, p.since_cut = p.stale + 1, p.since_cut + 1
        if self.how.schedule == "plateau" and p.since_cut > CUT_PATIENCE:
            p.share, p.since_cut = p.share * CUT, 0

    def _figures(self) -> Figures:
        """Validation figures, those of the main process for all: a last digit must not part their ways."""
        self.model.eval()
        with torch.no_grad():
            figures = [self.trainee.evaluate(self.trainee.module)]
        self.model.train()
        return figures[0] if self.accelerator.num_processes == 1 else broadcast_object_list(figures)[0]

    def _keep_best(self) -> None:
        if self.scratch is None:
            self.best_weights = {name: p.detach().to("cpu", copy=True) for name, p in self.trained.items()}
        elif self.accelerator.is_main_process:
            partial = self.scratch / f".{BEST}.partial"
            save_file({name: p.detach().cpu().contiguous() for name, p in self.trained.items()}, partial)
            partial.replace(self.scratch / BEST)

    def save(self) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        self.saved_at = time.perf_counter()
        if self.checkpoints is None or not self.accelerator.is_main_process:
            return
        tensors: dict[str, Mapping[str, Tensor]] = {
            WEIGHTS: self.trained,
            OPTIMISER: optimiser_tensors(self.adamw),
        }
        plain = {"progress": asdict(self.progress), "well": self.progress.watch.well}
        if self.average:
            tensors[AVERAGE] = dict(zip(self.trained, self.average.averages, strict=True))
            plain["average_updates"] = self.average.updates
        if self.accelerator.scaler:
            plain["scaler"] = self.accelerator.scaler.state_dict()
        self.checkpoints.write(tensors, plain)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what `save` wrote."""
        plain = checkpoint.plain
        watch = Watch(**plain["progress"]["watch"])
        self.progress = Progress(**{**plain["progress"], "watch": watch})
        restore_weights(self.trained, checkpoint.tensors[WEIGHTS])
        restore_optimiser(self.adamw, checkpoint.tensors[OPTIMISER])
        if self.average:
            self.average.updates = plain["average_updates"]
            for average, name in zip(self.average.averages, self.trained, strict=True):
                average.copy_(checkpoint.tensors[AVERAGE][name])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(plain["scaler"])

    def go_back(self) -> None:
        """After divergence: the last good checkpoint, or the beginning if it diverged from there before.

        What the model draws changes, the order of rows doesn't. Weights that were once the best remain the best.
        """
        lost = self.progress
        spent = lost.restarts >= self.how.restarts
        restarts = lost.restarts + (not spent)
        good = self._refuge(spent)
        if good and (spent or good.step != lost.returned_to):
            self.restore(good)
        else:
            self._to_beginning(restarts)
        p = self.progress
        p.skipped, p.seconds, p.best = lost.skipped, lost.seconds, lost.best
        p.restarts, p.returned_to, p.gave_up = restarts, p.step, spent
        self.accelerator.wait_for_everyone()  # to have read what the next checkpoint pushes out
        if self.curve:
            self.curve.keep(p.lines)
        self._record({"restarts": float(restarts)})
        self.save()
        self.bar.reset(self.total)
        self.bar.update(p.step)

    def _refuge(self, spent: bool) -> Checkpoint | None:
        if self.checkpoints is None:
            return None
        return self.checkpoints.furthest() if spent else self.checkpoints.good()

    def _to_beginning(self, restart: int) -> None:
        self.progress = Progress()
        self.trainee.restart(self.seed + SEED_STRIDE * restart)
        self.adamw.state.clear()
        if self.average:
            self.average = MovingAverage(self.trained.values(), self.average.decay)

    def close(self) -> Outcome:
        """Put the weights to keep into the module and take Accelerate's wrapping off it."""
        p = self.progress
        if self.how.keep == "best" and p.best > -math.inf:
            self.accelerator.wait_for_everyone()  # to have been written by the main process
            restore_weights(self.trained, load_file(self.scratch / BEST) if self.scratch else self.best_weights)
        elif self.average:
            self.average.exchange()
        self.bar.close()
        self._unwrap()
        if self.how.trackers:
            self.accelerator.end_training()
        if p.gave_up and p.step == 0 and not (self.how.keep == "best" and p.best > -math.inf):
            raise RunError(
                "Training diverged before there was anything to keep.",
                got=f"{p.restarts + 1} attempts",
                next_step="lower training.learning_rate, warm up longer, or set training.checkpoint_minutes lower",
            )
        return Outcome(p.step, p.skipped, p.restarts, p.best, p.seconds, p.gave_up)

    def _unwrap(self) -> None:
        module = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).eval()
        # A module that still said it was prepared would be trained in full precision and on its own the next time.
        for name in ("forward", "_is_accelerate_prepared"):
            vars(module).pop(name, None)
        if self.forward is not None:
            module.forward = self.forward

    def _record(self, figures: Figures) -> None:
        """Add a line to the learning curve."""
        step = self.progress.step
        self.progress.lines += 1
        if self.how.trackers:
            self.accelerator.log(dict(figures), step=step)
        if self.curve:
            self.curve.add({"step": step, "epoch": round(step / self.per_epoch, 4), **figures})


def accelerator(how: Optimisation, scratch: Path | None) -> Accelerator:
    """An Accelerator of the default device, in the precision asked for."""
    AcceleratorState._reset_state(reset_partial_state=False)  # the fold before may have had another precision
    return Accelerator(
        cpu=default_device().type == "cpu",
        mixed_precision=ACCELERATE[how.precision],
        log_with=list(how.trackers) or None,
        project_config=ProjectConfiguration(logging_dir=str((scratch or Path()) / TRACKED)),
    )


def mixed_seed(*parts: int) -> int:
    """One well-mixed seed from several numbers; NumPy's `SeedSequence`."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def seed_dropout(seed: int) -> None:
    """Seed torch's generators; without a GPU `torch.manual_seed` takes a millisecond to note it for later ones."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
