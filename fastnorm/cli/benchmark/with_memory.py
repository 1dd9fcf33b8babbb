"""What memory allows: the least traffic a cell's call can cause, with the output already there.

For a norm x is copied: one read and one write. For moments it is read. Both are done in several ways and the fastest
counts: by one thread and by several, with ordinary stores and with those that leave the cache out.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnorm.cli.benchmark.arrays import Inputs
from fastnorm.cli.benchmark.grid import Cell
from fastnorm.lab.timing import seconds_per_call

Call = Callable[[], Any]
Array = NDArray[Any]


def prepare(cell: Cell, given: Inputs, threads: int) -> Call:
    """Return the fastest way to cause a cell's least traffic."""
    # Bytes are moved, not numbers: words of 64 bits, whatever the dtype.
    x = given.x.reshape(-1).view(np.uint64) if given.x.nbytes % 8 == 0 else given.x.reshape(-1).view(np.uint8)
    ways = _copies(x, threads) if cell.written else _reads(x, threads)
    return min(ways, key=_quickest)


def _quickest(way: Call) -> float:
    """Return the shortest of a few timings."""
    way()
    return min(seconds_per_call(way, 1) for _ in range(5))


def _copies(x: Array, threads: int) -> list[Call]:
    y = np.zeros_like(x)
    copy, copy_past_cache, _ = _kernels()
    return [lambda: np.copyto(y, x), lambda: copy(x, y, threads), lambda: copy_past_cache(x, y, threads)]


def _reads(x: Array, threads: int) -> list[Call]:
    read = _kernels()[2]
    return [lambda: read(x, 1), lambda: read(x, threads)]


@functools.cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Compile for several threads: a copy, one past the cache, a read."""
    numba, extending = importlib.import_module("numba"), importlib.import_module("numba.extending")
    ir = importlib.import_module("llvmlite.ir")

    def stored_past_cache(typing: Any, y: Any, place: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(y)(context, builder, arguments[0]).data
            store = builder.store(arguments[2], builder.gep(data, [arguments[1]]))
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return numba.types.void(y, place, value), generate

    store_past_cache = extending.intrinsic(stored_past_cache)

    def copy_part(x: Any, y: Any, first: int, end: int) -> None:
        for i in range(first, end):
            y[i] = x[i]

    def copy_part_past_cache(x: Any, y: Any, first: int, end: int) -> None:
        for i in range(first, end):
            store_past_cache(y, i, x[i])

    def read_part(x: Any, first: int, end: int) -> Any:
        mixed = x[0]
        for i in range(first, end):
            mixed |= x[i]
        return mixed

    def copy_with(compiled_part: Any) -> Any:
        def copy(x: Any, y: Any, threads: int) -> None:
            for part in numba.prange(threads):
                compiled_part(x, y, part * x.size // threads, (part + 1) * x.size // threads)

        return numba.njit(parallel=True)(copy)

    compiled_read = numba.njit(read_part)

    def read(x: Any, threads: int) -> Any:
        mixed = np.zeros(8 * threads, np.uint64)
        for part in numba.prange(threads):
            mixed[8 * part] = compiled_read(x, part * x.size // threads, (part + 1) * x.size // threads)
        return mixed

    copies = [copy_with(numba.njit(part)) for part in (copy_part, copy_part_past_cache)]
    return copies[0], copies[1], numba.njit(parallel=True)(read)
