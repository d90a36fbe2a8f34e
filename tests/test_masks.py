"""Masks on disk: ids come in exactly as stored, and go out in the form they came in."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from quadcodec.errors import MaskError
from quadcodec.masks import (
    default_palette,
    image_size,
    mask_form,
    mask_size,
    read_mask,
    write_mask,
)

RNG = np.random.default_rng(7)
COLORS = {(128, 64, 128): 7, (0, 0, 142): 26, (0, 0, 0): 0, (70, 130, 180): 23}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def ids(height: int, width: int, top: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Return random ids 0..top that hold both ends."""
    mask = RNG.integers(0, top, (height, width), endpoint=True).astype(dtype)
    mask.flat[0], mask.flat[-1] = top, 0
    return mask


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    samples: NDArray[Any],
    bits: int,
    color_type: int,
    *,
    interlaced: bool = False,
    extra: bytes = b"",
    stream: bytes | None = None,
) -> bytes:
    """Write a PNG bit by bit: (H, W) or (H, W, channels) samples, no filter. Independent of the code tested."""
    height, width = samples.shape[:2]
    raw = b""
    for y0, x0, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y0::down, x0::right]
        if part.size:
            for row in part.reshape(part.shape[0], -1):
                digits = "".join(format(int(value), f"0{bits}b") for value in row)
                digits += "0" * (-len(digits) % 8)
                raw += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(raw) if stream is None else stream)
        + chunk(b"IEND", b"")
    )


PLTE = chunk(b"PLTE", RNG.integers(0, 256, 768, np.uint8).tobytes())


def save(path: Path, data: bytes | Image.Image | NDArray[Any], **options: Any) -> Path:
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif isinstance(data, Image.Image):
        data.save(path, **options)
    else:
        np.save(path, data)
    return path


def palette_image(mask: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    return image


def check(path: Path, mask: NDArray[Any], form: str, **options: Any) -> None:
    """Read, size up and write a mask again: always the same ids and form."""
    got = read_mask(path, **options)
    assert got.dtype == mask.dtype
    np.testing.assert_array_equal(got, mask)
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert mask_form(path) == form
    height, width, bits = mask_size(path, **options)
    assert (height, width) == mask.shape
    assert bits >= 8 * mask.itemsize
    copy = path.parent / "deep" / "er" / path.name
    write_mask(copy, got, form, **options)
    np.testing.assert_array_equal(read_mask(copy, **options), mask)
    assert mask_form(copy) == form.replace("tiff:L;2", "tiff:L").replace("tiff:L;4", "tiff:L")
    assert not list(copy.parent.glob("*.partial"))


def error(path: Path, *parts: str, **options: Any) -> str:
    """Assert that reading fails in one line that starts with the path and holds all parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MaskError) as caught:
            read_mask(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (9, 16), (3, 33)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_gives_the_stored_ids(tmp_path, bits, size, interlaced):
    mask = ids(*size, 2**bits - 1, np.uint16 if bits == 16 else np.uint8)
    path = save(tmp_path / "a.png", png(mask, bits, 0, interlaced=interlaced))
    check(path, mask, {8: "png:L", 16: "png:I;16"}.get(bits, f"png:L;{bits}"))
    assert mask_size(path)[2] == (16 if bits == 16 else 8)


def test_pillow_would_have_scaled_small_grey(tmp_path):
    """The reason for all this: 4-bit grey 1 comes out of Pillow as 17."""
    path = save(tmp_path / "a.png", png(np.array([[0, 1, 15]], np.uint8), 4, 0))
    with Image.open(path) as image:
        assert np.array(image).tolist() == [[0, 17, 255]]
    assert read_mask(path).tolist() == [[0, 1, 15]]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_gives_indices_not_colors(tmp_path, bits, interlaced):
    mask = ids(11, 13, 2**bits - 1)
    path = save(tmp_path / "a.png", png(mask, bits, 3, extra=PLTE, interlaced=interlaced))
    check(path, mask, "png:P" if bits == 8 else f"png:P;{bits}")


def test_palette_transparency_and_text_do_not_matter(tmp_path):
    mask = ids(6, 6, 255)
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**27)))
    path = save(tmp_path / "a.png", png(mask, 8, 3, extra=PLTE + chunk(b"tRNS", bytes(256)) + bomb))
    check(path, mask, "png:P")


def test_grey_in_rgb_rgba_and_la(tmp_path):
    mask = ids(7, 5, 255)
    rgb = np.dstack([mask] * 3)
    opaque = np.full((7, 5, 1), 255, np.uint8)
    check(save(tmp_path / "rgb.png", png(rgb, 8, 2)), mask, "png:RGB")
    check(save(tmp_path / "rgba.png", png(np.dstack([rgb, opaque]), 8, 6)), mask, "png:RGBA")
    check(save(tmp_path / "la.png", png(np.dstack([mask, opaque]), 8, 4)), mask, "png:LA")
    check(save(tmp_path / "filtered.png", Image.fromarray(rgb)), mask, "png:RGB")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_color_masks(tmp_path, mode, suffix):
    mask = RNG.choice(list(COLORS.values()), (9, 8)).astype(np.uint8)
    by_id = {label: color for color, label in COLORS.items()}
    rgb = np.array([[by_id[v] for v in row] for row in mask.tolist()], np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(rgb).convert(mode))
    form = f"{'png' if suffix == 'png' else 'tiff'}:{mode}"
    check(path, mask, form, colors=COLORS)
    write_mask(tmp_path / f"b.{suffix}", mask, form, colors=COLORS)
    with Image.open(tmp_path / f"b.{suffix}") as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), rgb)


def test_color_masks_of_many_ids_are_16_bit(tmp_path):
    colors = {(0, 0, 0): 0, (0, 0, 255): 300, (255, 0, 0): 300}
    rgb = np.array([[[0, 0, 0], [0, 0, 255], [255, 0, 0]]], np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(rgb))
    check(path, np.array([[0, 300, 300]], np.uint16), "png:RGB", colors=colors)
    assert mask_size(path, colors=colors) == (1, 3, 16)
    with Image.open(tmp_path / "deep" / "er" / "a.png") as image:  # the colour that is named first
        assert np.array(image).tolist() == [[[0, 0, 0], [0, 0, 255], [0, 0, 255]]]
    with pytest.raises(MaskError, match=r"expected R = G = B"):
        read_mask(path)


def test_grey_and_palette_masks_ignore_colors(tmp_path):
    mask = ids(4, 4, 255)
    check(save(tmp_path / "l.png", Image.fromarray(mask)), mask, "png:L", colors=COLORS)
    check(save(tmp_path / "p.png", palette_image(mask)), mask, "png:P", colors=COLORS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff(tmp_path, compression):
    mask, wide, bits = ids(7, 9, 255), ids(7, 9, 65535, np.uint16), ids(7, 9, 1)
    options = {"compression": compression}
    check(save(tmp_path / "l.tif", Image.fromarray(mask), **options), mask, "tiff:L")
    check(save(tmp_path / "p.tiff", palette_image(mask), **options), mask, "tiff:P")
    check(save(tmp_path / "w.tif", Image.fromarray(wide), **options), wide, "tiff:I;16")
    check(save(tmp_path / "1.tif", Image.fromarray(bits.astype(bool)), **options), bits, "tiff:1")
    i32 = Image.fromarray(wide.astype(np.int32))
    check(save(tmp_path / "i.tif", i32, **options), wide, "tiff:I")
    rgb = Image.fromarray(np.dstack([mask] * 3))
    check(save(tmp_path / "rgb.tif", rgb, **options), mask, "tiff:RGB")


def test_big_endian_tiff(tmp_path):
    wide = ids(7, 9, 65535, np.uint16)
    path = save(tmp_path / "a.tif", Image.fromarray(wide.astype(">u2")))
    assert path.read_bytes()[:2] == b"MM"
    check(path, wide, "tiff:I;16B")


def tiff(
    mask: NDArray[Any],
    bits: int,
    photometric: int,
    sample_format: int = 1,
    order: str = "<",
    resolution_units: int = 1,
) -> bytes:
    """Write an uncompressed single-strip TIFF by hand."""
    rows = b""
    for row in mask:
        digits = "".join(format(int(v) & (2**bits - 1), f"0{bits}b") for v in row)
        digits += "0" * (-len(digits) % 8)
        rows += int(digits, 2).to_bytes(len(digits) // 8, "big")
    if bits == 16 and order == "<":
        rows = np.frombuffer(rows, ">u2").astype("<u2").tobytes()
    height, width = mask.shape
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(rows)),
        (296, 3, 1),
        (339, 3, sample_format),
    ]
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, resolution_units if tag == 296 else 1) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(rows)) + rows + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_ids_are_as_stored_even_if_white_is_zero(tmp_path, bits, photometric, order):
    mask = ids(6, 8, 2**bits - 1)
    form = {1: "tiff:1", 8: "tiff:L"}.get(bits, f"tiff:L;{bits}")
    check(save(tmp_path / "a.tif", tiff(mask, bits, photometric, order=order)), mask, form)


def test_signed_tiff(tmp_path):
    mask = ids(4, 5, 100, np.int8)
    check(save(tmp_path / "ok.tif", tiff(mask, 8, 1, 2)), mask.astype(np.uint8), "tiff:L")
    mask[2, 3] = -1
    error(save(tmp_path / "a.tif", tiff(mask, 8, 1, 2)), "(y=2, x=3)", "holds -1", "0..65535", "Map the ids")
    wide = mask.astype(np.int32)
    error(save(tmp_path / "b.tif", Image.fromarray(wide)), "(y=2, x=3)", "holds -1")
    wide[2, 3], wide[1, 1] = 0, 65536
    error(save(tmp_path / "c.tif", Image.fromarray(wide)), "(y=1, x=1)", "holds 65536")


@pytest.mark.parametrize(
    ("stored", "top", "back"),
    [
        ("u1", 255, "u1"),
        ("<u2", 65535, "u2"),
        (">u2", 3, "u2"),
        ("?", 1, "u1"),
        ("i1", 127, "u1"),
        ("<i8", 255, "u1"),
        (">i4", 256, "u2"),
        ("<u8", 65535, "u2"),
        ("<i2", 0, "u1"),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, stored, top, back, order):
    mask = ids(5, 6, top, back)
    path = save(tmp_path / "a.npy", np.asarray(mask.astype(stored), order=order))
    check(path, mask, f"npy:{np.dtype(stored).str}")


def test_content_counts_not_the_suffix(tmp_path):
    mask = ids(5, 5, 9)
    check(save(tmp_path / "a.tif", png(mask, 8, 0)), mask, "png:L")


def test_missing_empty_and_foreign_files(tmp_path):
    error(tmp_path / "no.png", "no such file", "Check the path")
    error(tmp_path, "cannot be read: Is a directory")
    error(save(tmp_path / "empty.png", b""), "empty (0 bytes)", "again")
    jpeg = save(tmp_path / "a.jpg", Image.fromarray(ids(8, 8, 255)))
    error(jpeg, "JPEG", "changes ids", "PNG, TIFF or .npy")
    error(save(tmp_path / "a.gif", palette_image(ids(4, 4, 9))), "starts with b'GIF8", "PNG, TIFF or .npy")
    error(save(tmp_path / "a.txt", b"hello"), "starts with b'hello'")


def test_pixels_that_are_no_ids(tmp_path):
    rgb = np.dstack([ids(6, 5, 200)] * 3)
    rgb[4, 2] = 9, 9, 8
    path = save(tmp_path / "rgb.png", Image.fromarray(rgb))
    error(path, "(y=4, x=2)", "(9, 9, 8)", "expected R = G = B", "[colors]")
    rgb[:] = 0, 0, 142
    rgb[1, 3] = 1, 2, 3
    path = save(tmp_path / "color.png", Image.fromarray(rgb))
    error(path, "(y=1, x=3)", "(1, 2, 3)", "none of the 4 known", "[colors]", colors=COLORS)
    rgba = np.full((3, 4, 4), 255, np.uint8)
    rgba[2, 1, 3] = 254
    error(save(tmp_path / "a.png", Image.fromarray(rgba)), "(y=2, x=1)", "alpha 254", "without alpha")
    array = np.zeros((3, 4), np.int16)
    array[2, 3] = -7
    error(save(tmp_path / "a.npy", array), "(y=2, x=3)", "holds -7", "0..65535")
    error(save(tmp_path / "rgb2.png", png(rgb, 8, 2)), "70000", colors={(0, 0, 142): 70000, (1, 2, 3): 0})


def test_kinds_of_samples_that_are_refused(tmp_path):
    for color_type, channels in ((2, 3), (4, 2), (6, 4)):
        path = save(tmp_path / "a.png", png(np.zeros((2, 2, channels), np.uint16), 16, color_type))
        error(path, f"16 bits a sample and colour type {color_type}", "Save the ids as grey")
    error(save(tmp_path / "f.tif", Image.fromarray(np.zeros((2, 2), np.float32))), "mode F", "whole numbers")
    error(save(tmp_path / "c.tif", Image.new("CMYK", (2, 2))), "mode CMYK")
    rgb = Image.fromarray(np.dstack([ids(16, 16, 255)] * 3))
    error(save(tmp_path / "j.tif", rgb, compression="jpeg"), "JPEG compression changes ids")
    for array in (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float64), np.zeros(4, np.uint8)):
        error(save(tmp_path / "a.npy", array), str(array.shape), str(array.dtype), "(height, width)")
    np.save(tmp_path / "o.npy", np.array([[{}]]), allow_pickle=True)
    error(tmp_path / "o.npy", "object")
    error(save(tmp_path / "z.npy", np.zeros((0, 4), np.uint8)))


def test_more_than_one_image(tmp_path):
    page = Image.fromarray(ids(4, 4, 9))
    path = save(tmp_path / "a.tif", page, save_all=True, append_images=[page, page])
    error(path, "3 pages", "expected one")
    other = Image.fromarray(ids(4, 4, 9))
    error(save(tmp_path / "a.png", page, save_all=True, append_images=[other]), "animated")


def test_bombs_are_refused_by_their_header(tmp_path):
    huge = struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge)
    path = save(tmp_path / "a.png", start + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    message = error(path, "32768x32768", str(2**29), "max_pixels")
    for call in (mask_size, mask_form):
        with pytest.raises(MaskError) as caught:
            call(path)
        assert str(caught.value) == message
    small = save(tmp_path / "b.png", png(ids(10, 10, 3), 8, 0))
    error(small, "10x10", max_pixels=99)
    assert read_mask(small, max_pixels=100).shape == (10, 10)
    error(save(tmp_path / "b.tif", Image.fromarray(ids(10, 10, 3))), "10x10", max_pixels=99)
    error(save(tmp_path / "b.npy", ids(10, 10, 3)), "10x10", max_pixels=99)
    stream = zlib.compress(bytes(2**24))
    error(save(tmp_path / "c.png", png(ids(4, 4, 3), 8, 0, stream=stream)), "expected 20")


def test_our_bound_not_that_of_pillow(tmp_path, monkeypatch):
    """Pillow warns at MAX_IMAGE_PIXELS and raises at twice that; neither reaches our caller."""
    mask = ids(10, 10, 255)
    paths = [save(tmp_path / "a.png", png(mask, 8, 0)), save(tmp_path / "a.tif", Image.fromarray(mask))]
    photo = save(tmp_path / "a.jpg", Image.fromarray(mask))
    for bound in (60, 10):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
        for path in paths:
            np.testing.assert_array_equal(read_mask(path), mask)
            assert mask_size(path) == (10, 10, 8)
        assert image_size(photo) == (10, 10)
        assert bound == Image.MAX_IMAGE_PIXELS


def samples_of_every_kind() -> dict[str, bytes]:
    mask = ids(12, 11, 255)
    buffers = {name: io.BytesIO() for name in ("a.tif", "lzw.tif", "w.npy")}
    Image.fromarray(mask).save(buffers["a.tif"], format="TIFF")
    Image.fromarray(mask).save(buffers["lzw.tif"], format="TIFF", compression="tiff_lzw")
    np.save(buffers["w.npy"], mask.astype(np.uint16))
    return {"a.png": png(mask, 8, 0)} | {name: buffer.getvalue() for name, buffer in buffers.items()}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "w.npy"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_every_truncation_is_an_error(tmp_path, name, tolerant, monkeypatch):
    """Also where the program has told Pillow to load truncated files."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = samples_of_every_kind()[name]
    whole = read_mask(save(tmp_path / name, data))
    for length in range(len(data)):
        path = save(tmp_path / name, data[:length])
        try:
            got = read_mask(path)
        except MaskError as caught:
            assert str(caught).startswith(f"{path}: ")  # noqa: PT017
        else:  # a tag past the pixels that no one needs
            assert name.endswith(".tif")
            np.testing.assert_array_equal(got, whole)


def test_every_flipped_bit_of_a_png_is_an_error(tmp_path):
    data = samples_of_every_kind()["a.png"]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        error(save(tmp_path / "a.png", bytes(flipped)))


@pytest.mark.parametrize("name", ["a.tif", "lzw.tif", "w.npy"])
def test_flipped_bits_raise_nothing_else(tmp_path, name):
    data = samples_of_every_kind()[name]
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path = save(tmp_path / name, bytes(flipped))
        try:
            read_mask(path, max_pixels=2**20)
        except MaskError as caught:
            assert str(caught).startswith(f"{path}: ")  # noqa: PT017


def test_image_data_that_is_too_short_or_too_long(tmp_path):
    """All checksums hold, yet rows are missing: Pillow would fill them with zeros."""
    mask = ids(10, 10, 255)
    rows = np.pad(mask, ((0, 0), (1, 0))).tobytes()
    for raw in (rows[:-1], rows[:55], b"", rows + b"\0"):
        path = save(tmp_path / "a.png", png(mask, 8, 0, stream=zlib.compress(raw)))
        error(path, "truncated or damaged", f"{len(raw)} bytes of image data, expected 110")
    error(save(tmp_path / "a.png", png(mask, 8, 0, stream=zlib.compress(rows)[:-4])), "and an end")
    error(save(tmp_path / "a.png", png(mask, 8, 0, stream=b"nonsense")), "truncated or damaged")


def test_damage_is_named(tmp_path):
    data = png(ids(10, 10, 255), 8, 0)
    error(save(tmp_path / "a.png", data[:-20]), "breaks off in chunk b'IDAT' at byte 33", "again")
    error(save(tmp_path / "a.png", data[:-12]), f"breaks off after {len(data) - 12} bytes")
    flipped = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    error(save(tmp_path / "a.png", flipped), "chunk b'IDAT' at byte 33 fails its checksum")
    error(save(tmp_path / "a.png", data[:20]), "no whole PNG header")


def test_image_size(tmp_path):
    photo = Image.fromarray(np.dstack([ids(6, 9, 255)] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.tif", "a.webp"):
        assert image_size(save(tmp_path / name, photo, exif=exif if name == "a.jpg" else b"")) == (6, 9)
    bad = save(tmp_path / "b.jpg", (tmp_path / "a.jpg").read_bytes()[:40])
    with pytest.raises(MaskError, match=r"b\.jpg: not a photo that can be read"):
        image_size(bad)
    with pytest.raises(MaskError, match=r"no such file"):
        image_size(tmp_path / "none.jpg")
    with pytest.raises(MaskError, match=r"empty"):
        image_size(save(tmp_path / "c.jpg", b""))


def test_write_refuses_what_the_form_cannot_hold(tmp_path):
    mask = ids(4, 5, 300, np.uint16)
    mask[:] = 0
    mask[2, 3] = 300
    path = tmp_path / "a.png"
    for form, top in (("png:L", 255), ("png:L;1", 1), ("png:L;2", 3), ("png:P;4", 15), ("png:RGB", 255)):
        with pytest.raises(MaskError) as caught:
            write_mask(path, mask, form)
        assert str(caught.value).startswith(f"{path}: pixel (y=2, x=3) holds 300, but {form} ends at {top}.")
    for form in ("npy:|b1", "npy:|u1", "tiff:L", "tiff:1"):
        with pytest.raises(MaskError, match="holds 300"):
            write_mask(path, mask, form)
    for form in ("", "png", "png:F", "png:1", "jpeg:L", "npy:<f8", "npy:what", "npy:O", "tiff:P;4"):
        with pytest.raises(MaskError, match="unknown form"):
            write_mask(path, mask, form)
    with pytest.raises(MaskError, match=r"\(y=2, x=3\) holds id 300, which has no colour.*\[colors\]"):
        write_mask(path, mask, "png:RGB", colors=COLORS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_write_leaves_nothing_half_written(tmp_path, monkeypatch, kind):
    path = save(tmp_path / "a.png", b"before")
    seen = []

    def full(descriptor: int) -> None:
        seen.extend(p.name for p in tmp_path.iterdir() if p != path)
        raise kind(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MaskError if kind is OSError else kind, match="No space left on device") as caught:
        write_mask(path, ids(4, 4, 3), "png:L")
    assert kind is not OSError or str(caught.value).startswith(f"{path}: cannot be written: No space left on device. ")
    assert seen == [f".a.png.{os.getpid()}.partial"]  # synced to disk under a name that no other process writes
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"before"
    with pytest.raises(MaskError, match="cannot be written"):
        write_mask(path / "b.png", ids(4, 4, 3), "png:L")


@pytest.mark.parametrize(("form", "entries"), [("png:P", 256), ("png:P;4", 16), ("png:P;1", 2), ("tiff:P", 256)])
def test_palette_files_show_class_colors(tmp_path, form, entries):
    path = tmp_path / "a"
    mask = ids(4, 4, 1)
    given = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    write_mask(path, mask, form, palette=given)
    with Image.open(path) as image:
        table = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    expected = default_palette()
    expected[:2] = given
    np.testing.assert_array_equal(table, expected[:entries])
    write_mask(path, mask, form)
    with Image.open(path) as image:
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]


def test_default_palette():
    palette = default_palette()
    assert palette.dtype == np.uint8
    assert palette[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(palette, axis=0)) == 256


def test_odd_tags_do_not_matter(tmp_path):
    """They make Pillow warn; a mask is none the worse for them."""
    mask = ids(5, 5, 9)
    path = save(tmp_path / "a.tif", tiff(mask, 8, 1, resolution_units=2))
    with pytest.warns(UserWarning, match="too many entries"), Image.open(path) as image:
        image.load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(path, mask, "tiff:L")
        assert image_size(path) == (5, 5)


def test_real_masks(real_data):
    paths = sorted(p for p in real_data.rglob("*.png") if "photos" not in p.parts and "leftImg" not in str(p))
    kinds = set()
    for path in paths[:: max(1, len(paths) // 150)]:
        if path.parent.name in ("train", "val", "images"):
            continue
        with Image.open(path) as image:
            expected = np.array(image)
        kinds.add(mask_form(path))
        if path.name.endswith("_color.png"):
            continue
        got = read_mask(path)
        np.testing.assert_array_equal(got, expected[..., 0] if expected.ndim == 3 else expected)
        assert mask_size(path) == (*got.shape, 8 * got.itemsize)
    assert kinds >= {"png:L", "png:P", "png:RGB"}


def test_real_color_and_instance_masks(real_data, tmp_path):
    folder = real_data / "cityscapes/gtFine/train/aachen"
    stem = sorted(folder.glob("*_color.png"))[0].name.removesuffix("color.png")
    labels = read_mask(folder / f"{stem}labelIds.png")
    instances = read_mask(folder / f"{stem}instanceIds.png")
    assert instances.dtype == np.uint16
    assert mask_form(folder / f"{stem}instanceIds.png") == "png:I;16"
    np.testing.assert_array_equal(np.where(instances < 1000, instances, instances // 1000), labels)
    colors = {(128, 64, 128): 7, (244, 35, 232): 8}
    assert mask_form(folder / f"{stem}color.png") == "png:RGBA"
    error(folder / f"{stem}color.png", "(y=0, x=0)", "none of the 2 known", colors=colors)
    with Image.open(folder / f"{stem}color.png") as image:
        pixels = np.unique(np.array(image).reshape(-1, 4)[:, :3], axis=0)
    every = {tuple(int(v) for v in color): index for index, color in enumerate(pixels)}
    got = read_mask(folder / f"{stem}color.png", colors=every)
    write_mask(tmp_path / "color.png", got, "png:RGBA", colors=every)
    with Image.open(folder / f"{stem}color.png") as old, Image.open(tmp_path / "color.png") as new:
        np.testing.assert_array_equal(np.array(old), np.array(new))
