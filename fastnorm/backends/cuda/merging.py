"""Small kernels between the large ones: parts of statistics, or of sums, become one number each, in float64.

Parts lie anywhere: member (p, q, k) of statistic (i, g) is part ``i * stride_i + g * stride_g + p * stride_p +
q * stride_q + k * stride_k``, see `Pool`. They are added in an order that depends on the shape alone.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.compat import Integer, Kernel, Pointer, Real, cuda, device_function
from fastnorm.backends.cuda.shapes import ColumnShape, Step
from fastnorm.backends.cuda.statistics import reciprocal_root, two_sum


class Pool(NamedTuple):
    """Which parts belong to a statistic: `items` x `groups` statistics of `blocks` x `runs` x `chunks` parts each."""

    items: int
    groups: int
    blocks: int
    runs: int
    chunks: int
    stride_item: int
    stride_group: int
    stride_block: int
    stride_run: int
    stride_chunk: int

    @property
    def statistics(self) -> int:
        """How many statistics there are."""
        return self.items * self.groups

    @property
    def members(self) -> int:
        """How many parts each has."""
        return self.blocks * self.runs * self.chunks


@device_function
def part_of(number, member, groups, runs, chunks, strides):
    """Where a member of a statistic lies."""
    chunk = member % chunks
    run = member // chunks % runs
    block = member // chunks // runs
    return (
        number // groups * strides[0] + number % groups * strides[1] + block * strides[2] + run * strides[3]
        + chunk * strides[4]
    )  # fmt: skip


@lru_cache(maxsize=64)
def merge_moments(
    step: Step, centred: bool, paired: bool, floor: bool, running: str | None, rooted: bool = True
) -> Kernel:
    """Return the kernel that joins moments: mean and rstd, float64, and the running statistics of batch normalization.

    Without `rooted`, m2 is written instead of rstd.

    Chan, Golub and LeVeque's formula (1979) for many parts at once: m2 is the sum of the parts' and of count times the
    squared deviation of a part's mean from that of all. Means are two numbers if they are `paired`. `running` is the
    storage type of running statistics; their addresses may be 0.
    """
    width, rows_of_block, _ = step
    make_scratch = machine.shared(machine.scratch_size(width, rows_of_block), np.float64)
    row_sum = machine.row_sum(width)
    read, write = machine.load("float64", np.float64, 1), machine.store("float64", 1)
    kept = running or "float64"
    read_running, write_running = machine.load(kept, np.float64, 1), machine.store(kept, 1)
    updates = running is not None
    rstd_of = reciprocal_root(floor)

    @device_function
    def read_mean(means, rests, part, held):
        """A part's mean, two numbers."""
        read(means, part, held, np.int64(0))
        mean = held[0]
        rest = 0.0
        if paired:
            read(rests, part, held, np.int64(0))
            rest = held[0]
        return mean, rest

    @device_function
    def moved(address, number, old, value, held):
        """Move a running statistic towards a new value, in place."""
        read_running(address, number, held, np.int64(0))
        held[0] = held[0] * old + value * (1.0 - old)
        write_running(address, number, held, np.int64(0))

    def kernel(
        means: Pointer, rests: Pointer, m2s: Pointer, mean_out: Pointer, rest_out: Pointer, rstd_out: Pointer,
        running_mean: Pointer, running_var: Pointer, statistics: Integer, groups: Integer, runs: Integer,
        chunks: Integer, members: Integer, stride_item: Integer, stride_group: Integer, stride_block: Integer,
        stride_run: Integer, stride_chunk: Integer, chunk_count: Integer, last_count: Integer, repeat: Integer,
        eps: Real, divisor: Real, old: Real, unbiased_divisor: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        held = cuda.local.array(2, np.float64)
        strides = (stride_item, stride_group, stride_block, stride_run, stride_chunk)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside = number < statistics
        if not inside:
            number = np.int64(0)
        thread = np.int64(cuda.threadIdx.x)
        whole = np.float64((members // chunks) * ((chunks - 1) * chunk_count + last_count))
        mean = 0.0
        rest = 0.0
        if centred:
            # About the first part's mean: parts that are all alike have exactly that.
            part = part_of(number, np.int64(0), groups, runs, chunks, strides)
            first, first_rest = read_mean(means, rests, part, held)
            total = 0.0
            for member in range(thread, members, width):
                part = part_of(number, member, groups, runs, chunks, strides)
                mean, rest = read_mean(means, rests, part, held)
                count = last_count if member % chunks == chunks - 1 else chunk_count
                total += np.float64(count) * ((mean - first) + (rest - first_rest))
            mean, rest = two_sum(first, row_sum(total, scratch) / whole)
            rest += first_rest
        squares = 0.0
        for member in range(thread, members, width):
            part = part_of(number, member, groups, runs, chunks, strides)
            read(m2s, part, held, np.int64(1))
            squares += held[1]
            if centred:
                of_part, rest_of_part = read_mean(means, rests, part, held)
                count = last_count if member % chunks == chunks - 1 else chunk_count
                deviation = (of_part - mean) + (rest_of_part - rest)
                squares += np.float64(count) * deviation * deviation
        m2 = row_sum(squares, scratch)
        if inside and thread == 0:
            held[0] = mean
            held[1] = rstd_of(m2, divisor, eps) if rooted else m2
            for k in range(repeat):
                write(mean_out, number * repeat + k, held, np.int64(0))
                write(rstd_out, number * repeat + k, held, np.int64(1))
            if paired:
                held[0] = rest
                for k in range(repeat):
                    write(rest_out, number * repeat + k, held, np.int64(0))
            if updates:
                if running_mean != 0:
                    moved(running_mean, number, old, mean, held)
                if running_var != 0:
                    moved(running_var, number, old, m2 / unbiased_divisor, held)

    return Kernel(kernel, (width, rows_of_block))


@lru_cache(maxsize=64)
def merge_sums(step: Step, weight: str | None, result: str) -> Kernel:
    """Return the kernel that adds up two kinds of parts: ``factor * sum(weight * part)``, as storage type `result`.

    `weight` is the storage type of weights, one for each run of each group, or None. Parts and results whose address is
    0 are left out.
    """
    width, rows_of_block, _ = step
    make_scratch = machine.shared(machine.scratch_size(width, rows_of_block), np.float64)
    row_sum = machine.row_sum(width)
    read, write = machine.load("float64", np.float64, 1), machine.store(result, 1)
    read_weight = machine.load(weight or "float64", np.float64, 1)
    weighted = weight is not None

    @device_function
    def summed(parts, weights, number, thread, groups, runs, chunks, members, strides, scratch, held):
        total = 0.0
        for member in range(thread, members if parts != 0 else np.int64(0), width):
            read(parts, part_of(number, member, groups, runs, chunks, strides), held, np.int64(0))
            value = held[0]
            if weighted:
                read_weight(weights, number % groups * runs + member // chunks % runs, held, np.int64(0))
                value *= held[0]
            total += value
        return row_sum(total, scratch)

    def kernel(
        first: Pointer, second: Pointer, weights: Pointer, first_out: Pointer, second_out: Pointer,
        statistics: Integer, groups: Integer, runs: Integer, chunks: Integer, members: Integer, stride_item: Integer,
        stride_group: Integer, stride_block: Integer, stride_run: Integer, stride_chunk: Integer, repeat: Integer,
        factor: Real,
    ):  # fmt: skip
        scratch = make_scratch()
        held = cuda.local.array(1, np.float64)
        strides = (stride_item, stride_group, stride_block, stride_run, stride_chunk)
        number = np.int64(cuda.blockIdx.x) * rows_of_block + np.int64(cuda.threadIdx.y)
        inside = number < statistics
        if not inside:
            number = np.int64(0)
        thread = np.int64(cuda.threadIdx.x)
        a = summed(first, weights, number, thread, groups, runs, chunks, members, strides, scratch, held)
        b = summed(second, weights, number, thread, groups, runs, chunks, members, strides, scratch, held)
        if inside and thread == 0:
            for k in range(repeat):
                if first_out != 0:
                    held[0] = a * factor
                    write(first_out, number * repeat + k, held, np.int64(0))
                if second_out != 0:
                    held[0] = b * factor
                    write(second_out, number * repeat + k, held, np.int64(0))

    return Kernel(kernel, (width, rows_of_block))


@lru_cache(maxsize=16)
def merge_columns(shape: ColumnShape, storage: str, result: str) -> Kernel:
    """Return the kernel that adds up two arrays of parts, (parts, columns), over the parts, as type `result`."""
    vector, width, depth, _ = shape
    assert vector == 1
    make_sums, make_others = (machine.shared((depth, width), np.float64) for _ in range(2))
    read, write = machine.load(storage, np.float64, 1), machine.store(result, 1)
    barrier = machine.barrier

    def kernel(
        first: Pointer, second: Pointer, first_out: Pointer, second_out: Pointer, parts: Integer, columns: Integer
    ):
        sums = make_sums()
        others = make_others()
        held = cuda.local.array(1, np.float64)
        column = np.int64(cuda.blockIdx.x) * width + np.int64(cuda.threadIdx.x)
        total = 0.0
        other = 0.0
        if column < columns:
            for part in range(np.int64(cuda.threadIdx.y), parts, depth):
                read(first, part * columns + column, held, np.int64(0))
                total += held[0]
                read(second, part * columns + column, held, np.int64(0))
                other += held[0]
        sums[cuda.threadIdx.y, cuda.threadIdx.x] = total
        others[cuda.threadIdx.y, cuda.threadIdx.x] = other
        barrier()
        if cuda.threadIdx.y == 0 and column < columns:
            for d in range(1, depth):
                total += sums[d, cuda.threadIdx.x]
                other += others[d, cuda.threadIdx.x]
            held[0] = total
            write(first_out, column, held, np.int64(0))
            held[0] = other
            write(second_out, column, held, np.int64(0))

    return Kernel(kernel, shape.block)
