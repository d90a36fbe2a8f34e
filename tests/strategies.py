"""Masks for property tests: the shapes that break tree codecs."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def masks(draw, max_side=70):
    """Draw an (h, w) uint8 or uint16 mask: blocks, noise, checkerboard, uniform, or void only."""
    height = draw(st.integers(1, max_side))
    width = draw(st.integers(1, max_side))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    top = int(np.iinfo(dtype).max)
    kind = draw(st.sampled_from(["blocks", "noise", "checkerboard", "uniform", "void"]))
    if kind == "uniform":
        return np.full((height, width), draw(st.integers(0, top)), dtype)
    if kind == "void":
        return np.full((height, width), 255, dtype)
    if kind == "checkerboard":
        return np.indices((height, width)).sum(axis=0).__mod__(2).astype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = rng.integers(0, top, draw(st.sampled_from([2, 3, 20, 300])), endpoint=True)
    block = 1 if kind == "noise" else draw(st.sampled_from([2, 5, 16, 33]))
    cells = rng.choice(ids, (height // block + 1, width // block + 1))
    return np.kron(cells, np.ones((block, block), int))[:height, :width].astype(dtype)


levels = st.integers(2, 10)
