"""Arrays on a device for the tests: on hardware CuPy's or PyTorch's, in the simulator what shares their protocols.

In the simulator the device's memory is the host's, so that a stand-in holds an array of NumPy's.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnorm.backends.cuda import compat

Array = np.ndarray[Any, Any]


class Interface:
    """Has ``__cuda_array_interface__`` and nothing else."""

    def __init__(self, array: Array, stream: int | None = None) -> None:
        self.array = array
        self.stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        contiguous = self.array.flags.c_contiguous
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "strides": None if contiguous else self.array.strides,
            "version": 3,
            "stream": self.stream,
        }


class Context:
    """A device that can be made the current one, as CuPy's."""

    id = 0

    def __enter__(self) -> None: ...

    def __exit__(self, *details: object) -> None: ...


class Namespaced(Interface):
    """Has an array namespace, too, as CuPy's arrays have: any dtype, and results are of this kind."""

    device = Context()

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def reshape(self, *shape: Any) -> "Namespaced":
        return Namespaced(self.array.reshape(*shape))

    def __setitem__(self, where: Any, value: "Namespaced") -> None:
        self.array[where] = value.array

    def __array_namespace__(self) -> Any:
        def empty(shape: tuple[int, ...], dtype: Any) -> Namespaced:
            array = np.empty(shape, dtype)
            array.reshape(-1).view(np.uint8).fill(0xFF)  # NaN, so that what is not written shows
            return Namespaced(array)

        return SimpleNamespace(empty=empty, ascontiguousarray=lambda x: Namespaced(np.ascontiguousarray(x.array)))


class Dlpack:
    """Has DLPack and nothing else; what it says of its device is what a tensor on a card would say."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        return self.array.__dlpack__()


def to_device(array: Array) -> Any:
    """Return an array on the device."""
    if compat.SIMULATED:
        return Namespaced(array)
    import cupy

    return cupy.asarray(array)


def to_host(array: Any) -> Array:
    """Return a copy of NumPy's."""
    if isinstance(array, Interface):
        return array.array.copy()
    return array.get() if hasattr(array, "get") else array.copy_to_host()


def on_device(value: Any) -> Any:
    """Return the argument of a call with its arrays moved to the device."""
    return to_device(value) if isinstance(value, np.ndarray) else value
