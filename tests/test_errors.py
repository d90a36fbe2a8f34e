"""Every row of docs/errors.md is raised here, but for training's (tests/qgn/test_errors.py); no message lacks a row."""

import os
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

import google_crc32c
import numpy as np
import pytest
import zarr
import zstandard
from PIL import Image

import quadcodec
from quadcodec import convert as convert_module
from quadcodec import entropy, small
from quadcodec.bench import sample
from quadcodec.build import create, finish, write_shard
from quadcodec.convert import check_target, convert, plan_conversion
from quadcodec.errors import QuadcodecError
from quadcodec.export import export_masks
from quadcodec.fast import read_layout
from quadcodec.files import exclusive, new_folder
from quadcodec.info import Columns, StoreInfo
from quadcodec.manifest import detect_manifest, find_masks, load_manifest
from quadcodec.masks import image_size, read_mask, write_mask
from quadcodec.ngff import add_levels, check_levels, stored_levels
from quadcodec.render import overlay, show_picture, write_picture
from quadcodec.repair import accept, repair
from quadcodec.report import check_report, read_bench
from quadcodec.scenes import write_scenes
from quadcodec.shard import EMPTY, shard_path
from quadcodec.stats import stats
from quadcodec.store import open_store
from quadcodec.tables import NUM_STATES, NUM_WEIGHTS, Tables
from quadcodec.tables import pack as pack_tables
from quadcodec.view import _read_photo

from .conftest import blocks
from .crash_harness import masks
from .errors_table import messages, rows
from .test_convert import die
from .test_corrupt import SAMPLES, record_of, reseal
from .test_repair import edit

SECTIONS = ("Masks", "Data sets", "Writing stores", "Reading stores", "Records")


def file(t, data, name="a.png"):
    (t / name).write_bytes(data)
    return t / name


def png(t, array, **options):
    Image.fromarray(np.asarray(array)).save(t / "a.png", **options)
    return t / "a.png"


def npy(t, array):
    np.save(t / "a.npy", np.asarray(array))
    return t / "a.npy"


def tiff(t, array, **options):
    Image.fromarray(np.asarray(array)).save(t / "a.tif", **options)
    return t / "a.tif"


GREY = np.zeros((4, 4), np.uint8)
RGB = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def many(t, kind):
    pages = [Image.fromarray(GREY + i) for i in range(2)]
    pages[0].save(t / f"a.{kind}", save_all=True, append_images=pages[1:])
    return t / f"a.{kind}"


def without_display():
    with mock.patch.dict(os.environ, clear=True):
        show_picture(RGB, "title")


def without_viewer():
    with mock.patch.dict(os.environ, DISPLAY=":0"), mock.patch("PIL.ImageShow.show", return_value=False):
        show_picture(RGB, "title")


def wide_png(t):
    import struct

    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return file(t, b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr)))


def huge(height, width):
    return np.broadcast_to(np.uint8(0), (height, width))


MASKS = {
    "no such file. Check the path": lambda t: read_mask(t / "none.png"),
    "the file is empty": lambda t: read_mask(file(t, b"")),
    "truncated or damaged": lambda t: read_mask(file(t, png(t, GREY).read_bytes()[:-20])),
    "a JPEG file": lambda t: read_mask(file(t, b"\xff\xd8\xff")),
    "Convert the mask to one of them": lambda t: read_mask(file(t, b"GIF89a")),
    "expected at least 1x1": lambda t: read_mask(npy(t, np.zeros((0, 3), np.uint8))),
    "the header claims": lambda t: read_mask(png(t, GREY), max_pixels=15),
    "PNG of": lambda t: read_mask(wide_png(t)),
    "an animated PNG": lambda t: read_mask(many(t, "png")),
    "Save it without alpha": lambda t: read_mask(png(t, np.zeros((2, 2, 4), np.uint8))),
    "a TIFF of": lambda t: read_mask(many(t, "tif")),
    "a TIFF with JPEG compression": lambda t: read_mask(tiff(t, GREY, compression="jpeg")),
    "TIFF of mode": lambda t: read_mask(tiff(t, np.zeros((2, 2), np.float32))),
    "whole numbers or booleans": lambda t: read_mask(npy(t, np.zeros((2, 2)))),
    "Map the ids of the mask into that range": lambda t: read_mask(npy(t, [[-1]])),
    "expected R = G = B": lambda t: read_mask(png(t, RGB)),
    "Add it to [colors] of the manifest": lambda t: read_mask(png(t, RGB), colors={(0, 0, 0): 1}),
    "Choose a wider form": lambda t: write_mask(t / "b.png", GREY + 16, "png:L;4"),
    "unknown form": lambda t: write_mask(t / "b.png", GREY, "gif:P"),
    "which has no colour": lambda t: write_mask(t / "b.png", GREY, "png:RGB", colors={(1, 2, 3): 4}),
    "not a photo that can be read": lambda t: image_size(file(t, b"text")),
    "cannot be read:": lambda t: read_mask(t),
    "Free space or choose another place": lambda t: write_mask(file(t, b"") / "b.png", GREY, "png:L"),
    "expected uint8 or uint16 of shape (H, W)": lambda t: quadcodec.encode(np.zeros((2, 2))),
    "Cut it into tiles": lambda t: quadcodec.encode(huge(2**30 + 1, 1)),
    "new ids must lie in 0..65535": lambda t: tree().remap({0: 70000}),
    "are not in the label map": lambda t: tree().remap({}),
    "a record needs (0, 0)": lambda t: quadcodec.encode_tree(tree().flip_horizontal()),
    "holds one class only": lambda t: quadcodec.encode_tree(
        quadcodec.LinearQuadtree(np.array([-1, 1, 1, 1, 1], np.int16), (4, 1), 2, 2)
    ),
    "Resize one of them to the other": lambda t: overlay(RGB, GREY[:2]),
    "pictures are written as PNG": lambda t: write_picture(t / "a.jpg", RGB),
    "Choose another name or use --overwrite": lambda t: write_picture(png(t, RGB), RGB),
    "no display here": lambda t: without_display(),
    "no viewer of pictures": lambda t: without_viewer(),
    "a report is written as HTML": lambda t: check_report(t / "a.txt", overwrite=False),
    "is no result of a benchmark": lambda t: read_bench(file(t, b"{}", "bench.json")),
}


def tree():
    return quadcodec.LinearQuadtree.from_mask(np.zeros((3, 3), np.uint8))


def toml(t, text):
    return str(file(t, text.encode(), "own.toml"))


def named(t, *names):
    """Make masks of these paths."""
    for name in names:
        (t / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(t / "data" / name)
    return t / "data"


def refuse_scan(t, call):
    """Let the system refuse to list a folder."""
    with mock.patch("os.scandir", side_effect=PermissionError(13, "Permission denied")):
        call()


def link_out(t):
    root = named(t, "b.png")
    (root / "a.png").symlink_to(png(t, GREY))
    return root


def photo_of_another_size(t):
    root = named(t, "masks/a.png")
    (root / "images").mkdir()
    Image.fromarray(RGB[:2]).save(root / "images" / "a.png")
    return root


def photo_without_mask(t):
    root = photo_of_another_size(t)
    Image.fromarray(RGB).save(root / "images" / "a.png")
    Image.fromarray(RGB).save(root / "images" / "b.png")
    return root


DATA = {
    "no such manifest": lambda t: load_manifest(t / "none.toml"),
    "not TOML": lambda t: load_manifest(toml(t, "=")),
    ": key '": lambda t: load_manifest(toml(t, "name = 3")),
    "no masks found": lambda t: detect_manifest(file(t, b"text", "a.txt").parent),
    "no masks of": lambda t: find_masks(named(t, "a.png"), load_manifest("cityscapes")),
    "is unknown.": lambda t: find_masks(named(t, "a.png"), load_manifest("folder"), ["none"]),
    "has no masks. Leave it out": lambda t: find_masks(
        named(t, "gtFine/train/a/a_gtFine_labelIds.png"), load_manifest("cityscapes"), ["train", "val"]
    ),
    "the folder is empty": lambda t: detect_manifest(t),
    "no such folder. Check the path": lambda t: detect_manifest(t / "none"),
    "expected the folder of a data set": lambda t: detect_manifest(png(t, GREY)),
    "cannot be read: ": lambda t: refuse_scan(named(t, "a.png"), lambda: detect_manifest(t / "data")),
    "is a link that leads out of the folder": lambda t: plan_conversion(link_out(t)),
    "is no UTF-8 file name": lambda t: plan_conversion(named(t, os.fsdecode(b"\xff.png"))),
    "Keep one of them": lambda t: plan_conversion(named(t, "a.png", "a.PNG")),
    "this photo has no mask": lambda t: plan_conversion(photo_without_mask(t)),
    "no mask can be read": lambda t: plan_conversion(file(t, b"").parent, skip_bad=True),
    "Mend the pair or move it away": lambda t: plan_conversion(photo_of_another_size(t)),
    "found no mask, expected one at least": lambda t: sample._sample("d", "d", (), lambda i: GREY, 1.0),
    "names no training classes": lambda t: stats(one(t).path, classes=["train"]),
    "expected at least one scene": lambda t: write_scenes(t / "s", 0, (9, 9), 0),
    "Ask for a smaller size": lambda t: write_scenes(t / "s", 1, (2**20, 2**20), 0),
    "expected a whole number from 0 on": lambda t: write_scenes(t / "s", 1, (9, 9), -1),
}


def locked(t):
    with exclusive(t / "out.zarr"):
        convert(plan_conversion(masks(t / "m", 2, 9)), t / "out.zarr")


def unfinished(t):
    """Break a conversion off at its end; return its plan."""
    plan = plan_conversion(masks(t / "m", 66, 9))
    with mock.patch.object(convert_module, "finish", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        convert(plan, t / "out.zarr")
    return plan


def resumed(t, change=lambda t: None, **options):
    unfinished(t)
    change(t)
    convert(plan_conversion(t / "m", **options), t / "out.zarr", resume=True)


def changed_meanwhile(t):
    plan = plan_conversion(masks(t / "m", 2, 9))
    Image.fromarray(GREY).save(t / "m" / "0000.png")
    convert(plan, t / "out.zarr")


def worker_dies(t):
    with (
        mock.patch.object(convert_module, "_convert_shard", die),
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
    ):
        convert(plan_conversion(masks(t / "m", 2, 9)), t / "out.zarr", executor=executor)


def no_space(t, call):
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
        call(t)


def finish_without_a_shard(t):
    partial = t / "out.zarr.partial"
    info = StoreInfo(dataset="d", splits=("all",))
    create(
        partial, info, Columns(("a",), ("all",), ("a",), ("",), ("png:L",)), np.array([[4, 4]], np.uint32), GREY.dtype
    )
    finish(partial, t / "out.zarr")


def appeared(t):
    unfinished(t)
    partial = t / "out.zarr.partial"
    (t / "out.zarr").mkdir()
    finish(partial, t / "out.zarr")


def begun_anew(t):
    with new_folder(t / "out") as partial:
        (partial / ".made-by-quadcodec").write_text("another")


def into_current(t):
    with mock.patch("pathlib.Path.cwd", return_value=t.resolve()), new_folder(t):
        pass


def one(t, name="out.zarr", **options):
    return quadcodec.write(t / name, [blocks(i, 9, 12) for i in range(3)], **options)


WRITING = {
    "The file changed: convert again": changed_meanwhile,
    "cannot be made there. Make it first": lambda t: check_target(
        t / "none" / "out.zarr", overwrite=False, resume=False
    ),
    "another process is writing it": locked,
    "or replace it with --overwrite": lambda t: check_target(one(t).path, overwrite=False, resume=False),
    "an earlier conversion did not finish": lambda t: (
        unfinished(t),
        convert(plan_conversion(t / "m"), t / "out.zarr"),
    ),
    "so it is not overwritten": lambda t: check_target(t, overwrite=True, resume=False),
    "Use the same options, or begin anew": lambda t: resumed(t, levels=3),
    "another list of images": lambda t: resumed(t, lambda t: (t / "m" / "0000.png").unlink()),
    "has another size than when the run was begun": lambda t: resumed(
        t, lambda t: Image.fromarray(GREY).save(t / "m" / "0000.png")
    ),
    "a worker process died": worker_dies,
    "cannot be written (": lambda t: no_space(t, lambda t: write_shard(t, 0, [b"x"], 64)),
    "was not written (": lambda t: one(file(t, b"")),
    "are missing. Convert again with --resume": finish_without_a_shard,
    "Move it away, then run again with --resume": appeared,
    "Choose another name or delete it": lambda t: one(t) and one(t),
    "no masks to write": lambda t: quadcodec.write(t / "out.zarr", []),
    "expected the same number of each": lambda t: one(t, names=["a"]),
    "a name stands twice in a split": lambda t: one(t, names=["a", "b", "a"]),
    "Choose a folder that is new or empty": lambda t: export_masks(one(t), t),
    "cannot be replaced as a whole": into_current,
    "quadcodec did not make it": lambda t: (os.mkdir(t / "png.partial"), export_masks(one(t), t / "png")),  # noqa: PTH102
    "expected different ones of 0..": lambda t: check_levels([5, 5], 6, "out.zarr"),
    "lacks levels": lambda t: (add_levels(one(t).path, [5]), add_levels(t / "out.zarr", [4])),
    "has begun anew. Run one at a time": begun_anew,
}


def edited(t, call=open_store, **values):
    path = one(t).path
    edit(path / "zarr.json", lambda d: d["attributes"]["quadcodec"].update(values))
    call(path)


def without(t, key):
    path = one(t).path
    edit(path / "zarr.json", lambda d: d["attributes"]["quadcodec"].pop(key))
    open_store(path)


def damaged_shard(t, change, call=lambda path: open_store(path)[0]):
    path = one(t).path
    data = shard_path(path, 0).read_bytes()
    shard_path(path, 0).write_bytes(change(data))
    call(path)


def beyond_its_end(data):
    index = np.full((64, 2), EMPTY, "<u8")
    index[0] = 0, 10**6
    return data[:-1028] + index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little")


def other_record(t, mask, call, **options):
    path = one(t).path
    write_shard(path, 0, [quadcodec.encode(mask, **options)] * 3, 64)
    return call(path)


def shorter(t, name, call):
    path = one(t).path
    zarr.open_group(str(path), mode="r+")["index"][name].resize((2, *((2,) if name == "size" else ())))
    call(path)


def nothing_sound(t):
    path = one(t).path
    for name in os.listdir(path / "index"):  # noqa: PTH208
        if (path / "index" / name).is_dir():
            shutil.rmtree(path / "index" / name)
    repair(path)


def unsaid_levels(t):
    store = one(t)
    (store.path / "pyramid").mkdir()
    (store.path / "pyramid" / "zarr.json").write_text("{}")
    stored_levels(store)


READING = {
    "found nothing here": lambda t: open_store(t / "none.zarr"),
    "found no zarr v3 group": lambda t: open_store(t),
    "but not a label store": lambda t: (zarr.create_group(str(t / "z")), open_store(t / "z")),
    "is not complete": lambda t: edited(t, complete=False),
    "are not those of a label store": lambda t: without(t, "splits"),
    "its checksum differs": lambda t: edited(t, void=[9]),
    "its description is not what was written": lambda t: edited(t, repair, void=[9]),
    "no array of it is sound": nothing_sound,
    "Mend it with 'quadcodec repair' first": lambda t: damaged_shard(t, lambda d: b"?" + d[1:], accept),
    "the index does not fit the labels": lambda t: shorter(t, "size", open_store),
    "its columns differ in length": lambda t: shorter(t, "name", open_store),
    "cannot be read (": lambda t: (shard_path(one(t).path, 0).unlink(), open_store(t / "out.zarr")[0]),
    "the shard's index is damaged": lambda t: damaged_shard(t, lambda d: d[:-1] + bytes([d[-1] ^ 1])),
    "points beyond its end": lambda t: damaged_shard(t, beyond_its_end),
    "does not exist, expected": lambda t: one(t).indices("none"),
    "is in several splits": lambda t: one(t, names=["a"] * 3, splits=["x", "y", "z"]).find("a"),
    "holds no image": lambda t: (edited(t, accept, splits=["all", "val"]), stats(t / "out.zarr")),
    "Update quadcodec": lambda t: edited(t, format_version=99),
    "it came before version 1": lambda t: edited(t, format_version=0),
    "the index says": lambda t: other_record(t, GREY, lambda p: open_store(p)[0]),
    "the store says": lambda t: other_record(t, blocks(0, 9, 12), lambda p: open_store(p).quadtree(0), levels=3),
    "labels: a record of": lambda t: other_record(
        t, np.zeros((99, 99), np.uint8), lambda p: zarr.open(str(p))["labels"][0]
    ),
    "does not say which levels there are": unsaid_levels,
    "leads out of the image root": lambda t: _read_photo(one(t, images=["../a", "", ""]), 0, t, (4, 4)),
    "leads out of the folder. Run": lambda t: export_masks(one(t, names=["../a", "b", "c"]), t / "png"),
}


def flipped_record(at):
    record = bytearray(quadcodec.encode(SAMPLES["blocks"]))
    record[at] ^= 1
    quadcodec.decode(bytes(record))


def resealed(*edits, header=None):
    quadcodec.decode(reseal(record_of("blocks", "raw"), edits, header))


def first_section(change):
    record = record_of("blocks", "raw")
    section = read_layout(record).sections[0]
    resealed((0, 0, change(record[section.offset : section.offset + section.nbytes])))


def foreign_tables(t):
    levels = np.full(NUM_STATES, 20)
    own = Tables.from_bytes(pack_tables(levels, np.ones_like(levels), np.full(2 * NUM_WEIGHTS, 40000)))
    mask = np.tri(90, 70, dtype=np.uint8)
    small.decode(small.encode(mask, tables=own), 90, 70, np.uint8)


RECORDS = {
    "contradicts its checksum": lambda t: flipped_record(-1),
    "encoder writes": lambda t: resealed(header=(3, 77)),
    "It is not a quadcodec record": lambda t: quadcodec.decode(bytes(99)),
    "record holds": lambda t: quadcodec.decode(b"QDTR"),
    "record ends after": lambda t: quadcodec.decode(record_of("blocks")[:-1]),
    "entropy stage": lambda t: entropy.decompress(9, b"", 0),
    "section holds": lambda t: entropy.decompress(entropy.STORED, b"", 1),
    "zstd frame": lambda t: resealed((1, 1, b"no frame")),
    "section declares": lambda t: resealed((1, 1, zstandard.ZstdCompressor().compress(bytes(10**5)))),
    "another length than its content": lambda t: first_section(lambda data: data[:-1]),
    "raise max_pixels": lambda t: quadcodec.decode(record_of("blocks"), max_pixels=9),
    "two label indices": lambda t: first_section(lambda data: bytes(len(data))),
    "head gives": lambda t: small.decode(bytes([0, 1]), 9, 9, np.uint8),
    "head holds a number": lambda t: small.decode(bytes([0, 255, 255, 255, 255, 255, 255]), 9, 9, np.uint8),
    "needs the tables with checksum": foreign_tables,
    "tables: no zlib stream": lambda t: Tables.from_bytes(b"text"),
    "tables: no base64 text": lambda t: Tables.from_text("?"),
    "tables: found": lambda t: Tables.from_bytes(zlib.compress(b"short")),
}


CASES = MASKS | DATA | WRITING | READING | RECORDS


@pytest.mark.parametrize("row", rows(*SECTIONS))
def test_every_row_is_raised_as_one_line(row, tmp_path):
    assert row in CASES, f"docs/errors.md: no case raises {row!r}. Add one"
    with pytest.raises(QuadcodecError) as caught:
        CASES[row](tmp_path)
    assert row in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_case_has_a_row():
    assert set(CASES) == set(rows(*SECTIONS))


def test_every_message_has_a_row():
    table = rows(*SECTIONS)
    lacking = [f"{where}: {text}" for where, text in messages("quadcodec") if not any(row in text for row in table)]
    assert lacking == [], "add them to docs/errors.md"
    assert len(list(messages("quadcodec"))) > 100
