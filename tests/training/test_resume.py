import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.toys import FULL, LONG, SEED, Killed, Toy, blow_up, every_tenth, result, same
from torch import Tensor

import fivefold.training.checkpoint as checkpoint_module
import fivefold.training.loop as loop_module
from fivefold.training.loop import Training, train
from fivefold.training.plan import Optimisation

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost a tiny network far more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Countdown:
    """Kills at the n-th event."""

    def __init__(self, left: float = math.inf) -> None:
        self.left, self.events = left, 0

    def __call__(self) -> None:
        self.events += 1
        if self.events > self.left:
            raise Killed


def kill_in_files(monkeypatch: pytest.MonkeyPatch, event: Callable[[], None]) -> None:
    """Let writing, renaming and deleting count as events too, before and after they are done."""

    def around(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            event()
            result = function(*args, **kwargs)
            event()
            return result

        return wrapped

    for module in (checkpoint_module, loop_module):
        monkeypatch.setattr(module, "save_file", around(module.save_file))
    for name in ("rename", "replace", "write_text"):
        monkeypatch.setattr(Path, name, around(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", around(shutil.rmtree))


def assert_equal(
    left: tuple[Any, dict[str, Tensor], list[Any]], right: tuple[Any, dict[str, Tensor], list[Any]]
) -> None:
    assert left[0] == right[0]
    assert same(left[1], right[1])
    assert left[2] == right[2]


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("how", [FULL, replace(FULL, schedule="linear", keep="last", patience=2, ema=None)])
def test_killed_anywhere_it_goes_on_exactly(
    how: Optimisation, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = property(lambda self: not self.finished and self.progress.step % every == 0)
    monkeypatch.setattr(Training, "checkpoint_due", due)
    (tmp_path / "whole").mkdir()
    count = Countdown()
    with monkeypatch.context() as patched:
        kill_in_files(patched, count)
        whole = result(Toy(event=count), how, tmp_path / "whole")
    assert len(whole[2]) > 10
    for left in range(0, count.events, max(1, count.events // 7)):
        scratch = tmp_path / str(left)
        scratch.mkdir()
        with monkeypatch.context() as patched:
            killer = Countdown(left)
            kill_in_files(patched, killer)
            with pytest.raises(Killed):
                train(Toy(event=killer), how, seed=SEED, scratch=scratch)
        assert_equal(whole, result(Toy(), how, scratch))
        shutil.rmtree(scratch)


def test_killed_at_every_single_step(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    count = Countdown()
    whole = result(Toy(event=count), FULL, tmp_path / "whole")
    for _ in range(100):
        try:
            again = result(Toy(event=Countdown(4)), FULL, tmp_path / "cut")
            break
        except Killed:
            continue
    assert_equal(whole, again)


def test_a_process_that_is_really_killed(tmp_path: Path) -> None:
    how = replace(FULL, epochs=8, patience=None)
    script = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from tests.training.test_resume import FULL, Toy, result\n"
        "result(Toy(), replace(FULL, epochs=8, patience=None), Path(sys.argv[1]))\n"
    )
    scratch = tmp_path / "killed"
    scratch.mkdir()
    process = subprocess.Popen([sys.executable, "-c", script, str(scratch)], cwd=ROOT, env=environment())
    deadline = time.monotonic() + 60
    while len(list(scratch.glob("checkpoints/0000002[0-9]"))) == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (tmp_path / "whole").mkdir()
    assert_equal(result(Toy(), how, tmp_path / "whole"), result(Toy(), how, scratch))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}


def test_killed_while_it_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_tenth(monkeypatch)
    how = replace(LONG, epochs=12, ema=0.9, evaluations_per_epoch=1)
    plant = blow_up(45, {0, 1, 2})
    (tmp_path / "whole").mkdir()
    count = Countdown()
    with monkeypatch.context() as patched:
        kill_in_files(patched, count)
        whole = result(Toy(planted=plant, event=count), how, tmp_path / "whole")
    assert whole[0].restarts == 2
    assert whole[0].gave_up
    for left in range(40, count.events, count.events // 4):
        scratch = tmp_path / str(left)
        scratch.mkdir()
        with monkeypatch.context() as patched:
            killer = Countdown(left)
            kill_in_files(patched, killer)
            with pytest.raises(Killed):
                train(Toy(planted=plant, event=killer), how, seed=SEED, scratch=scratch)
        assert_equal(whole, result(Toy(planted=plant), how, scratch))
