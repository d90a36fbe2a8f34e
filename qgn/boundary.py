"""Boundary IoU: how well the outlines of the classes are found.

Source: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021.
A class's boundary region are its pixels within a distance d of what is not of the class; the score is the intersection
over union of the regions of truth and prediction. As in the authors' code, distance counts steps to any of eight
neighbours, d is a share of the image's diagonal, and what lies beyond the frame is of no class, so that pixels along
it are in the region of their class. Void pixels are of no class either, in truth and in prediction alike. Where the
authors take objects one by one, the pixels of a class are summed over the images here, as for mIoU.

Shapes: h and w rows and columns, k classes.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

BOUNDARY_WIDTH = 2.0
"""Width of the regions in percent of the image's diagonal: the authors' default."""
_VOID = 255

_kernel: Any = numba.njit(cache=True, nogil=True)


class BoundaryCounts:
    """Count the pixels of boundary regions by class, image by image.

    Parameters
    ----------
    num_classes
        k, 255 at most.
    width
        Width of the regions in percent of each image's diagonal.

    Attributes
    ----------
    counts_k3
        (k, 3) int64: pixels in both regions, in that of the truth, in that of the prediction.
    """

    def __init__(self, num_classes: int, width: float = BOUNDARY_WIDTH) -> None:
        self.width = width
        self.counts_k3 = np.zeros((num_classes, 3), np.int64)

    def update(self, predicted_hw: NDArray[np.uint8], true_hw: NDArray[np.uint8]) -> Self:
        """Count an image: classes 0..k - 1 both, at the mask's own size; larger values of the truth are void."""
        void_hw = true_hw >= len(self.counts_k3)
        true_hw, predicted_hw = (np.where(void_hw, np.uint8(_VOID), map_hw) for map_hw in (true_hw, predicted_hw))
        distance = boundary_distance(true_hw.shape, self.width)
        regions = boundary_region(true_hw, distance), boundary_region(predicted_hw, distance)
        _count(true_hw, predicted_hw, *regions, self.counts_k3)
        return self

    def iou_k(self) -> NDArray[np.float64]:
        """Return each class's boundary IoU, (k,); nan where both regions are empty."""
        both_k, true_k, predicted_k = self.counts_k3.T
        union_k = true_k + predicted_k - both_k
        return np.divide(both_k, union_k, out=np.full(len(both_k), np.nan), where=union_k > 0)

    def miou(self) -> float:
        """Return the mean boundary IoU over the classes with a region; nan if there is none."""
        iou_k = self.iou_k()
        return float(np.nanmean(iou_k)) if (iou_k == iou_k).any() else math.nan


def boundary_distance(size: tuple[int, ...], width: float) -> int:
    """Return d in pixels, 1 at least, for an image of a (height, width) and a width in percent of its diagonal."""
    return max(1, round(width / 100 * math.hypot(*size)))


def boundary_region(map_hw: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Return (h, w) where another value, or the frame, is within ``distance`` steps to any of eight neighbours."""
    region_hw = np.ones(map_hw.shape, np.bool_)
    _clear_insides(np.ascontiguousarray(map_hw), distance, region_hw)
    return region_hw


@_kernel
def _clear_insides(map_hw, distance, region_hw):
    """Clear the pixels whose square of side 2 * distance + 1 lies in the image and has one value.

    In a row, those are the pixels that lie deep enough in a run of one value; down a column, enough of them in
    succession, of one value.
    """
    height, width = map_hw.shape
    side = 2 * distance + 1
    inside_w = np.empty(width, np.int32)
    depth_w = np.zeros(width, np.int32)
    for y in range(height):
        row_w = map_hw[y]
        above_w = map_hw[max(0, y - 1)]
        start = 0
        for x in range(1, width + 1):
            if x == width or row_w[x] != row_w[x - 1]:
                first, last = min(x, start + distance), max(start, x - distance)
                inside_w[start:x] = 0
                inside_w[first:last] = 1
                start = x
        for x in range(width):
            depth_w[x] = inside_w[x] * (1 + (row_w[x] == above_w[x]) * depth_w[x])
        if y >= distance:
            out_w = region_hw[y - distance]
            for x in range(width):
                out_w[x] = depth_w[x] < side


@_kernel
def _count(true_hw, predicted_hw, true_region_hw, predicted_region_hw, counts_k3):
    """Add an image's pixels to the counts by class."""
    height, width = true_hw.shape
    num_classes = counts_k3.shape[0]
    for y in range(height):
        for x in range(width):
            true, predicted = true_hw[y, x], predicted_hw[y, x]
            if true_region_hw[y, x] and true < num_classes:
                counts_k3[true, 1] += 1
                counts_k3[true, 0] += predicted_region_hw[y, x] and predicted == true
            if predicted_region_hw[y, x] and predicted < num_classes:
                counts_k3[predicted, 2] += 1
