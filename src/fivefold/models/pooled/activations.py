"""What a frozen trunk says of every row, computed once for all folds and epochs and kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fivefold.models.networks.material import Activations, Sequences
from fivefold.models.networks.supervised import on_device
from fivefold.models.pooled.net import PooledNet
from fivefold.task import FloatArray
from fivefold.training.batches import in_order
from fivefold.training.cache import cache_folder, keep
from fivefold.training.inputs import Inputs
from fivefold.training.precision import default_device
from fivefold.training.streams import each
from fivefold.training.tokens import IndexArray, spans, starts_of


def frozen_activations(net: PooledNet, sequences: Sequences, key: str, tokens_per_pass: int) -> Activations:
    """The vectors below the head of every part of every row.

    Parameters
    ----------
    key
        What names trunk and pooling; with the sequences it names the file in the cache.
    """
    inputs = sequences.inputs
    starts = part_starts(sequences)
    path = _cached(inputs, key)
    found = _read(path, int(starts[-1]), int(net.backbone.config.hidden_size))
    if found is None:
        found = _computed(net, sequences, starts, tokens_per_pass)
        if path is not None:
            vectors = found
            keep(path, lambda file: np.save(file, vectors))
    return Activations(found, starts)


def part_starts(sequences: Sequences) -> IndexArray:
    """Position of each row's first part, (rows + 1,)."""
    return starts_of(np.bincount(sequences.inputs.owner, minlength=sequences.rows))


def _computed(net: PooledNet, sequences: Sequences, starts: np.ndarray, tokens_per_pass: int) -> FloatArray:
    net.to(default_device()).eval()
    vectors = np.empty((int(starts[-1]), int(net.backbone.config.hidden_size)), dtype=np.float32)
    batches = in_order(sequences.lengths - net.spared, sequences.counts, tokens_per_pass)
    with tqdm(total=len(batches), desc="frozen trunk", unit="batch", disable=None, leave=False) as bar:

        def read(rows: IndexArray) -> None:
            places = spans(starts[rows], np.diff(starts)[rows])
            vectors[places] = net.pooled(**on_device(sequences.batch(rows), net)).cpu().numpy()
            bar.update()

        each(batches, read, default_device(), side_by_side=net.reentrant)
    return vectors


def _cached(inputs: Inputs, key: str) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(key.encode())
    for array in (inputs.tokens.ids, inputs.tokens.starts, inputs.types, inputs.part, inputs.owner):
        digest.update(np.ascontiguousarray(array).tobytes())
    return folder / f"activations-{digest.hexdigest()[:40]}.npy"


def _read(path: Path | None, parts: int, hidden: int) -> FloatArray | None:
    """What a whole file holds, memory-mapped; None if it isn't there or isn't whole."""
    try:
        found = None if path is None else np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = found is not None and found.shape == (parts, hidden) and found.dtype == np.float32
    return found if whole else None
