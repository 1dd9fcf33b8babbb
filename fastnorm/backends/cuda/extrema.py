"""Kernels for the least and the largest element: of chunks of rows or columns, and of the parts that belong together.

NaN is both, wherever there is one. Extrema are exact: parts are of the type that x is computed in.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.columns import place
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, cuda, device_function
from fastnorm.backends.cuda.merging import part_of
from fastnorm.backends.cuda.rows import chunk_of
from fastnorm.backends.cuda.shapes import ColumnShape, RowShape, Step


@device_function
def lesser(a, b):
    """The lesser of two, NaN if one is."""
    return a if a < b or a != a else b


@device_function
def larger(a, b):
    """The larger of two, NaN if one is."""
    return a if a > b or a != a else b


@lru_cache(maxsize=64)
def extrema_rows(shape: RowShape, storage: str, real: Any) -> Kernel:
    """Return the kernel for the extrema of chunks of rows, (lines, chunks)."""
    vector, width, rows_of_block, slots = shape
    stride, capacity = vector * width, shape.capacity
    make_scratch = machine.shared(machine.scratch_size(width, rows_of_block), real)
    load_x, store_one = machine.load(storage, real, vector), machine.store(np.dtype(real).name, 1)
    row_least, row_largest = machine.row_reduction(width, lesser), machine.row_reduction(width, larger)

    def kernel(x: Pointer, lows: Pointer, highs: Pointer, lines: Integer, length: Integer, chunks: Integer):
        scratch = make_scratch()
        held = cuda.local.array(vector, real)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside, row, begin, rest = chunk_of(number, lines, length, chunks, np.int64(capacity))
        lane = np.int64(cuda.threadIdx.x) * vector
        low = real(np.inf)
        high = real(-np.inf)
        for j in range(slots):
            if lane + j * stride < rest:
                load_x(x, row * length + begin + lane + j * stride, held, np.int64(0))
                for e in range(vector):
                    low = lesser(low, held[e])
                    high = larger(high, held[e])
        low = row_least(low, scratch)
        high = row_largest(high, scratch)
        if inside and lane == 0:
            held[0] = low
            store_one(lows, number, held, np.int64(0))
            held[0] = high
            store_one(highs, number, held, np.int64(0))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def extrema_columns(shape: ColumnShape, storage: str, real: Any) -> Kernel:
    """Return the kernel for the extrema of each column of each chunk, (outer, chunks, inner)."""
    vector, width, depth, slots = shape
    columns_of_block, chunk_length = shape.columns, shape.chunk
    columns = depth, width * vector
    make_lows, make_highs = machine.shared(columns, real), machine.shared(columns, real)
    load_x, store_one = machine.load(storage, real, vector), machine.store(np.dtype(real).name, 1)
    barrier = machine.barrier

    def kernel(x: Pointer, lows: Pointer, highs: Pointer, length: Integer, inner: Integer):
        lows_of_block = make_lows()
        highs_of_block = make_highs()
        held = cuda.local.array(vector, real)
        least = cuda.local.array(vector, real)
        largest = cuda.local.array(vector, real)
        outer, first_column, chunk, chunks = place(
            np.int64(cuda.blockIdx.x), length, inner, np.int64(columns_of_block), np.int64(chunk_length)
        )
        mine = np.int64(cuda.threadIdx.x) * vector
        column = first_column + mine
        position = chunk * chunk_length + np.int64(cuda.threadIdx.y)
        for e in range(vector):
            least[e] = real(np.inf)
            largest[e] = real(-np.inf)
        if column < inner:
            for j in range(slots):
                if position + j * depth < length:
                    load_x(x, (outer * length + position + j * depth) * inner + column, held, np.int64(0))
                    for e in range(vector):
                        least[e] = lesser(least[e], held[e])
                        largest[e] = larger(largest[e], held[e])
        for e in range(vector):
            lows_of_block[cuda.threadIdx.y, mine + e] = least[e]
            highs_of_block[cuda.threadIdx.y, mine + e] = largest[e]
        barrier()
        if cuda.threadIdx.y == 0 and column < inner:
            for e in range(vector):
                for d in range(1, depth):
                    least[e] = lesser(least[e], lows_of_block[d, mine + e])
                    largest[e] = larger(largest[e], highs_of_block[d, mine + e])
                target = (outer * chunks + chunk) * inner + column + e
                store_one(lows, target, least, np.int64(e))
                store_one(highs, target, largest, np.int64(e))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def merge_extrema(step: Step, storage: str, result: str, real: Any) -> Kernel:
    """Return the kernel that joins the parts of each statistic of a `merging.Pool`, as storage type `result`."""
    width, rows_of_block, _ = step
    make_scratch = machine.shared(machine.scratch_size(width, rows_of_block), real)
    row_least, row_largest = machine.row_reduction(width, lesser), machine.row_reduction(width, larger)
    read, write = machine.load(storage, real, 1), machine.store(result, 1)

    def kernel(
        lows: Pointer, highs: Pointer, low_out: Pointer, high_out: Pointer, statistics: Integer, groups: Integer,
        runs: Integer, chunks: Integer, members: Integer, stride_item: Integer, stride_group: Integer,
        stride_block: Integer, stride_run: Integer, stride_chunk: Integer,
    ):  # fmt: skip
        scratch = make_scratch()
        held = cuda.local.array(1, real)
        strides = (stride_item, stride_group, stride_block, stride_run, stride_chunk)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside = number < statistics
        if not inside:
            number = np.int64(0)
        thread = np.int64(cuda.threadIdx.x)
        low = real(np.inf)
        high = real(-np.inf)
        for member in range(thread, members, width):
            part = part_of(number, member, groups, runs, chunks, strides)
            read(lows, part, held, np.int64(0))
            low = lesser(low, held[0])
            read(highs, part, held, np.int64(0))
            high = larger(high, held[0])
        low = row_least(low, scratch)
        high = row_largest(high, scratch)
        if inside and thread == 0:
            held[0] = low
            write(low_out, number, held, np.int64(0))
            held[0] = high
            write(high_out, number, held, np.int64(0))

    return Kernel(kernel, (width, rows_of_block))
