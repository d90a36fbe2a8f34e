"""What a store says of itself: its root attributes and the columns of its index (docs/format.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import StoreError
from .header import FORMAT_VERSION, PROFILES, check_version

__all__ = ["COLUMNS", "ClassInfo", "Columns", "Problem", "StoreInfo"]


@dataclass(frozen=True)
class ClassInfo:
    """Name one raw id: what pixels hold, what people read, what pictures show, what a network learns."""

    id: int
    name: str
    color: tuple[int, int, int] | None = None
    train_id: int | None = None
    """Training class in 0..k-1, or None where the id is ignored in training."""


@dataclass(frozen=True)
class Problem:
    """Name a mask file that was left out, and why."""

    path: str
    message: str


@dataclass(frozen=True)
class StoreInfo:
    """Describe a store: its root attributes (docs/format.md, section 5)."""

    dataset: str
    splits: tuple[str, ...]
    classes: tuple[ClassInfo, ...] = ()
    train_classes: tuple[str, ...] = ()
    """Names of the training classes, by train id; empty where the raw ids are the classes."""
    void: tuple[int, ...] = ()
    color_masks: bool = False
    """The mask files held the classes' colours, not ids."""
    image_root: str = ""
    published: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Split -> row of the paper's Table 5, where the manifest has one: '5' .. '0' and 'ratio', in percent."""
    skipped: tuple[Problem, ...] = ()
    """Masks that a conversion left out."""
    levels: int = 6
    profile: str = "fast"
    shard_size: int = 64
    format_version: int = FORMAT_VERSION
    software: str = "quadcodec"

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes as JSON holds them."""
        attributes: dict[str, Any] = asdict(self)
        return attributes

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: str) -> StoreInfo:
        """Read the attributes of the store ``where``; raise StoreError or UnsupportedVersionError."""
        check_version(attributes.get("format_version"), where)
        known = {member.name for member in fields(cls)}
        values = {k: v for k, v in attributes.items() if k in known}
        try:
            for key in ("splits", "train_classes", "void"):
                values[key] = tuple(values[key])
            values["classes"] = tuple(
                ClassInfo(**{**c, "color": tuple(c["color"]) if c["color"] else None}) for c in values["classes"]
            )
            values["skipped"] = tuple(Problem(**problem) for problem in values.get("skipped", ()))
            info = cls(**values)
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{where}: its attributes are not those of a label store ({error}). Convert again"
            ) from error
        if info.profile not in PROFILES:
            raise StoreError(f"{where}: profile {info.profile!r}, expected one of {sorted(PROFILES)}. Update quadcodec")
        return info


@dataclass(frozen=True)
class Columns:
    """List the images of a store, one entry an image, in index order."""

    name: tuple[str, ...]
    split: tuple[str, ...]
    source: tuple[str, ...]
    """Path of the mask file, relative to the source folder."""
    image: tuple[str, ...]
    """Path of the photo, relative to the image root; empty where there is none."""
    form: tuple[str, ...]
    """How the mask file held its ids (`quadcodec.masks.mask_form`), so that an export can restore it."""

    def __len__(self) -> int:
        return len(self.name)


COLUMNS = ("name", "split", "source", "image", "form")
