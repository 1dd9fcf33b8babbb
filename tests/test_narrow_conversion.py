"""The conversions of float16 and bfloat16 to float32 and back, against NumPy's and ml_dtypes'."""

import numpy as np
import pytest
from cases import dtype_of
from narrow_cases import Array, each_dtype, rounded

import fastnorm
from fastnorm.backends import registry
from fastnorm.backends.reference import Reference


@pytest.fixture
def converter(backend: str, threads_for_all: None) -> Reference:
    """Each backend, and each variant of its kernels."""
    return registry.load(backend)


def assert_widened(found: Array, source: Array) -> None:
    expected = source.astype(np.float32)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(found[numbers].view(np.uint32), expected[numbers].view(np.uint32))
    assert np.isnan(found[~numbers]).all()


def assert_narrowed(found: Array, source: Array) -> None:
    expected = rounded(source, found.dtype)
    numbers = ~np.isnan(source)
    np.testing.assert_array_equal(found[numbers].view(np.uint16), expected[numbers].view(np.uint16))
    assert np.isnan(found[~numbers].astype(np.float32)).all()


def every(dtype: str) -> Array:
    return np.arange(2**16, dtype=np.uint16).view(dtype_of(dtype))


def doubtful(dtype: str) -> Array:
    """Return float32 numbers where rounding is decided: halfway between neighbours, next to that, and of any bits."""
    values = every(dtype).astype(np.float32)
    finite = np.unique(values[np.isfinite(values)])
    with np.errstate(over="ignore"):
        beyond = np.float32([finite[-1] + (finite[-1] - finite[-2]) / 2])  # halfway to what is infinite
    middle = np.concatenate([(finite[:-1].astype(np.float64) + finite[1:]) / 2, beyond, -beyond]).astype(np.float32)
    middle = middle[np.isfinite(middle)]
    anything = np.random.default_rng(0).integers(0, 2**32, 2**18, dtype=np.uint32).view(np.float32)
    least = np.float32([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, -np.nan])
    # In the number of bits, not by arithmetic, which processors do slowly with subnormals.
    bits = middle.view(np.uint32)
    return np.concatenate([values, middle, (bits + 1).view(np.float32), (bits - 1).view(np.float32), least, anything])


@each_dtype
def test_every_number_is_widened_exactly(dtype: str, converter: Reference) -> None:
    source = every(dtype)
    for threads in (1, 2, 3):
        with fastnorm.config(num_threads=threads):
            target = np.full(source.size, 7, np.float32)
            converter.convert(source, target)
        assert_widened(target, source)


@each_dtype
def test_numbers_are_rounded_to_the_nearest_ties_to_even(dtype: str, converter: Reference) -> None:
    source = doubtful(dtype)
    for threads in (1, 2, 3):
        with fastnorm.config(num_threads=threads):
            target = np.full(source.size, 7, dtype_of(dtype))
            with np.errstate(over="ignore", invalid="ignore"):
                converter.convert(source, target)
        assert_narrowed(target, source)


@each_dtype
def test_any_length_at_any_place(dtype: str, converter: Reference) -> None:
    numbers = np.random.default_rng(1).permutation(every(dtype))
    numbers = numbers[np.isfinite(numbers.astype(np.float32))]
    singles = np.random.default_rng(2).permutation(numbers.astype(np.float32)) * np.float32(1 + 2.0**-11)
    with np.errstate(over="ignore"):
        for length in (*range(101), 4095, 4096, 4097, 3 * 4096 + 5):
            for start in (0, 1, 3):
                target = np.full(length + start + 64, 7, np.float32)
                converter.convert(numbers[start : start + length], target[start : start + length])
                assert_widened(target[start : start + length], numbers[start : start + length])
                assert (target[:start] == 7).all()
                assert (target[start + length :] == 7).all()
                back = np.full(length + start + 64, 7, dtype_of(dtype))
                converter.convert(singles[start : start + length], back[start : start + length])
                assert_narrowed(back[start : start + length], singles[start : start + length])
                assert (back[:start] == 7).all()
                assert (back[start + length :] == 7).all()


@each_dtype
def test_calls_convert_by_the_backend_without_a_trace(dtype: str, backend: str) -> None:
    """A float32 x for a 16-bit result, and a 16-bit one for a float32 result: nothing but the rounding differs."""
    x = np.random.default_rng(3).standard_normal((70, 1000)).astype(np.float32) * np.float32(1e3)
    with np.errstate(over="ignore"):
        narrow = x.astype(dtype_of(dtype))
    with fastnorm.config(backend=backend):
        expected = rounded(fastnorm.layer_norm(x), narrow.dtype)
        np.testing.assert_array_equal(
            fastnorm.layer_norm(x, dtype=narrow.dtype).view(np.uint16), expected.view(np.uint16)
        )
        np.testing.assert_array_equal(
            fastnorm.layer_norm(narrow, dtype=np.float32), fastnorm.layer_norm(narrow.astype(np.float32))
        )
