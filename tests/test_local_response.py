"""Local response normalization: powers to the last digit, far out, in place, however it is cut into units."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from formulas import Wide
from gradient_formulas import gradients

import fastnorm

Array = np.ndarray[Any, Any]


def sample(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, -1.5, 3.0, 0.0])
def test_powers_are_those_of_float64_rounded_once(beta: float, backend: str) -> None:
    # A window of one: bases of every size that float32 leaves, from 2^-60 to 2^60.
    x = np.exp2(np.random.default_rng(1).uniform(-30, 30, (1, 3000, 2))).astype(np.float32)
    y, stats = fastnorm.local_response_norm(x, 1, alpha=1.0, beta=beta, k=0.0, return_stats=True, backend=backend)
    truth = np.square(x.astype(Wide)) ** Wide(-beta)
    # log(base), up to 42, is a sum of two numbers that are rounded; the exponent multiplies its error.
    error = max(abs(beta), 1) * 42 * 4 * 2.0**-53
    np.testing.assert_allclose(stats.rstd, truth.astype(np.float64), rtol=error)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(y, (x * truth).astype(np.float32), rtol=2.0**-24 + error)


@pytest.mark.parametrize("shape", [(2, 7, 5000), (1, 300, 11, 13), (3, 9000, 2), (40, 5), (2, 1, 70)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_units_of_work_do_not_show(shape: tuple[int, ...], size: int, backend: str, threads_for_all: None) -> None:
    x, dy = sample(*shape), sample(*shape, seed=1)
    forward = partial(fastnorm.local_response_norm, alpha=2.0, backend=backend)
    backward = partial(fastnorm.local_response_norm_backward, alpha=2.0, backend=backend)
    item = (slice(-1, None), slice(None), *[slice(-1, None)] * (len(shape) - 2))  # the last pixel, by itself
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            y, dx = forward(x, size), backward(dy, x, size)
            np.testing.assert_array_equal(y[item], forward(x[item], size))
            np.testing.assert_array_equal(dx[item], backward(dy[item], x[item], size))
            np.testing.assert_array_equal(forward(x.copy(), size, out=x.copy()), y)
            in_place = x.copy()
            assert forward(in_place, size, out=in_place) is in_place
            np.testing.assert_array_equal(in_place, y)
            in_place = dy.copy()
            assert backward(in_place, x, size, out=in_place) is in_place
            np.testing.assert_array_equal(in_place, dx)
            in_place = x.copy()
            assert backward(dy, in_place, size, out=in_place) is in_place
            np.testing.assert_array_equal(in_place, dx)


def test_local_response_norm_of_large_float32_data(backend: str) -> None:
    x, options = sample(2, 6, 4), {"alpha": 1.0, "beta": 0.5, "k": 0.0, "backend": backend}
    expected = fastnorm.local_response_norm(x, 3, **options)
    result = fastnorm.local_response_norm(x * np.float32(1e25), 3, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_nan_leaves_the_squares_of_other_pixels_in_range(backend: str) -> None:
    x = np.ones((1, 3, 2), np.float32)
    x[0, 0, 0] = 1e30  # whose square float32 does not hold
    alone = fastnorm.local_response_norm(x, 3, backend=backend)
    x[0, :, 1] = np.nan
    beside = fastnorm.local_response_norm(x, 3, backend=backend)
    assert alone[0, 0, 0] > 0
    np.testing.assert_array_equal(beside[..., 0], alone[..., 0])


LRN: dict[str, float] = {"alpha": 1.0, "beta": 0.5, "k": 0.0}


@pytest.mark.parametrize("value", [1e30, 1e-30, 3e37, 1e-44, np.inf, np.nan])
@pytest.mark.parametrize("options", [LRN, {}, {"alpha": 0.0, "k": 2.0}, {**LRN, "beta": -1.0}], ids=str)
@pytest.mark.parametrize("shape", [(2, 9, 5, 7), (3, 9), (1, 9, 40_000)], ids=str)
def test_a_pixel_far_out_leaves_the_windows_without_it_their_bits(
    value: float, options: dict[str, float], shape: tuple[int, ...], backend: str
) -> None:
    function = partial(fastnorm.local_response_norm, backend=backend)
    x = (np.random.default_rng(0).standard_normal(shape) + 3).astype(np.float32)
    far = x.copy()
    pixel = (0, slice(3, 6), *[1] * (len(shape) - 2))
    far[pixel] = far[pixel] * np.float32(value) if np.isfinite(value) else value
    expected, stats = function(x, 3, return_stats=True, **options)
    y, far_stats = function(far, 3, return_stats=True, **options)
    others = np.ones(shape, bool)
    others[(0, slice(2, 7), *pixel[2:])] = False  # windows of 3 that reach into these channels
    np.testing.assert_array_equal(y[others], expected[others])
    np.testing.assert_array_equal(far_stats.rstd[others], stats.rstd[others])
    truth = function(far.astype(np.float64), 3, **options)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(y, truth.astype(np.float32), rtol=2.0**-23)  # where they round apart
    assert function(far, 3, out=far, **options) is far
    np.testing.assert_array_equal(far, y)


def test_a_window_of_any_size_is_one_of_all_channels(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    y = fastnorm.local_response_norm(x, 10**18, alpha=10.0**18, backend=backend)
    divisor = (1 + np.square(x.astype(np.float64)).sum(axis=1, keepdims=True)) ** 0.75
    np.testing.assert_allclose(y, x / divisor, rtol=2.0**-24 + 2.0**-46)


def test_local_response_norm_far_out(backend: str) -> None:
    """x^2 is beyond float32, and d^-beta hardly a number of it."""
    dy, x = sample(3, 6, 5), sample(3, 6, 5, seed=1)
    for scale in (2.0**100, 2.0**-100):
        far = x * np.float32(scale)
        options: dict[str, Any] = {"size": 3, "alpha": 1.0, "beta": 0.5, "k": 0.0}
        found = fastnorm.local_response_norm_backward(dy, far, **options, backend=backend)
        truth = gradients("local_response_norm", dy, far, **options)["dx"]
        assert (np.abs(found - truth.value) <= 2.0**-24 * (np.abs(truth.value) + 1e-6 * truth.magnitude)).all()
