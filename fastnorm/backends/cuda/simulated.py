"""The simulator's side of `machine`: addresses of the host's memory, and a tree in shared memory."""

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[..., Any]

_DTYPES = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32, "float64": np.float64}


class DeviceArray:
    """An array in what counts as the device's memory, with the methods of Numba's that are used here."""

    def __init__(self, array: Any, stream: int = 0) -> None:
        self._array = array
        self._stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        array = self._array
        return {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3,
            "stream": self._stream or None,  # 0 is no stream to the interface
        }  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        found: np.dtype[Any] = self._array.dtype
        return found

    def reshape(self, *shape: Any) -> "DeviceArray":
        """Return the same memory in another shape."""
        return DeviceArray(self._array.reshape(*shape), self._stream)

    def copy_to_host(self) -> Any:
        """Return a copy of NumPy's."""
        return self._array.copy()


def copy(target: Any, source: Any) -> None:
    """Copy between arrays that tell where they lie."""
    to, from_ = (part.__cuda_array_interface__ for part in (target, source))
    dtype = np.dtype(to["typestr"])
    count = int(np.prod(to["shape"], dtype=np.int64))
    _memory(to["data"][0], count, dtype)[:] = _memory(from_["data"][0], count, dtype)


def _memory(address: int, count: int, dtype: Any) -> Any:
    """Return the elements at an address."""
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype)


def _widened(bits: Any) -> Any:
    """Return bfloat16 bits, the upper half of a float32's, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded(values: Any) -> Any:
    """Return float32 as bfloat16 bits, rounded to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def load(storage: str, real: Any, count: int) -> Function:
    dtype = _DTYPES[storage]
    size = np.dtype(dtype).itemsize

    def read(address: int, index: int, held: Any, slot: int) -> None:
        found = _memory(address + index * size, count, dtype)
        held[slot : slot + count] = _widened(found) if storage == "bfloat16" else found

    return read


def store(storage: str, count: int) -> Function:
    dtype = _DTYPES[storage]
    size = np.dtype(dtype).itemsize

    def write(address: int, index: int, held: Any, slot: int) -> None:
        values = held[slot : slot + count]
        _memory(address + index * size, count, dtype)[:] = _rounded(values) if storage == "bfloat16" else values

    return write


def _thread() -> Any:
    """Return the GPU's thread that runs: the simulator gives Python's what kernels ask of it."""
    return threading.current_thread()


_allocation = threading.Lock()


def shared(shape: Any, real: Any) -> Function:
    # Not Numba's: there two threads that ask at once can get an array each.
    def array_of_block() -> Any:
        block = _thread()._manager
        with _allocation:
            arrays = block.__dict__.setdefault("shared", {})
            if array_of_block not in arrays:
                arrays[array_of_block] = np.empty(shape, real)
        return arrays[array_of_block]

    return array_of_block


def barrier() -> None:
    _thread().syncthreads()


def scratch_size(width: int, rows: int) -> int:
    return width * rows


def row_reduction(width: int, joined: Function) -> Function:
    def over_row(value: Any, scratch: Any) -> Any:
        if width == 1:
            return value
        thread = _thread().threadIdx
        first = thread.y * width
        barrier()
        scratch[first + thread.x] = value
        distance = width // 2
        while distance > 0:
            barrier()
            if thread.x < distance:
                mine = first + thread.x
                scratch[mine] = joined(scratch[mine], scratch[mine + distance])
            distance //= 2
        barrier()
        return scratch[first]

    return over_row


def team_width(width: int) -> int:
    return 1


def team_reduction(width: int, joined: Function) -> Function:
    return lambda value: value


def any_row(width: int) -> Function:
    def of_block(condition: Any) -> bool:
        return bool(_thread().syncthreads_or(condition))

    return of_block


def fused(a: Any, b: Any, c: Any) -> Any:
    """Float32 by way of float64, whose products of float32 are exact; float64 with two roundings."""
    return type(c)(np.float64(a) * np.float64(b) + np.float64(c))
