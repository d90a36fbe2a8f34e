"""Option types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from qgn.ensemble import Ensemble
    from qgn.sparse.propagation import Limits

F = TypeVar("F", bound=Callable[..., Any])


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


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """Read an amount of memory such as 12GiB, in bytes."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(GiB|GB|MiB|MB)", str(value))
        if match is None:
            self.fail(f"{value!r} is no amount of memory, expected one such as 12GiB, 12GB or 800MiB", param, ctx)
        return int(float(match[1]) * {"GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6}[match[2]])


class Texts(click.ParamType):  # type: ignore[type-arg]
    """Read words separated by commas."""

    name = "A,B,.."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in str(value).split(","))
        if not all(words) or len(set(words)) < len(words):
            self.fail(f"{value!r} is no list of different words", param, ctx)
        return words


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


class Scales(click.ParamType):  # type: ignore[type-arg]
    """Read scales such as 0.75,1,1.25."""

    name = "SCALES"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the scales, each once."""
        if isinstance(value, tuple):
            return value
        try:
            scales = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            scales = ()
        if not scales or not all(0.1 <= scale <= 10 for scale in scales):
            self.fail(f"{value!r} is no list of scales from 0.1 to 10, expected one such as 0.75,1,1.25", param, ctx)
        return tuple(dict.fromkeys(scales))


def limit_options(command: F) -> F:
    """Add options that limit what a sparse decoder computes; `limits_of` reads them."""
    for option in (
        click.option("--budget-gmacs", type=click.FloatRange(0), help="Of the decoder, an image: 10^9 multiply-adds."),
        click.option("--max-sites", type=click.IntRange(0), help="Active cells of an image, best ones first."),
        click.option("--classes", metavar="NAMES", help="Refine only cells that may hold one of them: car,person."),
        click.option("--stop-level", type=click.IntRange(0, 5), help="Finest level to predict; 0 is the pixels."),
    ):
        command = option(command)
    return command


def limits_of(options: dict[str, Any]) -> Limits:
    """Return what the options of `limit_options` say."""
    from qgn.sparse.propagation import Limits

    names = tuple(name.strip() for name in (options["classes"] or "").split(",") if name.strip())
    return Limits(options["stop_level"], names, options["max_sites"], options["budget_gmacs"])


def ensemble_options(command: F) -> F:
    """Add options that average several predictions of an image; `ensemble_of` reads them."""
    command = click.option("--flip", is_flag=True, help="Average with what is predicted for the mirror image.")(command)
    return click.option(
        "--scales", default="1", show_default=True, type=Scales(),
        help="Average the predictions at several sizes of each image: 0.75,1,1.25.",
    )(command)  # fmt: skip


def ensemble_of(options: dict[str, Any]) -> Ensemble:
    """Return what the options of `ensemble_options` say."""
    from qgn.ensemble import Ensemble

    return Ensemble(options["scales"], options["flip"])
