"""Work in several processes at once, each with its share of the cores."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any, TypeVar

from loky import ProcessPoolExecutor
from loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from fivefold.errors import RunError
from fivefold.models.base import threads

Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
"""Variables that libraries read, as they are loaded, to know how many threads to start."""

_work: Callable[[int], Any] | None = None
"""In a process of the pool: what it does for each item."""


def each(work: Callable[[int], Result], items: Sequence[int], at_once: int) -> Iterator[Result]:
    """What `work` returns for each item, as it is done: one after the other here, or some at once in processes.

    Parameters
    ----------
    work
        Pickled once a process, with everything it holds.
    at_once
        Processes at most; with 1, or a single item, none is started.

    Raises
    ------
    RunError
        If a process was killed. What others had begun is stopped, here and after any other error.
    """
    if at_once == 1 or len(items) < 2:
        yield from map(work, items)
        return
    processes = min(at_once, len(items))
    pool = ProcessPoolExecutor(processes, initializer=_begin, initargs=(work, os.getpid()), env=environment(processes))
    try:
        for done in as_completed([pool.submit(_do, item) for item in items]):
            yield done.result()
        pool.shutdown()
    except TerminatedWorkerError as error:
        raise RunError(
            "A process that fitted a fold was killed, most likely as memory ran out.",
            next_step="run the same command with fewer folds at once: it continues from the last checkpoints",
        ) from error
    finally:
        pool.shutdown(kill_workers=True)


def environment(processes: int) -> dict[str, str]:
    """Variables of each of so many processes: its share of the threads."""
    share = {name: str(max(1, threads(name) // processes)) for name in THREADS}
    return {**share, "TOKENIZERS_PARALLELISM": "false"}


def _begin(work: Callable[[int], Any], parent: int) -> None:
    """Get a process of the pool ready for its first item; its progress bars would run into those of others."""
    global _work
    _work = work
    bar: Any = tqdm
    drawn = bar.__init__
    bar.__init__ = lambda self, *given, **named: drawn(self, *given, **{**named, "disable": True})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed, or it would write on into a run that somebody takes up again."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(item: int) -> Any:
    assert _work is not None, "the pool prepares its processes"
    return _work(item)
