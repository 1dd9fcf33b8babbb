"""Fused forms: the same as their parts, on every backend, to within rounding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from variants import why_not

import fastnorm
from fastnorm.activations import FORMULAS

Array = np.ndarray[Any, Any]

numba = pytest.importorskip("numba", reason="scalar functions are compiled by numba")


@numba.njit
def hard_swish(x: float) -> float:
    return x * min(max(x + 3.0, 0.0), 6.0) / 6.0


def hard_swish_of(x: Array) -> Array:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


ACTIVATIONS = [None, hard_swish, *FORMULAS]


def name_of(activation: Any) -> str:
    return str(getattr(activation, "__name__", activation))


each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=name_of)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def formula(activation: Any) -> Callable[[Array], Array]:
    if activation is None:
        return lambda x: x
    return FORMULAS[activation] if isinstance(activation, str) else hard_swish_of


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def assert_close(found: Array, expected: Array) -> None:
    """The contract's 4 units in the last place, and as many for the activation, whose slope is at most 1.13."""
    unit = 2.0 * np.finfo(found.dtype).epsneg
    np.testing.assert_allclose(found, expected, rtol=16 * unit, atol=16 * unit)


def rows(op: str, x: Array, weight: Array, bias: Array, **options: Any) -> Any:
    return getattr(fastnorm, op)(x, weight, bias, **options)


@each_dtype
@each_activation
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 768), (300, 64), (2, 70000), (3, 9000)], ids=str)
def test_rows(op: str, shape: tuple[int, ...], activation: Any, backend: str, dtype: str) -> None:
    with fastnorm.config(backend=backend):
        x, residual = normal(*shape).astype(dtype), normal(*shape, seed=1).astype(dtype)
        weight, bias = normal(shape[-1], seed=2).astype(dtype), normal(shape[-1], seed=3).astype(dtype)
        total = x + residual
        wide = rows(
            op, total.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64), backend="reference"
        )
        options = {"residual": residual, "activation": activation}
        y, returned = rows(op, x, weight, bias, return_residual=True, **options)
        np.testing.assert_array_equal(returned, total)
        assert_close(y, formula(activation)(wide))
        np.testing.assert_array_equal(rows(op, x, weight, bias, **options), y)
        for target in (x.copy(), residual.copy(), np.full_like(x, np.nan)):
            np.testing.assert_array_equal(rows(op, x, weight, bias, out=target, **options), y)
            assert_close(target, y)
        for place, arguments in (("x", (True, False)), ("residual", (False, True))):
            shared = (x if place == "x" else residual).copy()
            found = rows(op, shared if arguments[0] else x, weight, bias, out=shared, activation=activation,
                         residual=shared if arguments[1] else residual)  # fmt: skip
            np.testing.assert_array_equal(found, y, err_msg=f"out is {place}")


@each_dtype
@pytest.mark.parametrize("activation", [None, "relu", "silu", hard_swish], ids=name_of)
@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("shape", [(3, 8, 7, 7), (2, 32, 30, 30), (5, 16), (64, 304), (3, 64, 200)], ids=str)
def test_channels(shape: tuple[int, ...], channel_axis: int, activation: Any, backend: str, dtype: str) -> None:
    with fastnorm.config(backend=backend):
        order = np.moveaxis(normal(*shape), 1, channel_axis).astype(dtype)
        x, residual = np.ascontiguousarray(order), normal(*order.shape, seed=1).astype(dtype)
        weight, bias, mean = (normal(shape[1], seed=seed).astype(dtype) for seed in (2, 3, 4))
        var = np.exp(normal(shape[1], seed=5)).astype(dtype)

        def batch(x: Array, *parameters: Array, **options: Any) -> Any:
            weight, bias, mean, var = parameters
            return fastnorm.batch_norm(x, mean, var, weight, bias, channel_axis=channel_axis, **options)

        def group(x: Array, *parameters: Array, **options: Any) -> Any:
            return fastnorm.group_norm(x, 4, *parameters[:2], channel_axis=channel_axis, **options)

        for norm in (batch, group):
            parameters = weight, bias, mean, var
            exact = [part.astype(np.float64) for part in parameters]
            total = x + residual
            expected = formula(activation)(norm(total.astype(np.float64), *exact, backend="reference"))
            y, returned = norm(x, *parameters, residual=residual, return_residual=True, activation=activation)
            np.testing.assert_array_equal(returned, total)
            np.testing.assert_array_equal(norm(x, *parameters, residual=residual, activation=activation), y)
            scale = 1.0 + np.abs(expected).max()  # of running variances near 0 a float32 is what it is
            np.testing.assert_allclose(y / scale, expected / scale, rtol=0, atol=32 * np.finfo(dtype).epsneg)
            alone = norm(x, *parameters, activation=activation)
            strided = np.asfortranarray(x)
            np.testing.assert_array_equal(norm(strided, *parameters, activation=activation), alone)


PLAIN: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "layer_norm": ("layer_norm", (5, 3, 768), {}),
    "rms_norm": ("rms_norm", (300, 65), {}),
    "group_norm": ("group_norm", (3, 8, 7, 9), {"num_groups": 4}),
    "batch_norm": ("batch_norm", (3, 8, 31, 33), {}),
    "batch_norm channels last": ("batch_norm", (3, 9, 70), {"channel_axis": -1}),
    "batch_norm features": ("batch_norm", (64, 304), {}),
}


@each_dtype
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("activation", [None, "relu", hard_swish], ids=name_of)
def test_plain_calls_have_a_fast_path_of_the_same_bits(
    name: str, activation: Any, dtype: str, kernels: str, calls: list[bool]
) -> None:
    op, shape, options = PLAIN[name]
    channels = shape[-1] if op in ("layer_norm", "rms_norm") else shape[options.get("channel_axis", 1)]
    x, residual = normal(*shape).astype(dtype), normal(*shape, seed=1).astype(dtype)
    options = options | {"weight": normal(channels).astype(dtype), "bias": normal(channels, seed=1).astype(dtype)}
    if op == "batch_norm":
        options |= {"running_mean": normal(channels, seed=2), "running_var": np.abs(normal(channels, seed=3)) + 0.1}

    def norm(**more: Any) -> Any:
        return getattr(fastnorm, op)(x, **options, activation=activation, **more)

    for threads in (1, 3):
        with fastnorm.config(num_threads=threads):
            y, total = norm(residual=residual, return_residual=True)
            general = norm(residual=residual, return_residual=True, backend="cython")
            assert (y.tobytes(), total.tobytes()) == (general[0].tobytes(), general[1].tobytes())
            assert norm(residual=residual).tobytes() == y.tobytes()
            assert norm().tobytes() == norm(backend="cython").tobytes()
            for target, addend in ((np.full_like(x, np.nan), residual), (same := residual.copy(), same)):
                assert norm(residual=addend, out=target) is target
                np.testing.assert_array_equal(target, y)
    assert all(calls)
    calls.clear()
    np.testing.assert_array_equal(norm(residual=residual.astype(">f4" if dtype == "float32" else ">f8")), y)
    with pytest.raises(ValueError, match="return_residual needs a residual"):
        norm(return_residual=True)
    assert not any(calls)


@each_dtype
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_int8_lines_times_their_scale_are_the_result(op: str, backend: str, dtype: str) -> None:
    with fastnorm.config(backend=backend):
        x, weight, bias = normal(40, 300).astype(dtype), normal(300).astype(dtype), normal(300, seed=1).astype(dtype)
        lines, scale = rows(op, x, weight, bias, quantize="int8")
        y = rows(op, x, weight, bias)
        assert (lines.dtype, lines.shape, scale.dtype, scale.shape) == (np.int8, x.shape, np.float32, (40, 1))
        np.testing.assert_array_equal(np.abs(lines.astype(int)).max(axis=1), 127)
        largest = np.abs(y).max(axis=1, keepdims=True)
        assert (np.abs(lines * scale.astype(np.float64) - y) <= largest / 127 * (0.5 + 1e-4)).all()
        (again, scale_again), total = (lambda found: (found[:2], found[2]))(
            rows(op, x, weight, bias, quantize="int8", residual=np.zeros_like(x), return_residual=True)
        )
        np.testing.assert_array_equal(again, lines)
        np.testing.assert_array_equal(scale_again, scale)
        np.testing.assert_array_equal(total, x)


def test_a_line_of_zeros_is_quantised_to_zeros(backend: str) -> None:
    lines, scale = fastnorm.layer_norm(np.ones((2, 9), np.float32), quantize="int8", backend=backend)
    assert not lines.any()
    assert not scale.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_line_that_has_no_scale_is_quantised_to_zeros(bad: float, backend: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    expected, scales = fastnorm.layer_norm(x, quantize="int8", backend=backend)
    x[1, 7] = bad
    lines, scale = fastnorm.layer_norm(x, quantize="int8", backend=backend)
    assert not lines[1].any()
    assert not np.isfinite(scale[1])
    np.testing.assert_array_equal(lines[::2], expected[::2])
    np.testing.assert_array_equal(scale[::2], scales[::2])
    tiny, _ = fastnorm.rms_norm(np.array([[1.0, 0, 2]]), np.full(3, 1e-310), quantize="int8", backend=backend)
    assert not tiny.any()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_are_within_four_units_of_the_last_place(name: str, dtype: Any, backend: str) -> None:
    """Through a norm that changes nothing: mean 0, variance 1, eps 0."""
    x = np.concatenate([np.linspace(-12, 12, 40001), np.geomspace(1e-30, 1e30, 200), -np.geomspace(1e-30, 1e30, 200)])
    x = x.astype(dtype).reshape(-1, 1)
    with fastnorm.config(backend=backend):
        y = fastnorm.batch_norm(x, [0.0], [1.0], eps=0.0, activation=name)
    expected = FORMULAS[name](x.astype(np.float64))
    assert (np.abs(y - expected) <= 4 * np.finfo(dtype).epsneg * np.maximum(1, np.abs(expected))).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_at_the_ends_of_the_range_and_at_nan(name: str, backend: str) -> None:
    for dtype in (np.float32, np.float64):
        for end in (1e38, np.inf):
            x = np.array([[end], [-end], [np.nan]], dtype)
            with fastnorm.config(backend=backend):
                y = fastnorm.batch_norm(x, [0.0], [1.0], eps=0.0, activation=name).ravel()
            high, low = {"sigmoid": (1, 0), "tanh": (1, -1)}.get(name, (end, 0))
            np.testing.assert_array_equal(y, np.array([high, low, np.nan], dtype))


def test_silu_of_float64_until_it_underflows(backend: str) -> None:
    with fastnorm.config(backend=backend):
        y = fastnorm.batch_norm(np.array([[-300.0], [-750.0]]), [0.0], [1.0], eps=0.0, activation="silu").ravel()
    assert y[0] == pytest.approx(-300 * np.exp(-300.0), rel=1e-13)
    assert -1e-320 < y[1] <= 0


@pytest.mark.parametrize("name", FORMULAS)
def test_every_instruction_set_gives_the_same_bits(name: str, serve: Callable[[str], str]) -> None:
    x = normal(64, 500).astype(np.float32) * 4
    labels = [label for label in ("cython-base", "cython-avx2", "cython-avx512") if why_not(label) is None]
    found = [fastnorm.layer_norm(x, activation=name, backend=serve(label)) for label in labels]
    if len(found) < 2:
        pytest.skip("fewer than two variants of the kernels can run here")
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_float16_is_rounded_once() -> None:
    x, residual = normal(6, 40).astype(np.float16), normal(6, 40, seed=1).astype(np.float16)
    y, total = fastnorm.layer_norm(x, residual=residual, return_residual=True, activation="gelu")
    wide = x.astype(np.float32) + residual.astype(np.float32)
    assert y.dtype == total.dtype == np.float16
    np.testing.assert_array_equal(y, fastnorm.layer_norm(wide, activation="gelu").astype(np.float16))
    np.testing.assert_array_equal(total, wide.astype(np.float16))


def test_empty_arrays() -> None:
    empty = np.empty((0, 4), np.float32)
    y, total = fastnorm.layer_norm(empty, residual=empty, return_residual=True, activation="relu")
    assert y.shape == total.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "swish"}, ValueError, "activation must be one of 'relu', .*, got 'swish'"),
        ({"activation": hard_swish_of}, TypeError, "activation must be a name or a scalar function .* got function"),
        ({"return_residual": True}, ValueError, "return_residual needs a residual"),
        ({"residual": np.zeros(3)}, ValueError, r"residual must have the shape of x, \(2, 4\), got \(3,\)"),
        ({"quantize": "int4"}, ValueError, "quantize must be 'int8' or None, got 'int4'"),
        ({"quantize": "int8", "dtype": np.float64}, ValueError, "out and dtype must be None with quantize"),
        ({"quantize": "int8", "axis": 0}, ValueError, "quantize needs lines along the last axes"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    x = np.ones((2, 4))
    with pytest.raises(error, match=f"layer_norm: {message}"):
        fastnorm.layer_norm(x, **options)
    np.testing.assert_array_equal(x, 1.0)


def test_opposite_infinities_add_up_to_nan_without_a_warning(backend: str) -> None:
    x, residual = np.full((3, 4), np.inf, np.float32), np.full((3, 4), -np.inf, np.float32)
    for axis in (0, 1):
        assert np.isnan(fastnorm.layer_norm(x, residual=residual, axis=axis, backend=backend)).all()


def test_training_takes_no_fusion() -> None:
    with pytest.raises(ValueError, match="must not be given in training"):
        fastnorm.batch_norm(np.ones((4, 2)), training=True, activation="relu")


def test_a_function_that_is_no_function_of_a_number_is_refused() -> None:
    @numba.njit
    def two(x: float, y: float) -> float:
        return x + y

    with pytest.raises(TypeError, match="layer_norm: activation 'two' does not map a float64 to a number"):
        fastnorm.layer_norm([1.0, 2.0], activation=two)


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_a_function_that_gives_no_number_leaves_the_output_alone(channel_axis: int, backend: str) -> None:
    x, statistics = np.ones((4, 6, 6), np.float32), (np.zeros(6), np.ones(6))
    wordy = numba.njit(lambda value: "a word")
    for function, arguments in (("layer_norm", ()), ("group_norm", (2,)), ("batch_norm", statistics)):
        own = {"axis": channel_axis} if function == "layer_norm" else {"channel_axis": channel_axis}
        out = np.full_like(x, 7)
        with pytest.raises(TypeError, match=f"^{function}: activation '<lambda>' does not map a float32 to a number"):
            getattr(fastnorm, function)(x, *arguments, **own, activation=wordy, out=out, residual=x, backend=backend)
        assert (out == 7).all()


@pytest.mark.parametrize("axis", [1, -1])
def test_what_is_fused_takes_rows_with_others_between(axis: int, backend: str) -> None:
    x, residual = normal(4, 6, 20)[..., :7].astype(np.float32), normal(4, 6, 7, seed=1).astype(np.float32)
    wide = np.concatenate([x, x, x], axis=-1)[..., :7]
    channels = x.shape[axis]
    norms: list[Callable[..., Any]] = [
        lambda x, **k: fastnorm.batch_norm(x, np.zeros(channels), np.ones(channels), channel_axis=axis, **k),
        lambda x, **k: fastnorm.group_norm(x, channels, channel_axis=axis, **k),
        lambda x, **k: fastnorm.layer_norm(x, axis=axis, **k),
    ]
    with fastnorm.config(backend=backend):
        for norm in norms:
            for options in (
                {"activation": "gelu"},
                {"residual": residual},
                {"residual": residual, "activation": "relu"},
            ):
                np.testing.assert_array_equal(norm(wide, **options), norm(x, **options))


@pytest.mark.parametrize("axis", [1, -1])
def test_an_activation_of_groups_of_one_channel(axis: int, backend: str) -> None:
    x = np.ascontiguousarray(np.moveaxis(normal(2, 6, 5), 1, axis))
    with fastnorm.config(backend=backend):
        y = fastnorm.group_norm(x, 6, channel_axis=axis, activation="relu")
        np.testing.assert_array_equal(y, np.maximum(fastnorm.group_norm(x, 6, channel_axis=axis), 0))
