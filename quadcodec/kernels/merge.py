"""The merging operator M of Eq. 2: one level of a T-pyramid from the level below."""

import numba
import numpy as np
from numpy.typing import NDArray

COMPOSITE = -1
"""Value of a cell that holds more than one class."""
OUTSIDE = -2
"""Value of a cell that lies wholly outside the image."""


@numba.njit(cache=True, nogil=True)
def merge_2x2(below: NDArray[np.integer], above: NDArray[np.integer], row_phase: int, col_phase: int) -> None:
    """Reduce ``below`` (h, w) to ``above``: a class where all children inside agree, else COMPOSITE.

    ``row_phase`` and ``col_phase`` are 1 where the first row or column of ``below`` is the second child of
    its parent (an image whose origin is odd on its canvas). Cells at an edge have fewer children: only those
    inside count.
    """
    height, width = below.shape
    left = col_phase  # children of the first parent that lie outside, at the left
    inner = (width - left) // 2
    for y in range(above.shape[0]):
        top = below[max(2 * y - row_phase, 0)]
        bottom = below[min(2 * y - row_phase + 1, height - 1)]
        out = above[y]
        if left:
            out[0] = top[0] if bottom[0] == top[0] else COMPOSITE
        for x in range(inner):
            a = top[2 * x + left]
            same = top[2 * x + left + 1] == a and bottom[2 * x + left] == a and bottom[2 * x + left + 1] == a
            out[x + left] = a if same else COMPOSITE
        if (width - left) & 1:
            a = top[width - 1]
            out[inner + left] = a if bottom[width - 1] == a else COMPOSITE
