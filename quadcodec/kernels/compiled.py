"""How kernels are compiled, and the machine instructions that numba has no name for.

Stores of several entries are not checked against the bounds of their array: callers see to that.
"""

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


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, zeros)


def _store(context: Any, builder: Any, signature: Any, args: Any, value: Any) -> Any:
    """Store a value of any type from entry ``args[1]`` of array ``args[0]`` on."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    place = builder.bitcast(builder.gep(array.data, [args[1]]), value.type.as_pointer())
    builder.store(value, place, align=1)
    return context.get_dummy_value()


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
        lane = context.get_value_type(signature.args[2])
        vector = ir.VectorType(lane, SPLAT_BYTES // (lane.width // 8))
        return _store(context, builder, signature, args, _spread(builder, args[2], vector))

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


@intrinsic(prefer_literal=True)
def _fill(_typing: Any, pixels: Any, at: Any, value: Any, count: Any) -> Any:  # noqa: ARG001
    """Store ``value`` to ``pixels[at : at + count]``; ``count`` is a literal."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(context.get_value_type(signature.args[2]), count.literal_value)
        return _store(context, builder, signature, args, _spread(builder, args[2], vector))

    return types.void(pixels, types.int64, pixels.dtype, count), codegen


@intrinsic
def _put_word(_typing: Any, data: Any, at: Any, word: Any) -> Any:  # noqa: ARG001
    """Store the four bytes of a uint32 from ``data[at]`` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store(context, builder, signature, args, args[2])

    return types.void(data, types.int64, types.uint32), codegen


@intrinsic
def _put_split(_typing: Any, nodes: Any, at: Any, low: Any, high: Any, digits: Any) -> Any:  # noqa: ARG001
    """Store four nodes from ``nodes[at]`` on by the bytes of ``digits``: 0 ``low``, 1 ``high``, 2 the value -1."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(context.get_value_type(signature.args[0].dtype), 4)
        digit = ir.VectorType(ir.IntType(8), 4)
        digits = builder.bitcast(args[4], digit)
        is_high = builder.icmp_unsigned("==", digits, ir.Constant(digit, [1] * 4))
        is_split = builder.icmp_unsigned("==", digits, ir.Constant(digit, [2] * 4))
        low, high = _spread(builder, args[2], lanes), _spread(builder, args[3], lanes)
        leaves = builder.select(is_high, high, low)
        value = builder.select(is_split, ir.Constant(lanes, [-1] * 4), leaves)
        return _store(context, builder, signature, args, value)

    return types.void(nodes, types.int64, nodes.dtype, nodes.dtype, types.uint32), codegen


@intrinsic
def _put_square(_typing: Any, pixels: Any, at: Any, width: Any, nodes: Any, first: Any) -> Any:  # noqa: ARG001
    """Store the four nodes from ``nodes[first]`` on as two pixels at ``at`` and two below, rows ``width`` apart."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = context.make_array(signature.args[3])(context, builder, args[3])
        four = ir.VectorType(context.get_value_type(nodes.dtype), 4)
        values = builder.load(builder.bitcast(builder.gep(source.data, [args[4]]), four.as_pointer()), align=1)
        lane = context.get_value_type(pixels.dtype)
        if lane.width < four.element.width:
            values = builder.trunc(values, ir.VectorType(lane, 4))
        for row in range(2):
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), 2), [2 * row, 2 * row + 1])
            place = builder.add(args[1], args[2]) if row else args[1]
            _store(context, builder, signature, (args[0], place), builder.shuffle_vector(values, values, lanes))
        return context.get_dummy_value()

    return types.void(pixels, types.int64, types.int64, nodes, types.int64), codegen


trailing_zeros: Any = _trailing_zeros
ones: Any = _ones
bits_of: Any = _bits_of
splat: Any = _splat
copy: Any = _copy
fill: Any = _fill
put_word: Any = _put_word
put_split: Any = _put_split
put_square: Any = _put_square
