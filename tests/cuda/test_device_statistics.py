"""Moments and extrema of arrays on a device: those of the CPU, along any axes that lie together."""

from typing import Any

import numpy as np
import pytest
from device_arrays import on_device, to_host

import fastnorm

Array = np.ndarray[Any, Any]

# One line; rows; columns; both; channels in the middle of pooled axes, and pooled after kept ones.
AXES = [
    ((7,), None),
    ((3, 5), 1),
    ((5, 3), 0),
    ((2, 5, 3), 1),
    ((3, 4, 5), (0, 2)),
    ((2, 3, 2, 4), (1, 3)),
    ((4, 3), ()),
]
AXES += [((3, 150), 1), ((150, 3), 0), ((2, 3, 150), None), ((150, 2, 2), (0, 2)), ((1, 4), 0)]


def normal(*shape: int, dtype: str = "float32") -> Array:
    return (np.random.default_rng(shape).standard_normal(shape) + 3).astype(dtype)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), AXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_moments_are_those_of_the_cpu(shape: tuple[int, ...], axis: Any, dtype: str, keepdims: bool) -> None:
    x = normal(*shape, dtype=dtype)
    expected = fastnorm.moments(x.astype(np.float64), axis=axis, keepdims=keepdims, ddof=0.5)
    found = fastnorm.moments(on_device(x), axis=axis, keepdims=keepdims, ddof=0.5)
    assert found.count == expected.count
    roundoff = 2.0**-53 if dtype == "float64" else 2.0**-24
    for name in ("mean", "m2", "var", "std"):
        part, exact = to_host(getattr(found, name)), getattr(expected, name)
        assert part.dtype == np.float64
        assert part.shape == np.shape(exact)
        np.testing.assert_allclose(part, exact, rtol=16 * roundoff, atol=16 * roundoff)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), AXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_extrema_are_exact(shape: tuple[int, ...], axis: Any, dtype: str, keepdims: bool) -> None:
    x = normal(*shape, dtype=dtype)
    low, high = fastnorm.extrema(on_device(x), axis=axis, keepdims=keepdims)
    axes = tuple(range(x.ndim)) if axis is None else axis
    for part, exact in ((low, x.min(axis=axes, keepdims=keepdims)), (high, x.max(axis=axes, keepdims=keepdims))):
        assert to_host(part).dtype == x.dtype
        np.testing.assert_array_equal(to_host(part), exact, strict=True)


@pytest.mark.parametrize("length", [6, 150])
def test_nan_is_least_and_largest_and_infinities_are_numbers(length: int) -> None:
    x = normal(4, length)
    x[0, length // 2] = np.nan
    x[1, 3], x[2, 4] = np.inf, -np.inf
    for array, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        low, high = (to_host(part) for part in fastnorm.extrema(on_device(array), axis=axis))
        np.testing.assert_array_equal(low, array.min(axis))
        np.testing.assert_array_equal(high, array.max(axis))
        found = fastnorm.moments(on_device(array), axis=axis)
        np.testing.assert_array_equal(np.isnan(to_host(found.var)), [True, True, True, False])


def test_nothing_has_no_extrema_and_moments_that_are_not_numbers() -> None:
    empty = on_device(np.empty((2, 0), np.float32))
    found = fastnorm.moments(empty, axis=1)
    assert found.count == 0
    for name in ("mean", "var", "std", "m2"):
        assert np.isnan(to_host(getattr(found, name))).all()
    with pytest.raises(ValueError, match="a line without elements has no extrema"):
        fastnorm.extrema(empty, axis=1)
    low, high = fastnorm.extrema(empty, axis=0)
    assert to_host(low).shape == to_host(high).shape == (0,)


def test_what_is_not_served_is_a_type_error() -> None:
    x = on_device(normal(2, 3, 4, 5))
    for call, message in (
        (lambda: fastnorm.moments(x, weights=[1.0]), "moments: weights is not served on a CUDA device"),
        (lambda: fastnorm.moments(x, where=True), "moments: where is not served"),
        (lambda: fastnorm.moments(x, algorithm="naive"), "moments: algorithm is not served"),
        (lambda: fastnorm.moments(x, axis=(0, 2)), r"moments: axis \(0, 2\) of an array of shape .* is not served"),
        (lambda: fastnorm.extrema(x, axis=(0, 2)), r"extrema: axis \(0, 2\) of an array of shape .* is not served"),
        (lambda: fastnorm.extrema(on_device(np.ones(3, int))), "x must be float16, .* on a device, got int64"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
