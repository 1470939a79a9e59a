"""Build sparse rows with the smallest index type."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array


def build_rows(data: npt.NDArray, indices: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], width: int) -> csr_array:
    """Join CSR parts to ``(rows, width)``; 64-bit ``starts`` would make scipy copy all indices to 64 bits."""
    if starts[-1] <= np.iinfo(np.int32).max:
        starts = starts.astype(np.int32)
    return csr_array((data, indices, starts), shape=(len(starts) - 1, width))
