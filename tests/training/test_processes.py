"""Two processes on a CPU train to the weights of one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training.toys import HOW, LONG, SEED, Killed, Toy, blow_up, curve, weights_of

from fivefold.training.loop import train

ROOT = Path(__file__).parents[2]
HOW_TWO = replace(HOW, keep="best", ema=0.9, evaluations_per_epoch=2)


def script(folder: Path) -> None:
    """What each process runs: a training, the same killed and resumed with dropout, one that goes back."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    toy = Toy(rows=57, dropout=0.0)  # the last step of an epoch has one row, so a process has none
    outcome = train(toy, HOW_TWO, seed=SEED, scratch=made(folder / "plain"))
    save_file(weights_of(toy.module), folder / f"plain{rank}.safetensors")

    whole, cut = Toy(), Toy(event=countdown(13))
    train(whole, HOW_TWO, seed=SEED, scratch=made(folder / "whole"))
    with pytest.raises(Killed):
        train(cut, HOW_TWO, seed=SEED, scratch=made(folder / "cut"))
    torch.distributed.barrier()
    resumed = Toy()
    train(resumed, HOW_TWO, seed=SEED, scratch=folder / "cut")
    for name, weight in weights_of(whole.module).items():
        assert torch.equal(weight, weights_of(resumed.module)[name]), name

    diverging = Toy(planted=blow_up(45, {0}))
    back = train(diverging, replace(LONG, epochs=9), seed=SEED, scratch=made(folder / "back"))
    save_file(weights_of(diverging.module), folder / f"back{rank}.safetensors")
    facts = [outcome.steps, outcome.best, back.restarts, back.steps]
    (folder / f"facts{rank}.json").write_text(json.dumps(facts))


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def countdown(left: int):  # type: ignore[no-untyped-def]
    """Kills at the n-th event; both processes have as many events a step."""
    events = iter(range(left))

    def event() -> None:
        if next(events, None) is None:
            raise Killed

    return event


def test_two_processes_are_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, __file__, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    alone = Toy(rows=57, dropout=0.0)
    outcome = train(alone, HOW_TWO, seed=SEED, scratch=made(tmp_path / "alone"))
    for kind in ("plain", "back"):
        first, second = (load_file(tmp_path / f"{kind}{rank}.safetensors") for rank in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
    for name, weight in load_file(tmp_path / "plain0.safetensors").items():
        torch.testing.assert_close(weight, weights_of(alone.module)[name], rtol=1e-4, atol=1e-5)
    facts = [json.loads((tmp_path / f"facts{rank}.json").read_text()) for rank in range(2)]
    assert facts[0] == facts[1] == [outcome.steps, outcome.best, 1, 72]
    for ours, theirs in zip(curve(tmp_path / "plain"), curve(tmp_path / "alone"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


if __name__ == "__main__":
    script(Path(sys.argv[1]))
