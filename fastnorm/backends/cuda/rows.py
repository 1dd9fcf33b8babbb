"""Kernels over rows, whose elements lie together: normalise in one pass, or statistics first and the result then.

In every kernel `width` threads have a row, thread t the vectors t, t + width, ... of it; x is (lines, length).
"""

from functools import lru_cache
from typing import Any

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, Real, cuda, device_function
from fastnorm.backends.cuda.forms import Form, finisher, parameter_reader, statistics_reader
from fastnorm.backends.cuda.shapes import RowShape
from fastnorm.backends.cuda.statistics import normalizer, reciprocal_root, row_statistics


@device_function
def chunk_of(number, lines, length, chunks, capacity):
    """(whether there is a chunk of this number, its row, where in the row it begins, its length).

    The number is row * chunks + chunk. Past the last it stands for the first: threads without a chunk must take part in
    sums.
    """
    inside = number < lines * chunks
    number = number if inside else np.int64(0)
    begin = number % chunks * capacity
    return inside, number // chunks, begin, min(length - begin, capacity)


@lru_cache(maxsize=256)
def normalize_rows(shape: RowShape, form: Form) -> Kernel:
    """Return the kernel that reads a row once, into registers, and writes it normalised."""
    vector, width, rows_of_block, slots = shape
    elements = vector * slots
    real, stride = form.real, vector * width
    size = machine.scratch_size(width, rows_of_block)
    make_scratch, make_wide_scratch = machine.shared(size, real), machine.shared(size, np.float64)
    load_x, load_first = machine.load(form.x, real, vector), machine.load(form.x, real, 1)
    store_y = machine.store(form.y, vector)
    read_weight, read_bias = (parameter_reader(owner, form, vector) for owner in (form.weight, form.bias))
    statistics = row_statistics(shape, real, form.centred)
    rstd_of = reciprocal_root(form.floor)
    split, normalized = normalizer(real)
    finished = finisher(form)
    store_one = machine.store("float64", 1)
    with_residual, keep_total, want_stats = form.residual, form.keep_total, form.want_stats

    def kernel(
        x: Pointer, residual: Pointer, total: Pointer, y: Pointer, weight: Pointer, bias: Pointer,
        mean_out: Pointer, rstd_out: Pointer, lines: Integer, length: Integer, run_length: Integer,
        segments: Integer, count: Integer, repeat: Integer, eps: Real, divisor: Real, least: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        wide_scratch = make_wide_scratch()
        held = cuda.local.array(elements, real)
        other = cuda.local.array(vector, real)
        scale_of = cuda.local.array(vector, real)
        shift_of = cuda.local.array(vector, real)
        row = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside = row < lines
        start = row * length if inside else np.int64(0)  # threads without a row must take part in its sums
        lane = np.int64(cuda.threadIdx.x) * vector
        load_first(x, start, other, np.int64(0))
        first = other[0]
        if with_residual:
            load_first(residual, start, other, np.int64(0))
            first += other[0]
        for j in range(slots):
            if lane + j * stride < length:
                load_x(x, start + lane + j * stride, held, np.int64(j * vector))
        if with_residual:
            for j in range(slots):
                if lane + j * stride < length:
                    load_x(residual, start + lane + j * stride, other, np.int64(0))
                    for e in range(vector):
                        held[j * vector + e] += other[e]
                    if keep_total and inside:
                        store_y(total, start + lane + j * stride, held, np.int64(j * vector))
        hi, lo, m2 = statistics(held, lane, length, first, real(least), scratch, wide_scratch)
        rstd = rstd_of(m2, divisor, eps)
        coefficients = split(hi, lo, rstd)
        if inside:
            first_run = row * segments % count
            for j in range(slots):
                at = lane + j * stride
                if at < length:
                    read_weight(weight, first_run, at, run_length, scale_of)
                    read_bias(bias, first_run, at, run_length, shift_of)
                    for e in range(vector):
                        value = normalized(held[j * vector + e], coefficients)
                        held[j * vector + e] = finished(value, scale_of[e], shift_of[e])
                    store_y(y, start + at, held, np.int64(j * vector))
            if want_stats and lane == 0:
                found = cuda.local.array(2, np.float64)
                found[0] = np.float64(hi) + lo
                found[1] = rstd
                for k in range(repeat):
                    store_one(mean_out, row * repeat + k, found, np.int64(0))
                    store_one(rstd_out, row * repeat + k, found, np.int64(1))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=64)
def moments_rows(shape: RowShape, storage: str, real: Any, centred: bool) -> Kernel:
    """Return the kernel for the moments of chunks of rows, each of `shape.capacity` elements or, the last, fewer."""
    vector, width, rows_of_block, slots = shape
    elements = vector * slots
    stride, capacity = vector * width, shape.capacity
    size = machine.scratch_size(width, rows_of_block)
    make_scratch, make_wide_scratch = machine.shared(size, real), machine.shared(size, np.float64)
    load_x, load_first = machine.load(storage, real, vector), machine.load(storage, real, 1)
    statistics = row_statistics(shape, real, centred)
    paired = centred and real is np.float64
    store_one = machine.store("float64", 1)

    def kernel(
        x: Pointer, means: Pointer, rests: Pointer, m2s: Pointer, lines: Integer, length: Integer, chunks: Integer,
        least: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        wide_scratch = make_wide_scratch()
        held = cuda.local.array(elements, real)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside, row, begin, rest = chunk_of(number, lines, length, chunks, np.int64(capacity))
        lane = np.int64(cuda.threadIdx.x) * vector
        start = row * length + begin
        load_first(x, start, held, np.int64(0))
        first = held[0]
        for j in range(slots):
            if lane + j * stride < rest:
                load_x(x, start + lane + j * stride, held, np.int64(j * vector))
        hi, lo, m2 = statistics(held, lane, rest, first, real(least), scratch, wide_scratch)
        if inside and lane == 0:
            found = cuda.local.array(3, np.float64)
            found[0] = np.float64(hi) if paired else np.float64(hi) + lo
            found[1] = lo
            found[2] = m2
            store_one(means, number, found, np.int64(0))
            if paired:
                store_one(rests, number, found, np.int64(1))
            store_one(m2s, number, found, np.int64(2))

    return Kernel(kernel, shape.block)


@lru_cache(maxsize=256)
def affine_rows(shape: RowShape, form: Form) -> Kernel:
    """Return the kernel that normalises chunks of rows by statistics that are there.

    Row r has statistic ``r // block * channels + r % channels``, and so many parameters of its own if they go by
    runs.
    """
    vector, width, rows_of_block, slots = shape
    elements = vector * slots
    real, stride, capacity = form.real, vector * width, shape.capacity
    load_x, store_y = machine.load(form.x, real, vector), machine.store(form.y, vector)
    read_weight, read_bias = (parameter_reader(owner, form, vector) for owner in (form.weight, form.bias))
    read_statistics = statistics_reader(form)
    _, normalized = normalizer(real)
    finished = finisher(form)

    def kernel(
        x: Pointer, y: Pointer, means: Pointer, rests: Pointer, rstds: Pointer, weight: Pointer, bias: Pointer,
        lines: Integer, length: Integer, chunks: Integer, block: Integer, channels: Integer, eps: Real,
    ):  # fmt: skip
        held = cuda.local.array(elements, real)
        scale_of = cuda.local.array(vector, real)
        shift_of = cuda.local.array(vector, real)
        statistic = cuda.local.array(1, np.float64)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside, row, begin, rest = chunk_of(number, lines, length, chunks, np.int64(capacity))
        if inside:
            lane = np.int64(cuda.threadIdx.x) * vector
            start = row * length + begin
            for j in range(slots):
                if lane + j * stride < rest:
                    load_x(x, start + lane + j * stride, held, np.int64(j * vector))
            source = row // block * channels + row % channels
            coefficients = read_statistics(means, rests, rstds, source, eps, statistic)
            for j in range(slots):
                at = lane + j * stride
                if at < rest:
                    read_weight(weight, row % channels, begin + at, length, scale_of)
                    read_bias(bias, row % channels, begin + at, length, shift_of)
                    for e in range(vector):
                        value = normalized(held[j * vector + e], coefficients)
                        held[j * vector + e] = finished(value, scale_of[e], shift_of[e])
                    store_y(y, start + at, held, np.int64(j * vector))

    return Kernel(kernel, shape.block)
