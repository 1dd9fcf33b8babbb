"""What once broke a well-known library, one test each: shifted data, equal numbers, long sums, overflow, byte order."""

import inspect
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case, build, dtype_of, outcome
from formulas import FORMULAS, Wide
from variants import serving

import fastnorm
from fastnorm.backends import registry

Array = np.ndarray[Any, Any]

SINGLE, DOUBLE = 2.0**-24, 2.0**-53
FLOATS = ["float16", "bfloat16", "float32", "float64", ">f4", ">f8"]
each_float = pytest.mark.parametrize("dtype", FLOATS)


def assert_contract(y: Array, truth: Array, roundoff: float = SINGLE, units: float = 4) -> None:
    """At most `units` units of max(1, |y|): the contract of float32 has 4."""
    ratio = np.abs(y - truth) / (units * roundoff * np.maximum(1, np.abs(truth)))
    assert np.max(ratio) <= 1, f"{np.max(ratio):.2f} of the contract"


def case_of(op: str) -> Case:
    """The largest small float32 case of a function."""
    found = (case for case in CASES if case.op == op and case.dtype == "float32" and prod(case.shape) < 5000)
    return max(found, key=lambda case: prod(case.shape))


# Data far from zero


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("offset", [1449, 2000])
def test_layer_norm_of_rows_far_from_zero(offset: int, axis: int, backend: str) -> None:
    x = (np.random.default_rng(0).standard_normal((64, 768)) + offset).astype(np.float32)
    y = fastnorm.layer_norm(x, axis=axis, backend=backend)
    assert_contract(y, FORMULAS["layer_norm"](x.astype(Wide), axis=axis).normalized)


def test_layer_norm_of_four_neighbours_around_40000(backend: str) -> None:
    y = fastnorm.layer_norm(np.float32([40000, 40001, 40002, 40003]), backend=backend)
    assert_contract(y, np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25 + Wide(1e-5)))


# Constant lines, and lines that are not quite


@each_float
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_layer_norm_of_a_constant_row_is_the_bias(eps: float, dtype: str, backend: str) -> None:
    kind = dtype_of(dtype)
    for n in (1, 2, 3, 100, 768, 4099):
        bias = np.random.default_rng(n).standard_normal(n).astype(kind)
        y = fastnorm.layer_norm(np.full((2, n), 1234, kind), np.full(n, 3, kind), bias, eps=eps, backend=backend)
        np.testing.assert_array_equal(y, np.stack([bias, bias]))


@each_float
@pytest.mark.parametrize("scale", [fastnorm.standardize, fastnorm.min_max_scale], ids=lambda f: f.__name__)
def test_a_constant_column_is_scaled_to_zeros(scale: Callable[..., Array], dtype: str, backend: str) -> None:
    kind = dtype_of(dtype)
    for n in (*range(1, 40), 100, 1000, 4099):
        x = np.random.default_rng(n).standard_normal((n, 3)).astype(kind)
        x[:, 1] = 14.62
        y = scale(x, backend=backend)
        assert not y[:, 1].any(), n
        assert n == 1 or y[:, 0].any()


@pytest.mark.parametrize(("dtype", "roundoff"), [(np.float32, SINGLE), (np.float64, DOUBLE)])
@pytest.mark.parametrize("value", [1e8, 14.62, -1e-3])
def test_a_column_of_two_neighbouring_numbers_is_not_constant(
    value: float, dtype: Any, roundoff: float, backend: str
) -> None:
    """With a share p of ones among n bits, (bit - p) / sqrt(p (1 - p)), whatever number a bit is added to.

    Deviations from a number near the mean are a few units in the last place, and sums of them and of their squares
    exact: the 4 units of the contract are left.
    """
    steps = np.array([value, np.nextafter(dtype(value), dtype(np.inf))], dtype)
    for n, ones in ((2, 1), (3, 1), (10, 5), (100, 1), (1000, 500), (1000, 37)):
        bits = np.random.default_rng(n).permutation(np.arange(n) < ones).astype(int)
        x = np.stack([steps[bits], np.arange(n, dtype=dtype)], axis=1)
        y, stats = fastnorm.standardize(x, return_stats=True, backend=backend)
        p = Wide(ones) / n
        deviation = np.sqrt(p * (1 - p))
        assert_contract(y[:, 0], (bits - p) / deviation, roundoff)
        assert 0 < 1 / stats.rstd[0, 0] < steps[1] - steps[0]


# Long sums


@pytest.mark.parametrize("name", ["auto", "numba"])
def test_group_norm_of_a_group_of_38_million_elements(name: str) -> None:
    reason = None if name == "auto" else registry.why_not(name)
    if reason is not None:
        pytest.skip(reason)
    x = np.random.default_rng(0).random((1, 38, 1000, 1000), np.float32)
    x += 100  # added up one by one in float32, this stops at 2^31: the mean is 57 then
    with fastnorm.config(backend=name):
        y = fastnorm.group_norm(x, 1)
    mean = x.mean(dtype=np.float64)
    var = np.mean([np.square(part - mean).mean() for part in x[0]])
    assert_contract(y.flat[::38_001], (x.flat[::38_001] - mean) / np.sqrt(var + 1e-5))
    # An element of a uniform distribution is at most 1.74 deviations from the mean: 2 * 1.74^2 * 4 units of its square.
    assert abs(y.mean(dtype=np.float64)) < 4 * SINGLE
    assert abs(np.mean([np.square(part, dtype=np.float64).mean() for part in y[0]]) - var / (var + 1e-5)) < 24 * SINGLE


def test_the_mean_of_a_hundred_million_numbers() -> None:
    x = np.random.default_rng(0).random(10**8, np.float32)
    result = fastnorm.moments(x)
    assert abs(result.mean - 0.5) < 1e-4, "added up one by one in float32 it is 0.168"
    np.testing.assert_allclose(result.mean, x.mean(dtype=np.float64), rtol=SINGLE)
    np.testing.assert_allclose(result.var, 1 / 12, rtol=1e-3)


# The range of float16


def test_rms_norm_of_float16_whose_squares_overflow(backend: str) -> None:
    x = (np.random.default_rng(0).standard_normal((5, 768)) * 3000).astype(np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(x).sum(axis=1)).all()
    y = fastnorm.rms_norm(x, backend=backend)
    truth = FORMULAS["rms_norm"](x.astype(Wide)).normalized
    assert y.dtype == np.float16
    # The contract of float32, then one rounding to float16, of half a unit in the last place.
    allowed = 4 * SINGLE * np.maximum(1, np.abs(truth)) + 2.0**-11 * np.abs(truth) + 2.0**-25
    assert np.all(np.abs(y - truth) <= allowed)


@pytest.mark.parametrize("axis", [0, 1])
def test_mean_and_variance_of_float16_do_not_overflow(axis: int, backend: str) -> None:
    lines = (np.random.default_rng(0).standard_normal((2, 10**5)) * 10 + 300).astype(np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(np.sum(lines, axis=1, dtype=np.float16)).all()
    result = fastnorm.moments(lines if axis == 1 else np.ascontiguousarray(lines.T), axis=axis, backend=backend)
    wide = lines.astype(Wide)
    # Within a block of float32 sums 64 roundings, as `stats.bounds` derives; blocks are merged in float64.
    np.testing.assert_allclose(result.mean, wide.mean(axis=1).astype(np.float64), rtol=4 * SINGLE)
    np.testing.assert_allclose(result.var, wide.var(axis=1).astype(np.float64), rtol=64 * SINGLE)


# Too little to normalise, and nonsense


@pytest.mark.parametrize(("shape", "axis"), [((1, 3), 1), ((1, 3, 1, 1), 1), ((1, 1, 1, 3), -1)])
def test_batch_norm_refuses_to_train_on_one_value_per_channel(shape: tuple[int, ...], axis: int, backend: str) -> None:
    mean, var = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    x, out = np.ones(shape, np.float32), np.full(shape, 7, np.float32)
    with pytest.raises(ValueError, match="more than one value per channel"):
        fastnorm.batch_norm(x, mean, var, training=True, channel_axis=axis, out=out, backend=backend)
    np.testing.assert_array_equal(mean, [1, 2, 3])
    np.testing.assert_array_equal(var, [4, 5, 6])
    assert (out == 7).all()


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_instance_norm_of_one_pixel_is_the_bias_whatever_the_batch(eps: float, axis: int, backend: str) -> None:
    weight, bias = np.float32([1.5, -2, 0]), np.float32([0.1, 0.2, -0.3])
    for items in (1, 8):
        x = np.random.default_rng(items).standard_normal((items, 3)).astype(np.float32) * 1000
        x = x[:, :, None, None] if axis == 1 else x[:, None, None, :]
        y = fastnorm.instance_norm(x, weight, bias, channel_axis=axis, eps=eps, backend=backend)
        np.testing.assert_array_equal(y.reshape(items, 3), np.tile(bias, (items, 1)))
        y = fastnorm.instance_norm(x, channel_axis=axis, eps=eps, backend=backend)
        assert not y.any()


@pytest.mark.parametrize("op", [op for op in FORMULAS if "eps" in inspect.signature(getattr(fastnorm, op)).parameters])
def test_a_negative_eps_is_refused(op: str) -> None:
    args, kwargs = build(case_of(op), np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"{op}: eps"):
        getattr(fastnorm, op)(*args, **kwargs | {"eps": -1e-5})


# A single channel


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_large_batch_of_one_channel_stays_within_its_memory(dtype: str, served: str) -> None:
    """Training once took its hundreds of chunks for one, forward and backward, and wrote beyond its sums."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((300_000, 1)).astype(dtype) for _ in range(2))
    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            y = fastnorm.batch_norm(x, training=True)
            np.testing.assert_array_equal(y, fastnorm.batch_norm(x, training=True, backend=served))
            gradients = fastnorm.batch_norm_backward(dy, x, training=True)
            general = fastnorm.batch_norm_backward(dy, x, training=True, backend=served)
            for found, other in zip(gradients, general, strict=True):
                np.testing.assert_array_equal(found, other)
    exact = x.astype(Wide)
    truth = (exact - exact.mean()) / np.sqrt(exact.var() + Wide(1e-5))
    assert_contract(y, truth, {"float16": 2.0**-11, "float32": SINGLE, "float64": DOUBLE}[dtype])
    single = fastnorm.batch_norm_backward(dy.astype(np.float64), x.astype(np.float64), training=True)
    for part, expected in zip(gradients, single, strict=True):
        scale = np.abs(expected).max()
        unit = 2.0 * np.finfo(dtype).eps
        np.testing.assert_allclose(part.astype(np.float64), expected, rtol=unit, atol=unit * max(scale, 1))


@pytest.mark.parametrize("shape", [(3, 1, 7000), (2, 1, 65537), (9, 1, 5, 7), (3, 7000, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_single_channel_is_one_line_for_plain_calls_too(dtype: str, shape: tuple[int, ...], served: str) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    axis = 1 if shape[1] == 1 else -1
    states = []
    for options in ({}, {"backend": served}):
        mean, var = np.zeros(1), np.ones(1)
        y = fastnorm.batch_norm(x, mean, var, training=True, channel_axis=axis, **options)
        states.append((y.tobytes(), mean.tobytes(), var.tobytes()))
    assert states[0] == states[1]


# The other byte order


def swapped(value: Any) -> Any:
    if isinstance(value, list):
        return [swapped(part) for part in value]
    return value.astype(value.dtype.newbyteorder(">")) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("op", FORMULAS)
def test_big_endian_arrays_give_the_same_result(op: str, backend: str) -> None:
    case = case_of(op)
    args, kwargs = build(case, np.random.default_rng(0))
    with fastnorm.config(backend=serving(op, backend)):
        expected = outcome(case, getattr(fastnorm, op)(*args, **kwargs))
        big = [swapped(value) for value in args], {name: swapped(value) for name, value in kwargs.items()}
        y = outcome(case, getattr(fastnorm, op)(*big[0], **big[1]))
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == np.float32
    assert y.dtype.isnative
