"""Option types that several commands share."""

from __future__ import annotations

import click


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Read HEIGHTxWIDTH in pixels."""

    name = "HxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (height, width)."""
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is no size, expected HEIGHTxWIDTH such as 192x256", param, ctx)
        return int(height), int(width)


class Levels(click.ParamType):  # type: ignore[type-arg]
    """Read levels such as 5,4,3."""

    name = "LEVELS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the levels."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is no list of levels, expected one such as 5,4,3", param, ctx)
        return tuple(int(part) for part in parts)
