"""Small charts as inline SVG: widths in percent, so that text keeps its size at every width of the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["bar", "level_color", "level_legend", "stacked"]

_RAMP = ((68, 57, 130), (49, 104, 142), (33, 145, 140), (53, 183, 121), (144, 215, 67), (253, 231, 37))
"""Coarse to fine: dark to light."""
_LEAST_LABELLED = 6.5  # percent of the width


def level_color(level: int, levels: int) -> tuple[int, int, int]:
    """Return the colour of a level: dark for the coarsest, light for the pixels."""
    at = (levels - 1 - level) / (levels - 1) * (len(_RAMP) - 1)
    k = min(int(at), len(_RAMP) - 2)
    r, g, b = (round(p + (at - k) * (q - p)) for p, q in zip(_RAMP[k], _RAMP[k + 1], strict=True))
    return r, g, b


def hex_color(color: tuple[int, int, int]) -> str:
    """Return a colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def stacked(shares: Mapping[int, float], label: str, *, css_class: str = "") -> str:
    """Return one bar of the shares by level, in percent; wide parts bear their number."""
    parts, x = [], 0.0
    levels = max(shares) + 1
    for level, share in sorted(shares.items(), reverse=True):
        color = level_color(level, levels)
        parts.append(f'<rect x="{x:.3f}%" width="{share:.3f}%" height="100%" fill="{hex_color(color)}"/>')
        if share >= _LEAST_LABELLED and not css_class:
            light = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 130
            ink = "#101216" if light else "#ffffff"
            middle = x + share / 2
            parts.append(
                f'<text x="{middle:.3f}%" y="52%" text-anchor="middle" dominant-baseline="middle" '
                f'fill="{ink}">{share:.1f}</text>'
            )
        x += share
    spoken = ", ".join(f"Q{level} {share:.2f} %" for level, share in sorted(shares.items(), reverse=True))
    attributes = f' class="{css_class}"' if css_class else ""
    return f'<svg role="img"{attributes} aria-label="{escape(label)}: {spoken}">{"".join(parts)}</svg>'


def level_legend(levels: int) -> str:
    """Return the colours of all levels as a list."""
    items = "".join(
        f'<li><span class="swatch" style="background:{hex_color(level_color(level, levels))}"></span>'
        f"Q{level}, {1 << level} px</li>"
        for level in range(levels - 1, -1, -1)
    )
    return f'<ul class="legend" aria-label="Levels">{items}</ul>'


def bar(share: float) -> str:
    """Return a bar of a share 0 .. 1 of the room; its number stands beside it."""
    return f'<svg aria-hidden="true"><rect width="{100 * share:.2f}%" height="100%" rx="2"/></svg>'
