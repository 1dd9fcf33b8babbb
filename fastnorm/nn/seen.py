"""What a layer refers to between a call and its backward pass."""

from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy.typing as npt

Array = npt.NDArray[Any]


def _strongly(array: Array) -> Callable[[], Array]:
    return lambda: array


class Seen:
    """The arrays of a call: kept alive in training, since a backward pass will need them; else held by weak references.

    A pipeline that never goes backward would otherwise keep what passes through each of its layers. What was made of
    the caller's lists or tensors is kept in any mode, since nobody else has it.

    Parameters
    ----------
    training : bool
        The mode of the layer.
    **arrays : tuple of (object, ndarray)
        By the names that messages have for them: what the caller gave, and the array that it is or was made of it.
    """

    def __init__(self, training: bool, **arrays: tuple[Any, Array]) -> None:
        self.training = training
        self._arrays: dict[str, Callable[[], Array | None]] = {
            name: _strongly(array) if training or given is not array else ref(array)
            for name, (given, array) in arrays.items()
        }

    def arrays(self, layer: str) -> dict[str, Array]:
        """Return the arrays by name.

        Raises
        ------
        RuntimeError
            One is gone.
        """
        found = {}
        for name, held in self._arrays.items():
            array = held()
            if array is None:
                raise RuntimeError(
                    f"{layer}: {name} of the last call is gone: in inference a layer does not keep it alive"
                )
            found[name] = array
        return found
