"""Large outputs from recycled memory: the page faults of a fresh array can cost as much as a norm's work.

An output keeps its memory for as long as it, or a view of it, lives; then the memory comes back here for the next
output of that size. What is kept is bounded, the oldest goes first.
"""

import os
import threading
from collections import OrderedDict
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnorm import tuning

Array = npt.NDArray[Any]

_LINE = 64  # bytes of a cache line


def _bound() -> int:
    text = os.environ.get("FASTNORM_POOL_MIB", "")
    if not text:
        return tuning.POOL_BYTES
    if not text.isdecimal():
        raise ValueError(f"FASTNORM_POOL_MIB must be a number of MiB, got {text!r}")
    return int(text) * 2**20


class _Lease:
    """Lends bytes to the array that is made of it; when no array uses them any more, gives them back."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        _pool.give_back(self.memory)


class _Pool:
    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: OrderedDict[int, Array] = OrderedDict()  # by identity, the oldest first
        self._bytes = 0
        self._lock = threading.RLock()  # a garbage collection inside may give memory back

    def take(self, size: int) -> Array:
        """Return `size` bytes, recycled if there are any."""
        with self._lock:
            for identity in reversed(self._kept):
                if self._kept[identity].nbytes == size:
                    self._bytes -= size
                    return self._kept.pop(identity)
        # Aligned to a cache line: a vector's store that crosses two costs twice.
        memory = np.empty(size + _LINE - 1, np.uint8)
        start = -memory.ctypes.data % _LINE
        return memory[start : start + size]

    def give_back(self, memory: Array) -> None:
        if memory.nbytes > self._bound:
            return
        with self._lock:
            self._kept[id(memory)] = memory
            self._bytes += memory.nbytes
            while self._bytes > self._bound:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


_pool = _Pool(_bound())


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], second: bool = False) -> Array:
    """Return an uninitialised array, of recycled memory if it is large; a call's second output if it is less large."""
    size = prod(shape) * dtype.itemsize
    if size < (tuning.POOL_SMALLEST_SECOND_BYTES if second else tuning.POOL_SMALLEST_BYTES):
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_pool.take(size))).view(dtype).reshape(shape)
