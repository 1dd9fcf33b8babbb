"""The textbook algorithms: every backend to the bit, weights of both kinds, and how far a result trusts itself."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastnorm
from fastnorm.backends import registry
from fastnorm.backends.textbook import ALGORITHMS

Array = np.ndarray[Any, Any]

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
each_dtype = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])


def lines(kind: str, length: int, dtype: str, seed: int = 0) -> Array:
    """Return three lines of a kind."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    values = {
        "normal": lambda: rng.standard_normal((3, length)) + [[0], [10], [1000]],
        "constant": lambda: np.full((3, length), 0.1),
        "large": lambda: rng.uniform(-1, 1, (3, length)) * float(info.max),
        "subnormal": lambda: rng.integers(-9, 9, (3, length)) * float(info.smallest_subnormal),
        "strange": lambda: rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 2.0], (3, length)),
    }[kind]()
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def weights(length: int, dtype: str) -> Array:
    """Return weights, some of them zero, the first of a line too."""
    rng = np.random.default_rng(1)
    result = rng.integers(0, 4, (3, length)) * rng.choice([1.0, 0.3], (3, length))
    result[0, 0], result[2] = 0, 0
    return result.astype(dtype)


@each_algorithm
@each_dtype
@pytest.mark.parametrize("kind", ["normal", "constant", "large", "subnormal", "strange"])
def test_every_backend_has_the_bits_of_the_reference(name: str, dtype: str, kind: str, compiled: str) -> None:
    backend, reference = registry.load(compiled), registry.load("reference")
    for length in (1, 2, 3, 5, 8, 31, 100, 1025):
        x = lines(kind, length, dtype)
        for weight in (None, weights(length, dtype)):
            for part, expected in zip(
                backend.textbook(name, x, weight), reference.textbook(name, x, weight), strict=True
            ):
                np.testing.assert_array_equal(part, expected)


@each_algorithm
def test_half_precision_rounds_every_operation_to_half(name: str, compiled: str) -> None:
    # Sums of all pairs of neighbours in float16's order, and beyond: ties, subnormals, overflow.
    every = np.arange(0x7C01, dtype=np.uint16).view(np.float16)
    x = np.stack([every, np.roll(every, 1), np.roll(every, 7)], axis=1)
    backend, reference = registry.load(compiled), registry.load("reference")
    for part, expected in zip(backend.textbook(name, x, None), reference.textbook(name, x, None), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("name", ["welford", "two_pass", "corrected_two_pass", "pairwise", "compensated"])
def test_a_count_beyond_what_float16_holds_is_still_a_count(name: Any, backend: str) -> None:
    x = np.zeros(100_000, np.float16)
    x[::2] = 2.0**-10  # the sum, 48.8, fits
    result = fastnorm.moments(x, algorithm=name, backend=backend)
    if name == "pairwise":
        np.testing.assert_allclose(result.mean, x.astype(np.float64).mean(), rtol=2**-9)
    assert 0 < result.mean < 2.0**-10, "a count of inf would make the mean 0"


@each_algorithm
@given(st.data())
def test_weights_of_zero_change_nothing(name: Any, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 40))
    x = np.array(data.draw(st.lists(st.floats(-100, 100), min_size=length, max_size=length)))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    keep[data.draw(st.integers(0, length - 1))] = True
    masked = fastnorm.moments(np.where(keep, x, np.nan), where=keep, algorithm=name)
    alone = fastnorm.moments(x[keep], algorithm=name)
    scale = max(float(np.abs(x).max()), 1e-100)
    # Pairs are formed differently, so a few roundings; naive's grow with the square of the data.
    assert abs(masked.mean - alone.mean) <= 1e-13 * scale
    assert abs(masked.m2 - alone.m2) <= 1e-13 * scale**2 * length


def test_arrays_that_are_not_aligned(backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    for algorithm in ALGORITHMS:
        with fastnorm.config(backend=backend):
            found, expected = (fastnorm.moments(part, axis=1, algorithm=algorithm) for part in (unaligned, x))
        np.testing.assert_array_equal(found.m2, expected.m2)


def test_the_first_element_that_counts_is_the_shift(backend: str) -> None:
    x = np.float32([[np.nan, 10001, 10002, 10003]])
    result = fastnorm.moments(x, axis=1, where=[[False, True, True, True]], algorithm="shifted", backend=backend)
    np.testing.assert_array_equal(result.m2, [2.0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_weighted_constants_have_no_variance(dtype: str, backend: str) -> None:
    x = np.repeat(np.random.default_rng(0).uniform(1, 1000, (300, 1)).astype(dtype), 5, axis=1)
    counts = np.array([3.0, 7, 0, 1, 0.3])
    found = fastnorm.moments(x, axis=1, weights=counts, algorithm="welford", backend=backend)
    np.testing.assert_array_equal(found.m2, np.zeros(300))
    np.testing.assert_array_equal(found.mean, x[:, 0].astype(np.float64))


# Weights of both kinds


@pytest.mark.parametrize("name", ["auto", *ALGORITHMS])
@pytest.mark.parametrize("ddof", [0, 1])
def test_weights_are_those_of_numpy_cov(name: Any, ddof: int, backend: str) -> None:
    rng = np.random.default_rng(0)
    x, counts, trust = rng.standard_normal(30), rng.integers(0, 5, 30), rng.random(30)
    frequency = fastnorm.moments(x, weights=counts, ddof=ddof, algorithm=name, backend=backend)
    np.testing.assert_allclose(frequency.var, np.cov(x, fweights=counts, ddof=ddof), rtol=1e-12)
    reliability = fastnorm.moments(
        x, weights=trust, weights_kind="reliability", ddof=ddof, algorithm=name, backend=backend
    )
    np.testing.assert_allclose(reliability.var, np.cov(x, aweights=trust, ddof=ddof), rtol=1e-12)
    scaled = fastnorm.moments(x, weights=trust * 8, weights_kind="reliability", ddof=ddof, algorithm=name)
    np.testing.assert_allclose(scaled.var, reliability.var, rtol=1e-14)


def test_reliabilities_by_line() -> None:
    rng = np.random.default_rng(0)
    x, trust = rng.standard_normal((4, 6, 5)), rng.random((4, 6, 5))
    result = fastnorm.moments(x, axis=1, keepdims=True, weights=trust, weights_kind="reliability", ddof=1)
    assert result.var.shape == (4, 1, 5)
    np.testing.assert_allclose(result.var[2, 0, 3], np.cov(x[2, :, 3], aweights=trust[2, :, 3], ddof=1), rtol=1e-12)


def test_the_kind_of_weights_has_a_name() -> None:
    with pytest.raises(ValueError, match=r"moments: weights_kind must be 'frequency' or 'reliability', got 'exact'"):
        fastnorm.moments([1.0], weights=[1.0], weights_kind="exact")


# Condition and digits


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e8])
def test_condition_is_about_mean_over_deviation(offset: float) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1000)) + offset
    wide = x.astype(np.longdouble)
    expected = np.sqrt(1 + wide.mean(1) ** 2 / wide.var(1)).astype(np.float64)
    np.testing.assert_allclose(fastnorm.moments(x, axis=1).condition, expected, rtol=1e-9)


def test_condition_at_the_ends() -> None:
    assert fastnorm.moments([3.0, 3.0]).condition == np.inf
    assert fastnorm.moments([0.0, 0.0]).condition == 1
    assert fastnorm.moments([-1.0, 1.0]).condition == 1
    assert np.isnan(fastnorm.moments([np.nan, 1.0]).condition)
    cancelled = fastnorm.Moments(mean=5.0, m2=-1.0, count=10, algorithm="naive")
    assert cancelled.condition == np.inf
    assert cancelled.digits == 0


@pytest.mark.parametrize("name", ["auto", *ALGORITHMS])
@each_dtype
def test_digits_are_guaranteed(name: Any, dtype: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    scale = {"float16": 10.0, "float32": 1e3, "float64": 1e7}[dtype]
    x = (rng.standard_normal((5, 64)) + np.array([[0], [1], [10], [scale / 10], [scale]])).astype(dtype)
    result = fastnorm.moments(x, axis=1, algorithm=name, backend=backend)
    exact = x.astype(np.longdouble)
    truth = ((exact - exact.mean(1, keepdims=True)) ** 2).mean(1)
    with np.errstate(divide="ignore"):
        found = -np.log10(np.abs(result.var - truth) / truth)
    assert np.all(found >= result.digits)
    assert np.all(result.digits >= 0)
    if name == "auto":
        assert np.all(result.digits >= (14 if dtype == "float64" else 5))
    if name == "naive":
        assert result.digits[0] > result.digits[3] >= result.digits[4], "condition costs digits"


def test_digits_of_nothing_and_of_what_is_not_finite_are_none() -> None:
    assert fastnorm.moments([np.inf, 1.0]).digits == 0
    assert fastnorm.moments([np.nan]).digits == 0
    with pytest.warns(RuntimeWarning, match="empty lines"):
        assert fastnorm.moments([]).digits == 0
