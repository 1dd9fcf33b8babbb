"""Any memory layout gives the bits of a contiguous copy: strides, byte order, alignment, read-only memory."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import fastnorm

Array = np.ndarray[Any, Any]

SIZES = st.sampled_from([0, 1, 2, 3, 5, 7, 8, 13, 31, 33, 37])
DTYPES = st.sampled_from(["<f4", "<f8", ">f4", ">f8", "<f2", ">f2", "u1", "<i2", "<i8", ">i4", "?"])
EXTRAS = ("none", "reversed", "stepped", "broadcast", "fortran", "transposed", "unaligned", "field", "read-only")


def arranged(values: Array, arrangement: str, draw: Any) -> Array:
    """Return an array of equal values and shape in another arrangement of memory."""
    axes = tuple(range(values.ndim))
    if not axes:
        arrangement = draw(st.sampled_from(["none", "unaligned", "read-only"]))
    if arrangement == "reversed":
        flip = tuple(slice(None, None, draw(st.sampled_from([1, -1]))) for _ in axes)
        return np.ascontiguousarray(values[flip])[flip]
    if arrangement == "stepped":
        steps = [draw(st.sampled_from([1, 2, 3, -2])) for _ in axes]
        memory = np.zeros([max(n * abs(s), 1) for n, s in zip(values.shape, steps, strict=True)], values.dtype)
        view = memory[tuple(slice(None, None, s) for s in steps)]
        view = view[tuple(slice(0, n) for n in values.shape)]
        view[...] = values
        return view
    if arrangement == "broadcast" and values.size:
        axis = draw(st.sampled_from(axes))
        return np.broadcast_to(values.take([0], axis), values.shape)
    if arrangement == "fortran":
        return np.asfortranarray(values)
    if arrangement == "transposed":
        order = draw(st.permutations(axes))
        return np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))
    if arrangement == "unaligned":
        memory = np.zeros(values.nbytes + 16, np.uint8)
        start = draw(st.integers(1, 7))
        view = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
        view[...] = values
        return view
    if arrangement == "field":
        records = np.zeros(values.shape, [("before", "u1"), ("value", values.dtype), ("after", "u2")])
        records["value"] = values
        return records["value"]
    if arrangement == "read-only":
        values = values.copy()
        values.flags.writeable = False
    return values


@st.composite
def arrays(draw: Any, least: int = 1, most: int = 5) -> Array:
    """An array of any shape and dtype, in any arrangement."""
    shape = tuple(draw(st.lists(SIZES, min_size=least, max_size=most)))
    assume(np.prod(shape, dtype=np.int64) <= 6000)
    dtype = np.dtype(draw(DTYPES))
    seed = draw(st.integers(0, 2**16))
    values = np.asarray(np.random.default_rng(seed).standard_normal(shape) * 20 + draw(st.sampled_from([0, 40])))
    return arranged(values.astype(dtype), draw(st.sampled_from(EXTRAS)), draw)


def contiguous(x: Array) -> Array:
    """Return a native, aligned copy in C order."""
    return np.array(x, x.dtype.newbyteorder("="), order="C", copy=True)


def check(function: Any, x: Array, backend: str) -> None:
    """Assert that a function treats x as it does a contiguous copy, and leaves x alone."""
    before, strides = x.tobytes(), x.strides
    result, expected = function(x), function(contiguous(x))
    for actual, other in zip(np.atleast_1d(result), np.atleast_1d(expected), strict=True):
        if backend == "reference":  # NumPy adds in the order of memory
            np.testing.assert_allclose(actual, other, rtol=1e-3 if other.dtype == np.float16 else 1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(actual, other)
    assert result.dtype == expected.dtype
    assert result.flags.c_contiguous
    assert x.tobytes() == before
    assert x.strides == strides


def parameters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return a weight and a bias, themselves strided and of foreign byte order."""
    weight = np.linspace(0.5, 2, int(np.prod(shape)) * 2)[::-2].reshape(shape)
    return weight, weight.astype(">f4")


@given(data=st.data(), x=arrays())
def test_layer_norm_over_any_axis(data: Any, x: Array, backend: str) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    weight, bias = data.draw(st.sampled_from([(None, None), parameters((x.shape[axis],))]))
    check(lambda x: fastnorm.layer_norm(x, weight, bias, axis=axis, backend=backend), x, backend)


@given(data=st.data(), x=arrays())
def test_layer_norm_over_trailing_axes(data: Any, x: Array, backend: str) -> None:
    axes = tuple(range(data.draw(st.integers(0, x.ndim - 1)), x.ndim))
    weight, bias = data.draw(st.sampled_from([(None, None), parameters(tuple(x.shape[a] for a in axes))]))
    check(lambda x: fastnorm.layer_norm(x, weight, bias, axis=axes, backend=backend), x, backend)


@given(data=st.data(), x=arrays())
def test_rms_norm(data: Any, x: Array, backend: str) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    weight, bias = parameters((x.shape[axis],))
    check(lambda x: fastnorm.rms_norm(x, weight, bias, axis=axis, backend=backend), x, backend)


@given(data=st.data(), x=arrays(least=2), training=st.booleans())
def test_batch_norm(data: Any, x: Array, training: bool, backend: str) -> None:
    axis = data.draw(st.integers(1, x.ndim - 1))
    channels = x.shape[axis]
    assume(np.prod([n for a, n in enumerate(x.shape) if a != axis]) != 1)
    weight, bias = parameters((channels,))
    mean, var = parameters((channels,))

    def function(x: Array) -> Array:
        running = (mean.copy(), var.copy()) if training else (mean, var)
        y = fastnorm.batch_norm(x, *running, weight, bias, training=training, channel_axis=axis, backend=backend)
        return y if not x.size else np.concatenate([y.ravel(), *(part.astype(y.dtype) for part in running)])

    check(function, x, backend)


@given(data=st.data(), x=arrays(least=2))
def test_instance_norm(data: Any, x: Array, backend: str) -> None:
    axis = data.draw(st.integers(1, x.ndim - 1))
    weight, bias = parameters((x.shape[axis],))
    check(lambda x: fastnorm.instance_norm(x, weight, bias, channel_axis=axis, backend=backend), x, backend)


@given(data=st.data(), x=arrays(least=2))
def test_group_norm(data: Any, x: Array, backend: str) -> None:
    axis = data.draw(st.integers(1, x.ndim - 1))
    channels = x.shape[axis]
    assume(channels)
    groups = data.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    weight, bias = parameters((channels,))
    check(lambda x: fastnorm.group_norm(x, groups, weight, bias, channel_axis=axis, backend=backend), x, backend)


def axes_of(data: Any, x: Array) -> Any:
    """Draw None, an axis, or several in any order, some counted from the end."""
    axes = data.draw(st.lists(st.sampled_from(range(x.ndim)), unique=True) if x.ndim else st.just([]))
    signed = tuple(a - x.ndim if data.draw(st.booleans()) else a for a in axes)
    return data.draw(st.sampled_from([None, signed] + ([signed[0]] if len(signed) == 1 else [])))


@given(data=st.data(), x=arrays(least=0))
def test_standardize(data: Any, x: Array, backend: str) -> None:
    axis = axes_of(data, x)
    check(lambda x: fastnorm.standardize(x, axis=axis, backend=backend), x, backend)


@given(data=st.data(), x=arrays(least=0))
def test_min_max_and_max_abs_scale(data: Any, x: Array, backend: str) -> None:
    axis = axes_of(data, x)
    check(lambda x: fastnorm.min_max_scale(x, axis=axis, backend=backend), x, backend)
    check(lambda x: fastnorm.max_abs_scale(x, axis=axis, backend=backend), x, backend)


@given(data=st.data(), x=arrays(least=0), ddof=st.sampled_from([0, 1]))
@pytest.mark.filterwarnings("ignore:moments. mean of empty lines")
def test_moments_against_numpy(data: Any, x: Array, ddof: int, backend: str) -> None:
    axis = axes_of(data, x)
    keepdims = data.draw(st.booleans())
    result = fastnorm.moments(x, axis=axis, ddof=ddof, keepdims=keepdims, backend=backend)
    copy = fastnorm.moments(contiguous(x), axis=axis, ddof=ddof, keepdims=keepdims, backend=backend)
    if backend != "reference":
        np.testing.assert_array_equal(result.mean, copy.mean)
        np.testing.assert_array_equal(result.m2, copy.m2)
    wide = x.astype(np.float64)
    shape = np.shape(wide.sum(axis=axis, keepdims=keepdims))
    assert np.shape(result.mean) == np.shape(result.var) == shape
    count = x.size // max(int(np.prod(shape)), 1) if x.size else 0
    if count == 0:
        return
    assert np.all(result.count == count)
    scale = np.abs(wide).max()
    single = x.dtype.itemsize <= 4 and x.dtype not in (np.dtype(">i4"), np.dtype("<i4"))
    tolerance = 1e-6 if single else 1e-13
    np.testing.assert_allclose(result.mean, wide.mean(axis=axis, keepdims=keepdims), rtol=1e-13, atol=tolerance * scale)
    if count > ddof:
        var = wide.var(axis=axis, ddof=ddof, keepdims=keepdims)
        np.testing.assert_allclose(result.var, var, rtol=10 * tolerance, atol=1e-13 * scale**2)
        np.testing.assert_allclose(result.std, np.sqrt(var), rtol=10 * tolerance, atol=1e-6 * scale)


@given(data=st.data(), x=arrays(least=0))
@example(data=None, x=np.array(-0.0)).via("0-d")
def test_extrema_against_numpy(data: Any, x: Array, backend: str) -> None:
    axis = axes_of(data, x) if data is not None else None
    keepdims = data.draw(st.booleans()) if data is not None else False
    try:
        expected = x.min(axis=axis, keepdims=keepdims), x.max(axis=axis, keepdims=keepdims)
    except ValueError:
        with pytest.raises(ValueError, match="extrema: a line without elements"):
            fastnorm.extrema(x, axis=axis, keepdims=keepdims, backend=backend)
        return
    result = fastnorm.extrema(x, axis=axis, keepdims=keepdims, backend=backend)
    for actual, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(actual, other)
        assert np.asarray(actual).dtype == x.dtype.newbyteorder("=")
        assert np.shape(actual) == np.shape(other)


@given(x=arrays(least=2, most=4))
def test_norms_of_one_line_at_a_time_agree_with_those_of_many(x: Array, compiled: str) -> None:
    assume(x.size)
    y = fastnorm.layer_norm(x, backend=compiled)
    for index in np.ndindex(*x.shape[:-1]):
        np.testing.assert_array_equal(fastnorm.layer_norm(x[index], backend=compiled), y[index])
        if sum(index) > 5:
            break
