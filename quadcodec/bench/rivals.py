"""The rivals: other lossless codecs of masks, each in the setting that its users take or that suits it best.

Packages of the extra [bench] are imported when their rival is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from .row import Codec, Mask, Row, Shape, in_tiles

__all__ = ["RIVALS", "rival_rows", "zstd_dictionary_row"]

TILE = 256
DICTIONARY_BYTES = 16384
"""About the length of our tables."""
STRIP = 64


def _png() -> list[Row]:
    from PIL import Image

    def encode(mask: Mask) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, format="PNG")
        return buffer.getvalue()

    def decode(data: bytes, _: Shape, dtype: np.dtype[Any]) -> Mask:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image, dtype)

    return [Row("png", "Pillow's defaults", (Codec(encode, decode),))]


def _webp() -> list[Row]:
    from imagecodecs import webp_decode, webp_encode

    def encode(mask: Mask) -> bytes:
        grey = np.repeat(mask[..., None], 3, axis=2)
        return bytes(webp_encode(grey, level=100, lossless=True, method=6, numthreads=1))

    def decode(data: bytes, *_: Any) -> Mask:
        return np.ascontiguousarray(webp_decode(data)[..., 1])

    return [Row("webp", "lossless, method 6, quality 100", (Codec(encode, decode),), bits=8)]


def _jxl() -> list[Row]:
    from imagecodecs import jpegxl_decode, jpegxl_encode

    codec = Codec(
        encode=lambda mask: bytes(jpegxl_encode(mask, lossless=True, effort=9, numthreads=1)),
        decode=lambda data, *_: np.ascontiguousarray(jpegxl_decode(data, numthreads=1)),
    )
    return [Row("jxl", "JPEG XL, lossless, effort 9", (codec,))]


def _raster(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Mask:
    return np.frombuffer(data, dtype).reshape(shape)


def _zstd_codec(dictionary: zstandard.ZstdCompressionDict | None = None) -> Codec:
    if dictionary is not None:
        dictionary.precompute_compress(level=19)
    compressor = zstandard.ZstdCompressor(level=19, dict_data=dictionary)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
    return Codec(
        encode=lambda mask: compressor.compress(np.ascontiguousarray(mask).data),
        decode=lambda data, shape, dtype: _raster(decompressor.decompress(data), shape, dtype),
    )


def _zstd() -> list[Row]:
    return [Row("zstd", "level 19, on the raster", (_zstd_codec(),))]


def _dictionary(masks: Sequence[Mask]) -> zstandard.ZstdCompressionDict:
    """Return a dictionary trained on strips of masks, or their first bytes where zstd has too few of them to train."""
    strips = [mask[y : y + STRIP].tobytes() for mask in masks for y in range(0, len(mask), STRIP)]
    try:
        return zstandard.train_dictionary(DICTIONARY_BYTES, list(strips), level=19)
    except zstandard.ZstdError:
        content = b"".join(strips)[:DICTIONARY_BYTES]
        return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def zstd_dictionary_row(halves: Sequence[Sequence[Mask]], share: float) -> Row:
    """Return zstd with a dictionary of its own, the counterpart of tables of one's own.

    Parameters
    ----------
    halves : the masks of each half; a half is measured with the dictionary of the other.
    share : how much of one dictionary's bytes these masks bear.
    """
    dictionaries = [_dictionary(half) for half in reversed(halves)]
    nbytes = float(np.mean([len(d.as_bytes()) for d in dictionaries]))
    codecs = tuple(_zstd_codec(d) for d in dictionaries)
    return Row("zstd-own", "level 19, dictionary of the other half", codecs, nbytes * share, tuned=True)


def _zarr_default() -> list[Row]:
    from numcodecs.zstd import Zstd

    zstd = Zstd(level=0)
    codec = Codec(
        encode=lambda mask: bytes(zstd.encode(np.ascontiguousarray(mask))),
        decode=lambda data, shape, dtype: _raster(zstd.decode(data), shape, dtype),
    )
    return [
        Row("zarr-default", "zarr v3's zstd level 0, an image a chunk", (codec,)),
        Row(f"zarr-default-{TILE}", f"the same in chunks of {TILE}x{TILE}", (in_tiles(codec, TILE),)),
    ]


def _crackle() -> list[Row]:
    import crackle

    compressor, decompressor = zstandard.ZstdCompressor(level=19), zstandard.ZstdDecompressor()

    def encode(mask: Mask) -> bytes:
        # Transposed, in Fortran order: its fastest layout, whose output needs no further copy.
        volume = np.asfortranarray(mask.T[..., None])
        packed = (crackle.compress(volume, markov_model_order=order, parallel=1) for order in (0, 5))
        return min((compressor.compress(data) for data in packed), key=len)

    def decode(data: bytes, *_: Any) -> Mask:
        volume: NDArray[Any] = crackle.decompress(decompressor.decompress(data), parallel=1)
        return volume[..., 0].T

    codec = Codec(encode, decode)
    return [
        Row("crackle", "shorter of Markov orders 0 and 5, then zstd-19", (codec,)),
        Row(f"crackle-{TILE}", f"the same in tiles of {TILE}x{TILE}", (in_tiles(codec, TILE),)),
    ]


def _compresso() -> list[Row]:
    import compresso

    def encode(mask: Mask) -> bytes:
        return bytes(compresso.compress(np.array(mask.T[..., None], order="F")))  # refuses read-only arrays

    def decode(data: bytes, *_: Any) -> Mask:
        volume: NDArray[Any] = compresso.decompress(data)
        return volume[..., 0].T

    return [Row("compresso", "its defaults, steps (4, 4, 1)", (Codec(encode, decode),))]


RIVALS: dict[str, Callable[[], list[Row]]] = {
    "png": _png, "webp": _webp, "jxl": _jxl, "zstd": _zstd,
    "zarr-default": _zarr_default, "crackle": _crackle, "compresso": _compresso,
}  # fmt: skip
"""What makes the rows of each rival, by its name."""


def rival_rows(names: Iterable[str]) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of the rivals (names of `RIVALS`) that are installed, and the module that each other lacks."""
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            rows += RIVALS[name]()
        except ModuleNotFoundError as error:
            missing[name] = error.name or str(error)
    return rows, missing
