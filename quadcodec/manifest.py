"""Data sets as data: the manifests (``data_manifests/*.toml``), and the files that they find in a folder.

A layout is a list of patterns of paths below the data set's folder, with ``/`` between parts: ``{split}`` stands
for a split's folder, ``{name}`` (once) for anything, also several parts, ``{png,jpg}`` for one of its words.
A mask and a photo with the same split and name belong together. What else a manifest says, and how it is
checked, stands in `quadcodec.manifest_toml`; docs/datasets.md shows how to write one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from .errors import ManifestError
from .manifest_toml import Layout, Manifest, Split, Training, parse_manifest

__all__ = ["DataSet", "Layout", "Manifest", "Source", "Split", "Training"]
__all__ += ["detect_manifest", "find_masks", "list_masks", "load_manifest", "manifest_names"]

FALLBACK = "folder"
"""The manifest that fits any folder of masks: tried last."""


@dataclass(frozen=True)
class Source:
    """Name one mask and its photo ('' if there is none), as paths below the data set's folder."""

    name: str
    split: str
    mask: str
    image: str


@dataclass(frozen=True)
class DataSet:
    """List what was found: masks by (order of splits, name), and what does not fit.

    Attributes
    ----------
    unmatched_photos : photos that have no mask.
    duplicates : a sentence for every two masks of one name.
    listed_only : names in a split's list that have no mask, as 'split/name'.
    """

    root: Path
    manifest: Manifest
    sources: tuple[Source, ...]
    unmatched_photos: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    listed_only: tuple[str, ...] = ()


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
        return parse_manifest(file.name, file.read_bytes())
    path = Path(name_or_path)
    try:
        return parse_manifest(str(path), path.read_bytes())
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
    splits : take these only; by default every split that has masks and is not optional.

    Raises
    ------
    ManifestError : no such folder, no masks there, a split that is unknown or empty, two masks of one name,
        or a link that leads out of the folder.
    """
    data = list_masks(root, manifest, splits)
    if data.duplicates:
        raise ManifestError(f"{data.root}: {data.duplicates[0]}. Keep one of them.")
    return data


def list_masks(root: str | os.PathLike[str], manifest: Manifest, splits: Iterable[str] | None = None) -> DataSet:
    """Do what `find_masks` does, but list two masks of one name instead of raising."""
    root = _existing_folder(root)
    asked = [splits] if isinstance(splits, str) else list(splits or ())
    known = [split.name for split in manifest.splits]
    for name in asked:
        if name not in known:
            raise ManifestError(f"{root}: split {name!r} is unknown. {manifest.name} has {', '.join(known)}.")
    chosen = [split for split in manifest.splits if (split.name in asked if asked else not split.optional)]
    masks: dict[tuple[str, str], str] = {}
    photos: dict[tuple[str, str], str] = {}
    duplicates: list[str] = []
    listed_only: list[str] = []
    for layout in manifest.layouts:
        found = {split for split, _ in masks}
        files = _Files(root, layout, [split for split in chosen if split.name not in found])
        here, twice = files.masks()
        held = {split for split, _ in here}
        masks |= here
        duplicates += twice
        photos |= {key: path for key, path in files.photos().items() if key[0] in held}
        listed_only += files.listed_only(here)
    found = {split for split, _ in masks}
    if not masks or set(asked) - found:
        raise _no_masks(root, manifest, [name for name in asked if name not in found], bool(masks))
    order = {name: index for index, name in enumerate(known)}
    keys = sorted(masks, key=lambda key: (order[key[0]], key[1]))
    return DataSet(
        root,
        manifest,
        tuple(Source(name, split, masks[split, name], photos.get((split, name), "")) for split, name in keys),
        tuple(sorted(path for key, path in photos.items() if key not in masks)),
        tuple(duplicates),
        tuple(listed_only),
    )


def _no_masks(root: Path, manifest: Manifest, missing: list[str], some: bool) -> ManifestError:
    if some:
        return ManifestError(f"{root}: split {missing[0]!r} of {manifest.name} has no masks. Leave it out or add them.")
    what = f"{manifest.name} split {', '.join(missing)}" if missing else manifest.name
    optional = [split.name for split in manifest.splits if split.optional]
    hint = f" (splits {', '.join(optional)} are taken only where they are named)" if optional and not missing else ""
    return ManifestError(
        f"{root}: no masks of {what}: looked for {_patterns(manifest)}{hint}. "
        "Check the folder, or choose another format."
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
        if any(_Files(root, layout, manifest.splits).masks()[0] for layout in masks_only):
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
        self._layout = layout
        self._splits = tuple(split for split in splits if not layout.splits or split.name in layout.splits)
        self._excluded = {name.lower() for name in layout.exclude}
        self._links_out: set[str] = set()
        self._lists = {split.name: self._read_list(split) for split in self._splits} if layout.lists else {}
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

    def masks(self) -> tuple[dict[tuple[str, str], str], list[str]]:
        """Return (split, name) -> mask, and a sentence for each name that has two masks: the first one counts."""
        found: dict[tuple[str, str], str] = {}
        twice = []
        for key, path in self._match(self._layout.masks, photos=False):
            if found.setdefault(key, path) != path:
                twice.append(f"{found[key]} and {path} are both the mask {key[1]!r} of split {key[0]!r}")
        return found, twice

    def photos(self) -> dict[tuple[str, str], str]:
        """Return (split, name of the mask) -> photo; of two photos the one whose pattern stands first."""
        found: dict[tuple[str, str], str] = {}
        for key, path in self._match(self._layout.photos, photos=True):
            found.setdefault(key, path)
        return found

    def _match(self, patterns: Iterable[str], *, photos: bool) -> Iterator[tuple[tuple[str, str], str]]:
        taken: set[tuple[str, str]] = set()
        rules = [(s.name, *ends) for pattern in patterns for s in self._splits for ends in _expand(pattern, s.folder)]
        for split, head, tail in rules:
            for path in self._paths:
                fits = path.startswith(head) and path.lower().endswith(tail) and len(path) > len(head) + len(tail)
                claim = (split if self._lists else "", path)  # two lists may name one mask
                if not fits or claim in taken:
                    continue
                name = self._name(split, path[len(head) : len(path) - len(tail)], photos)
                if name is None:
                    continue
                self._check(path)
                taken.add(claim)
                yield (split, name), path

    def _name(self, split: str, name: str, photo: bool) -> str | None:
        """Return the name of a mask or of a photo's mask; None if it is not in the split."""
        if self._lists:
            return name if name in self._lists[split] else None
        if split not in self._layout.numbers:
            return None if self._layout.numbers else name
        first, last = self._layout.numbers[split]
        if not name.isdecimal():
            return None
        number = int(name) + (first - 1 if photo else 0)
        return f"{number:0{len(name)}}" if first <= number <= last else None

    def listed_only(self, masks: Container[tuple[str, str]]) -> list[str]:
        """Return the names, as 'split/name', that stand in a list and are not among ``masks``."""
        return [
            f"{split}/{name}" for split, names in self._lists.items() for name in names if (split, name) not in masks
        ]

    def _read_list(self, split: Split) -> dict[str, None]:
        """Return the names of a split, in order; none if the file is missing."""
        path = f"{self._base}/{self._layout.lists.replace('{split}', split.folder)}"
        if not _is_below(os.path.realpath(path), self._base):
            raise self._leads_out(path)
        try:
            return dict.fromkeys(Path(path).read_text(encoding="utf-8").split())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{path}: the list of a split cannot be read ({error}). Mend the file.") from error

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
