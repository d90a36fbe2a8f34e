"""How kernels are compiled, and the machine instructions that numba has no name for."""

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_njit: Any = numba.njit  # its types lack _nrt

kernel = _njit(cache=True, nogil=True)

hot = _njit(cache=True, nogil=True, forceinline=True, _nrt=False)
"""For short helpers of an inner loop. Without ``_nrt=False`` numba counts references, by atomic instructions,
of every array that enters such a helper: the walk of the chains would take four times as long."""

memcpy: Any = cgutils.raw_memcpy  # its types lack arguments

SPLAT_BYTES = 32


@intrinsic
def _trailing_zeros(_typing: Any, word: Any) -> Any:
    """Return the number of zero bits below the lowest one bit of a uint64; 64 if it is zero."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(word), codegen


@intrinsic
def _ones(_typing: Any, word: Any) -> Any:
    """Return the number of one bits of a uint64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(word), codegen


@intrinsic
def _bits_of(_typing: Any, cells: Any, at: Any, mask: Any) -> Any:  # noqa: ARG001 (numba binds by name)
    """Return one bit for each of the 64 bytes from ``cells[at]`` on: whether it shares a bit with ``mask``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        vector = ir.VectorType(ir.IntType(8), 64)
        place = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
        zeros = ir.Constant(vector, None)
        one = builder.insert_element(zeros, args[2], ir.Constant(ir.IntType(32), 0))
        masks = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), 64), None))
        found = builder.icmp_unsigned("!=", builder.and_(builder.load(place, align=1), masks), zeros)
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(cells, types.int64, types.uint8), codegen


@intrinsic
def _splat(_typing: Any, pixels: Any, at: Any, value: Any) -> Any:  # noqa: ARG001 (numba binds by name)
    """Store ``value`` to the SPLAT_BYTES from ``pixels[at]`` on: most runs are one such store, no call."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        lane = context.get_value_type(signature.args[2])
        vector = ir.VectorType(lane, SPLAT_BYTES // (lane.width // 8))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], ir.Constant(ir.IntType(32), 0))
        place = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
        builder.store(builder.shuffle_vector(one, one, zeros), place, align=1)
        return context.get_dummy_value()

    return types.void(pixels, types.int64, pixels.dtype), codegen


@intrinsic
def _copy(_typing: Any, pixels: Any, to: Any, at: Any, count: Any) -> Any:  # noqa: ARG001 (numba binds by name)
    """Copy ``count`` pixels from ``pixels[at]`` on to ``pixels[to]`` on; the two do not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        places = [builder.gep(array.data, [place]) for place in args[1:3]]
        lane = context.get_value_type(signature.args[0].dtype)
        memcpy(builder, *places, args[3], ir.Constant(ir.IntType(64), lane.width // 8))
        return context.get_dummy_value()

    return types.void(pixels, types.int64, types.int64, types.int64), codegen


copy: Any = _copy
trailing_zeros: Any = _trailing_zeros
ones: Any = _ones
bits_of: Any = _bits_of
splat: Any = _splat
