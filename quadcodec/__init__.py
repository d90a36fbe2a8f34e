"""Segmentation masks as compressed linear quadtrees and T-pyramids, in records and in zarr v3 stores.

>>> record = quadcodec.encode(mask)
>>> mask = quadcodec.decode(record)
>>> store = quadcodec.open("out.zarr")
>>> store[0], store.quadtree(0), store.pyramid(0)
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import write as write
    from .errors import QuadcodecError as QuadcodecError
    from .info import ClassInfo as ClassInfo
    from .pyramid import COMPOSITE as COMPOSITE
    from .pyramid import OUTSIDE as OUTSIDE
    from .pyramid import TPyramid as TPyramid
    from .quadtree import LinearQuadtree as LinearQuadtree
    from .quadtree import resample as resample
    from .record import decode as decode
    from .record import decode_tree as decode_tree
    from .record import encode as encode
    from .record import encode_tree as encode_tree
    from .store import LabelStore as LabelStore
    from .store import open_store as open

__version__ = version("quadcodec")

# Loaded on first use: importing numba takes a second, and `quadcodec --help` needs none of it.
_HOME = {
    "COMPOSITE": "pyramid", "OUTSIDE": "pyramid", "TPyramid": "pyramid",
    "LinearQuadtree": "quadtree", "resample": "quadtree",
    "decode": "record", "decode_tree": "record", "encode": "record", "encode_tree": "record",
    "ClassInfo": "info", "LabelStore": "store", "open": "store", "write": "build",
    "QuadcodecError": "errors",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quadcodec' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), "open_store" if name == "open" else name)


def __dir__() -> list[str]:
    return __all__
