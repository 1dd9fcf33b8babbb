"""What every call on a device keeps to: special numbers, fused forms, outputs, running statistics, errors."""

from typing import Any

import numpy as np
import pytest
from device_arrays import on_device, to_device, to_host

import fastnorm
from fastnorm.activations import FORMULAS

Array = np.ndarray[Any, Any]

UNIT = 2.0**-24
# Rows that registers hold and, in the simulator, rows that they do not.
each_length = pytest.mark.parametrize("length", [40, 140])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def on(function: str, *args: Any, **kwargs: Any) -> Any:
    """Call a function on the device; arrays come back as NumPy's."""
    moved = {name: on_device(value) for name, value in kwargs.items()}
    result = getattr(fastnorm, function)(*map(on_device, args), **moved)
    return tuple(map(to_host, result)) if isinstance(result, tuple) else to_host(result)


def exact(x: Array, eps: float = 1e-5) -> Array:
    wide = x.astype(np.longdouble)
    deviations = wide - wide.mean(-1, keepdims=True)
    return deviations / np.sqrt((deviations**2).mean(-1, keepdims=True) + eps)


@each_length
@pytest.mark.parametrize("offset", [-10.0, 1e3, 1e4])
def test_a_mean_of_many_standard_deviations_costs_no_digits(length: int, offset: float) -> None:
    x = (normal(4, length) + offset).astype(np.float32)
    y = exact(x)
    assert np.max(np.abs(on("layer_norm", x) - y) / np.maximum(1, np.abs(y))) <= 4 * UNIT


@each_length
def test_a_constant_row_is_exactly_the_bias(length: int) -> None:
    bias = normal(length)
    for value in (0.7, 0.0, 1e30, 1e-40):
        for eps in (1e-5, 0.0):
            y = on("layer_norm", np.full((3, length), value, np.float32), bias=bias, eps=eps)
            np.testing.assert_array_equal(y, np.tile(bias, (3, 1)))


@each_length
@pytest.mark.parametrize("scale", [1e30, 1e-30, 3e37])
def test_rows_whose_squares_leave_the_range(length: int, scale: float) -> None:
    x = normal(3, length)
    x[1] *= np.float32(scale)
    y = exact(x, eps=0.0)
    allowed = 4 * UNIT * np.maximum(1, np.abs(y))
    assert (np.abs(on("layer_norm", x, eps=0.0) - y) <= allowed).all()
    columns = np.ascontiguousarray(x.T)
    assert (np.abs(on("layer_norm", columns, axis=0, eps=0.0) - y.T) <= allowed.T).all()


@each_length
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", ["layer_norm", "rms_norm"])
def test_what_is_no_number_stays_in_its_row(function: str, value: float, length: int) -> None:
    x = normal(6, length)
    clean = on(function, x)
    x[2, length // 2] = value
    y, expected = on(function, x), getattr(fastnorm, function)(x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(y[others], clean[others])


@each_length
@pytest.mark.parametrize("activation", [None, *FORMULAS])
def test_fused_forms_are_their_parts(activation: str | None, length: int) -> None:
    """The contract's 4 units in the last place, and as many for the activation, whose slope is at most 1.13."""
    x, residual, weight, bias = normal(3, length), normal(3, length, seed=1), normal(length), normal(length, seed=2)
    wide = np.float64(exact(x + residual)) * weight + bias
    expected = wide if activation is None else FORMULAS[activation](wide)
    options = {"residual": residual, "activation": activation, "return_residual": True}
    y, total = on("layer_norm", x, weight, bias, **options)
    np.testing.assert_array_equal(total, x + residual)
    np.testing.assert_allclose(y, expected, rtol=32 * UNIT, atol=32 * UNIT)


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_fused_forms_of_channels(channel_axis: int) -> None:
    x, residual = normal(2, 4, 4), normal(2, 4, 4, seed=1)
    mean, var, weight, bias = normal(4), np.exp(normal(4, seed=1)), normal(4, seed=2), normal(4, seed=3)
    options = {"residual": residual, "activation": "silu", "channel_axis": channel_axis}
    for function, given in (("batch_norm", (mean, var, weight, bias)), ("group_norm", (2, weight, bias))):
        expected = getattr(fastnorm, function)(x.astype(np.float64), *given, **options)
        np.testing.assert_allclose(on(function, x, *given, **options), expected, rtol=32 * UNIT, atol=32 * UNIT)


@each_length
def test_out_may_be_x_or_what_overlaps_it(length: int) -> None:
    x, weight = normal(3, length), normal(length, seed=1)
    expected = on("rms_norm", x, weight)
    target = on_device(x.copy())
    assert fastnorm.rms_norm(target, on_device(weight), out=target) is target
    np.testing.assert_array_equal(to_host(target), expected)
    memory = np.concatenate([x, x[:1]])
    source, shifted = to_device(memory[:3]), to_device(memory[1:])
    fastnorm.rms_norm(source, on_device(weight), out=shifted)
    np.testing.assert_array_equal(to_host(shifted), expected)


def test_dtype_decides_what_is_computed_in() -> None:
    x = normal(3, 40)
    y = on("layer_norm", x, dtype="float64")
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, np.float64(exact(x)), rtol=1e-14, atol=1e-14)
    assert on("layer_norm", x, dtype=np.float16).dtype == np.float16
    with pytest.raises(TypeError, match="layer_norm: dtype must be float16, bfloat16, float32 or float64, got int32"):
        on("layer_norm", x, dtype=np.int32)


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_running_statistics_move_on_the_device(convention: str, channel_axis: int) -> None:
    x = normal(3, 4, 4)
    expected, found = [np.zeros(4, np.float32), np.ones(4, np.float32)], [np.zeros(4), np.ones(4)]
    options = {"training": True, "convention": convention, "channel_axis": channel_axis}
    fastnorm.batch_norm(x, *expected, **options)
    moved = [on_device(part.astype(np.float32)) for part in found]
    fastnorm.batch_norm(on_device(x), *moved, **options)
    for part, other in zip(moved, expected, strict=True):
        np.testing.assert_allclose(to_host(part), other, rtol=4 * UNIT, atol=4 * UNIT)


def test_statistics_are_those_of_the_cpu() -> None:
    x = normal(2, 4, 6)
    for function, args, options in (
        ("layer_norm", (), {}),
        ("rms_norm", (), {"axis": 1}),
        ("instance_norm", (), {}),
        ("group_norm", (2,), {"channel_axis": -1}),
        ("batch_norm", (), {"training": True}),
        ("batch_norm", (normal(4), np.exp(normal(4))), {}),
    ):
        _, expected = getattr(fastnorm, function)(x.astype(np.float64), *args, **options, return_stats=True)
        moved = [on_device(part) for part in args]
        _, found = getattr(fastnorm, function)(on_device(x), *moved, **options, return_stats=True)
        for part, other in zip(found, expected, strict=True):
            assert to_host(part).shape == other.shape
            np.testing.assert_allclose(to_host(part), other, rtol=8 * UNIT, atol=8 * UNIT)


def test_nothing_gives_nothing() -> None:
    y, mean_and_rstd = fastnorm.layer_norm(on_device(np.empty((2, 0), np.float32)), return_stats=True)
    assert to_host(y).shape == (2, 0)
    assert all(np.isnan(to_host(part)).all() for part in mean_and_rstd)
    empty = on_device(np.empty((0, 3), np.float32))
    gradients = fastnorm.layer_norm_backward(empty, empty)
    assert [to_host(part).tolist() for part in gradients] == [[], [0.0] * 3, [0.0] * 3]


def test_the_same_bits_from_run_to_run() -> None:
    x, dy, weight = normal(9, 40), normal(9, 40, seed=1), normal(40)
    for function, args in (("layer_norm", (x, weight)), ("layer_norm_backward", (dy, x, weight))):
        first, second = on(function, *args), on(function, *args)
        pairs = zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]
        for part, other in pairs:
            np.testing.assert_array_equal(part, other)


def test_what_is_not_served_says_so() -> None:
    x = on_device(normal(3, 4))
    for call, message in (
        (lambda: fastnorm.layer_norm(x, quantize="int8"), "layer_norm: quantize is not served"),
        (lambda: fastnorm.instance_norm(x, where=np.ones((3, 4), bool)), "instance_norm: where is not served"),
        (lambda: fastnorm.batch_norm(x, training=True, weights=[1.0]), "batch_norm: weights is not served"),
        (lambda: fastnorm.layer_norm(x, activation=abs), "activation must be a name on a CUDA device"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_arguments_that_do_not_fit() -> None:
    x, host = on_device(normal(3, 4)), normal(4)
    for call, error, message in (
        (lambda: fastnorm.layer_norm(x, host), TypeError, "weight must be on the device of x, got ndarray"),
        (lambda: fastnorm.layer_norm(host, on_device(host)), TypeError, "weight must be in host memory here"),
        (lambda: fastnorm.standardize(x), TypeError, "standardize: x must be in host memory here"),
        (
            lambda: fastnorm.layer_norm(x, on_device(normal(3))),
            ValueError,
            r"weight must have shape \(4,\), got \(3,\)",
        ),
        (lambda: fastnorm.layer_norm(x, backend="numba"), ValueError, "the numba backend cannot serve"),
        (
            lambda: fastnorm.layer_norm(host, backend="cuda"),
            TypeError,
            "the cuda backend serves arrays on a",
        ),
        (lambda: fastnorm.layer_norm(x, out=host), TypeError, "out must be on the device of x"),
        (lambda: fastnorm.layer_norm(x, out=on_device(host)), ValueError, "out must have the shape of the result"),
        (lambda: fastnorm.layer_norm(x, out=on_device(np.empty((3, 4)))), TypeError, "out must have the dtype"),
        (lambda: fastnorm.layer_norm(x, eps=-1), ValueError, "eps must be at least 0"),
        (lambda: fastnorm.layer_norm(x, axis=2), ValueError, "axis 2 is out of range"),
        (lambda: fastnorm.layer_norm(on_device(np.ones((3, 4), int))), TypeError, "float64 on a device, got int64"),
        (lambda: fastnorm.layer_norm(x, activation="nope"), ValueError, "activation must be one of"),
        (lambda: fastnorm.layer_norm(x, return_residual=True), ValueError, "return_residual needs a residual"),
        (lambda: fastnorm.batch_norm(x), ValueError, "running_mean and running_var are needed"),
        (lambda: fastnorm.batch_norm(on_device(normal(1, 4)), training=True), ValueError, "more than one value"),
        (lambda: fastnorm.group_norm(x, 3), ValueError, "num_groups must divide the 4 channels"),
        (lambda: fastnorm.layer_norm_backward(on_device(host), x), ValueError, "dy must have the shape of x"),
        (lambda: fastnorm.layer_norm_backward(x, x, rstd=x), ValueError, "mean and rstd must be given together"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_device_is_told_from_the_host_whatever_the_settings_say() -> None:
    x = normal(3, 4)
    with fastnorm.config(backend="cuda"):
        assert to_host(fastnorm.layer_norm(on_device(x))).shape == (3, 4)
        with pytest.raises(TypeError, match="layer_norm: the cuda backend serves arrays on a CUDA device"):
            fastnorm.layer_norm(x)
    with (
        fastnorm.config(backend="reference"),
        pytest.raises(ValueError, match="the reference backend cannot serve"),
    ):
        fastnorm.layer_norm(on_device(x))
