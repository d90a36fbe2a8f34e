import numpy as np
import pytest
from hypothesis import given, settings

from quadcodec import COMPOSITE, OUTSIDE, TPyramid
from quadcodec.errors import MaskError

from . import oracle
from .strategies import levels, masks


@settings(deadline=None, max_examples=60)
@given(masks(40), levels)
def test_every_cell_follows_the_merging_operator(mask, count):
    pyramid = TPyramid.from_mask(mask, count)
    rows = mask.tolist()
    for level in range(count):
        cells = pyramid.level(level)
        assert cells.shape == (-(-mask.shape[0] // 2**level), -(-mask.shape[1] // 2**level))
        assert cells.dtype == (np.int16 if mask.dtype == np.uint8 else np.int32)
        for y in range(cells.shape[0]):
            assert cells[y].tolist() == [oracle.cell_value(rows, level, y, x) for x in range(cells.shape[1])]
    np.testing.assert_array_equal(pyramid.to_mask(), mask)


def test_query_is_outside_beyond_the_image():
    pyramid = TPyramid.from_mask(np.array([[1, 2], [1, 1]], np.uint8), 2)
    assert pyramid.query(0, [0, 0, 2], [1, 2, 0]).tolist() == [2, OUTSIDE, OUTSIDE]
    assert pyramid.query(1, 0, 0) == COMPOSITE


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)])
def test_what_is_no_mask_is_refused(bad):
    with pytest.raises(MaskError, match="expected uint8 or uint16"):
        TPyramid.from_mask(bad)


@pytest.mark.parametrize("count", [1, 11])
def test_levels_out_of_range_are_refused(count):
    with pytest.raises(ValueError, match=r"expected 2\.\.10"):
        TPyramid.from_mask(np.zeros((2, 2), np.uint8), count)


def test_a_mask_that_is_a_view_reads_as_its_values():
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)[::2, ::-1]
    np.testing.assert_array_equal(TPyramid.from_mask(mask, 2).to_mask(), mask)
