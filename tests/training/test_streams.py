import threading
from collections.abc import Iterator

import pytest
import torch

from fivefold.training.streams import each

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_cores() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_every_batch_once_on_cores_of_their_own() -> None:
    seen: list[tuple[int, int, int, bool]] = []
    together = threading.Barrier(2, timeout=20)

    def work(batch: int) -> None:
        together.wait()  # passes only if two batches are under way at once
        seen.append((batch, threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()))

    each(range(8), work, CPU)
    assert sorted(batch for batch, *_ in seen) == list(range(8))
    assert len({thread for _, thread, _, _ in seen}) == 2
    assert {(threads, inference) for *_, threads, inference in seen} == {(1, True)}
    assert torch.get_num_threads() == 2


def test_one_core_works_where_it_is_called() -> None:
    torch.set_num_threads(1)
    seen: list[int] = []
    each(range(3), lambda _: seen.append(threading.get_ident()), CPU)
    assert seen == [threading.get_ident()] * 3


def test_what_goes_wrong_is_raised_and_threads_come_back() -> None:
    def work(batch: int) -> None:
        if batch == 3:
            raise ValueError("a batch too many")

    with pytest.raises(ValueError, match="a batch too many"):
        each(range(5), work, CPU)
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]
