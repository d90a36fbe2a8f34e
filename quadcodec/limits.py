"""How many pixels a file may claim to hold before it is refused unread: a few bytes can claim billions."""

from __future__ import annotations

__all__ = ["MAX_PIXELS", "size_problem"]

MAX_PIXELS = 2**29
"""Masks of more pixels are refused before memory is taken for them, unless the caller says otherwise."""


def size_problem(height: int, width: int, max_pixels: int) -> str | None:
    """Return what to tell of an image that claims more than ``max_pixels`` pixels; None if it does not."""
    if height * width <= max_pixels:
        return None
    return (
        f"the header claims {height}x{width} pixels (height x width), more than max_pixels = {max_pixels}. "
        "Cut the mask into tiles, or raise max_pixels if you trust the source"
    )
