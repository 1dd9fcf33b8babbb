"""What is done element by element: sums that other kernels would make twice, and roots of variances."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastnorm.backends.cuda import machine
from fastnorm.backends.cuda.compat import SIMULATED, Integer, Kernel, Pointer, Real, cuda
from fastnorm.backends.cuda.shapes import RowShape
from fastnorm.backends.cuda.statistics import reciprocal_root

THREADS = 4 if SIMULATED else 128  # of a block, where each has one element


@lru_cache(maxsize=64)
def add(shape: RowShape, storage: str, kept: str, real: Any, keep: bool) -> Kernel:
    """Return the kernel that writes x + residual, as `real` and, with `keep`, as storage type `kept`, too."""
    vector, width, _, slots = shape
    elements = vector * slots
    stride, capacity = vector * width, shape.capacity
    load, store_total = machine.load(storage, real, vector), machine.store(np.dtype(real).name, vector)
    store_kept = machine.store(kept, vector)

    def kernel(x: Pointer, residual: Pointer, total: Pointer, kept_total: Pointer, size: Integer):
        held = cuda.local.array(elements, real)
        other = cuda.local.array(vector, real)
        begin = np.int64(cuda.blockIdx.x) * capacity + np.int64(cuda.threadIdx.x) * vector
        for j in range(slots):
            if begin + j * stride < size:
                load(x, begin + j * stride, held, np.int64(j * vector))
        for j in range(slots):
            at = begin + j * stride
            if at < size:
                load(residual, at, other, np.int64(0))
                for e in range(vector):
                    held[j * vector + e] += other[e]
                store_total(total, at, held, np.int64(j * vector))
                if keep:
                    store_kept(kept_total, at, held, np.int64(j * vector))

    return Kernel(kernel, (width, 1))


@lru_cache(maxsize=8)
def rooted(storage: str) -> Kernel:
    """Return the kernel that makes mean and rstd, float64, of means and variances."""
    load, store = machine.load(storage, np.float64, 1), machine.store("float64", 1)
    rstd_of = reciprocal_root(False)

    def kernel(means: Pointer, variances: Pointer, mean_out: Pointer, rstd_out: Pointer, size: Integer, eps: Real):
        held = cuda.local.array(1, np.float64)
        number = np.int64(cuda.blockIdx.x) * THREADS + np.int64(cuda.threadIdx.x)
        if number < size:
            load(means, number, held, np.int64(0))
            store(mean_out, number, held, np.int64(0))
            load(variances, number, held, np.int64(0))
            held[0] = rstd_of(held[0], 1.0, eps)
            store(rstd_out, number, held, np.int64(0))

    return Kernel(kernel, (THREADS, 1))


@lru_cache(maxsize=1)
def spread() -> Kernel:
    """Return the kernel that makes variances and standard deviations of sums of squares, all float64."""
    load, store = machine.load("float64", np.float64, 1), machine.store("float64", 1)

    def kernel(squares: Pointer, var_out: Pointer, std_out: Pointer, size: Integer, divisor: Real):
        held = cuda.local.array(1, np.float64)
        number = np.int64(cuda.blockIdx.x) * THREADS + np.int64(cuda.threadIdx.x)
        if number < size:
            load(squares, number, held, np.int64(0))
            held[0] = held[0] / divisor
            store(var_out, number, held, np.int64(0))
            held[0] = math.sqrt(held[0])
            store(std_out, number, held, np.int64(0))

    return Kernel(kernel, (THREADS, 1))
