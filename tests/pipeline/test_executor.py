from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.conftest import QUICK
from tqdm import tqdm

from fivefold.errors import DataError, MissingExtraError, RecipeError, RunError
from fivefold.pipeline import fit as fit_module
from fivefold.pipeline.executor import each, environment
from fivefold.pipeline.fit import fit
from fivefold.pipeline.run import Run

ROOT = Path(__file__).parents[2]


def process_of(item: int) -> tuple[int, int]:
    """The item, and the process that it was worked on in."""
    return item, os.getpid()


def process_among(folder: Path, item: int) -> tuple[int, int]:
    """The same, once another process has begun with an item, too."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return process_of(item)


def wrong(item: int) -> int:
    raise DataError(f"Item {item} is wrong.", allowed="none", next_step="leave it out")


def killed(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_one_at_a_time_stays_in_this_process() -> None:
    assert list(each(process_of, [3, 1, 2], 1)) == [(item, os.getpid()) for item in (3, 1, 2)]
    assert list(each(process_of, [7], 4)) == [(7, os.getpid())]
    assert list(each(process_of, [], 4)) == []


def test_some_at_a_time_share_processes(tmp_path: Path) -> None:
    done = list(each(partial(process_among, tmp_path), range(5), 2))
    assert sorted(item for item, _ in done) == [0, 1, 2, 3, 4]
    processes = {process for _, process in done}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_what_goes_wrong_in_a_process_is_said_here() -> None:
    with pytest.raises(DataError, match=r"Item . is wrong.\n  allowed: none\n  next: leave it out"):
        list(each(wrong, range(3), 2))


def lacking(item: int) -> int:
    raise MissingExtraError("no-such-package", "llm", f"Item {item}")


def test_a_missing_package_is_said_here() -> None:
    with pytest.raises(MissingExtraError, match=r"no-such-package(.|\n)*pip install 'fivefold\[llm\]'"):
        list(each(lacking, range(3), 2))


def bar_of(item: int) -> bool:
    """Whether a bar would be drawn, on what says it is a terminal."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    for _ in tqdm(range(item + 2), disable=None, file=terminal):
        pass
    return bool(terminal.getvalue())


def test_processes_draw_no_bars() -> None:
    assert bar_of(1)
    assert list(each(bar_of, range(3), 2)) == [False] * 3


def test_a_killed_process_says_how_to_go_on() -> None:
    with pytest.raises(RunError, match="fewer folds at once"):
        list(each(killed, range(3), 2))


def test_processes_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert environment(2)["OMP_NUM_THREADS"] == "3"
    assert environment(99)["MKL_NUM_THREADS"] == "1"
    assert environment(1)["MKL_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from fivefold.pipeline.executor import each\n"
        "def work(item):\n"
        f"    Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "list(each(work, range(2), 2))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert within(60, lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert within(10, lambda: not any(alive(int(path.name)) for path in tmp_path.iterdir()))


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Wait until it holds; whether it did in time."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def alive(process: int) -> bool:
    """Whether it runs; a zombie that nobody has collected yet doesn't."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ")[-1][0] != "Z"
    except OSError:
        return False


def test_folds_at_once_are_the_folds_one_by_one(tweets: pl.DataFrame, tweets_run: Run, tmp_path: Path) -> None:
    side_by_side = fit(QUICK | {"name": "tweets"}, tweets, out=tmp_path / "run", folds_at_once=2)
    expected = tweets_run.out_of_fold.scores
    np.testing.assert_allclose(side_by_side.out_of_fold.scores.logits, expected.logits, atol=1e-3)


def test_a_stopped_run_goes_on_with_other_folds_at_once(
    tweets: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "gather", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(QUICK, tweets, out=tmp_path / "run", folds_at_once=3)
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "folds").glob("[0-9]/*")}
    assert begun
    fit(QUICK, tweets, out=tmp_path / "run")
    assert begun == {path: path.stat().st_mtime_ns for path in begun}


def test_no_fold_at_once_is_refused(tweets: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="folds at once: 1 or more"):
        fit(QUICK, tweets, out=tmp_path / "run", folds_at_once=0)
