"""The numbers of a cell, the same in every process, and what is right for them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnorm.cli import numpy_norms
from fastnorm.cli.benchmark import with_numpy
from fastnorm.cli.benchmark.grid import Cell

Array = NDArray[Any]

# So many elements of a result are compared, spread over all of it; smaller results are compared whole.
CHECKED = 2**21
# What a result in this dtype may differ by at |y| <= 1, and relative to y above: only to tell right from wrong. Sums of
# 65536 numbers in float32 one after another, as other libraries form them, are nearly that far off.
TOLERANCES = {"float16": 3e-2, "float32": 2e-3, "float64": 1e-9}


class Inputs(NamedTuple):
    """The arguments of a call."""

    x: Array
    weight: Array
    bias: Array
    mean: Array
    var: Array


def inputs(cell: Cell) -> Inputs:
    """Return the arguments of a cell: normal numbers with mean 0.5 and standard deviation 2, from a fixed seed."""
    generator = np.random.default_rng(1)
    wide = np.float64 if cell.dtype == "float64" else np.float32
    x = generator.standard_normal(cell.shape, dtype=wide)
    x *= 2
    x += 0.5
    lines = cell.op in ("layer_norm", "rms_norm", "l2_normalize")
    count = cell.shape[-1] if lines or len(cell.shape) == 1 else cell.shape[1]
    weight, bias, mean, var = (generator.uniform(0.5, 1.5, count).astype(cell.dtype) for _ in range(4))
    return Inputs(x.astype(cell.dtype, copy=False), weight, bias, mean, var)


def _spread(array: Array) -> Array:
    """Return elements from all over an array, every column of it among them."""
    flat = array.reshape(-1)
    if flat.size <= CHECKED:
        return flat
    step = math.ceil(flat.size / CHECKED)
    while math.gcd(step, flat.size) > 1:
        step += 1
    return flat[::step]


def expected(cell: Cell) -> list[NDArray[np.float64]]:
    """Return the right result in float64: y, or mean and variance; of a large one, elements spread over it."""
    wide = Inputs(*(array.astype(np.float64) for array in inputs(cell)))
    return [_spread(array).copy() for array in _arrays(with_numpy.prepare(numpy_norms, cell, wide)())]


def _arrays(result: Any) -> list[Array]:
    return [np.asarray(one) for one in (result if isinstance(result, (tuple, list)) else (result,))]


def error_of(cell: Cell, result: Any, right: list[NDArray[np.float64]]) -> str | None:
    """Say what is wrong with a result, None if nothing is.

    Parameters
    ----------
    cell : Cell
        What was computed.
    result : array_like or sequence of array_like
        What a library returned; arrays beyond those of `right` are not looked at.
    right : list of ndarray
        As `expected` returns it.

    Returns
    -------
    str or None
    """
    found = _arrays(result)[: len(right)]
    if len(found) < len(right):
        return f"wrong result: {len(found)} arrays instead of {len(right)}"
    for one, truth in zip(found, right, strict=True):
        if cell.written and one.shape != cell.shape:
            return f"wrong result: the shape is {one.shape}"
        if cell.written and one.dtype != cell.dtype:
            return f"wrong result: the dtype is {one.dtype}"
        part = _spread(one)
        if part.shape != truth.shape:
            return f"wrong result: {part.size} elements instead of {truth.size}"
        worst = float(np.max(np.abs(part.astype(np.float64) - truth) / np.maximum(1, np.abs(truth))))
        if not worst <= TOLERANCES[cell.dtype]:  # NaN is no smaller than anything
            return f"wrong result: off by {worst:.1e}"
    return None
