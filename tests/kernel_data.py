"""Data for the primitives, as canonical views, and the comparison of what two backends make of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def lines(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[str, Array]]:
    """Yield data of many kinds as a canonical view; every kind is finite."""
    rng = np.random.default_rng(view)
    normal = rng.standard_normal(view)
    position = np.arange(view[1], dtype=np.float64)[:, np.newaxis]
    yield "normal", normal.astype(dtype)
    yield "far from zero", (normal + 1e4).astype(dtype)
    yield "ramp", (normal * 0.01 + position).astype(dtype)
    yield "outlier in front", (normal + np.where(position == 0, 1e4, 0)).astype(dtype)
    yield "two values", np.where(normal > 0.5, 1.3, 0).astype(dtype)
    yield "constant", np.full(view, 0.7, dtype)
    yield "zero", np.zeros(view, dtype)
    yield "signed zeros", np.where(normal > 0, 0.0, -0.0).astype(dtype)
    if dtype == np.float32:
        yield "large", normal.astype(dtype) * dtype(1e30)
        yield "tiny", normal.astype(dtype) * dtype(1e-30)
    if dtype == np.float32 and normal.size < 5000:  # processors compute slowly with these
        yield "subnormal", normal.astype(dtype) * dtype(1e-40)


def strange_lines(view: tuple[int, int, int], dtype: Any) -> Iterator[tuple[str, Array]]:
    """Yield data with numbers that are none, in some lines."""
    for value in (np.nan, np.inf, -np.inf):
        x = np.random.default_rng(view).standard_normal(view).astype(dtype)
        x[-1, view[1] // 2, -1] = value
        x[0, 0, 0] = value
        yield str(value), x


def weights(count: int, dtype: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(count)
    return rng.standard_normal(count).astype(dtype), rng.standard_normal(count).astype(dtype)


def assert_bits(found: Array, expected: Array, message: str = "") -> None:
    """Compare bits, -0.0 and 0.0 told apart; one NaN is as good as another."""
    assert found.dtype == expected.dtype, message
    assert found.shape == expected.shape, message
    if found.tobytes() == expected.tobytes():
        return
    exact = np.float32 if found.dtype.itemsize == 2 else found.dtype  # NumPy's tests know no bfloat16
    actual, wanted = found.astype(exact), expected.astype(exact)
    np.testing.assert_array_equal(actual, wanted, err_msg=message)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(wanted[numbers]), err_msg=message)
