"""The libraries that are measured: one row each."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnorm.cli.benchmark import with_numpy
from fastnorm.cli.benchmark.arrays import Inputs
from fastnorm.cli.benchmark.grid import Cell

# Takes a cell, its arguments and how many threads may be used; returns the cell's call, None if the library lacks it.
# The call takes no arguments; it returns y, or mean and variance, alone or before other results.
Prepare = Callable[[Cell, Inputs, int], Callable[[], Any] | None]

FASTNORM, MEMORY = "fastnorm", "memory"


@dataclass(frozen=True, slots=True)
class Library:
    """A library, or what is measured like one.

    Attributes
    ----------
    modules : tuple of str
        What must be importable.
    home : str
        The module here that calls it, imported in its own process alone.
    function : str
        Its `Prepare` there.
    """

    modules: tuple[str, ...]
    home: str
    function: str = "prepare"

    def load(self) -> Prepare:
        """Import what is needed and return the function."""
        for module in self.modules:
            importlib.import_module(module)
        prepare: Prepare = getattr(importlib.import_module(self.home), self.function)
        return prepare


def prepare_fastnorm(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any]:
    """Return a cell's call of fastnorm."""
    import fastnorm

    fastnorm.set_num_threads(threads)
    fastnorm.warm()
    return with_numpy.prepare(fastnorm, cell, given)


def prepare_numpy(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any]:
    """Return a cell's call of NumPy, which computes this on one thread."""
    from fastnorm.cli import numpy_norms

    return with_numpy.prepare(numpy_norms, cell, given)


_HERE = "fastnorm.cli.benchmark"
LIBRARIES = {
    MEMORY: Library(("numpy",), f"{_HERE}.with_memory"),
    FASTNORM: Library(("numpy",), f"{_HERE}.libraries", "prepare_fastnorm"),
    "numpy": Library(("numpy",), f"{_HERE}.libraries", "prepare_numpy"),
    "torch": Library(("torch",), f"{_HERE}.with_torch"),
    "onnxruntime": Library(("onnxruntime", "onnx"), f"{_HERE}.with_onnx", "prepare_onnxruntime"),
    "openvino": Library(("openvino", "onnx"), f"{_HERE}.with_onnx", "prepare_openvino"),
    "jax": Library(("jax",), f"{_HERE}.with_jax"),
}
PEERS = tuple(name for name in LIBRARIES if name not in (MEMORY, FASTNORM))


def missing(name: str) -> list[str]:
    """Return the modules of a library that are not installed; nothing is imported."""
    return [module for module in LIBRARIES[name].modules if importlib.util.find_spec(module) is None]
