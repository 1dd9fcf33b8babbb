"""Memory on a device, as the kernels see it: an address, a shape and a storage type; and where a call takes place."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = tuple[int, ...]

# The storage types that kernels know, and their bytes.
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True)
class Buffer:
    """A C-contiguous array on a device. `array` is what it belongs to, which keeps the memory."""

    array: Any
    address: int
    shape: Shape
    storage: str  # one of SIZES

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.address + self.size * SIZES[self.storage]

    def overlaps(self, other: "Buffer") -> bool:
        """Whether both have a byte in common."""
        return self.address < other.end and other.address < self.end


def address(buffer: Buffer | None) -> int:
    """Return the address of a buffer, 0 of none."""
    return 0 if buffer is None else buffer.address


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernels of a call run, and how it gets memory there: from the library whose arrays it was given.

    That library knows which stream uses the memory, and what a graph that is being captured may do.
    """

    device: int
    stream: int  # the address of a stream; 0: the default one
    empty: Callable[[Shape, str], Buffer]

    def numbers(self, *shape: int) -> Buffer:
        """Return an uninitialised array of float64."""
        return self.empty(shape, "float64")
