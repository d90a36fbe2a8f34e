"""What a manifest says: its types, and the checks of the TOML file that it stands in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ManifestError

__all__ = ["Layout", "Manifest", "Split", "Training", "parse_manifest"]

Color = tuple[int, int, int]

_MAX_ID = 0xFFFF
_ROW_KEYS = ("5", "4", "3", "2", "1", "0", "ratio")
_MISSING: Any = object()


@dataclass(frozen=True)
class Layout:
    """Say where the files lie: patterns of paths below the data set's folder (see `quadcodec.manifest`).

    Attributes
    ----------
    masks, photos : patterns.
    exclude : names of folders that hold no masks.
    splits : names of the splits that lie so; empty for all.
    lists : pattern of the text file with the names of a split, one a line; '' where folders tell the splits.
    numbers : split -> (first, last): its masks are those whose name is such a number; its photos count from 1.
    tested : 'real' files of the data set or 'made' ones; '' if nothing is known.
    """

    masks: tuple[str, ...]
    photos: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    lists: str = ""
    numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tested: str = ""


@dataclass(frozen=True)
class Split:
    """Name a split, its folder on disk, and how many masks the complete data set has there."""

    name: str
    folder: str
    masks: int | None = None
    optional: bool = False
    """Taken only where it is asked for by name: it overlaps another split, or has labels of another kind."""


@dataclass(frozen=True)
class Training:
    """Hold what the paper trains with on this data set (A.2 and its reference code).

    ``short_edges`` are the sizes in pixels that an image's short edge is resized to, one at random;
    ``longest_edge`` bounds the other one, None if nothing does.
    """

    iterations: int
    batch_size: int
    short_edges: tuple[int, ...]
    longest_edge: int | None


@dataclass(frozen=True)
class Manifest:
    """Describe a data set.

    Attributes
    ----------
    name, title, licence, url, how_to_get : texts for people; ``url`` and ``how_to_get`` may be empty.
    layouts : where its files may lie; of each split the first one that has masks counts.
    splits : in the order in which a store holds them.
    void : raw ids of unlabelled pixels.
    labels : raw id -> name.
    colors : raw id -> (R, G, B).
    color_masks : the masks are stored in these colours, not as ids.
    class_names : names of the training classes 0, 1, ...
    class_ids : raw id -> training class. A raw id that is not here takes no part in training.
    published : split -> row of the paper's Table 5: '5' .. '0' and 'ratio', in percent; None if unreadable.
    training : the paper's settings, None for a data set that it does not use.
    """

    name: str
    title: str
    licence: str
    url: str
    how_to_get: str
    layouts: tuple[Layout, ...]
    splits: tuple[Split, ...]
    void: frozenset[int]
    labels: Mapping[int, str]
    colors: Mapping[int, Color]
    color_masks: bool
    class_names: tuple[str, ...]
    class_ids: Mapping[int, int]
    published: Mapping[str, Mapping[str, float | None]]
    training: Training | None = None

    @property
    def mask_colors(self) -> dict[Color, int] | None:
        """The colours that `quadcodec.masks.read_mask` needs for this data set, or None where it has ids."""
        return {color: label for label, color in self.colors.items()} if self.color_masks else None

    @property
    def num_masks(self) -> int | None:
        """Masks of the complete data set in the splits that are taken by default; None if that is unknown."""
        counts = [split.masks for split in self.splits if not split.optional]
        return None if None in counts else sum(count or 0 for count in counts)


class TomlTable:
    """Take keys out of a TOML table one by one, with their types; what is left over is unknown."""

    def __init__(self, file: str, where: str, values: dict[str, Any]) -> None:
        self.file, self._where, self._values = file, where, dict(values)

    def fail(self, key: str, problem: str) -> ManifestError:
        return ManifestError(f"{self.file}: key '{self._where}{key}': {problem}")

    def take(self, key: str, kind: type, expected: str, default: Any = _MISSING) -> Any:
        value = self._values.pop(key, default)
        if value is _MISSING:
            raise self.fail(key, f"is missing, expected {expected}. Add it.")
        if value is not default and (type(value) is not kind or _has_nul(value)):  # type: a bool is no int here
            raise self.fail(key, f"is {value!r}, expected {expected}. Correct it.")
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        value: str = self.take(key, str, "a text", default)
        if not value and default is _MISSING:
            raise self.fail(key, "is empty, expected a text. Fill it in.")
        return value

    def integer(self, key: str, top: int, default: Any = _MISSING) -> Any:
        value = self.take(key, int, f"a whole number in 0..{top}", default)
        if value is not default and not 0 <= value <= top:
            raise self.fail(key, f"is {value}, expected a whole number in 0..{top}. Correct it.")
        return value

    def items(self, key: str, kind: type, expected: str, default: Any = _MISSING) -> tuple[Any, ...]:
        values = self.take(key, list, f"a list of {expected}", default)
        for value in values:
            if type(value) is not kind or _has_nul(value):
                raise self.fail(key, f"holds {value!r}, expected {expected}. Correct it.")
        return tuple(values)

    def ids(self, key: str, default: Any = _MISSING) -> tuple[int, ...]:
        values = self.items(key, int, f"ids in 0..{_MAX_ID}", default)
        for value in values:
            if not 0 <= value <= _MAX_ID:
                raise self.fail(key, f"holds {value}, expected ids in 0..{_MAX_ID}. Correct it.")
        return values

    def tables(self, key: str) -> list[TomlTable]:
        """Return the tables of an array of tables."""
        values = self.items(key, dict, "tables")
        if not values:
            raise self.fail(key, "is empty, expected at least one table. Add one.")
        return [self._inner(f"{key}[{index}]", value) for index, value in enumerate(values)]

    def table(self, key: str) -> TomlTable:
        """Return a table, empty if it is missing."""
        return self._inner(key, self.take(key, dict, "a table", {}))

    def names(self) -> list[str]:
        return list(self._values)

    def by_id(self) -> list[tuple[int, str]]:
        """Return the keys of a table whose keys are ids, in order of id."""
        for key in self._values:
            if not key.isdecimal() or len(key) > 5 or int(key) > _MAX_ID or key != str(int(key)):
                raise self.fail(key, f"the key is no id in 0..{_MAX_ID}. Correct it.")
        return sorted((int(key), key) for key in self._values)

    def done(self) -> None:
        for key in self._values:
            raise self.fail(key, "is unknown. Correct its spelling or remove it.")

    def _inner(self, key: str, values: dict[str, Any]) -> TomlTable:
        return TomlTable(self.file, f"{self._where}{key}.", values)


def _has_nul(value: object) -> bool:
    """Whether a value is a text that cannot be part of a path."""
    return isinstance(value, str) and "\0" in value


def parse_manifest(file: str, data: bytes) -> Manifest:
    """Check everything that can be checked without the data."""
    try:
        top = TomlTable(file, "", tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, tables nested as deep
        raise ManifestError(f"{file}: not TOML: {error}. Correct it there.") from error
    splits = _splits(top)
    void = top.ids("void", [])
    label_table = top.table("labels")
    labels = {label: label_table.text(key) for label, key in label_table.by_id()}
    for label in void if labels else ():
        if label not in labels:
            raise top.fail("void", f"holds {label}, which has no name. Add it to [labels].")
    color_masks = top.take("color_masks", bool, "true or false", False)
    class_names, class_ids = _classes(top, labels, void)
    manifest = Manifest(
        name=top.text("name"),
        title=top.text("title"),
        licence=top.text("licence"),
        url=top.text("url", ""),
        how_to_get=top.text("how_to_get", ""),
        layouts=_layouts(top, splits),
        splits=splits,
        void=frozenset(void),
        labels=labels,
        colors=_colors(top, labels, color_masks),
        color_masks=color_masks,
        class_names=class_names,
        class_ids=class_ids,
        published=_published(top, splits),
        training=_training(top),
    )
    top.done()
    return manifest


def _splits(top: TomlTable) -> tuple[Split, ...]:
    splits: list[Split] = []
    for table in top.tables("splits"):
        name = table.text("name")
        if name in (split.name for split in splits):
            raise table.fail("name", f"{name!r} is there twice. Rename or remove one.")
        optional = table.take("optional", bool, "true or false", False)
        splits.append(Split(name, table.text("folder", name), table.integer("masks", 2**40, None), optional))
        table.done()
    return tuple(splits)


def _layouts(top: TomlTable, splits: tuple[Split, ...]) -> tuple[Layout, ...]:
    layouts = []
    for table in top.tables("layouts"):
        masks, photos = table.items("masks", str, "patterns"), table.items("photos", str, "patterns", [])
        if not masks:
            raise table.fail("masks", "is empty, expected at least one pattern. Add one.")
        lists = table.text("lists", "")
        numbers = _numbers(table, splits)
        held = table.items("splits", str, "names of splits", [])
        for name in held:
            _check_split(table, "splits", name, splits)
        for key, pattern in [("masks", mask) for mask in masks] + [("photos", photo) for photo in photos]:
            _check_pattern(table, key, pattern)
            if len(held or splits) > 1 and "{split}" not in pattern and not lists and not numbers:
                raise table.fail(key, f"{pattern!r} has no {{split}}, so that its files would be in every split.")
        if re.search("[{}]", lists.replace("{split}", "")) or not _is_below(lists):
            raise table.fail("lists", f"{lists!r} is no path below the folder with {{split}} in it. Correct it.")
        tested = table.text("tested", "")
        if tested not in ("", "real", "made"):
            raise table.fail("tested", f"is {tested!r}, expected 'real' or 'made'. Correct it.")
        exclude = table.items("exclude", str, "folder names", [])
        layouts.append(Layout(masks, photos, exclude, held, lists, numbers, tested))
        table.done()
    return tuple(layouts)


def _check_pattern(table: TomlTable, key: str, pattern: str) -> None:
    rest = re.sub(r"\{split\}|\{name\}|\{[^{}/]*,[^{}/]*\}", "", pattern)
    if pattern.count("{name}") != 1 or "{" in rest or "}" in rest:
        raise table.fail(key, f"{pattern!r} needs {{name}} once, and otherwise {{split}} or {{a,b}} only.")
    if not _is_below(pattern):
        raise table.fail(key, f"{pattern!r} is no path below the folder, with / between its parts.")


def _is_below(pattern: str) -> bool:
    return not (pattern.startswith("/") or "\\" in pattern or ".." in pattern.split("/"))


def _check_split(table: TomlTable, key: str, name: str, splits: tuple[Split, ...]) -> None:
    if name not in (split.name for split in splits):
        raise table.fail(key, f"{name!r} is no split of this data set. Correct it.")


def _numbers(layout: TomlTable, splits: tuple[Split, ...]) -> dict[str, tuple[int, int]]:
    """Return split -> (first, last) of a layout whose splits are ranges of numbers."""
    table = layout.table("numbers")
    numbers = {}
    for name in table.names():
        _check_split(table, name, name, splits)
        values = table.items(name, int, "whole numbers")
        if len(values) != 2 or not 0 <= values[0] <= values[1]:
            raise table.fail(name, f"is {list(values)}, expected [first, last]. Correct it.")
        numbers[name] = (values[0], values[1])
    return numbers


def _classes(
    top: TomlTable, labels: Mapping[int, str], void: tuple[int, ...]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return class names and raw id -> class. Without [classes], each label that is not void is a class."""
    table = top.table("classes")
    keys = table.by_id()
    if not keys:
        ids = [label for label in sorted(labels) if label not in void]
        return tuple(labels[label] for label in ids), {label: index for index, label in enumerate(ids)}
    names: list[str] = []
    class_ids: dict[int, int] = {}
    for index, (class_id, key) in enumerate(keys):
        if class_id != index:
            raise table.fail(key, f"class {index} is missing before it: classes count from 0 without gaps.")
        row = table.table(key)
        names.append(row.text("name"))
        for label in row.ids("ids"):
            if label in void or label in class_ids or label not in labels:
                why = "is void" if label in void else "has a class already" if label in class_ids else "has no name"
                raise row.fail("ids", f"id {label} {why}. Correct it here, in void or in [labels].")
            class_ids[label] = class_id
        row.done()
    return tuple(names), class_ids


def _colors(top: TomlTable, labels: Mapping[int, str], color_masks: bool) -> dict[int, Color]:
    table = top.table("colors")
    colors: dict[int, Color] = {}
    for label, key in table.by_id():
        values = table.items(key, int, "whole numbers")
        if len(values) != 3 or not all(0 <= value <= 255 for value in values):
            raise table.fail(key, f"is {list(values)}, expected [R, G, B] in 0..255. Correct it.")
        if labels and label not in labels:
            raise table.fail(key, "this id has no name. Add it to [labels].")
        if color_masks and values in colors.values():
            raise table.fail(key, f"{list(values)} is the colour of another id too, so that masks are ambiguous.")
        colors[label] = (values[0], values[1], values[2])
    if color_masks and not colors:
        raise top.fail("color_masks", "is true, but there are no [colors]. Add them.")
    return colors


def _published(top: TomlTable, splits: tuple[Split, ...]) -> dict[str, dict[str, float | None]]:
    published = {}
    table = top.table("published")
    for name in table.names():
        _check_split(table, name, name, splits)
        row = table.table(name)
        published[name] = {key: row.take(key, float, "a percentage with a point", None) for key in _ROW_KEYS}
        for key, value in published[name].items():
            if value is not None and not 0 <= value <= 100:
                raise row.fail(key, f"is {value}, expected a percentage. Correct it.")
        row.done()
    return published


def _training(top: TomlTable) -> Training | None:
    table = top.table("training")
    if not table.names():
        return None
    edges = table.items("short_edges", int, "sizes in pixels")
    training = Training(
        iterations=table.integer("iterations", 2**40),
        batch_size=table.integer("batch_size", 2**20),
        short_edges=edges,
        longest_edge=table.integer("longest_edge", 2**20, None),
    )
    if not edges or min(edges) < 1:
        raise table.fail("short_edges", f"is {list(edges)}, expected at least one size in pixels. Correct it.")
    table.done()
    return training
