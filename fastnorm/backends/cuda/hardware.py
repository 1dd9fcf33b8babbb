"""The hardware's side of `machine`: 16-byte accesses to global memory, and shuffles within a warp."""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastnorm.backends.cuda.compat import cuda, device_function, intrinsic, types

Function = Callable[..., Any]

WARP = 32
ALL_LANES = 0xFFFFFFFF
GLOBAL = 1  # the address space of device memory
ACCESS = 16  # bytes that a thread moves at once

_WORD = ir.IntType(32)
_INDEX = ir.IntType(64)
_FLOATS = {"float16": ir.HalfType(), "float32": ir.FloatType(), "float64": ir.DoubleType()}
_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def _pieces(storage: str, count: int) -> list[tuple[int, int]]:
    """Where each access begins and how many elements it moves."""
    together = min(count, ACCESS // _SIZES[storage])
    return [(begin, together) for begin in range(0, count, together)]


def _type_of(storage: str, elements: int) -> Any:
    """The type by which so many elements are accessed: words, since LLVM splits vectors of smaller integers."""
    size = _SIZES[storage] * elements
    if size < 4:
        return ir.IntType(8 * size)
    return _WORD if size == 4 else ir.VectorType(_WORD, size // 4)


def _pointer(builder: Any, address: Any, index: Any, storage: str, begin: int, elements: int) -> Any:
    offset = builder.mul(builder.add(index, _INDEX(begin)), _INDEX(_SIZES[storage]))
    return builder.inttoptr(builder.add(address, offset), ir.PointerType(_type_of(storage, elements), GLOBAL))


def _widen(builder: Any, bits: Any, storage: str, real: Any) -> Any:
    if storage == "bfloat16":  # the upper half of a float32
        value = builder.bitcast(builder.shl(builder.zext(bits, _WORD), _WORD(16)), ir.FloatType())
    else:
        value = builder.bitcast(bits, _FLOATS[storage])
    if value.type == real:
        return value
    return builder.fptrunc(value, real) if storage == "float64" else builder.fpext(value, real)


def _narrow(builder: Any, value: Any, storage: str) -> Any:
    bits = ir.IntType(8 * _SIZES[storage])
    if storage == "bfloat16":
        if value.type != ir.FloatType():
            value = builder.fptrunc(value, ir.FloatType())
        rounding = ir.FunctionType(bits, [ir.FloatType()])
        return builder.call(ir.InlineAsm(rounding, "cvt.rn.bf16.f32 $0, $1;", "=h,f"), [value])
    if value.type != _FLOATS[storage]:
        value = builder.fptrunc(value, _FLOATS[storage])
    return builder.bitcast(value, bits)


def _element(context: Any, builder: Any, array_type: Any, held: Any, slot: Any, number: int) -> Any:
    """Where an element of a local array is."""
    data = context.make_array(array_type)(context, builder, held).data
    return builder.gep(data, [builder.add(slot, _INDEX(number))])


def load(storage: str, real: Any, count: int) -> Function:
    real_type = _FLOATS[np.dtype(real).name]
    bits = ir.IntType(8 * _SIZES[storage])

    @intrinsic
    def read(typing_context: Any, address: Any, index: Any, held: Any, slot: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address, index, held, slot = args
            for begin, elements in _pieces(storage, count):
                pointer = _pointer(builder, address, index, storage, begin, elements)
                found = builder.load(pointer, align=elements * _SIZES[storage])
                found = builder.bitcast(found, bits if elements == 1 else ir.VectorType(bits, elements))
                for e in range(elements):
                    one = found if elements == 1 else builder.extract_element(found, _WORD(e))
                    target = _element(context, builder, sig.args[2], held, slot, begin + e)
                    builder.store(_widen(builder, one, storage, real_type), target)
            return context.get_dummy_value()

        return types.void(types.uint64, types.int64, held, types.int64), generate

    return read


def store(storage: str, count: int) -> Function:
    bits = ir.IntType(8 * _SIZES[storage])

    @intrinsic
    def write(typing_context: Any, address: Any, index: Any, held: Any, slot: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address, index, held, slot = args
            for begin, elements in _pieces(storage, count):
                together = ir.Constant(ir.VectorType(bits, elements), ir.Undefined)
                for e in range(elements):
                    source = _element(context, builder, sig.args[2], held, slot, begin + e)
                    one = _narrow(builder, builder.load(source), storage)
                    together = one if elements == 1 else builder.insert_element(together, one, _WORD(e))
                pointer = _pointer(builder, address, index, storage, begin, elements)
                written = builder.bitcast(together, _type_of(storage, elements))
                builder.store(written, pointer, align=elements * _SIZES[storage])
            return context.get_dummy_value()

        return types.void(types.uint64, types.int64, held, types.int64), generate

    return write


def shared(shape: Any, real: Any) -> Function:
    # Inlined before it is compiled: a compiled function cannot return an array of its own.
    @cuda.jit(device=True, inline="always")
    def array_of_block():
        return cuda.shared.array(shape, real)

    return array_of_block


def scratch_size(width: int, rows: int) -> int:
    return WARP


def _over_warp(joined: Function) -> Function:
    @device_function
    def over_warp(value, distance):
        while distance > 0:
            value = joined(value, cuda.shfl_xor_sync(ALL_LANES, value, distance))
            distance //= 2
        return value

    return over_warp


def team_width(width: int) -> int:
    return min(width, WARP)


def team_reduction(width: int, joined: Function) -> Function:
    first, over_warp = team_width(width) // 2, _over_warp(joined)
    return device_function(lambda value: over_warp(value, first))


def row_reduction(width: int, joined: Function) -> Function:
    first, warps, over_warp = team_width(width) // 2, width // WARP, _over_warp(joined)

    @device_function
    def over_row(value, scratch):
        value = over_warp(value, first)
        if warps > 1:  # one number a warp by way of shared memory, which every warp then joins in the same order
            cuda.syncthreads()
            if cuda.threadIdx.x % WARP == 0:
                scratch[cuda.threadIdx.x // WARP] = value
            cuda.syncthreads()
            value = over_warp(scratch[cuda.threadIdx.x % warps], warps // 2)
        return value

    return over_row


def any_row(width: int) -> Function:
    @device_function
    def of_warp(condition):
        return cuda.any_sync(ALL_LANES, condition) if width < WARP else condition

    return of_warp


@device_function
def fused(a, b, c):
    return cuda.fma(a, b, c)


@device_function
def barrier():
    cuda.syncthreads()
