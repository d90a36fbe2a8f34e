"""What differs between two stores, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .store import LabelStore

__all__ = ["ImageDiff", "Summary", "diff"]

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageDiff:
    """Say how one image differs, if it does.

    Attributes
    ----------
    size_a, size_b : height and width in each store; None where the image is missing.
    pixels : differing pixels; None where the image is missing in a store or its sizes differ.
    changes : (id in A, id in B) -> pixels, the most frequent first.
    """

    split: str
    name: str
    size_a: Size | None
    size_b: Size | None
    pixels: int | None
    changes: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.pixels == 0

    @property
    def share(self) -> float | None:
        """Share of the pixels that differ, 0 .. 1."""
        return None if self.pixels is None or self.size_a is None else self.pixels / (self.size_a[0] * self.size_a[1])

    @property
    def classes(self) -> tuple[int, ...]:
        """Ids whose pixels differ."""
        return tuple(sorted({label for pair in self.changes for label in pair}))

    def to_json(self) -> dict[str, Any]:
        """Return what ``quadcodec diff --json`` prints of an image."""
        return {
            "split": self.split,
            "name": self.name,
            "size_a": self.size_a,
            "size_b": self.size_b,
            "pixels": self.pixels,
            "share": self.share,
            "classes": list(self.classes),
            "changes": [{"a": a, "b": b, "pixels": count} for (a, b), count in self.changes.items()],
        }


@dataclass(frozen=True)
class Summary:
    """Count images by what was found, and the pixels of those of one size."""

    equal: int = 0
    only_a: int = 0
    only_b: int = 0
    other_size: int = 0
    other_pixels: int = 0
    compared_pixels: int = 0
    differing_pixels: int = 0

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.other_size or self.other_pixels)

    def with_image(self, found: ImageDiff) -> Summary:
        """Return the counts with one image more."""
        if found.size_a is None:
            return replace(self, only_b=self.only_b + 1)
        if found.size_b is None:
            return replace(self, only_a=self.only_a + 1)
        if found.pixels is None:
            return replace(self, other_size=self.other_size + 1)
        return replace(
            self,
            equal=self.equal + found.same,
            other_pixels=self.other_pixels + (not found.same),
            compared_pixels=self.compared_pixels + found.size_a[0] * found.size_a[1],
            differing_pixels=self.differing_pixels + found.pixels,
        )


def diff(a: LabelStore, b: LabelStore) -> Iterator[ImageDiff]:
    """Compare two stores, image by image, by split and name: those of A in order, then those that only B has.

    Records of equal bytes are equal; only others are decoded. One image is in memory at a time.

    Raises
    ------
    StoreError, CorruptRecordError : a record cannot be read.
    """
    place = {key: index for index, key in enumerate(zip(b.splits, b.names, strict=True))}
    for index, key in enumerate(zip(a.splits, a.names, strict=True)):
        other = place.pop(key, None)
        if other is None:
            yield ImageDiff(*key, _size(a, index), None, None)
        else:
            yield _compare(a, index, b, other)
    for key, other in place.items():
        yield ImageDiff(*key, None, _size(b, other), None)


def _size(store: LabelStore, index: int) -> Size:
    height, width = (int(v) for v in store.sizes[index])
    return height, width


def _compare(a: LabelStore, i: int, b: LabelStore, j: int) -> ImageDiff:
    key, size_a, size_b = (a.splits[i], a.names[i]), _size(a, i), _size(b, j)
    if size_a != size_b:
        return ImageDiff(*key, size_a, size_b, None)
    if a.record(i) == b.record(j):
        return ImageDiff(*key, size_a, size_b, 0)
    left, right = a[i], b[j]
    other = left != right
    return ImageDiff(*key, size_a, size_b, int(np.count_nonzero(other)), _changes(left[other], right[other]))


def _changes(left: NDArray[Any], right: NDArray[Any]) -> dict[tuple[int, int], int]:
    """Count the pairs of ids of some pixels, the most frequent first."""
    pairs, counts = np.unique(left.astype(np.int64) << 16 | right, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {(int(pairs[k]) >> 16, int(pairs[k]) & 0xFFFF): int(counts[k]) for k in order}
