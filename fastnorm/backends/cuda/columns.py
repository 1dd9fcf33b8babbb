"""Kernels over columns: neighbours in memory belong to different lines; x is (outer, length, inner).

A block has `shape.columns` adjacent columns and a chunk of `shape.chunk` positions of them. Thread (t, d) has the
vector of columns t and the positions d, d + depth, ... of the chunk.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, Real, cuda, device_function
from fastnorm.backends.cuda.forms import Form, finisher, statistics_reader
from fastnorm.backends.cuda.shapes import ColumnShape
from fastnorm.backends.cuda.statistics import MOST_SQUARES, normalizer, two_sum


@device_function
def place(block, length, inner, columns_of_block, chunk_length):
    """(outer block, first column, chunk, number of chunks) of a block of threads, by its number."""
    tiles = (inner + columns_of_block - 1) // columns_of_block
    chunks = (length + chunk_length - 1) // chunk_length
    return block // tiles // chunks, block % tiles * columns_of_block, block // tiles % chunks, chunks


@lru_cache(maxsize=64)
def moments_columns(shape: ColumnShape, storage: str, real: Any, centred: bool) -> Kernel:
    """Return the kernel for the moments of each column of each chunk, (outer, chunks, inner) float64."""
    vector, width, depth, slots = shape
    elements = vector * slots
    columns_of_block, chunk_length = shape.columns, shape.chunk
    load_x = machine.load(storage, real, vector)
    store_one = machine.store("float64", 1)
    means_of_block, rests_of_block, m2s_of_block = (
        machine.shared((depth, width * vector), np.float64) for _ in range(3)
    )
    narrow, paired, barrier = real is np.float32, centred and real is np.float64, machine.barrier

    @device_function
    def moments(held, e, count, least):
        """(mean, rest, m2), float64, of the `count` elements that a thread holds of its column e: two passes."""
        first = held[e]
        hi = real(0)
        if centred:
            total = real(0)
            for j in range(slots):
                if j < count:
                    total += held[j * vector + e] - first
            hi = first + total / real(count)
        total = real(0)
        squares = real(0)
        for j in range(slots):
            if j < count:
                deviation = held[j * vector + e] - hi
                total += deviation
                squares += deviation * deviation
        m2 = np.float64(squares)
        mean = np.float64(hi)
        rest = np.float64(0)
        if centred:
            rest = np.float64(total) / np.float64(count)
            m2 = m2 - rest * rest * np.float64(count)
            mean, rest = two_sum(mean, rest)
        if narrow and not (squares >= real(least) and squares <= real(MOST_SQUARES)):
            wide = np.float64(0)
            if centred:
                for j in range(slots):
                    if j < count:
                        wide += np.float64(held[j * vector + e])
                mean = wide / np.float64(count)
                rest = np.float64(0)
            m2 = np.float64(0)
            for j in range(slots):
                if j < count:
                    wide = np.float64(held[j * vector + e]) - mean
                    m2 += wide * wide
        return mean, rest, m2

    def kernel(x: Pointer, means: Pointer, rests: Pointer, m2s: Pointer, length: Integer, inner: Integer, least: Real):
        shared_rests = rests_of_block()
        shared_means = means_of_block()
        shared_m2s = m2s_of_block()
        held = cuda.local.array(elements, real)
        found = cuda.local.array(3, np.float64)
        outer, first_column, chunk, chunks = place(
            np.int64(cuda.blockIdx.x), length, inner, np.int64(columns_of_block), np.int64(chunk_length)
        )
        mine = np.int64(cuda.threadIdx.x) * vector
        column = first_column + mine
        position = chunk * chunk_length + np.int64(cuda.threadIdx.y)
        start = (outer * length + position) * inner + column
        count = np.int64(0)
        if column < inner:
            for j in range(slots):
                if position + j * depth < length:
                    load_x(x, start + j * depth * inner, held, np.int64(j * vector))
                    count += 1
            for e in range(vector):
                mean, rest, m2 = 0.0, 0.0, 0.0
                if count > 0:
                    mean, rest, m2 = moments(held, e, count, least)
                shared_means[cuda.threadIdx.y, mine + e] = mean
                shared_rests[cuda.threadIdx.y, mine + e] = rest
                shared_m2s[cuda.threadIdx.y, mine + e] = m2
        barrier()
        # The depth of a column is joined by Chan's formula, in order.
        if cuda.threadIdx.y == 0 and column < inner:
            for e in range(vector):
                mean, rest, m2 = shared_means[0, mine + e], shared_rests[0, mine + e], shared_m2s[0, mine + e]
                total = count
                for d in range(1, depth):
                    # Thread d of a column has the positions from d on, every depth-th one.
                    size = min(max((length - position - d + depth - 1) // depth, np.int64(0)), np.int64(slots))
                    if size > 0:
                        joined = total + size
                        delta = (shared_means[d, mine + e] - mean) + (shared_rests[d, mine + e] - rest)
                        mean, error = two_sum(mean, delta * (np.float64(size) / np.float64(joined)))
                        rest += error
                        m2 += shared_m2s[d, mine + e]
                        if centred:
                            m2 += delta * delta * (np.float64(total) * np.float64(size) / np.float64(joined))
                        total = joined
                found[0] = mean
                found[1] = rest
                found[2] = m2
                target = (outer * chunks + chunk) * inner + column + e
                store_one(means, target, found, np.int64(0))
                if paired:
                    store_one(rests, target, found, np.int64(1))
                store_one(m2s, target, found, np.int64(2))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=256)
def affine_columns(shape: ColumnShape, form: Form) -> Kernel:
    """Return the kernel that normalises columns by given statistics: that of column l of block o is o * inner + l.

    Parameters go by position or by column.
    """
    vector, _, depth, slots = shape
    elements = vector * slots
    real, columns_of_block, chunk_length = form.real, shape.columns, shape.chunk
    load_x, store_y = machine.load(form.x, real, vector), machine.store(form.y, vector)
    load_parameters = machine.load(form.parameters, real, vector)
    load_parameter = machine.load(form.parameters, real, 1)
    read_statistics = statistics_reader(form)
    _, normalized = normalizer(real)
    finished = finisher(form)
    weight_of_column, weight_of_position = form.weight == "column", form.weight == "position"
    bias_of_column, bias_of_position = form.bias == "column", form.bias == "position"

    def kernel(
        x: Pointer, y: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, weight: Pointer, bias: Pointer,
        length: Integer, inner: Integer, eps: Real,
    ):  # fmt: skip
        values = cuda.local.array(elements, real)
        scales = cuda.local.array(vector, real)
        shifts = cuda.local.array(vector, real)
        statistic = cuda.local.array(1, np.float64)
        outer, first_column, chunk, _ = place(
            np.int64(cuda.blockIdx.x), length, inner, np.int64(columns_of_block), np.int64(chunk_length)
        )
        column = first_column + np.int64(cuda.threadIdx.x) * vector
        position = chunk * chunk_length + np.int64(cuda.threadIdx.y)
        start = (outer * length + position) * inner + column
        if column < inner:
            for j in range(slots):
                if position + j * depth < length:
                    load_x(x, start + j * depth * inner, values, np.int64(j * vector))
            if weight_of_column:
                load_parameters(weight, column, scales, np.int64(0))
            if bias_of_column:
                load_parameters(bias, column, shifts, np.int64(0))
            for e in range(vector):
                coefficients = read_statistics(means, rests, rstds, outer * inner + column + e, eps, statistic)
                for j in range(slots):
                    if position + j * depth < length:
                        if weight_of_position:
                            load_parameter(weight, position + j * depth, scales, np.int64(e))
                        if bias_of_position:
                            load_parameter(bias, position + j * depth, shifts, np.int64(e))
                        value = normalized(values[j * vector + e], coefficients)
                        values[j * vector + e] = finished(value, scales[e], shifts[e])
            for j in range(slots):
                if position + j * depth < length:
                    store_y(y, start + j * depth * inner, values, np.int64(j * vector))

    return Kernel(kernel, shape.block)
