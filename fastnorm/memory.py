"""Large outputs from recycled memory: the page faults of a fresh array can cost as much as a norm's work.

An output keeps its memory for as long as it, or a view of it, lives; then the memory comes back here for the next
output of that size. What is kept is bounded, the oldest goes first.
"""

import os
import threading
from collections import OrderedDict
from math import prod
from typing import Any, NamedTuple

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


class _Block(NamedTuple):
    """Bytes that begin at a cache line: a vector's store that crosses two costs twice."""

    memory: Array  # keeps them alive
    address: int
    size: int


def _allocated(size: int) -> _Block:
    memory = np.empty(size + _LINE - 1, np.uint8)
    start = memory.__array_interface__["data"][0]  # `memory.ctypes` imports, which fails where the interpreter ends
    return _Block(memory, start + -start % _LINE, size)


class Lease:
    """Lends a block to the array that is made of it; when no array uses it any more, gives it back."""

    __slots__ = ("__array_interface__", "address", "block")

    __array_interface__: dict[str, Any]

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.address = block.address

    def __del__(self) -> None:
        _pool.give_back(self.block)


class _Pool:
    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: OrderedDict[int, _Block] = OrderedDict()  # by address, the oldest first
        self._bytes = 0
        self._lock = threading.RLock()  # a garbage collection inside may give memory back

    def take(self, size: int) -> _Block:
        """Return a block of `size` bytes, recycled if there is one."""
        with self._lock:
            for address, block in reversed(list(self._kept.items())):
                if block.size == size and self._kept.pop(address, None) is not None:
                    self._bytes -= size
                    return block
        return _allocated(size)

    def give_back(self, block: _Block) -> None:
        if block.size > self._bound:
            return
        with self._lock:
            self._kept[block.address] = block
            self._bytes += block.size
            while self._bytes > self._bound:
                oldest = self._kept.popitem(last=False)[1]
                self._bytes -= oldest.size

    def after_fork(self) -> None:
        """Take a new lock: the thread that may have held the old one does not exist in the child of a fork."""
        self._lock = threading.RLock()

    def clear(self) -> int:
        """Let go of every block; return their bytes."""
        with self._lock:
            freed, kept = self._bytes, list(self._kept.values())
            self._kept.clear()
            self._bytes = 0
        del kept  # freed outside the lock
        return freed


_pool = _Pool(_bound())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.after_fork)


def clear() -> int:
    """Give the memory that is kept for the next outputs back to the system.

    Returns
    -------
    int
        How many bytes that was.

    Examples
    --------
    >>> import fastnorm.memory
    >>> freed = fastnorm.memory.clear()
    >>> fastnorm.memory.clear()
    0
    """
    return _pool.clear()


def lease(size: int) -> Lease:
    """Return recycled memory of `size` bytes, to be the base of an array."""
    return Lease(_pool.take(size))


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], second: bool = False) -> Array:
    """Return an uninitialised array, of recycled memory if it is large; a call's second output if it is less large."""
    size = prod(shape) * dtype.itemsize
    if size < (tuning.POOL_SMALLEST_SECOND_BYTES if second else tuning.POOL_SMALLEST_BYTES):
        return np.empty(shape, dtype)
    block = lease(size)
    block.__array_interface__ = {
        "version": 3, "data": (block.address, False), "shape": shape, "typestr": dtype.str
    }  # fmt: skip
    array = np.asarray(block)
    return array if array.dtype == dtype else array.view(dtype)  # bfloat16 is no type of NumPy's own
