"""Passes without gradients, as many at once as a CPU has cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Batch = TypeVar("Batch")


def each(
    batches: Iterable[Batch], work: Callable[[Batch], None], device: torch.device, *, side_by_side: bool = True
) -> None:
    """Do `work` on every batch, in inference mode.

    On a CPU each core takes passes of its own: cores that share one product wait for each other after every product.
    What a pass gives then doesn't depend on the number of cores either. A GPU takes one after the other.

    Parameters
    ----------
    side_by_side
        Whether `work` may run while it runs on another batch; where not, cores share each pass.
    """

    def inferred(batch: Batch) -> None:
        with torch.inference_mode():
            work(batch)

    cores = torch.get_num_threads()
    if not side_by_side or device.type != "cpu" or cores == 1:
        for batch in batches:
            inferred(batch)
        return
    try:
        with ThreadPoolExecutor(cores, "scoring", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(inferred, batches):
                pass
    finally:
        torch.set_num_threads(cores)
