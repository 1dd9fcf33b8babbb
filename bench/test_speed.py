"""Every cell of the grid with every backend, and with NumPy, for `make bench` and `make bench-smoke`."""

from typing import Any

import numpy as np
import pytest
from grid import Cell
from pytest_benchmark.fixture import BenchmarkFixture

import fastnorm
from fastnorm.backends import registry
from fastnorm.cli import numpy_norms


def cell_of(op: str, shape: str, dtype: str) -> Cell:
    """Return the cell of a test's parameters."""
    return Cell(op, tuple(map(int, shape.split("x"))), dtype)


def arrays_of(result: Any) -> list[Any]:
    """Return what two results are compared by."""
    return [result] if isinstance(result, np.ndarray) else [result.mean, result.var]


def test_speed(benchmark: BenchmarkFixture, op: str, shape: str, dtype: str, backend: str) -> None:
    """Time one cell with one backend; "auto" is what a call gets that names none."""
    cell = cell_of(op, shape, dtype)
    if backend == "numpy":
        call = cell.bind(numpy_norms)
    elif backend == "auto":
        call = cell.bind(fastnorm)
    else:
        reason = registry.why_not(backend)
        if reason is not None:
            pytest.skip(f"the {backend} backend cannot run here: {reason}")
        call = cell.bind(fastnorm, backend=backend)
    if benchmark.enabled:
        call()  # compiles, and fills the library's memory pool
    benchmark(call)


def test_numpy_computes_the_same(op: str, shape: str, dtype: str) -> None:
    """A ratio to NumPy compares like with like."""
    cell = cell_of(op, shape, dtype)
    if not cell.small:
        pytest.skip("the small cells show it")
    ours, theirs = arrays_of(cell.bind(fastnorm)()), arrays_of(cell.bind(numpy_norms)())
    for a, b in zip(ours, theirs, strict=True):
        # NumPy's rounding errors, generously: what is looked for is another formula.
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
