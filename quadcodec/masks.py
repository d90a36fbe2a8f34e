"""Masks on disk: read ids exactly as they are stored, and write them back in the form they came in.

A form is a short string that says what is needed to write an equal file: ``png:L``, ``png:L;4`` (4-bit grey),
``png:P``, ``png:RGB``, ``tiff:I;16``, ``npy:<i8``. After the colon stands Pillow's name of the mode, with the
bits of a sample where they are fewer than 8, or numpy's name of the type.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from .errors import MaskError
from .files import write_atomic
from .limits import MAX_PIXELS, size_problem

__all__ = ["default_palette", "image_size", "mask_form", "mask_size", "read_mask", "write_mask"]

Colors = Mapping[tuple[int, int, int], int]

_MAX_ID = 0xFFFF
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_NPY_MAGIC = b"\x93NUMPY"
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KINDS = "PNG, TIFF or .npy"

# (bits a sample, colour type) of IHDR: the mode. 16-bit grey-alpha and colour are not here: Pillow would cut
# them to 8 bits without a word.
_PNG_MODES = {(bits, kind): f"{'LP'[kind // 3]};{bits}" for kind in (0, 3) for bits in (1, 2, 4)}
_PNG_MODES |= {(8, 0): "L", (8, 2): "RGB", (8, 3): "P", (8, 4): "LA", (8, 6): "RGBA", (16, 0): "I;16"}
_PNG_BITS = {mode: key for key, mode in _PNG_MODES.items()}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_TIFF_MODES = ("1", "L", "P", "I;16", "I;16B", "I", "LA", "RGB", "RGBA")
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 259, 262, 339
_JPEG_IN_TIFF = (6, 7)
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow stretches such grey over 0..255: it shows ids times this

_pillow_lock = threading.Lock()


@contextmanager
def _pillow_settings() -> Iterator[None]:
    """Hold Pillow's process-wide switches: our own pixel bound, no warnings, nothing half decoded."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_mask(
    path: str | os.PathLike[str], *, colors: Colors | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Read the ids of a mask, exactly as stored.

    Parameters
    ----------
    path : PNG (grey of 1, 2, 4, 8 or 16 bits, palette, colour), TIFF of one page, or .npy; told by content.
    colors : (R, G, B) -> id. With it, every RGB file is a colour mask; without it, one holds grey ids,
        R = G = B. It says nothing about grey and palette files, whose values are the ids.
    max_pixels : refuse larger masks before they are decoded.

    Returns
    -------
    (H, W) uint8 or uint16, C-contiguous: the type of the file where it has one of these, else the smallest
    that holds the ids.

    Raises
    ------
    MaskError : the file is missing, damaged, too large or of another kind, or a pixel holds no id.
    """
    path = Path(path)
    form, _ = _header(path, max_pixels)
    if form.startswith("npy:"):
        return _as_ids(path, _open_npy(path))
    mode = form.partition(":")[2]
    pixels = _decode_png(path) if form.startswith("png:") else _decode_tiff(path)
    if mode in _STRETCH:
        return pixels // np.uint8(_STRETCH[mode])
    if mode in ("LA", "RGBA"):
        what = "has alpha {}, expected 255: a mask has no transparent pixels"
        _refuse(path, pixels[..., -1] != 255, pixels[..., -1], what, "Save it without alpha.")
        pixels = pixels[..., 0] if mode == "LA" else pixels[..., :3]
    if pixels.ndim == 3:
        return _from_colors(path, pixels, colors) if colors else _from_grey(path, pixels)
    return _as_ids(path, pixels.astype(np.uint16) if mode.startswith("I;16") else pixels)


def mask_size(
    path: str | os.PathLike[str], *, colors: Colors | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int, int]:
    """Return (height, width, bits of an id: 8 or 16) of a mask from its header, without decoding it.

    16 also where only the pixels would tell (wide integers of TIFF and .npy). Errors as `read_mask`.
    """
    form, (height, width) = _header(Path(path), max_pixels)
    kind, _, mode = form.partition(":")
    wide = np.dtype(mode).itemsize > 1 if kind == "npy" else mode.startswith("I")
    if colors and mode in ("RGB", "RGBA"):
        wide = max(colors.values()) > 0xFF
    return height, width, 16 if wide else 8


def mask_form(path: str | os.PathLike[str]) -> str:
    """Return what `write_mask` needs to write an equal file, from the header; errors as `read_mask`."""
    return _header(Path(path), MAX_PIXELS)[0]


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of a photo of any kind that Pillow opens, from its header.

    That of the stored raster: an orientation in the metadata is not applied.

    Raises
    ------
    MaskError : the file is missing or no image.
    """
    path = Path(path)
    _first_bytes(path)
    try:
        with _pillow_settings(), Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # Pillow's readers raise what they like on damaged files
        raise MaskError(f"{path}: not a photo that can be read ({error}). Replace the file.") from error


def _first_bytes(path: Path) -> bytes:
    """Return the first 33 bytes, enough for a signature and the first chunk of a PNG."""
    try:
        with path.open("rb") as file:
            start = file.read(33)
    except FileNotFoundError:
        raise MaskError(f"{path}: no such file. Check the path.") from None
    except OSError as error:
        raise MaskError(f"{path}: cannot be read: {error.strerror}.") from error
    if not start:
        raise MaskError(f"{path}: the file is empty (0 bytes). Fetch or write it again.")
    return start


def _header(path: Path, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Return the form and the (height, width) of a mask."""
    start = _first_bytes(path)
    if start.startswith(_PNG_MAGIC):
        form, size = _png_header(path, start)
    elif start.startswith(_NPY_MAGIC):
        form, size = _npy_header(path)
    elif start.startswith(_TIFF_MAGICS):
        form, size = _tiff_header(path)
    elif start.startswith(b"\xff\xd8"):
        raise MaskError(f"{path}: a JPEG file, expected {_KINDS}: JPEG changes ids. Find the lossless original.")
    else:
        raise MaskError(f"{path}: starts with {start[:8]!r}, expected {_KINDS}. Convert the mask to one of them.")
    if min(size) < 1:
        raise MaskError(f"{path}: the mask is {size[0]}x{size[1]} pixels (height x width), expected at least 1x1.")
    if problem := size_problem(*size, max_pixels):
        raise MaskError(f"{path}: {problem}.")
    return form, size


def _damaged(path: Path, what: object) -> MaskError:
    return MaskError(f"{path}: truncated or damaged: {what}. Fetch or write the file again.")


def _png_header(path: Path, start: bytes) -> tuple[str, tuple[int, int]]:
    if len(start) < 33:
        raise _damaged(path, f"{len(start)} bytes are no whole PNG header")
    if start[8:16] != b"\0\0\0\rIHDR" or zlib.crc32(start[12:29]) != int.from_bytes(start[29:33], "big"):
        raise _damaged(path, "the PNG header is not 13 bytes with their checksum")
    width, height, bits, color_type = struct.unpack_from(">IIBB", start, 16)
    mode = _PNG_MODES.get((bits, color_type))
    if mode is None:
        raise MaskError(
            f"{path}: PNG of {bits} bits a sample and colour type {color_type}, expected grey of at most 16 "
            "bits, a palette, or RGB of 8 bits. Save the ids as grey."
        )
    return f"png:{mode}", (height, width)


def _decode_png(path: Path) -> NDArray[Any]:
    """Return the samples as Pillow decodes them, of a file whose every checksum and length was checked.

    Pillow checks neither the checksum of image data nor that there is enough of it: a short file would end in
    zeros. So the stream is inflated here, and Pillow gets a minimal file with the inflated rows, which also
    keeps its metadata readers out.
    """
    data = path.read_bytes()
    start = 8
    chunks: dict[bytes, list[bytes]] = {}
    while b"IEND" not in chunks:
        if start + 12 > len(data):
            raise _damaged(path, f"the PNG breaks off after {len(data)} bytes")
        (length,) = struct.unpack_from(">I", data, start)
        kind, end = data[start + 4 : start + 8], start + 12 + length
        if end > len(data):
            raise _damaged(path, f"the PNG breaks off in chunk {kind!r} at byte {start}")
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise _damaged(path, f"chunk {kind!r} at byte {start} fails its checksum")
        chunks.setdefault(kind, []).append(data[start + 8 : end - 4])
        start = end
    if b"acTL" in chunks:
        raise MaskError(f"{path}: an animated PNG, expected one image. Save each frame as a file of its own.")
    width, height, bits, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"][0])
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // down), -(-(width - x) // right)) for y, x, down, right in passes]
    row_bits = bits * _PNG_CHANNELS[color_type]
    expected = sum(h * (1 + -(-w * row_bits // 8)) for h, w in sizes if h > 0 and w > 0)
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(b"".join(chunks.get(b"IDAT", [])), expected + 1)
    except zlib.error as error:
        raise _damaged(path, error) from error
    if len(rows) != expected or not stream.eof:
        raise _damaged(path, f"{len(rows)} bytes of image data, expected {expected} and an end")
    palette = chunks[b"PLTE"][0] if b"PLTE" in chunks else None
    plain = _png_file(chunks[b"IHDR"][0], palette, zlib.compress(rows, 0))
    try:
        pixels = np.array(PngImagePlugin.PngImageFile(io.BytesIO(plain)))
    except Exception as error:  # as in image_size
        raise _damaged(path, error) from error
    return _without_bool(pixels)


@contextmanager
def _open_tiff(path: Path) -> Iterator[TiffImagePlugin.TiffImageFile]:
    # TiffImageFile, not Image.open: that would hide the errors of this reader behind 'cannot identify'.
    try:
        with _pillow_settings(), path.open("rb") as file:
            yield TiffImagePlugin.TiffImageFile(file)
    except MaskError:
        raise
    except Exception as error:  # as in image_size
        raise _damaged(path, error or type(error).__name__) from error


def _tiff_header(path: Path) -> tuple[str, tuple[int, int]]:
    with _open_tiff(path) as image:
        bits = image.tag_v2.get(_TIFF_BITS, (1,))
        if image.n_frames > 1:
            raise MaskError(f"{path}: a TIFF of {image.n_frames} pages, expected one. Save each page as a file.")
        if image.tag_v2.get(_TIFF_COMPRESSION) in _JPEG_IN_TIFF:
            raise MaskError(f"{path}: a TIFF with JPEG compression changes ids. Find the lossless original.")
        mode = "I;16" if image.mode == "I;16L" else image.mode
        if mode not in _TIFF_MODES or (mode in ("LA", "RGB", "RGBA") and max(bits) > 8):
            raise MaskError(
                f"{path}: TIFF of mode {mode} with {max(bits)} bits a sample, expected whole numbers in grey "
                "or palette, or RGB of 8 bits. Save the ids as grey."
            )
        if mode == "L" and bits[0] < 8:
            mode = f"L;{bits[0]}"
        return f"tiff:{mode}", (image.height, image.width)


def _decode_tiff(path: Path) -> NDArray[Any]:
    with _open_tiff(path) as image:
        tags = dict(image.tag_v2)  # loading drops some
        pixels = _without_bool(np.array(image))
    if tags.get(_TIFF_PHOTOMETRIC) == 0 and pixels.dtype.itemsize == 1:
        # 'white is zero' is about looks; Pillow inverts such grey (not that of 16 bits), the ids are not.
        pixels = np.uint8(1) - pixels if image.mode == "1" else np.uint8(255) - pixels
    if tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == 2 and pixels.dtype == np.uint8:
        pixels = pixels.view(np.int8)
    return pixels


def _without_bool(pixels: NDArray[Any]) -> NDArray[Any]:
    # The true booleans of Pillow's mode 1 may be bytes of 255.
    return np.minimum(pixels.view(np.uint8), 1) if pixels.dtype == np.bool_ else pixels


def _open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file: its header is read and its length checked, its values not yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers that Python 2 wrote
            values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return values
    except Exception as error:  # a ValueError as a rule, but its parser has many more
        raise _damaged(path, error) from error


def _npy_header(path: Path) -> tuple[str, tuple[int, int]]:
    values = _open_npy(path)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise MaskError(
            f"{path}: array of shape {values.shape} and type {values.dtype}, expected (height, width) of "
            "whole numbers or booleans. Save the ids, one for each pixel."
        )
    return f"npy:{values.dtype.str}", (values.shape[0], values.shape[1])


def _refuse(path: Path, bad: NDArray[np.bool_], values: NDArray[Any], what: str, fix: str) -> None:
    """Raise for the first bad pixel, if there is one; ``what`` has a place {} for its value."""
    if bad.any():
        y, x = np.unravel_index(int(bad.argmax()), bad.shape)
        value = values[y, x].tolist()
        what = what.format(tuple(value) if isinstance(value, list) else value)
        raise MaskError(f"{path}: pixel (y={y}, x={x}) {what}. {fix}")


def _as_ids(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as uint8 or uint16, whichever they are or is the smallest."""
    native = values.dtype.newbyteorder("=")
    if native not in (np.uint8, np.uint16):
        bad = (values < 0) | (values > _MAX_ID)
        what = f"holds {{}}, expected an id in 0..{_MAX_ID}"
        _refuse(path, bad, values, what, "Map the ids of the mask into that range.")
        native = np.dtype(np.uint8 if int(values.max()) <= 0xFF else np.uint16)
    return np.require(values, native, ["C", "W", "E"])  # a plain array, not the mapped file


def _from_grey(path: Path, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bad = (rgb[..., 0] != rgb[..., 1]) | (rgb[..., 0] != rgb[..., 2])
    what = "is the colour {}, expected R = G = B since no colours are given"
    fix = "Give each colour its id in [colors] of a manifest, or convert the mask to ids."
    _refuse(path, bad, rgb, what, fix)
    return np.ascontiguousarray(rgb[..., 0])


def _from_colors(path: Path, rgb: NDArray[np.uint8], colors: Colors) -> NDArray[Any]:
    """Look every pixel up in a sorted table of 24-bit colours."""
    table = sorted((r << 16 | g << 8 | b, label) for (r, g, b), label in colors.items())
    keys = np.array([key for key, _ in table], np.uint32)
    ids = _as_ids(path, np.array([[label for _, label in table]], np.int64))[0]
    packed = (rgb[..., 0].astype(np.uint32) << 16) | (rgb[..., 1].astype(np.uint32) << 8) | rgb[..., 2]
    index = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    what = f"is the colour {{}}, which is none of the {len(keys)} known ones"
    _refuse(path, keys[index] != packed, rgb, what, "Add it to [colors] of the manifest.")
    mask: NDArray[Any] = ids[index]
    return mask


def write_mask(
    path: str | os.PathLike[str],
    mask: NDArray[Any],
    form: str,
    *,
    palette: ArrayLike | None = None,
    colors: Colors | None = None,
) -> None:
    """Write a mask in the form that `mask_form` gave for its source; reading it back gives equal ids.

    Kind, mode and bits of a sample are those of the source (but a TIFF of 2 or 4 bits comes back with 8);
    compression, metadata and a palette of the source's own are not kept. Folders are made; an existing file
    is replaced in one step.

    Parameters
    ----------
    mask : (H, W) whole numbers, none below 0.
    palette : (n, 3) uint8, n <= 256: colours of the first ids, for palette files. The rest, and all without
        it, come from `default_palette`.
    colors : (R, G, B) -> id as for `read_mask`: an RGB file is written with these colours, else as grey ids.

    Raises
    ------
    MaskError : the form is unknown or cannot hold an id, or the file cannot be written.
    """
    path = Path(path)
    kind, _, mode = form.partition(":")
    limit = _largest_id(path, form)
    if mode in ("RGB", "RGBA") and colors:
        limit = _MAX_ID
    _refuse(path, mask > limit, mask, f"holds {{}}, but {form} ends at {limit}", "Choose a wider form.")
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, mask.astype(np.dtype(mode)))
    elif kind == "png":
        samples = _samples(path, mask, mode, colors)
        buffer.write(_png(samples, mode, _full_palette(palette).tobytes() if mode[0] == "P" else None))
    else:
        image = Image.fromarray(_samples(path, mask, mode, colors))
        if mode == "P":
            image.putpalette(_full_palette(palette).tobytes())
        image.save(buffer, format="TIFF")
    replace_file(path, buffer.getvalue())


def default_palette() -> NDArray[np.uint8]:
    """Return the (256, 3) uint8 palette of Pascal VOC: the bits of an id dealt to R, G and B."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def _largest_id(path: Path, form: str) -> int:
    kind, _, mode = form.partition(":")
    with suppress(TypeError, ValueError):
        if kind == "npy":
            dtype = np.dtype(mode)
            return 1 if dtype.kind == "b" else np.iinfo(dtype).max
        if (kind == "png" and mode in _PNG_BITS) or (kind == "tiff" and mode in (*_TIFF_MODES, *_STRETCH)):
            bits = {"1": 1, "I": 31, "I;16B": 16}.get(mode) or _PNG_BITS[mode][0]
            return (1 << bits) - 1
    raise MaskError(f"{path}: unknown form {form!r}, expected one that mask_form returns, as 'png:L'.")


def _full_palette(palette: ArrayLike | None) -> NDArray[np.uint8]:
    full = default_palette()
    if palette is not None:
        given = np.asarray(palette, np.uint8).reshape(-1, 3)[:256]
        full[: len(given)] = given
    return full


def _to_colors(path: Path, mask: NDArray[Any], colors: Colors) -> NDArray[np.uint8]:
    table = np.zeros((_MAX_ID + 1, 3), np.uint8)
    known = np.zeros(_MAX_ID + 1, np.bool_)
    for color, label in reversed(list(colors.items())):  # so that the first colour of an id stays
        table[label], known[label] = color, True
    _refuse(path, ~known[mask], mask, "holds id {}, which has no colour", "Add it to [colors] of the manifest.")
    rgb: NDArray[np.uint8] = table[mask]
    return rgb


def _samples(path: Path, mask: NDArray[Any], mode: str, colors: Colors | None) -> NDArray[Any]:
    """Return what a file of this mode stores: (H, W), or (H, W, channels)."""
    if mode == "1":
        return mask.astype(np.bool_)
    if mode.startswith("I"):
        return mask.astype({"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode])
    if mode not in ("LA", "RGB", "RGBA"):
        return mask.astype(np.uint8)
    if colors and mode != "LA":
        rgb = _to_colors(path, mask, colors)
    else:
        rgb = np.repeat(mask.astype(np.uint8)[..., None], len(mode.rstrip("A")), axis=2)
    return np.dstack([rgb, np.full(mask.shape, 255, np.uint8)])[..., : len(mode)]


def _png(samples: NDArray[Any], mode: str, palette: bytes | None) -> bytes:
    """Return the PNG of some samples, rows unfiltered: best for masks, and 2 and 4 bits are to be had."""
    bits, color_type = _PNG_BITS[mode]
    height, width = samples.shape[:2]
    if bits < 8:
        per_byte = 8 // bits
        whole = np.pad(samples, ((0, 0), (0, -width % per_byte))).reshape(height, -1, per_byte)
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        samples = np.bitwise_or.reduce(whole << shifts, axis=2)
    elif bits == 16:
        samples = samples.astype(">u2")
    rows = np.ascontiguousarray(samples).reshape(height, -1).view(np.uint8)
    ihdr = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    stream = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())  # each row after a filter byte 0
    return _png_file(ihdr, palette and palette[: 3 << bits], stream)


def _png_file(ihdr: bytes, palette: bytes | None, stream: bytes) -> bytes:
    chunks = [(b"IHDR", ihdr), *([(b"PLTE", palette)] if palette else []), (b"IDAT", stream), (b"IEND", b"")]
    return _PNG_MAGIC + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, and its folders, whole or not at all; raise MaskError if that fails."""
    try:
        write_atomic(path, data)
    except OSError as error:
        raise MaskError(f"{path}: cannot be written: {error.strerror}. Free space or choose another place.") from error
