"""Sizes that a grid or a chunk ends at: more rows than 65,535, lines of ten million, and both in columns."""

from typing import Any

import numpy as np
import pytest
from device_arrays import to_device, to_host

import fastnorm
from fastnorm.backends.cuda import compat

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.skipif(compat.SIMULATED, reason="a thread of the simulator is one of Python's")

SIZES = [
    ((70_001, 3), -1),
    ((3, 10**7), -1),
    ((1, 10**7 + 3), -1),
    ((10**7, 2), 0),
    ((3, 70_001), 0),
    ((40_000, 2, 3), 1),
]


@pytest.mark.parametrize(("shape", "axis"), SIZES)
def test_large_numbers_of_lines_and_long_ones(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    found = to_host(fastnorm.layer_norm(to_device(x), axis=axis))
    expected = fastnorm.layer_norm(x.astype(np.float64), axis=axis)
    assert np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))) <= 8 * 2.0**-24
    dx = to_host(fastnorm.layer_norm_backward(to_device(dy), to_device(x), axis=axis).dx)
    exact = fastnorm.layer_norm_backward(dy.astype(np.float64), x.astype(np.float64), axis=axis).dx
    rstd = fastnorm.layer_norm(x.astype(np.float64), axis=axis, return_stats=True)[1].rstd
    assert np.max(np.abs(dx - exact) / np.maximum(1, np.abs(exact)) / np.maximum(1, rstd)) <= 40 * 2.0**-24
