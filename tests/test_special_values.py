"""Constant lines, NaN and infinities, numbers near the ends of float32, arrays without elements."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnorm

Array = np.ndarray[Any, Any]

# Norms of x (4, 6, 35), whose item 1, channel 2 (channels second) is a line apart, or within a line apart.
RUNNING = {"running_mean": np.full(6, 3.0), "running_var": np.full(6, 0.25)}
BY_LINE: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "layer_norm, rows": (lambda x, **k: fastnorm.layer_norm(x, np.full(35, 1.5), **k), (1, 2)),
    "layer_norm, lanes": (lambda x, **k: fastnorm.layer_norm(x, axis=1, **k), (1, slice(None), 3)),
    "rms_norm, rows": (lambda x, **k: fastnorm.rms_norm(x, None, np.full(35, 2), **k), (1, 2)),
    "rms_norm, lanes": (lambda x, **k: fastnorm.rms_norm(x, axis=0, **k), (slice(None), 2, 3)),
    "batch_norm, second": (lambda x, **k: fastnorm.batch_norm(x, training=True, **k), (slice(None), 2)),
    "batch_norm, last": (
        lambda x, **k: fastnorm.batch_norm(x, training=True, channel_axis=-1, **k),
        (slice(None), slice(None), 3),
    ),
    "instance_norm, second": (lambda x, **k: fastnorm.instance_norm(x, np.full(6, 1.5), **k), (1, 2)),
    "instance_norm, last": (lambda x, **k: fastnorm.instance_norm(x, channel_axis=-1, **k), (1, slice(None), 3)),
    "group_norm, second": (lambda x, **k: fastnorm.group_norm(x, 3, np.full(6, 1.5), **k), (1, slice(2, 4))),
    "group_norm, last": (
        lambda x, **k: fastnorm.group_norm(x, 7, channel_axis=-1, **k),
        (1, slice(None), slice(0, 5)),
    ),
    "pixel_norm": (fastnorm.pixel_norm, (1, slice(None), 3)),
    "l2_normalize": (fastnorm.l2_normalize, (1, 2)),
    "lp_normalize, 1": (lambda x, eps=0, **k: fastnorm.lp_normalize(x, p=1, **k), (1, 2)),
    "lp_normalize, 3": (lambda x, eps=0, **k: fastnorm.lp_normalize(x, p=3, axis=1, **k), (1, slice(None), 3)),
    "lp_normalize, inf": (lambda x, eps=0, **k: fastnorm.lp_normalize(x, p=np.inf, **k), (1, 2)),
    "standardize": (lambda x, eps=0, **k: fastnorm.standardize(x, **k), (slice(None), 2, 3)),
    "min_max_scale": (lambda x, eps=0, **k: fastnorm.min_max_scale(x, axis=-1, **k), (1, 2)),
    "max_abs_scale": (lambda x, eps=0, **k: fastnorm.max_abs_scale(x, axis=(0, 2), **k), (slice(None), 2)),
    "weight_standardize": (fastnorm.weight_standardize, (1,)),
    "weight_norm": (lambda x, eps=0, **k: fastnorm.weight_norm(x, np.full(4, 2.0), **k), (1,)),
    "clip_by_norm": (lambda x, eps=0, **k: fastnorm.clip_by_norm(x, 2.0, axis=-1, **k), (1, 2)),
}
CENTRED = [name for name in BY_LINE if name.startswith(("layer", "batch", "inst", "group", "stand", "weight_s"))]
each_norm = pytest.mark.parametrize("name", BY_LINE)
each_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def sample(dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(5).standard_normal((4, 6, 35)) + 3).astype(dtype)


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e30, 1e-30, 3e38])
@each_float
def test_a_constant_line_becomes_zero_exactly_with_eps_zero(name: str, value: float, dtype: Any, backend: str) -> None:
    function, line = BY_LINE[name]
    x = sample(dtype)
    x[line] = value
    y = function(x, eps=0, backend=backend)
    assert not y[line].any()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("value", [0.7, 0.1, 1.3, 3.3, 1e5 / 3, 1e-30, 2e38])
@pytest.mark.parametrize("axis", [0, 1])
@each_float
def test_the_variance_of_equal_numbers_is_zero_whatever_their_number(
    axis: int, value: float, dtype: Any, backend: str
) -> None:
    exact = 0 if backend != "reference" else 1e-28  # of the square of the value
    for length in (*range(1, 72), 4095, 4097, 65537):
        x = np.full((length, 3) if axis == 0 else (3, length), value, dtype)
        moments = fastnorm.moments(x, axis=axis, backend=backend)
        assert (np.abs(moments.m2) <= exact * length * value**2).all(), length
        np.testing.assert_allclose(moments.mean, x.take(0, axis).astype(np.float64), rtol=1e-15, err_msg=str(length))


@pytest.mark.parametrize("length", [1, 2, 33, 4097, 70001])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_constant_line_becomes_the_bias_exactly(length: int, axis: int, backend: str) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal(3).astype(np.float32), length).reshape(3, length)
    x = x if axis == 1 else np.ascontiguousarray(x.T)
    bias = rng.standard_normal(length).astype(np.float32)
    y = fastnorm.layer_norm(x, rng.standard_normal(length), bias, axis=axis, eps=0, backend=backend)
    np.testing.assert_array_equal(np.moveaxis(y, axis, 1), np.tile(bias, (3, 1)))
    channel_bias = np.float32([0.1, 0.2, 0.3])
    y = fastnorm.instance_norm(x[np.newaxis], None, channel_bias, channel_axis=2 - axis, eps=0, backend=backend)
    np.testing.assert_array_equal(np.moveaxis(y[0], axis, 1), np.repeat(channel_bias, length).reshape(3, length))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@each_norm
@each_float
def test_nan_and_infinities_stay_in_their_line(name: str, value: float, dtype: Any, backend: str) -> None:
    function, line = BY_LINE[name]
    x = sample(dtype)
    expected = function(x, backend=backend)
    mask = np.zeros(x.shape, bool)
    mask[line] = True
    x[1, 2, 3] = value
    y = function(x, backend=backend)
    other = y[~mask]
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(other, expected[~mask], rtol=tolerance, atol=tolerance)
    assert np.isnan(y[1, 2, 3]), "a number that is none is not normalised into one"
    if np.isnan(value):
        assert np.isnan(y[line]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_line_of_nothing_but_infinities_raises_no_warning(value: float, backend: str) -> None:
    x = sample()
    for function, line in BY_LINE.values():
        part = x.copy()
        part[line] = value
        assert np.isnan(function(part, backend=backend)[line]).all()
    part = x.copy()
    part[:] = value
    mean, var = np.zeros(6), np.ones(6)
    fastnorm.batch_norm(part, mean, var, training=True, backend=backend)
    assert np.isnan(var).all()
    moments = fastnorm.moments(part, axis=-1, backend=backend)
    assert np.isnan(moments.var).all()
    low, high = fastnorm.extrema(part, axis=1, backend=backend)
    np.testing.assert_array_equal(low, np.full((4, 35), value, np.float32))
    np.testing.assert_array_equal(high, low)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_of_a_line_do_not_depend_on_where_its_infinity_stands(axis: int, dtype: Any, backend: str) -> None:
    length = 9000  # several blocks of rows and of columns
    for place in (0, 5, 70, 4500, length - 1):
        x = np.ones((4, length), dtype)
        x[1, place], x[2, [place, -2]], x[3, place] = np.inf, [-np.inf, np.inf], np.nan
        found = fastnorm.moments(x if axis else np.ascontiguousarray(x.T), axis=axis, backend=backend)
        np.testing.assert_array_equal(found.mean, [1.0, np.inf, np.nan, np.nan])
        np.testing.assert_array_equal(found.var, [0.0, np.nan, np.nan, np.nan])
        plain = fastnorm.moments(x if axis else np.ascontiguousarray(x.T), axis=axis)
        np.testing.assert_array_equal(plain.mean, found.mean)
        np.testing.assert_array_equal(plain.m2, found.m2)


def test_moments_beyond_the_squares_of_float64_have_a_mean(backend: str) -> None:
    for value in (1e200, 1.7e308):
        x = np.full((2, 5000), value)
        x[0, ::2] = -value
        x[1, ::2] = value / 2
        found = fastnorm.moments(x, axis=1, backend=backend)
        np.testing.assert_allclose(found.mean, [0.0, 0.75 * value], rtol=1e-13)
        np.testing.assert_array_equal(found.var, [np.inf, np.inf])
        constant = fastnorm.moments(np.full((1, 5), value), axis=1, backend=backend)
        assert (constant.mean, constant.var) == (pytest.approx(value, rel=1e-15), 0.0)


def test_centres_and_deviations_at_the_ends_of_float32(backend: str) -> None:
    chosen = {"backend": backend}
    far = np.full((1, 10**6), -3e38, np.float32)
    far[0, 5] = 3e38
    expected = (10**6 - 1) / np.sqrt(10**6 - 1)
    assert fastnorm.layer_norm(far, eps=0, **chosen)[0, 5] == pytest.approx(expected, rel=1e-6)
    column = np.float32([[3e38], [1e38]])
    y = fastnorm.batch_norm(column, np.float32([-3e38]), np.float32([3e38]), **chosen)
    np.testing.assert_allclose(y, (column.astype(float) + 3e38) / np.sqrt(3e38), rtol=1e-6)
    np.testing.assert_array_equal(fastnorm.normalize(column, [np.inf], [1.0], **chosen), [[-np.inf], [-np.inf]])
    y = fastnorm.normalize(column, [1e39], [1e72], **chosen)
    np.testing.assert_allclose(y, [[-700], [-900]], rtol=1e-6)
    counted = np.float32([[[-3e38, -2.98e38, 3e38]]])
    y = fastnorm.instance_norm(counted, where=[[[True, True, False]]], eps=0, **chosen)
    np.testing.assert_allclose(y, [[[-1, 1, 599]]], rtol=1e-5)
    mixture = [0.0, 0.0, 40.0]
    given = mixture, mixture, None, None, np.float32([-3e38]), np.float32([1e38])
    pair = np.float32([[[3e38, 2.9e38]]])
    y = fastnorm.switchable_norm(pair, *given, **chosen)
    np.testing.assert_allclose(y, fastnorm.switchable_norm(pair.astype(float), *given, **chosen), rtol=1e-5)
    pooled = np.full((2, 2, 1000), -3e38, np.float32)
    pooled[0, :, 5] = 3e38
    y = fastnorm.batch_norm(pooled, training=True, eps=0, **chosen)
    np.testing.assert_allclose(y[0, :, 5], 1999 / np.sqrt(1999), rtol=1e-6)
    counted = np.float32([[[-3e38, -3e38, 3e38]]])
    y = fastnorm.instance_norm(counted, where=[[[True, True, False]]], eps=1e60, **chosen)
    np.testing.assert_allclose(y, [[[0, 0, 6e8]]], rtol=1e-6)


def test_given_centres_further_than_float32_reaches(backend: str) -> None:
    largest = float(np.finfo(np.float32).max)
    expected = (largest + 2.0**110) * 2.0**-100
    y = fastnorm.normalize(np.float32([[-largest]]), [2.0**110], [2.0**200], [-1.0], eps=0, backend=backend)
    np.testing.assert_allclose(y, [[expected]], rtol=1e-6)
    given = [2.0**110, 0], [2.0**200, 1], np.float32([-1, 1])
    y = fastnorm.batch_norm(np.float32([[-largest, 3]]), *given, eps=0, activation="relu", backend=backend)
    np.testing.assert_allclose(y, [[expected, 3]], rtol=1e-6)


def test_channels_beside_one_that_leaves_float32_keep_their_bits(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 50)).astype(np.float32)
    clean = fastnorm.batch_norm(x, training=True, eps=0, backend=backend)
    x[:, 2] *= np.float32(1e36)
    y = fastnorm.batch_norm(x, training=True, eps=0, backend=backend)
    np.testing.assert_array_equal(np.delete(y, 2, 1), np.delete(clean, 2, 1))
    np.testing.assert_allclose(y[:, 2], clean[:, 2], rtol=1e-5, atol=1e-6)


def test_small_weights_of_large_lines(backend: str) -> None:
    y = fastnorm.weight_norm(np.float32([[1e25, 2e25]]), np.float32([1e-20]), backend=backend)
    np.testing.assert_allclose(y, np.array([[1, 2]]) / np.sqrt(5) * 1e-20, rtol=1e-6)
    x = np.float32([[[1, 2, 3, 4]]]) * np.float32(1e30)
    y = fastnorm.instance_norm(x, np.float32([1e-20]), backend=backend)
    np.testing.assert_allclose(y, np.array([[[-1.5, -0.5, 0.5, 1.5]]]) / np.sqrt(1.25) * 1e-20, rtol=1e-6)
    weight = np.float32([1e-42])
    y = fastnorm.normalize(np.float32([[2.0**100]]), [0.0], [3.0], weight, eps=0, backend=backend)
    np.testing.assert_allclose(y, [[2.0**100 * float(weight[0]) / np.sqrt(3)]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e30, -1e30, 1e-30, 1e37, 1e-37, 1e-40])
@each_norm
def test_float32_data_near_the_ends_of_the_range_are_normalised_as_any_other(
    name: str, scale: float, backend: str
) -> None:
    function, line = BY_LINE[name]
    x = sample()
    x[line] *= np.float32(scale)
    y = function(x, eps=0, backend=backend)
    truth = function(x.astype(np.float64), eps=0, backend="reference")
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("length", [5, 33, 4097, 70001])
@pytest.mark.parametrize("axis", [0, 1])
def test_long_lines_near_the_ends_of_the_range(scale: float, length: int, axis: int, backend: str) -> None:
    data = np.random.default_rng(1).standard_normal((3, length)).astype(np.float32) * np.float32(scale)
    x = data if axis == 1 else np.ascontiguousarray(data.T)
    for function in (fastnorm.layer_norm, fastnorm.rms_norm, fastnorm.l2_normalize):
        y = function(x, axis=axis, eps=0, backend=backend)
        truth = function(x.astype(np.float64), axis=axis, eps=0, backend="reference")
        np.testing.assert_allclose(y, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [fastnorm.instance_norm, fastnorm.layer_norm])
def test_a_large_weight_makes_up_for_tiny_data(function: Callable[..., Array], backend: str) -> None:
    x = np.random.default_rng(2).standard_normal((2, 3, 3)).astype(np.float32)
    weight = np.full(3, 1e10, np.float32)
    y = function(x * np.float32(1e-30), weight, eps=0, backend=backend)
    np.testing.assert_allclose(y, function(x, weight, eps=0, backend=backend), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 300), (4, 6), (70, 6, 1, 1)], ids=str)
def test_an_infinite_weight_gives_infinity(shape: tuple[int, ...], dtype: Any, backend: str) -> None:
    x, weight = np.random.default_rng(3).standard_normal(shape).astype(dtype), np.ones(6, dtype)
    weight[2], weight[4] = np.inf, -np.inf
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))

    def results(backend: str | None) -> Iterator[Array]:
        yield fastnorm.batch_norm(x, None, None, weight, training=True, backend=backend)
        yield fastnorm.batch_norm(last, None, None, weight, training=True, channel_axis=-1, backend=backend)
        yield fastnorm.batch_norm(x, np.zeros(6), np.ones(6), weight, backend=backend)
        yield fastnorm.group_norm(x, 2, weight, backend=backend)
        yield fastnorm.group_norm(last, 2, weight, channel_axis=-1, backend=backend)
        yield fastnorm.layer_norm(last, weight, backend=backend)
        if x.ndim == 3:
            yield fastnorm.instance_norm(x, weight, weight, backend=backend)
            yield fastnorm.instance_norm(last, weight, weight, channel_axis=-1, backend=backend)

    for expected, found, plain in zip(results("reference"), results(backend), results(None), strict=True):
        for y in (found, plain):
            np.testing.assert_array_equal(np.where(np.isfinite(y), 0, y), np.where(np.isfinite(expected), 0, expected))


def test_spectral_norm_of_large_float32_data(backend: str) -> None:
    x = sample()
    expected = fastnorm.spectral_norm(x, n_power_iterations=5, backend=backend)
    result = fastnorm.spectral_norm(x * np.float32(1e25), n_power_iterations=5, backend=backend)
    np.testing.assert_allclose(result.weight, expected.weight, rtol=1e-5)


def test_a_bias_beyond_float32_gives_infinity_without_a_warning(backend: str) -> None:
    x, far = sample(), np.full(6, 1e300)
    assert np.isposinf(fastnorm.instance_norm(x, bias=far, backend=backend)).all()
    assert np.isposinf(fastnorm.batch_norm(x, **RUNNING, bias=far, backend=backend)).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@each_float
def test_by_given_statistics_infinity_is_infinity(value: float, dtype: Any, backend: str) -> None:
    """As in torch: (x - mean) * scale + shift of an infinite x is infinite, by the sign of the scale."""
    rng = np.random.default_rng(4)
    mean, var, weight = rng.standard_normal(200), np.exp(rng.standard_normal(200)), rng.standard_normal(200)
    x = rng.standard_normal((3, 200, 37)).astype(dtype)
    x[1, :, 5] = value
    y = fastnorm.batch_norm(x, mean, var, weight, backend=backend)
    np.testing.assert_array_equal(y[1, :, 5], np.sign(weight) * value)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = fastnorm.normalize(last, mean, var, weight, backend=backend)
    np.testing.assert_array_equal(y[1, 5], np.sign(weight) * value)
    gradients = fastnorm.batch_norm_backward(
        x, np.ones_like(x), weight, running_mean=mean, running_var=var, backend=backend
    )
    np.testing.assert_array_equal(gradients.dx[1, :, 5], np.sign(weight) * value)


def test_clip_by_value_takes_bounds_beyond_float32() -> None:
    x = sample()
    np.testing.assert_array_equal(fastnorm.clip_by_value(x, -1e300, 1e300), x)


@pytest.mark.parametrize("shape", [(0, 6, 5), (4, 6, 0), (0, 6, 0), (0, 6)])
def test_arrays_without_elements_give_such_results(shape: tuple[int, ...], backend: str) -> None:
    x = np.empty(shape, np.float32)
    vector = np.ones(6, np.float32)
    calls: list[Callable[..., Any]] = [
        fastnorm.layer_norm,
        lambda x, **k: fastnorm.layer_norm(x, vector, vector, axis=1, **k),
        fastnorm.rms_norm,
        fastnorm.l2_normalize,
        fastnorm.pixel_norm,
        fastnorm.standardize,
        fastnorm.min_max_scale,
        fastnorm.max_abs_scale,
        lambda x, **k: fastnorm.instance_norm(x, vector, **k),
        lambda x, **k: fastnorm.group_norm(x, 3, vector, **k),
        lambda x, **k: fastnorm.batch_norm(x, vector, vector, vector, **k),
        lambda x, **k: fastnorm.batch_norm(x, vector, vector, training=True, **k),
        lambda x, **k: fastnorm.switchable_norm(x, [0, 0, 0], [0, 0, 0], training=True, **k),
        lambda x, **k: fastnorm.normalize(x, vector, vector, channel_axis=1, **k),
    ]
    for call in calls:
        y, stats = call(x, return_stats=True, backend=backend)
        assert y.shape == shape
        assert y.dtype == np.float32
        assert np.broadcast_shapes(stats.mean.shape, shape) == shape
    others: list[Callable[..., Any]] = [
        lambda x: fastnorm.lp_normalize(x, p=3, backend=backend),
        lambda x: fastnorm.local_response_norm(x, 3, backend=backend),
        lambda x: fastnorm.weight_norm(x, vector, axis=1, backend=backend),
        lambda x: fastnorm.weight_standardize(x, backend=backend),
        lambda x: fastnorm.clip_by_value(x, 0, 1),
        lambda x: fastnorm.clip_by_norm(x, 1.0, backend=backend),
        lambda x: fastnorm.clip_by_global_norm([x], 1.0, backend=backend).arrays[0],
        lambda x: fastnorm.fold_batch_norm(x, None, vector, vector, None, None, channel_axis=1).weight,
    ]
    for call in others:
        assert call(x).shape == shape
    np.testing.assert_array_equal(vector, np.ones(6, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectral_norm_of_zeros_with_eps_zero(dtype: Any) -> None:
    found = fastnorm.spectral_norm(np.zeros((3, 2), dtype), eps=0)
    assert found.sigma == 0
    np.testing.assert_array_equal(found.weight, np.zeros((3, 2), dtype))


def test_a_p_norm_beyond_float64_scales_to_zeros() -> None:
    y = fastnorm.lp_normalize(np.ones(10_000), p=0.01)  # the norm is 10,000 to the power of 100
    np.testing.assert_array_equal(y, np.zeros(10_000))


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, np.inf])
def test_an_infinity_makes_the_others_of_its_line_zero(p: float, backend: str) -> None:
    y = fastnorm.lp_normalize([[np.inf, 1.0, 2.0], [1.0, 0.0, 0.0]], p=p, backend=backend)
    np.testing.assert_array_equal(y, [[np.nan, 0.0, 0.0], [1.0, 0.0, 0.0]])


def test_a_norm_whose_reciprocal_is_infinite_warns_of_nothing(backend: str) -> None:
    assert fastnorm.lp_normalize([1e-310, -2e-310], p=3, backend=backend).shape == (2,)


def test_spectral_norm_of_products_beyond_float32_and_of_nan(backend: str) -> None:
    found = fastnorm.spectral_norm([[np.nan, 1.0], [1.0, 1.0]], backend=backend)
    assert np.isnan(found.sigma)
    assert np.isnan(found.weight).all()
    found = fastnorm.spectral_norm(np.float32([[1e15], [1e25]]), [1.0, 0.0], backend=backend)
    np.testing.assert_allclose(found.sigma, 1e25, rtol=1e-6)
    np.testing.assert_allclose(found.weight, [[1e-10], [1.0]], rtol=1e-6)
    found = fastnorm.spectral_norm(np.full((2, 2), 3e38, np.float32), n_power_iterations=3, backend=backend)
    np.testing.assert_allclose(found.weight, np.full((2, 2), 0.5), rtol=1e-6)
    tiny = fastnorm.spectral_norm(np.float32([[1e-14, 0], [0, 1e-15]]), backend=backend)
    assert np.linalg.norm(tiny.u) < 1, "eps is what it was divided by"


def test_mixtures_and_ranges_at_the_ends(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)
    alone = [1000.0, 0.0, 0.0]  # whose exponentials overflow
    y = fastnorm.switchable_norm(x, alone, alone, training=True, backend=backend)
    np.testing.assert_allclose(y, fastnorm.instance_norm(x), rtol=1e-4, atol=1e-5)
    constant = np.ones((2, 3, 4), np.float32)
    y = fastnorm.switchable_norm(constant, [0.0] * 3, [0.0] * 3, training=True, eps=0, backend=backend)
    np.testing.assert_array_equal(y, np.zeros((2, 3, 4)))
    wide = np.random.default_rng(0).standard_normal((5, 3)) * 1e10
    _, stats = fastnorm.min_max_scale(wide, feature_range=(-1.5e308, 1.5e308), return_stats=True, backend=backend)
    np.testing.assert_allclose(stats.rstd[0], 3e298 / (np.ptp(wide, axis=0) / 1e10), rtol=1e-14)
    np.testing.assert_array_equal(fastnorm.lp_normalize(np.zeros((2, 3)), p=3, backend=backend), np.zeros((2, 3)))


def test_clipping_to_one_value_and_to_open_ends(backend: str) -> None:
    x = np.array([-np.inf, -1, 2, np.inf, np.nan])
    for dtype in (np.float32, np.float64):
        y = fastnorm.clip_by_value(x.astype(dtype), 0.5, 0.5, backend=backend)
        np.testing.assert_array_equal(y, [0.5, 0.5, 0.5, 0.5, np.nan])
        y = fastnorm.clip_by_value(x.astype(dtype), None, 0.5, backend=backend)
        np.testing.assert_array_equal(y, [-np.inf, -1, 0.5, 0.5, np.nan])
        y = fastnorm.clip_by_value(x.astype(dtype), 0.5, None, backend=backend)
        np.testing.assert_array_equal(y, [0.5, 0.5, 2, np.inf, np.nan])
