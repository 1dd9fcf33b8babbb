"""Scaling and clipping of numbers whose differences, squares or reciprocals their dtype cannot hold."""

from typing import Any

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]

ROUNDING = 2.0**-53
# Of these multiples x can be taken without rounding; spans of the first are infinite, scales of the second.
FAR = [2.0**1023, 2.0**-1050]
each_far = pytest.mark.parametrize("factor", FAR, ids=["1e308", "1e-316"])
each_axis = pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None], ids=str)


def sample() -> Array:
    """Return numbers from -1 to 1 with 20 bits behind the point."""
    return np.random.default_rng(3).integers(-(2**20), 2**20, (5, 7, 33)) / 2.0**20


def one_line(mask: Array, axis: Any) -> None:
    """Mark one line over `axis`."""
    kept = () if axis is None else (axis if isinstance(axis, tuple) else (axis % 3,))
    mask[tuple(slice(None) if axis is None or a in kept else 1 for a in range(3))] = True


@each_far
@each_axis
@pytest.mark.parametrize("feature_range", [(0.0, 1.0), (-3.0, 1e10), (-1.5e308, 1.5e308), (0.0, 1e-300)], ids=str)
def test_min_max_scale_of_any_span(factor: float, axis: Any, feature_range: tuple[float, float], backend: str) -> None:
    x, (low, high) = sample(), feature_range
    axes = axis if axis is not None else (0, 1, 2)
    least, largest = x.min(axes, keepdims=True), x.max(axes, keepdims=True)
    share = (x - least) / (largest - least)
    expected = low * (1 - share) + high * share
    found = fastnorm.min_max_scale(x * factor, axis=axis, feature_range=feature_range, backend=backend)
    # The share rounds three times, each end's part and the sum once more, here and there.
    np.testing.assert_allclose(found, expected, rtol=0, atol=12 * ROUNDING * max(abs(low), abs(high)))


@each_far
def test_the_scale_is_told_as_far_as_float64_holds_it(factor: float, backend: str) -> None:
    x = sample()
    _, expected = fastnorm.min_max_scale(x, return_stats=True, backend=backend)
    with np.errstate(over="ignore"):
        scale = expected.rstd / factor
    _, stats = fastnorm.min_max_scale(x * factor, return_stats=True, backend=backend)
    np.testing.assert_array_equal(stats.mean, expected.mean * factor)
    np.testing.assert_allclose(stats.rstd, scale, rtol=4 * ROUNDING, atol=2.0**-1074)


@each_far
@each_axis
def test_max_abs_scale_of_any_magnitude(factor: float, axis: Any, backend: str) -> None:
    x = sample()
    expected = fastnorm.max_abs_scale(x, axis=axis, backend="reference")
    found = fastnorm.max_abs_scale(x * factor, axis=axis, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=4 * ROUNDING)
    p_norm = fastnorm.lp_normalize(x * factor, p=np.inf, axis=1, backend=backend)
    np.testing.assert_allclose(p_norm, fastnorm.max_abs_scale(x, axis=1), rtol=4 * ROUNDING)


def test_a_constant_line_becomes_the_lower_end_of_any_range(backend: str) -> None:
    for value in (1e308, 1.0, 1e-320, 0.0):
        x = np.full((4, 3), value)
        found = fastnorm.min_max_scale(x, feature_range=(-1.5e308, 1.5e308), backend=backend)
        np.testing.assert_array_equal(found, np.full((4, 3), -1.5e308))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_span_beyond_float32_takes_any_range(dtype: str, backend: str) -> None:
    largest = float(np.finfo(dtype).max)
    x = np.array([[largest], [-largest], [largest / 2]]).astype(dtype)
    found = fastnorm.min_max_scale(x, feature_range=(0, 1000), backend=backend)
    np.testing.assert_allclose(found[:, 0], [1000, 0, 750], rtol=float(np.finfo(dtype).eps))
    wider = fastnorm.min_max_scale(x, feature_range=(-1e300, 1e300), dtype="float64", backend=backend)
    np.testing.assert_allclose(wider[:, 0], [1e300, -1e300, 0.5e300], rtol=float(np.finfo(dtype).eps))


@each_far
@each_axis
@pytest.mark.parametrize("limit", [0.25, 1e-30])
def test_clip_by_norm_of_any_norm(factor: float, axis: Any, limit: float, backend: str) -> None:
    x = sample()
    norm = np.sqrt(np.square(x).sum(axis, keepdims=True))
    found = fastnorm.clip_by_norm(x * factor, 0.25 * factor, axis=axis, backend=backend)
    # The sum of squares rounds in each of up to 23 steps, of which the root halves; quotient and product once each.
    np.testing.assert_allclose(found, x / norm * 0.25 * factor, rtol=32 * ROUNDING, atol=2.0**-1074)
    if factor > 1:
        found = fastnorm.clip_by_norm(x * factor, limit, axis=axis, backend=backend)
        np.testing.assert_allclose(found, x / norm * limit, rtol=32 * ROUNDING)
    within = fastnorm.clip_by_norm(x * factor, 1e308 if factor < 1 else np.inf, axis=axis, backend=backend)
    np.testing.assert_array_equal(within, x * factor)


def test_a_limit_far_below_the_norm(backend: str) -> None:
    """limit / norm is no number of float64, each element of the result is."""
    x = sample()
    expected = fastnorm.clip_by_norm(x * 1e100, 1.0, backend=backend) * 1e-300
    found = fastnorm.clip_by_norm(x * 1e100, 1e-300, backend=backend)
    np.testing.assert_allclose(found, expected, rtol=8 * ROUNDING)
    assert not fastnorm.clip_by_norm(x * 1e100, 0.0, backend=backend).any()


@pytest.mark.parametrize("limit", [0.5, 0.9, 1.9, 1e-300])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_clips_reach_the_largest_numbers(count: int, limit: float, backend: str) -> None:
    """Whatever the digits of limit and norm, nothing on the way from the largest number to the result is infinite."""
    x = np.full(count, np.finfo(np.float64).max)
    expected = np.full(count, limit / np.sqrt(count))
    np.testing.assert_allclose(fastnorm.clip_by_norm(x, limit, backend=backend), expected, rtol=8 * ROUNDING)
    clipped = fastnorm.clip_by_global_norm(np.split(x, count), limit, backend=backend).arrays
    np.testing.assert_allclose(np.concatenate(clipped), expected, rtol=8 * ROUNDING)


@each_far
@each_axis
@pytest.mark.parametrize("name", ["min_max_scale", "max_abs_scale", "clip_by_norm"])
def test_neighbours_keep_their_bits_and_the_result_may_go_over_x(
    name: str, factor: float, axis: Any, backend: str
) -> None:
    options = {"max_norm": 0.125} if name == "clip_by_norm" else {}
    function = getattr(fastnorm, name)
    x = sample()
    expected = function(x, axis=axis, backend=backend, **options)
    line = np.zeros(x.shape, bool)
    one_line(line, axis)
    x[line] *= factor
    found = function(x, axis=axis, backend=backend, **options)
    np.testing.assert_array_equal(found[~line], expected[~line])
    assert np.isfinite(found).all()
    assert function(x, axis=axis, backend=backend, out=x, **options) is x
    np.testing.assert_array_equal(x, found)


@each_far
def test_the_norm_of_several_arrays_of_unequal_size(factor: float, backend: str) -> None:
    x = sample()
    parts = [x[0] * factor, np.zeros(3), x[1:] * factor, np.empty(0), np.float32([0.0])]
    norm = np.sqrt(np.square(x).sum())
    result = fastnorm.clip_by_global_norm(parts, 0.25 * factor, backend=backend)
    clipped = np.concatenate([result.arrays[0][np.newaxis], result.arrays[2]])
    np.testing.assert_allclose(clipped, x / norm * 0.25 * factor, rtol=32 * ROUNDING, atol=2.0**-1074)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(result.global_norm, norm * factor, rtol=32 * ROUNDING)


def test_the_norm_of_many_arrays_near_the_root_of_the_range(backend: str) -> None:
    """The square of each is a number of float64, their sum is none."""
    parts = [np.array([1e154])] * 100
    result = fastnorm.clip_by_global_norm(parts, 1.0, error_if_nonfinite=True, backend=backend)
    np.testing.assert_allclose(result.global_norm, 1e155, rtol=8 * ROUNDING)
    np.testing.assert_allclose(result.arrays, np.full((100, 1), 0.1), rtol=8 * ROUNDING)
    with pytest.raises(ValueError, match="must be finite with error_if_nonfinite, got inf"):
        fastnorm.clip_by_global_norm([np.full(9, 1e308)], 1.0, error_if_nonfinite=True, backend=backend)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_so(value: float, backend: str) -> None:
    x = sample()[0] * 2.0**1023
    x[2, 3] = value
    for function in (fastnorm.min_max_scale, fastnorm.max_abs_scale, lambda x, **k: fastnorm.clip_by_norm(x, 1.0, **k)):
        found = function(x, axis=1, backend=backend)
        assert np.isnan(found[2, 3])
        assert np.isfinite(np.delete(found, 2, 0)).all()
    result = fastnorm.clip_by_global_norm([x], 1.0, backend=backend)
    np.testing.assert_array_equal(result.global_norm, np.abs(value))
