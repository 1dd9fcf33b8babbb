"""Batch normalization in training: the running statistics by each convention, and what an error leaves alone."""

from typing import Any

import numpy as np
import pytest

import fastnorm
from fastnorm import nn

Array = np.ndarray[Any, Any]

LAYOUTS = [((6, 5), 1), ((4, 5, 7), 1), ((3, 5, 4, 6), 1), ((3, 4, 6, 5), -1), ((2, 3, 5, 4), 2), ((1, 5, 3, 3), 1)]
each_layout = pytest.mark.parametrize(("shape", "axis"), LAYOUTS, ids=str)


# Momentum and eps that are not given: torch.nn.BatchNorm2d, keras.layers.BatchNormalization, the attributes of
# BatchNormalization-15, flax.linen.BatchNorm.
DEFAULTS = {"torch": (0.1, 1e-5), "keras": (0.99, 1e-3), "onnx": (0.9, 1e-5), "flax": (0.99, 1e-5)}
each_convention = pytest.mark.parametrize("convention", DEFAULTS)


def batch(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + 3).astype(dtype)


def mean_and_var(x: Array, axis: int, ddof: int) -> tuple[Array, Array]:
    """Return the statistics of each channel in float64."""
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    wide = x.astype(np.float64)
    return wide.mean(axes), wide.var(axes, ddof=ddof)


def expected_running(old: Array, new: Array, momentum: float, convention: str) -> Array:
    """Apply the rule as the documentation of each library writes it."""
    if convention == "torch":
        return (1 - momentum) * old + momentum * new
    return momentum * old + (1 - momentum) * new


@each_layout
@each_convention
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.99, 1.0])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_running_statistics_follow_the_convention(
    shape: tuple[int, ...], axis: int, convention: str, momentum: float, kind: Any, backend: str
) -> None:
    x = batch(shape)
    running_mean = np.linspace(-1, 1, 5).astype(kind)
    running_var = np.linspace(0.5, 2, 5).astype(kind)
    mean, var = mean_and_var(x, axis, ddof=1 if convention == "torch" else 0)
    expected_mean = expected_running(running_mean.astype(np.float64), mean, momentum, convention)
    expected_var = expected_running(running_var.astype(np.float64), var, momentum, convention)
    fastnorm.batch_norm(
        x, running_mean, running_var, training=True, momentum=momentum, convention=convention, channel_axis=axis,
        backend=backend,
    )  # fmt: skip
    assert running_mean.dtype == running_var.dtype == kind
    np.testing.assert_allclose(running_mean, expected_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(running_var, expected_var, rtol=1e-6)


@each_layout
def test_the_result_does_not_depend_on_running_statistics_or_convention(
    shape: tuple[int, ...], axis: int, backend: str
) -> None:
    x = batch(shape)
    expected = fastnorm.batch_norm(x, training=True, eps=1e-2, channel_axis=axis, backend=backend)
    for convention in DEFAULTS:
        y = fastnorm.batch_norm(
            x,
            np.full(5, 7.0),
            np.full(5, 8.0),
            training=True,
            eps=1e-2,
            convention=convention,
            channel_axis=axis,
            backend=backend,
        )
        np.testing.assert_array_equal(y, expected)


def test_one_of_the_running_statistics_may_be_missing(backend: str) -> None:
    x = batch((4, 5, 7))
    mean, var = mean_and_var(x, 1, ddof=1)
    running_mean, running_var = np.zeros(5), np.zeros(5)
    fastnorm.batch_norm(x, running_mean, None, training=True, momentum=1.0, backend=backend)
    fastnorm.batch_norm(x, None, running_var, training=True, momentum=1.0, backend=backend)
    np.testing.assert_allclose(running_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(running_var, var, rtol=1e-6)


@each_convention
def test_running_statistics_accumulate_over_calls(convention: str, backend: str) -> None:
    mean, var = np.zeros(5), np.ones(5)
    expected_mean, expected_var = mean.copy(), var.copy()
    for step in range(6):
        x = batch((4, 5, 3), seed=step)
        new_mean, new_var = mean_and_var(x, 1, ddof=1 if convention == "torch" else 0)
        expected_mean = expected_running(expected_mean, new_mean, 0.3, convention)
        expected_var = expected_running(expected_var, new_var, 0.3, convention)
        fastnorm.batch_norm(x, mean, var, training=True, momentum=0.3, convention=convention, backend=backend)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(var, expected_var, rtol=1e-6)


@each_convention
def test_what_is_not_given_is_the_default_of_the_convention(convention: Any, backend: str) -> None:
    x, (momentum, eps) = batch((4, 5, 3)), DEFAULTS[convention]
    given = {"momentum": momentum, "eps": eps}
    for options in ({"training": True}, {}):
        results = []
        for numbers in ({}, given, dict.fromkeys(given, "convention")):
            mean, var = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)
            y = fastnorm.batch_norm(x, mean, var, convention=convention, backend=backend, **options, **numbers)
            results.append((y.tobytes(), mean.tobytes(), var.tobytes()))
        assert results[0] == results[1] == results[2]


@each_convention
def test_a_layer_has_the_numbers_and_the_rule_of_its_convention(convention: Any) -> None:
    layer = nn.BatchNorm1d(5, dtype=np.float64, convention=convention)
    assert (layer.momentum, layer.eps) == DEFAULTS[convention]
    mean, var = np.zeros(5), np.ones(5)
    for seed in range(3):
        x = batch((4, 5, 3), seed)
        expected = fastnorm.batch_norm(x, mean, var, training=True, convention=convention)
        np.testing.assert_array_equal(layer(x), expected)
    np.testing.assert_array_equal(layer.running_mean, mean)
    np.testing.assert_array_equal(layer.running_var, var)
    np.testing.assert_array_equal(layer.eval()(x), fastnorm.batch_norm(x, mean, var, convention=convention))
    chosen = nn.BatchNorm1d(5, 0.5, 0.25, convention=convention)
    assert (chosen.momentum, chosen.eps) == (0.25, 0.5)


@each_convention
def test_a_layer_without_momentum_averages_all_batches_in_every_convention(convention: Any) -> None:
    layer = nn.BatchNorm1d(5, momentum=None, dtype=np.float64, convention=convention)
    batches = [batch((4, 5, 3), seed, np.float64) for seed in range(5)]
    for x in batches:
        layer(x)
    statistics = [mean_and_var(x, 1, ddof=1 if convention == "torch" else 0) for x in batches]
    np.testing.assert_allclose(layer.running_mean, np.mean([mean for mean, _ in statistics], axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, np.mean([var for _, var in statistics], axis=0), rtol=1e-12)


def test_running_arrays_are_updated_in_place_whatever_their_strides_and_byte_order(backend: str) -> None:
    x = batch((4, 5, 7))
    expected = np.zeros(5)
    fastnorm.batch_norm(x, expected, None, training=True, backend=backend)
    for running in (np.zeros(10)[::-2], np.zeros(5, ">f8"), np.zeros((5, 3)).T[1]):
        fastnorm.batch_norm(x, running, None, training=True, backend=backend)
        np.testing.assert_array_equal(running, expected)


def test_switchable_norm_updates_as_the_torch_convention_does(backend: str) -> None:
    x = batch((4, 5, 3, 2))
    arrays = [np.linspace(0, 1, 5) for _ in range(4)]
    fastnorm.batch_norm(x, arrays[0], arrays[1], training=True, momentum=0.3, backend=backend)
    zeros = np.zeros(3)
    fastnorm.switchable_norm(
        x, zeros, zeros, None, None, arrays[2], arrays[3], training=True, momentum=0.3, backend=backend
    )
    np.testing.assert_allclose(arrays[2], arrays[0], rtol=1e-6)
    np.testing.assert_allclose(arrays[3], arrays[1], rtol=1e-6)


@each_layout
def test_inference_does_not_change_the_running_statistics(shape: tuple[int, ...], axis: int, backend: str) -> None:
    mean, var = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)
    mean.flags.writeable = var.flags.writeable = False
    y, stats = fastnorm.batch_norm(batch(shape), mean, var, channel_axis=axis, return_stats=True, backend=backend)
    np.testing.assert_array_equal(stats.mean.ravel(), mean)
    np.testing.assert_allclose(stats.rstd.ravel(), 1 / np.sqrt(var + 1e-5))
    assert stats.mean.ndim == y.ndim


def test_inference_takes_lists_and_integers(backend: str) -> None:
    x = batch((4, 2, 3))
    y = fastnorm.batch_norm(x, [1, 2], [3, 4], [1, 2], [5, 6], backend=backend)
    expected = fastnorm.batch_norm(
        x, np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.float32([1, 2]), np.float32([5, 6]), backend=backend
    )
    np.testing.assert_array_equal(y, expected)


def test_training_statistics_feed_inference(backend: str) -> None:
    x = batch((16, 3, 5))
    mean, var = np.zeros(3), np.ones(3)
    trained = fastnorm.batch_norm(
        x, mean, var, training=True, momentum=0.0, convention="keras", eps=1e-3, backend=backend
    )
    applied = fastnorm.batch_norm(x, mean, var, eps=1e-3, backend=backend)
    np.testing.assert_allclose(applied, trained, rtol=1e-6, atol=1e-6)


# Errors: nothing is changed


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1), (1, 5, 1, 1)])
@pytest.mark.parametrize("function", ["batch_norm", "switchable_norm"])
def test_training_needs_more_than_one_value_a_channel(function: str, shape: tuple[int, ...], backend: str) -> None:
    mean, var, out = np.zeros(5), np.ones(5), np.full(shape, 9, np.float32)
    mixture = {"mean_weight": np.zeros(3), "var_weight": np.zeros(3)} if function == "switchable_norm" else {}
    with pytest.raises(ValueError, match=f"{function}: training needs more than one value per channel, got 1"):
        getattr(fastnorm, function)(
            batch(shape), running_mean=mean, running_var=var, training=True, out=out, backend=backend, **mixture
        )
    np.testing.assert_array_equal(mean, np.zeros(5))
    np.testing.assert_array_equal(var, np.ones(5))
    np.testing.assert_array_equal(out, np.full(shape, 9, np.float32))


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1, 1)])
@pytest.mark.parametrize("convention", ["keras", "onnx", "flax"])
def test_of_one_value_there_is_a_biased_variance(convention: Any, shape: tuple[int, ...], backend: str) -> None:
    mean, var, x = np.zeros(5), np.ones(5), batch(shape)
    weight, bias = np.full(5, 3.0), np.arange(5.0)
    chosen = {"convention": convention, "backend": backend}
    y = fastnorm.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.75, **chosen)
    np.testing.assert_array_equal(y.reshape(5), bias)
    np.testing.assert_allclose(mean, x.reshape(5) / 4, rtol=1e-15)
    np.testing.assert_array_equal(var, np.full(5, 0.75))
    found = fastnorm.batch_norm_backward(np.ones(shape), x, weight, training=True, **chosen)
    assert not found.dx.any()
    assert not found.dweight.any()
    np.testing.assert_array_equal(found.dbias, np.ones(5))


@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
@pytest.mark.parametrize("function", ["batch_norm", "switchable_norm"])
def test_inference_needs_both_running_statistics(function: str, missing: str) -> None:
    mixture = {"mean_weight": np.zeros(3), "var_weight": np.zeros(3)} if function == "switchable_norm" else {}
    running = {"running_mean": np.zeros(5), "running_var": np.ones(5)} | {missing: None}
    with pytest.raises(ValueError, match=f"{function}: running_mean and running_var are needed unless training=True"):
        getattr(fastnorm, function)(batch((4, 5)), **running, **mixture)


BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "eps", {"eps": -1e-5}),
    (ValueError, "momentum", {"momentum": 1.5}),
    (ValueError, "momentum", {"momentum": -0.1}),
    (ValueError, "momentum", {"momentum": float("nan")}),
    (TypeError, "momentum", {"momentum": "0.1"}),
    (ValueError, "convention", {"convention": "caffe"}),
    (ValueError, "channel_axis", {"channel_axis": 3}),
    (ValueError, "channel_axis", {"channel_axis": 0}),
    (ValueError, "weight", {"weight": np.ones(4)}),
    (TypeError, "bias", {"bias": np.array(["a"] * 5)}),
    (ValueError, "out", {"out": np.zeros((4, 5, 8), np.float32)}),
    (TypeError, "out", {"out": np.zeros((4, 5, 7))}),
    (TypeError, "dtype", {"dtype": "int32"}),
    (ValueError, "backend", {"backend": "fast"}),
]


@pytest.mark.parametrize(("error", "name", "bad"), BAD, ids=lambda value: str(value)[:40])
def test_an_error_changes_neither_out_nor_the_running_statistics(
    error: type[Exception], name: str, bad: dict[str, Any]
) -> None:
    mean, var, out = np.zeros(5), np.ones(5), np.full((4, 5, 7), 9, np.float32)
    with pytest.raises(error, match=name):
        fastnorm.batch_norm(batch((4, 5, 7)), mean, var, training=True, **{"out": out} | bad)
    np.testing.assert_array_equal(mean, np.zeros(5))
    np.testing.assert_array_equal(var, np.ones(5))
    np.testing.assert_array_equal(out, np.full((4, 5, 7), 9, np.float32))


def test_a_bad_second_running_array_leaves_the_first_alone() -> None:
    x, mean = batch((4, 5)), np.zeros(5)
    for var, error in ((np.ones(4), ValueError), (np.ones(5, int), TypeError), ([1.0] * 5, TypeError)):
        with pytest.raises(error, match="batch_norm: running_var"):
            fastnorm.batch_norm(x, mean, var, training=True)
    frozen = np.ones(5)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="batch_norm: running_var is read-only"):
        fastnorm.batch_norm(x, mean, frozen, training=True)
    np.testing.assert_array_equal(mean, np.zeros(5))


@each_convention
def test_a_gradient_without_eps_takes_that_of_its_convention(convention: Any, backend: str) -> None:
    x, dy = batch((16, 5)) / 100, batch((16, 5), seed=1)
    found = fastnorm.batch_norm_backward(dy, x, training=True, convention=convention, backend=backend)
    expected = fastnorm.batch_norm_backward(dy, x, training=True, eps=DEFAULTS[convention][1], backend=backend)
    _, stats = fastnorm.batch_norm(x, training=True, convention=convention, return_stats=True, backend=backend)
    given = fastnorm.batch_norm_backward(dy, x, training=True, **stats._asdict(), backend=backend)
    for part, other, third in zip(found, expected, given, strict=True):
        np.testing.assert_array_equal(part, other)
        np.testing.assert_allclose(part, third, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="batch_norm_backward: convention"):
        fastnorm.batch_norm_backward(dy, x, training=True, convention="caffe")
