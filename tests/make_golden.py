"""Make the golden files of a format version: ``python -m tests.make_golden``, once, on the day it is frozen.

In tests/golden/vN/, masks.npz holds the masks, NAME-WHAT.qdtr a record each, tables.bin the tables of those that end in
'own', store.zip a store. No file is ever replaced: a later version gets a folder of its own, and readers keep reading
all of them.
"""

import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import quadcodec
from quadcodec import small
from quadcodec.header import FORMAT_VERSION
from quadcodec.record import SMALL_START
from quadcodec.scenes import street_labels
from quadcodec.table_training import train_on_masks
from quadcodec.tables import Tables

GOLDEN = Path(__file__).parent / "golden"


def masks() -> dict[str, np.ndarray]:
    """Return a mask of each kind that codecs meet, by name."""
    rng = np.random.default_rng(0)
    scene = street_labels(seed=0, size=(530, 701))
    blocks = np.kron(rng.integers(0, 400, (30, 40)), np.ones((5, 5), int))
    return {
        "scene": scene,
        "crop": scene[200:277, 300:401],
        "void": np.full((65, 33), 255, np.uint8),
        "pixel": np.array([[7]], np.uint8),
        "checkerboard": (np.indices((40, 41)).sum(axis=0) % 2).astype(np.uint8),
        "noise": rng.integers(0, 256, (64, 70)).astype(np.uint8),
        "many": (157 * blocks).astype(np.uint16),
        "wide": rng.integers(0, 2**16, (48, 50)).astype(np.uint16),
    }


def records(arrays: dict[str, np.ndarray], tables: Tables) -> dict[str, bytes]:
    """Return records by 'mask-what' for every profile and option of the format."""
    made = {}
    for name, mask in arrays.items():
        for profile in ("fast", "raw", "small"):
            made[f"{name}-{profile}"] = quadcodec.encode(mask, profile=profile)
    for levels in (2, 3, 10):
        made[f"crop-fast-{levels}"] = quadcodec.encode(arrays["crop"], levels=levels)
    made["scene-small-own"] = quadcodec.encode(arrays["scene"], profile="small", tables=tables)
    head = made["scene-small"][:SMALL_START]
    for side in (None, 64):
        made[f"scene-small-{side or 'whole'}"] = head + small.encode(arrays["scene"], tile=side)
    return made


def main() -> None:
    """Write the files of the current version; refuse if there are any."""
    folder = GOLDEN / f"v{FORMAT_VERSION}"
    if folder.exists():
        sys.exit(f"{folder}: exists already. The files of a version are never replaced")
    arrays = masks()
    folder.mkdir(parents=True)
    tables = train_on_masks([arrays["scene"]])
    (folder / "tables.bin").write_bytes(tables.packed)
    np.savez_compressed(folder / "masks.npz", **arrays)
    for name, record in records(arrays, tables).items():
        (folder / f"{name}.qdtr").write_bytes(record)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "store.zarr"
        names = ["crop", "void", "many"]
        quadcodec.write(path, [arrays[name] for name in names], names=names, splits=["train", "train", "val"],
                        classes={7: "road"}, void=[255])  # fmt: skip
        with zipfile.ZipFile(folder / "store.zip", "x", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(path))


if __name__ == "__main__":
    main()
