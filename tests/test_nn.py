"""The layers: that they are the functions, how their running statistics move, which shapes they take."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from nn_cases import (
    BATCH,
    CASES,
    CHANNELS,
    DIMENSIONS,
    INSTANCE,
    SHAPES,
    Function,
    layers,
    randomized,
    sample,
    unchanged,
)

from fastnorm import nn

# What a layer computes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_layer_is_the_function(layer: nn.Layer, function: Function, shape: tuple[int, ...], training: bool) -> None:
    layer = randomized(copy.deepcopy(layer)).train(training)
    for dtype in (np.float32, np.float64):
        x = sample(shape, dtype=dtype)
        before = x.copy()
        expected = function(layer, x)
        result = layer(x)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_layer_takes_lists_and_integers(layer: nn.Layer, function: Function, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).eval()
    x = np.random.default_rng(0).integers(0, 9, size=shape).astype(np.uint8)
    np.testing.assert_array_equal(layer(x), function(layer, x))
    np.testing.assert_array_equal(layer(x.tolist()), function(layer, x.astype(np.int64)))


@pytest.mark.parametrize("layer", layers())
def test_layer_rejects_what_is_not_numbers(layer: nn.Layer) -> None:
    for x in (np.array([["a"]]), np.ones((2, 2), complex), [[1.0], [1.0, 2.0]], None):
        with pytest.raises(TypeError, match=type(layer).__name__):
            layer(x)


def test_rms_norm_without_eps_takes_that_of_the_computation() -> None:
    x = np.full((1, 4), 2.0**-12)
    for dtype, eps in ((np.float16, 2.0**-23), (np.float32, 2.0**-23), (np.float64, 2.0**-52)):
        expected = x / np.sqrt(2.0**-24 + eps)
        np.testing.assert_allclose(nn.RMSNorm(4)(x.astype(dtype)), expected.astype(dtype), rtol=1e-3)


# Running statistics


@pytest.mark.parametrize("name", DIMENSIONS)
def test_batch_norm_moves_running_statistics(name: str) -> None:
    layer = BATCH[name](CHANNELS, momentum=0.25, dtype=np.float64)
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    shape = SHAPES[DIMENSIONS[name][-1]]
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    for step in range(3):
        x = sample(shape, step, np.float64)
        layer(x)
        mean = 0.75 * mean + 0.25 * x.mean(axis=axes)
        var = 0.75 * var + 0.25 * x.var(axis=axes, ddof=1)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-12)
    assert layer.num_batches_tracked == 3
    state = layer.state_dict()
    layer.eval()(x)
    assert unchanged(layer, state)


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    batches = sample((5, 8, 2), dtype=np.float64)
    for batch in batches:
        layer(batch)
    np.testing.assert_allclose(layer.running_mean, batches.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, batches.var(axis=1, ddof=1).mean(axis=0), rtol=1e-12)
    layer.reset_running_stats()
    assert unchanged(layer, nn.BatchNorm1d(2, dtype=np.float64).state_dict())
    layer(batches[0])
    np.testing.assert_allclose(layer.running_mean, batches[0].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("name", DIMENSIONS)
def test_instance_norm_moves_running_statistics(name: str, channel_axis: int) -> None:
    layer = INSTANCE[name](CHANNELS, track_running_stats=True, momentum=0.25, channel_axis=channel_axis, dtype="f8")
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    shape = SHAPES[DIMENSIONS[name][-1]]
    axes = tuple(range(2, len(shape)))
    for step in range(3):
        x = sample(shape, step, np.float64)
        layer(np.moveaxis(x, 1, channel_axis))
        mean = 0.75 * mean + 0.25 * x.mean(axis=axes).mean(axis=0)
        var = 0.75 * var + 0.25 * x.var(axis=axes, ddof=1).mean(axis=0)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-12)
    state = layer.state_dict()
    assert state["num_batches_tracked"] == 0
    layer.eval()(np.moveaxis(x, 1, channel_axis))
    assert unchanged(layer, state)


def test_instance_norm_without_momentum_keeps_its_running_statistics() -> None:
    layer = nn.InstanceNorm1d(CHANNELS, momentum=None, track_running_stats=True)
    state = layer.state_dict()
    layer(sample(SHAPES[3]))
    assert unchanged(layer, state)


def test_instance_norm_keeps_nan_in_its_channel() -> None:
    layer = nn.InstanceNorm1d(3, track_running_stats=True)
    x = sample((2, 3, 4))
    x[0, 1, 2] = np.nan
    x[1, 2, :2] = np.inf, -np.inf
    result = layer(x)
    assert np.isnan(result[0, 1]).all()
    assert np.isfinite(result[0, [0, 2]]).all()
    np.testing.assert_array_equal(np.isnan(layer.running_mean), [False, True, True])
    np.testing.assert_array_equal(np.isnan(layer.running_var), [False, True, True])


def test_switchable_norm_moves_running_statistics() -> None:
    layer = nn.SwitchableNorm2d(CHANNELS, dtype=np.float64)
    x = sample(SHAPES[4], dtype=np.float64)
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(axis=(0, 2, 3), ddof=1), rtol=1e-12)
    state = layer.state_dict()
    layer.eval()(x)
    assert unchanged(layer, state)


def test_tracking_can_be_switched_off_in_training() -> None:
    layer = randomized(nn.BatchNorm2d(CHANNELS))
    layer.track_running_stats = False
    state, x = layer.state_dict(), sample(SHAPES[4])
    trained = layer(x)
    assert unchanged(layer, state)
    assert np.abs(trained - layer.eval()(x)).max() > 0.1  # which still uses the running statistics


def test_instances_that_are_no_longer_tracked_use_their_own_statistics() -> None:
    layer = randomized(nn.InstanceNorm2d(CHANNELS, track_running_stats=True))
    layer.track_running_stats = False
    state, x = layer.state_dict(), sample(SHAPES[4])
    own = layer.eval()(x)
    gradient = layer.backward(np.ones_like(x))
    np.testing.assert_array_equal(layer.train()(x), own)
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), gradient)
    assert unchanged(layer, state)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(CHANNELS), (0, CHANNELS, 5, 4)),
        (nn.InstanceNorm2d(CHANNELS, track_running_stats=True), (0, CHANNELS, 5, 4)),
        (nn.InstanceNorm2d(CHANNELS, track_running_stats=True), (3, CHANNELS, 0, 4)),
        (nn.SwitchableNorm2d(CHANNELS), (0, CHANNELS, 5, 4)),
    ],
)
def test_empty_batch_leaves_running_statistics(layer: Any, shape: tuple[int, ...]) -> None:
    layer = randomized(copy.deepcopy(layer))
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    assert layer(np.empty(shape, np.float32)).shape == shape
    np.testing.assert_array_equal(layer.running_mean, mean)
    np.testing.assert_array_equal(layer.running_var, var)


# Shapes


@pytest.mark.parametrize(("name", "dimensions"), list(DIMENSIONS.items()))
def test_numbers_of_dimensions(name: str, dimensions: tuple[int, ...]) -> None:
    batch = randomized(BATCH[name](CHANNELS))
    instance = randomized(INSTANCE[name](CHANNELS, track_running_stats=True))
    states = batch.state_dict(), instance.state_dict()
    for ndim in range(7):
        x = sample((CHANNELS,) * ndim)
        if ndim not in dimensions:
            wanted = " or ".join(map(str, dimensions))
            message = rf"BatchNorm{name}: x must have {wanted} dimensions, got {ndim}: shape \("
            with pytest.raises(ValueError, match=message):
                batch(x)
        highest = dimensions[-1]
        if ndim not in (highest - 1, highest):
            message = rf"InstanceNorm{name}: x must have {highest - 1} or {highest} dimensions, got {ndim}: shape \("
            with pytest.raises(ValueError, match=message):
                instance(x)
    assert unchanged(batch, states[0])
    assert unchanged(instance, states[1])


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("tracking", [True, False])
@pytest.mark.parametrize("name", DIMENSIONS)
def test_instance_norm_takes_one_item_alone(name: str, tracking: bool, channel_axis: int) -> None:
    options = {"affine": True, "track_running_stats": tracking, "channel_axis": channel_axis}
    alone, batched = (randomized(INSTANCE[name](CHANNELS, **options)) for _ in range(2))
    item = np.moveaxis(sample(SHAPES[DIMENSIONS[name][-1]])[:1], 1, channel_axis)[0]
    for mode in (True, False):
        np.testing.assert_array_equal(alone.train(mode)(item), batched.train(mode)(item[np.newaxis])[0])
    assert unchanged(alone, batched.state_dict())


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.SwitchableNorm2d(4),
        nn.GroupNorm(2, 4),
    ],
    ids=repr,
)
def test_another_number_of_channels_is_an_error(layer: nn.Layer) -> None:
    state = layer.state_dict()
    message = rf"{type(layer).__name__}: x must have 4 channels \(num_(features|channels)\) along axis 1, got 6"
    for mode in (True, False):
        with pytest.raises(ValueError, match=message):
            layer.train(mode)(sample(SHAPES[4]))
    assert unchanged(layer, state)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4, affine=False),
    ],
    ids=repr,
)
def test_another_number_of_channels_is_a_warning_where_nothing_depends_on_it(layer: nn.Layer) -> None:
    with pytest.warns(UserWarning, match="x must have 4 channels") as caught:
        assert layer(sample(SHAPES[4])).shape == SHAPES[4]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("layer", [nn.LayerNorm((6, 7)), nn.RMSNorm((6, 7))], ids=repr)
def test_another_shape_of_lines_is_an_error(layer: nn.Layer) -> None:
    for shape in ((7,), (7, 6), (6, 7, 1), ()):
        with pytest.raises(ValueError, match=rf"{type(layer).__name__}: x must have shape \(..., 6, 7\), got"):
            layer(sample(shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(CHANNELS), (1, CHANNELS)),
        (nn.BatchNorm2d(CHANNELS, momentum=None), (1, CHANNELS, 1, 1)),
        (nn.InstanceNorm1d(CHANNELS, track_running_stats=True), (3, CHANNELS, 1)),
        (nn.InstanceNorm2d(CHANNELS), (CHANNELS, 1, 1)),
        (nn.SwitchableNorm2d(CHANNELS), (1, CHANNELS, 1, 1)),
    ],
)
def test_one_value_per_channel_has_no_statistics(layer: nn.Layer, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer)
    state = layer.state_dict()
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(sample(shape))
    assert unchanged(layer, state)
    if layer.buffers():
        assert layer.eval()(sample(shape)).shape == shape


def test_what_layers_refuse_when_they_are_made_or_called() -> None:
    for bad in (b"\x03", "3"):
        with pytest.raises(TypeError, match="normalized_shape must be an int"):
            nn.LayerNorm(bad)
    for make in (lambda: nn.LocalResponseNorm(3, channel_axis=0), lambda: nn.PixelNorm(channel_axis=0)):
        with pytest.raises(ValueError, match="channel_axis must not be 0"):
            make()
    layer = nn.SwitchableNorm2d(3)
    with pytest.raises(ValueError, match="4 dimensions"):
        layer(np.ones((2, 3, 4), np.float32))
    layer.momentum = None
    with pytest.raises(TypeError, match="SwitchableNorm2d: momentum"):
        layer(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32))
    tracked = nn.InstanceNorm1d(1, track_running_stats=True)
    with pytest.raises(ValueError, match="must add up to more than 1"):
        tracked(np.random.default_rng(0).standard_normal((2, 1, 4)), weights=np.full((2, 1, 4), 0.25))


def test_layers_hold_arrays_of_this_machines_byte_order() -> None:
    layer = nn.BatchNorm1d(3, dtype=">f4")
    assert all(array.dtype.isnative for array in layer.state_dict().values())
