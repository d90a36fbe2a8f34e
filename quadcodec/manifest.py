"""Data sets as data: what a manifest (``data_manifests/*.toml``) says, and the files it finds in a folder.

A layout is a list of patterns of paths below the data set's folder, with ``/`` between parts: ``{split}`` stands
for a split's folder, ``{name}`` (once) for anything, also several parts, ``{png,jpg}`` for one of its words.
A mask and a photo with the same split and name belong together.
"""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from .errors import ManifestError

__all__ = ["DataSet", "Layout", "Manifest", "Source", "Split"]
__all__ += ["detect_manifest", "find_masks", "load_manifest", "manifest_names"]

Color = tuple[int, int, int]

FALLBACK = "folder"
"""The manifest that fits any folder of masks: tried last."""

_MAX_ID = 0xFFFF
_ROW_KEYS = ("5", "4", "3", "2", "1", "0", "ratio")
_MISSING: Any = object()


@dataclass(frozen=True)
class Layout:
    """Say where the files lie: patterns of masks and photos, and folder names that hold no masks."""

    masks: tuple[str, ...]
    photos: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Name a split, its folder on disk, and how many masks the complete data set has there."""

    name: str
    folder: str
    masks: int | None = None


@dataclass(frozen=True)
class Manifest:
    """Describe a data set.

    Attributes
    ----------
    name, title, licence, url, how_to_get : texts for people; ``url`` and ``how_to_get`` may be empty.
    layouts : where its files may lie; the first one that has masks counts.
    splits : in the order in which a store holds them.
    void : raw ids of unlabelled pixels.
    labels : raw id -> name.
    colors : raw id -> (R, G, B).
    color_masks : the masks are stored in these colours, not as ids.
    class_names : names of the training classes 0, 1, ...
    class_ids : raw id -> training class. A raw id that is not here takes no part in training.
    published : split -> row of the paper's Table 5: '5' .. '0' and 'ratio', in percent; None if unreadable.
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

    @property
    def mask_colors(self) -> dict[Color, int] | None:
        """The colours that `quadcodec.masks.read_mask` needs for this data set, or None where it has ids."""
        return {color: label for label, color in self.colors.items()} if self.color_masks else None


@dataclass(frozen=True)
class Source:
    """Name one mask and its photo ('' if there is none), as paths below the data set's folder."""

    name: str
    split: str
    mask: str
    image: str


@dataclass(frozen=True)
class DataSet:
    """List what was found: masks by (order of splits, name), and the photos that have no mask."""

    root: Path
    manifest: Manifest
    sources: tuple[Source, ...]
    unmatched_photos: tuple[str, ...]


def manifest_names() -> list[str]:
    """Return the names of the data sets that come with the package, the fallback last."""
    files = resources.files("quadcodec.manifests").iterdir()
    names = sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))
    return sorted(names, key=lambda name: name == FALLBACK)


def load_manifest(name_or_path: str | os.PathLike[str]) -> Manifest:
    """Load and check a manifest: one of `manifest_names`, or a TOML file of one's own.

    Raises
    ------
    ManifestError : there is no such manifest, or it is wrong: the message names the file and the key.
    """
    if name_or_path in manifest_names():
        file = resources.files("quadcodec.manifests") / f"{name_or_path}.toml"
        return _parse(file.name, file.read_bytes())
    path = Path(name_or_path)
    try:
        return _parse(str(path), path.read_bytes())
    except OSError as error:
        raise ManifestError(
            f"{path}: no such manifest ({error.strerror}). Name a TOML file or one of {', '.join(manifest_names())}."
        ) from error


def find_masks(root: str | os.PathLike[str], manifest: Manifest, splits: Iterable[str] | None = None) -> DataSet:
    """Find the masks of a data set, and their photos.

    Hidden files are no part of a data set. Links are followed only within the folder.

    Parameters
    ----------
    root : the data set's folder.
    splits : take these only; by default every split that has masks.

    Raises
    ------
    ManifestError : no such folder, no masks there, a split that is unknown or empty, two masks of one name,
        or a link that leads out of the folder.
    """
    root = _existing_folder(root)
    asked = [splits] if isinstance(splits, str) else list(splits or ())
    known = [split.name for split in manifest.splits]
    for name in asked:
        if name not in known:
            raise ManifestError(f"{root}: split {name!r} is unknown. {manifest.name} has {', '.join(known)}.")
    chosen = [split for split in manifest.splits if not asked or split.name in asked]
    for layout in manifest.layouts:
        files = _Files(root, layout, chosen)
        masks = files.match(layout.masks, unique=True)
        if masks:
            photos = files.match(layout.photos)
            break
    else:
        what = f"{manifest.name} split {', '.join(asked)}" if asked else manifest.name
        looked = f"looked for {_patterns(manifest)}"
        raise ManifestError(f"{root}: no masks of {what}: {looked}. Check the folder, or choose another format.")
    found = {split for split, _ in masks}
    for name in asked:
        if name not in found:
            raise ManifestError(f"{root}: split {name!r} of {manifest.name} has no masks. Leave it out or add them.")
    order = {name: index for index, name in enumerate(known)}
    keys = sorted(masks, key=lambda key: (order[key[0]], key[1]))
    return DataSet(
        root,
        manifest,
        tuple(Source(name, split, masks[split, name], photos.get((split, name), "")) for split, name in keys),
        tuple(sorted(path for key, path in photos.items() if key[0] in found and key not in masks)),
    )


def detect_manifest(root: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of the package whose masks are in a folder: the first by name, the plain folder last.

    Raises
    ------
    ManifestError : no such folder, or nothing in it looks like a mask.
    """
    root = _existing_folder(root)
    manifests = [load_manifest(name) for name in manifest_names()]
    for manifest in manifests:
        masks_only = (replace(layout, photos=()) for layout in manifest.layouts)
        if any(_Files(root, layout, manifest.splits).match(layout.masks) for layout in masks_only):
            return manifest
    tried = "; ".join(f"{manifest.name}: {_patterns(manifest)}" for manifest in manifests)
    raise ManifestError(f"{root}: no masks found ({tried}). Check the folder, or write a manifest for its layout.")


def _existing_folder(root: str | os.PathLike[str]) -> Path:
    root = Path(root)
    try:
        if next(root.iterdir(), None) is None:
            raise ManifestError(f"{root}: the folder is empty. Fill it, or check the path.")
    except FileNotFoundError:
        raise ManifestError(f"{root}: no such folder. Check the path.") from None
    except NotADirectoryError:
        raise ManifestError(f"{root}: a file, expected the folder of a data set.") from None
    except OSError as error:
        raise ManifestError(f"{root}: the folder cannot be read: {error.strerror}.") from error
    return root


def _patterns(manifest: Manifest) -> str:
    return " or ".join(pattern for layout in manifest.layouts for pattern in layout.masks)


def _expand(pattern: str, folder: str) -> Iterator[tuple[str, str]]:
    """Yield what stands before and after the name, for each choice of words, in the order written."""
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", pattern.replace("{split}", folder))
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    for words in itertools.product(*choices):
        head, _, tail = "".join(words).partition("{name}")
        yield head, tail.lower()


class _Files:
    """Hold the files of a folder in which a layout can match, listed once."""

    def __init__(self, root: Path, layout: Layout, splits: Iterable[Split]) -> None:
        self._root = root
        self._base = os.path.realpath(root)
        self._splits = tuple(splits)
        self._excluded = {name.lower() for name in layout.exclude}
        self._links_out: set[str] = set()
        heads = {
            head.rpartition("/")[0]
            for pattern in layout.masks + layout.photos
            for split in self._splits
            for head, _ in _expand(pattern, split.folder)
        }
        inner = {head for head in heads if any(head != other and _is_below(head, other) for other in heads)}
        self._paths = sorted(path for start in heads - inner for path in self._walk(start))

    def _walk(self, start: str) -> Iterator[str]:
        """Yield the files below a folder, as paths from the root; follow no link twice or out of it."""
        stack = [(start, frozenset[str]())]
        while stack:
            folder, followed = stack.pop()
            real = os.path.realpath(f"{self._base}/{folder}")
            if not _is_below(real, self._base):
                raise self._leads_out(folder)
            if real in followed:
                continue
            for name, is_folder, is_link in self._scan(folder):
                path = f"{folder}/{name}" if folder else name
                if is_folder:
                    if name.lower() not in self._excluded:
                        stack.append((path, followed | {real}))
                    continue
                if is_link and not _is_below(os.path.realpath(f"{self._base}/{path}"), self._base):
                    self._links_out.add(path)
                yield path

    def _scan(self, folder: str) -> list[tuple[str, bool, bool]]:
        try:
            with os.scandir(f"{self._base}/{folder}") as entries:
                return [(e.name, e.is_dir(), e.is_symlink()) for e in entries if not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []  # a start that this copy of the data set lacks
        except OSError as error:
            raise ManifestError(f"{self._root}: {folder or 'the folder'} cannot be read: {error.strerror}.") from error

    def match(self, patterns: Iterable[str], *, unique: bool = False) -> dict[tuple[str, str], str]:
        """Return (split, name) -> path. Of two paths the pattern named first wins, unless they must be unique."""
        found: dict[tuple[str, str], str] = {}
        taken: set[str] = set()
        rules = [(s.name, *ends) for pattern in patterns for s in self._splits for ends in _expand(pattern, s.folder)]
        for split, head, tail in rules:
            for path in self._paths:
                fits = path.startswith(head) and path.lower().endswith(tail) and len(path) > len(head) + len(tail)
                if not fits or path in taken:
                    continue
                self._check(path)
                taken.add(path)
                key = split, path[len(head) : len(path) - len(tail)]
                if found.setdefault(key, path) != path and unique:
                    twice = f"{found[key]} and {path} are both the mask {key[1]!r} of split {split!r}"
                    raise ManifestError(f"{self._root}: {twice}. Keep one of them.")
        return found

    def _check(self, path: str) -> None:
        if path in self._links_out:
            raise self._leads_out(path)
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise ManifestError(f"{self._root}: {path!r} is no UTF-8 file name. Rename the file.") from error

    def _leads_out(self, path: str) -> ManifestError:
        return ManifestError(
            f"{self._root}: {path} is a link that leads out of the folder. Put the files themselves there, or "
            "give the folder that holds them."
        )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or folder == "" or path.startswith(folder.rstrip("/") + "/")


class _Table:
    """Take keys out of a TOML table one by one, with their types; what is left over is unknown."""

    def __init__(self, file: str, where: str, values: dict[str, Any]) -> None:
        self.file, self._where, self._values = file, where, dict(values)

    def fail(self, key: str, problem: str) -> ManifestError:
        return ManifestError(f"{self.file}: key '{self._where}{key}': {problem}")

    def take(self, key: str, kind: type, expected: str, default: Any = _MISSING) -> Any:
        value = self._values.pop(key, default)
        if value is _MISSING:
            raise self.fail(key, f"is missing, expected {expected}. Add it.")
        if type(value) is not kind and value is not default:  # type: a bool is no int here
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
            if type(value) is not kind:
                raise self.fail(key, f"holds {value!r}, expected {expected}. Correct it.")
        return tuple(values)

    def ids(self, key: str, default: Any = _MISSING) -> tuple[int, ...]:
        values = self.items(key, int, f"ids in 0..{_MAX_ID}", default)
        for value in values:
            if not 0 <= value <= _MAX_ID:
                raise self.fail(key, f"holds {value}, expected ids in 0..{_MAX_ID}. Correct it.")
        return values

    def tables(self, key: str) -> list[_Table]:
        """Return the tables of an array of tables."""
        values = self.items(key, dict, "tables")
        if not values:
            raise self.fail(key, "is empty, expected at least one table. Add one.")
        return [self._inner(f"{key}[{index}]", value) for index, value in enumerate(values)]

    def table(self, key: str) -> _Table:
        """Return a table, empty if it is missing."""
        return self._inner(key, self.take(key, dict, "a table", {}))

    def by_name(self) -> list[tuple[str, _Table]]:
        return [(key, self.table(key)) for key in list(self._values)]

    def by_id(self) -> list[tuple[int, str]]:
        """Return the keys of a table whose keys are ids, in order of id."""
        for key in self._values:
            if not key.isdecimal() or int(key) > _MAX_ID or key != str(int(key)):
                raise self.fail(key, f"the key is no id in 0..{_MAX_ID}. Correct it.")
        return sorted((int(key), key) for key in self._values)

    def done(self) -> None:
        for key in self._values:
            raise self.fail(key, "is unknown. Correct its spelling or remove it.")

    def _inner(self, key: str, values: dict[str, Any]) -> _Table:
        return _Table(self.file, f"{self._where}{key}.", values)


def _parse(file: str, data: bytes) -> Manifest:
    """Check everything that can be checked without the data."""
    try:
        top = _Table(file, "", tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    )
    top.done()
    return manifest


def _splits(top: _Table) -> tuple[Split, ...]:
    splits: list[Split] = []
    for table in top.tables("splits"):
        name = table.text("name")
        if name in (split.name for split in splits):
            raise table.fail("name", f"{name!r} is there twice. Rename or remove one.")
        splits.append(Split(name, table.text("folder", name), table.integer("masks", 2**40, None)))
        table.done()
    return tuple(splits)


def _layouts(top: _Table, splits: tuple[Split, ...]) -> tuple[Layout, ...]:
    layouts = []
    for table in top.tables("layouts"):
        masks, photos = table.items("masks", str, "patterns"), table.items("photos", str, "patterns", [])
        if not masks:
            raise table.fail("masks", "is empty, expected at least one pattern. Add one.")
        for key, pattern in [("masks", mask) for mask in masks] + [("photos", photo) for photo in photos]:
            rest = re.sub(r"\{split\}|\{name\}|\{[^{}/]*,[^{}/]*\}", "", pattern)
            if pattern.count("{name}") != 1 or "{" in rest or "}" in rest:
                raise table.fail(key, f"{pattern!r} needs {{name}} once, and otherwise {{split}} or {{a,b}} only.")
            if pattern.startswith("/") or "\\" in pattern or ".." in pattern.split("/"):
                raise table.fail(key, f"{pattern!r} is no path below the folder, with / between its parts.")
            if len(splits) > 1 and "{split}" not in pattern:
                raise table.fail(key, f"{pattern!r} has no {{split}}, so that its files would be in every split.")
        layouts.append(Layout(masks, photos, table.items("exclude", str, "folder names", [])))
        table.done()
    return tuple(layouts)


def _classes(top: _Table, labels: Mapping[int, str], void: tuple[int, ...]) -> tuple[tuple[str, ...], dict[int, int]]:
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


def _colors(top: _Table, labels: Mapping[int, str], color_masks: bool) -> dict[int, Color]:
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


def _published(top: _Table, splits: tuple[Split, ...]) -> dict[str, dict[str, float | None]]:
    published = {}
    table = top.table("published")
    for name, row in table.by_name():
        if name not in (split.name for split in splits):
            raise table.fail(name, "is no split of this data set. Correct it.")
        published[name] = {key: row.take(key, float, "a percentage with a point", None) for key in _ROW_KEYS}
        for key, value in published[name].items():
            if value is not None and not 0 <= value <= 100:
                raise row.fail(key, f"is {value}, expected a percentage. Correct it.")
        row.done()
    return published
