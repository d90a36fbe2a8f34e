"""Training classes: raw ids -> classes 0..k-1 or VOID, from what a store says; nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from qgn.errors import TrainingError
from quadcodec.store import LabelStore

from .batch import VOID

LIKELY_VOID = 255
"""The id that most data sets use for void, and some for foreground."""
_SHOWN = 6
"""Ids that a message lists."""


@dataclass(frozen=True)
class ClassMap:
    """Say which raw ids are which training class.

    Attributes
    ----------
    names : of the classes 0..k-1.
    table : raw id -> class, or VOID where it is ignored; every class has a raw id.
    colors : (R, G, B) of each class.
    """

    names: tuple[str, ...]
    table: dict[int, int]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        empty = [name for k, name in enumerate(self.names) if k not in self.table.values()]
        if empty:
            raise ValueError(f"classes {empty} have no raw id")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def raw_ids(self) -> tuple[int, ...]:
        """The lowest raw id of each class: what a predicted class is written as."""
        return _lowest_ids(self.table, len(self))

    def name_of(self, raw: int) -> str | None:
        """Return the class of a raw id, None where it is ignored."""
        k = self.table[raw]
        return None if k == VOID else self.names[k]


def _lowest_ids(table: dict[int, int], num_classes: int) -> tuple[int, ...]:
    return tuple(min(raw for raw, c in table.items() if c == k) for k in range(num_classes))


def count_pixels(store: LabelStore, indices: Iterable[int]) -> dict[int, int]:
    """Return raw id -> number of pixels over some images, from the trees."""
    pixels: dict[int, int] = {}
    for index in indices:
        for raw, count in store.quadtree(index).class_pixels().items():
            pixels[raw] = pixels.get(raw, 0) + count
    return dict(sorted(pixels.items()))


def class_map(store: LabelStore, present: Collection[int], void: Collection[int] | None = None) -> ClassMap:
    """Return the training classes of a store.

    Parameters
    ----------
    store : its classes and void ids count where it has them (a manifest named them).
    present : raw ids that occur; without training classes in the store these are the classes, in order.
    void : ids to ignore besides the store's; empty for none at all, not even those. A class whose ids are all
        ignored is no class.

    Raises
    ------
    TrainingError : an id that the store's classes do not name; or, in a plain folder, id 255 and nothing that
        says whether it is void; or no class, or more than 255.
    """
    ignored = set() if void is not None and not void else {*store.info.void, *(void or ())}
    if store.info.train_classes:
        table = {c.id: VOID if c.train_id is None or c.id in ignored else c.train_id for c in store.classes}
        table |= dict.fromkeys(ignored, VOID)
        unknown = sorted(set(present) - set(table))
        if unknown:
            raise TrainingError(
                f"{store.path}: ids {unknown} occur, but the manifest {store.info.dataset!r} does not name them. "
                "Add them to its [labels], or ignore them with void=ID"
            )
        kept = sorted(set(table.values()) - {VOID})
        names = tuple(store.info.train_classes[k] for k in kept)
        table = {raw: VOID if k == VOID else kept.index(k) for raw, k in table.items()}
    else:
        if void is None and not ignored and LIKELY_VOID in present:
            raise TrainingError(
                f"{store.path}: id {LIKELY_VOID} occurs among {_first(sorted(present))}, and nothing says what it is. "
                f"Use void={LIKELY_VOID} if it is unlabelled, or void=none if it is a class"
            )
        named = {c.id: c.name for c in store.classes}
        ids = sorted(set(present) - ignored)
        names = tuple(named.get(raw, str(raw)) for raw in ids)
        table = {raw: k for k, raw in enumerate(ids)} | dict.fromkeys(ignored, VOID)
    if not 1 <= len(names) <= VOID:
        raise TrainingError(f"{store.path}: found {len(names)} training classes, expected 1..{VOID}. Remap the masks")
    colors = tuple(tuple(int(v) for v in store.palette[raw % 256]) for raw in _lowest_ids(table, len(names)))
    return ClassMap(names, table, colors)


def _first(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:_SHOWN])) + (", .." if len(ids) > _SHOWN else "")


def class_shares(classes: ClassMap, pixels: dict[int, int]) -> list[tuple[str, str, float]]:
    """Return (class or 'ignored', raw ids, share of pixels in percent), classes first."""
    total = sum(pixels.values())
    rows = []
    for k, name in [*enumerate(classes.names), (VOID, "ignored")]:
        raw = sorted(r for r, c in classes.table.items() if c == k and (k != VOID or r in pixels))
        share = 100 * sum(pixels.get(r, 0) for r in raw) / total
        rows.append((name, " ".join(map(str, raw)), share))
    return rows
