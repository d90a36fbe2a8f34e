"""Settings: TOML files and ``key=value`` texts <-> the fields of a frozen dataclass, checked one by one.

A field is declared with `setting`; its annotation says what it takes. Sizes are written '192x256', lists as TOML
arrays or 'a,b', and None, or no item at all, as 'none'.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qgn.errors import TrainingError

NONE = "none"
"""How None is written: TOML has no word for it."""


def setting(
    default: Any, about: str, *, unset: str | None = None, least: float | None = None, most: float | None = None
) -> Any:
    """Declare a field.

    Parameters
    ----------
    default : value where nothing is said; `dataclasses.MISSING` if something must be.
    about : one line for ``--help``.
    unset : what the command takes where nothing is said, if not the default.
    least, most : bounds of a number, or of the numbers in a list.
    """
    return dataclasses.field(default=default, metadata={"about": about, "unset": unset, "least": least, "most": most})


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What a field takes: ``base`` is int, float, bool, str or tuple."""

    base: type
    item: type
    count: int | None
    """Items of a tuple, None for any number."""
    choices: tuple[str, ...]
    optional: bool
    least: float | None
    most: float | None

    @property
    def is_list(self) -> bool:
        return self.base is tuple and self.count is None

    @property
    def is_size(self) -> bool:
        return self.base is tuple and self.item is int and self.count == 2

    def describe(self) -> str:
        """Return what is expected, for a message."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        if self.is_size:
            text = "HEIGHTxWIDTH such as 192x256"
        elif self.base is tuple:
            items = {int: "whole numbers", float: "numbers", str: "names"}[self.item]
            text = f"a list of {items if self.count is None else f'{self.count} {items}'}"
        else:
            text = words[self.base]
        if self.least is not None or self.most is not None:
            low = "" if self.least is None else f" from {self.least:g}"
            text += f"{low} on" if self.most is None else f"{low} to {self.most:g}"
        return f"{text}, or {NONE}" if self.optional else text


@cache
def _kinds(cls: type) -> dict[str, _Kind]:
    hints = get_type_hints(cls)
    return {f.name: _kind(hints[f.name], f.metadata) for f in dataclasses.fields(cls)}


def _kind(hint: Any, metadata: Mapping[str, Any]) -> _Kind:
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
        optional = True
    base, item, count, choices = hint, hint, None, ()
    if get_origin(hint) is Literal:
        base = item = str
        choices = get_args(hint)
    elif get_origin(hint) is tuple:
        base, arguments = tuple, get_args(hint)
        item, count = arguments[0], None if arguments[-1] is Ellipsis else len(arguments)
        optional = optional or count is None
    return _Kind(base, item, count, choices, optional, metadata.get("least"), metadata.get("most"))


def checked(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of a TOML table as the fields of ``cls`` take them.

    Raises
    ------
    TrainingError : an unknown key or a value of another kind; ``where`` stands in front.
    """
    kinds = _kinds(cls)
    return {key: _value(kinds[_known(key, kinds, where)], key, value, where) for key, value in values.items()}


def parse(cls: type, texts: Iterable[str], where: str = "command line") -> dict[str, Any]:
    """Return the fields that ``key=value`` texts set; errors as `checked`."""
    kinds, values = _kinds(cls), {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise TrainingError(f"{where}: {text!r} is no setting, expected key=value such as steps=400")
        kind = kinds[_known(key, kinds, where)]
        values[key] = _value(kind, key, _from_text(kind, value), where)
    return values


def to_toml(config: Any) -> str:
    """Return a dataclass as TOML that `read_toml` and `checked` turn back into it."""
    lines = []
    for key, kind in _kinds(type(config)).items():
        value = getattr(config, key)
        if value is None and kind.is_list:
            continue  # 'none' is the empty list
        lines.append(f"{key} = {_to_text(kind, value)}\n")
    return "".join(lines)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file; raise TrainingError if there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"{path}: cannot be read as TOML ({reason}). Correct it, or name another file") from error


@dataclasses.dataclass(frozen=True)
class Described:
    """Say what a setting is, for a command's help."""

    key: str
    about: str
    unset: str | None
    """What holds where nothing is said; None if there is nothing to tell."""
    is_switch: bool
    is_list: bool


def describe(cls: type) -> list[Described]:
    """Return what the settings of a dataclass are, in their order."""
    rows = []
    for field, kind in zip(dataclasses.fields(cls), _kinds(cls).values(), strict=True):
        unset = field.metadata["unset"]
        if unset is None and field.default not in (dataclasses.MISSING, None, ()):
            unset = _plain(kind, field.default)
        rows.append(Described(field.name, field.metadata["about"], unset, kind.base is bool, kind.is_list))
    return rows


def _known(key: str, kinds: Mapping[str, _Kind], where: str) -> str:
    if key in kinds:
        return key
    near = difflib.get_close_matches(key, kinds, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise TrainingError(f"{where}: key {key!r} is no setting.{hint} 'qgn-train --help' lists them")


def _from_text(kind: _Kind, text: str) -> Any:
    """Return what a TOML file would hold in place of a text of the command line."""
    if kind.base is str or kind.is_size or text == NONE:
        return text
    if kind.base is tuple and not text.startswith("["):
        item = dataclasses.replace(kind, base=kind.item)
        return [_from_text(item, part.strip()) for part in text.split(",") if part.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _value(kind: _Kind, key: str, value: Any, where: str) -> Any:
    if kind.optional and value == NONE:
        return () if kind.is_list else None
    found = _size(value) if kind.is_size else value
    fits = isinstance(found, list) and kind.count in (None, len(found)) if kind.base is tuple else True
    items = found if isinstance(found, list) else [found]
    if not fits or not all(_fits(kind, item) for item in items):
        raise TrainingError(f"{where}: key {key!r}: found {value!r}, expected {kind.describe()}. Correct the value")
    items = [kind.item(item) for item in items]
    return tuple(items) if kind.base is tuple else items[0]


def _size(value: Any) -> Any:
    height, _, width = str(value).partition("x")
    sides = [int(side) for side in (height, width) if side.isdecimal() and len(side) < 7]
    return sides if isinstance(value, str) and len(sides) == 2 and all(sides) else value


def _fits(kind: _Kind, item: Any) -> bool:
    types_of = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}[kind.item]
    if not isinstance(item, types_of) or (isinstance(item, bool) and kind.item is not bool):
        return False
    if kind.item is float and not abs(item) < float("inf"):  # TOML knows inf and nan
        return False
    if kind.choices and item not in kind.choices:
        return False
    return (kind.least is None or item >= kind.least) and (kind.most is None or item <= kind.most)


def _plain(kind: _Kind, value: Any) -> str:
    """Return a value as the command line takes it."""
    if value is None or value == ():
        return NONE
    if kind.is_size:
        return "x".join(map(str, value))
    if kind.base is tuple:
        return ",".join(map(str, value))
    return str(value).lower() if kind.base is bool else str(value)


def _to_text(kind: _Kind, value: Any) -> str:
    """Return a value as TOML."""
    if value is None or kind.is_size or kind.base is str:
        # JSON's strings are TOML's, but for the one control character that JSON leaves as it is.
        return json.dumps(_plain(kind, value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if kind.base is tuple:
        return f"[{', '.join(_to_text(dataclasses.replace(kind, base=kind.item), item) for item in value)}]"
    return str(value).lower() if kind.base is bool else repr(value)
