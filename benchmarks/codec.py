"""Speed and size of the codec on a Cityscapes mask, one thread, beside rivals measured in the same run.

    python -m benchmarks.codec [MASK.png ...]

Without masks: those of QUADCODEC_TEST_DATA, else generated street scenes. Speeds are the best of several
runs, in megapixels a second of this machine; machines differ, so read the ratios.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from PIL import Image

from quadcodec import LinearQuadtree, decode, decode_tree, encode
from quadcodec.masks import read_mask
from quadcodec.scenes import street_labels
from quadcodec_cli.tables import align

Mask = NDArray[np.uint8]
RUNS = 7


@dataclass(frozen=True)
class Codec:
    """A way to turn masks into bytes and back."""

    name: str
    encode: Callable[[Mask], bytes]
    decode: Callable[[bytes, tuple[int, ...]], Mask]


def png(mask: Mask) -> bytes:
    """Encode as Pillow does by default."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return buffer.getvalue()


def codecs() -> list[Codec]:
    """Return ours and those rivals that are installed."""
    zarr_default = Zstd(level=0)
    found = [
        Codec("quadcodec fast", encode, lambda record, _: decode(record)),
        Codec("quadcodec small", lambda mask: encode(mask, profile="small"), lambda record, _: decode(record)),
        Codec("PNG (Pillow)", png, lambda data, _: np.asarray(Image.open(io.BytesIO(data)))),
        Codec(
            "zarr v3 default",
            lambda mask: bytes(zarr_default.encode(mask)),
            lambda data, shape: np.frombuffer(zarr_default.decode(data), np.uint8).reshape(shape),
        ),
    ]
    try:
        import crackle
    except ImportError:
        print("crackle is not installed: pip install 'quadcodec[bench]'", file=sys.stderr)
        return found

    def crackle_encode(mask: Mask) -> bytes:
        packed = (crackle.compress(mask, markov_model_order=order) for order in (0, 5))
        return min((zstandard.ZstdCompressor(level=19).compress(data) for data in packed), key=len)

    def crackle_decode(data: bytes, shape: tuple[int, ...]) -> Mask:
        return np.asarray(crackle.decompress(zstandard.ZstdDecompressor().decompress(data))).reshape(shape)

    return [*found, Codec("crackle + zstd-19", crackle_encode, crackle_decode)]


def best(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several calls, after one to warm up."""
    call()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(codec: Codec, masks: list[Mask]) -> tuple[float, float, float]:
    """Return bits a pixel, and encoding and decoding speed in pixels a second; check the round trip."""
    pixels = sum(mask.size for mask in masks)
    stored = [codec.encode(mask) for mask in masks]
    for mask, data in zip(masks, stored, strict=True):
        np.testing.assert_array_equal(codec.decode(data, mask.shape), mask)
    encoding = sum(best(lambda mask=mask: codec.encode(mask)) for mask in masks)
    decoding = sum(
        best(lambda data=data, mask=mask: codec.decode(data, mask.shape))
        for data, mask in zip(stored, masks, strict=True)
    )
    return 8 * sum(map(len, stored)) / pixels, pixels / encoding, pixels / decoding


def find_masks(arguments: list[str]) -> tuple[str, list[Mask]]:
    """Return where the masks are from, and the masks."""
    if arguments:
        return ", ".join(arguments), [read_mask(path).astype(np.uint8) for path in arguments]
    folder = os.environ.get("QUADCODEC_TEST_DATA")
    files = sorted(Path(folder).glob("cityscapes/gtFine/*/*/*_labelIds.png"))[:6] if folder else []
    if files:
        return f"{len(files)} Cityscapes masks", [read_mask(file) for file in files]
    return "4 generated street scenes", [street_labels(0, (1024, 2048), index) for index in range(4)]


def main() -> None:
    """Print the tables."""
    where, masks = find_masks(sys.argv[1:])
    pixels = sum(mask.size for mask in masks)
    results = {codec.name: measure(codec, masks) for codec in codecs()}
    ours = results["quadcodec fast"]
    rows = [["codec", "bits/pixel", "x fast", "encode MPix/s", "x fast", "decode MPix/s", "x fast"]]
    for name, (bits, encoding, decoding) in results.items():
        cells = [f"{bits:.4f}", f"{bits / ours[0]:.2f}", f"{encoding / 1e6:.0f}", f"{encoding / ours[1]:.2f}"]
        rows.append([name, *cells, f"{decoding / 1e6:.0f}", f"{decoding / ours[2]:.2f}"])
    print(f"{where}, one thread\n\n{align(rows)}\n")
    records = [encode(mask) for mask in masks]
    parts = {
        "nodes only": lambda record: decode_tree(record),
        "8x8 cells (level 3)": lambda record: decode(record, level=3),
        "a region of 256x256": lambda record: decode(record, region=(0, 0, 256, 256)),
    }
    rows = [["quadcodec fast, parts", "MPix/s of the whole image", "x dense decode"]]
    for name, call in parts.items():
        speed = pixels / sum(best(lambda record=record, call=call: call(record)) for record in records)
        rows.append([name, f"{speed / 1e6:.0f}", f"{speed / ours[2]:.1f}"])
    trees = [LinearQuadtree.from_mask(mask) for mask in masks]
    flips = pixels / sum(best(tree.flip_horizontal) for tree in trees)
    rows.append(["flip a tree", f"{flips / 1e6:.0f}", f"{flips / ours[2]:.1f}"])
    print(align(rows))


if __name__ == "__main__":
    main()
