"""The layers: that they are the functions with state, and how that state moves, is shown and is exchanged."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import fastnorm
from fastnorm import nn

Array = np.ndarray
Function = Callable[[nn.Layer, Array], Array]

CHANNELS = 6
# Shapes of batches by the number of dimensions.
SHAPES = {2: (5, CHANNELS), 3: (4, CHANNELS, 7), 4: (3, CHANNELS, 5, 4), 5: (2, CHANNELS, 3, 4, 5)}
DIMENSIONS = {"1d": (2, 3), "2d": (4,), "3d": (5,)}

BATCH = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "3d": nn.BatchNorm3d}
INSTANCE = {"1d": nn.InstanceNorm1d, "2d": nn.InstanceNorm2d, "3d": nn.InstanceNorm3d}


def sample(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).normal(1.5, 2.0, size=shape).astype(dtype)


def randomized(layer: nn.Layer, seed: int = 1) -> nn.Layer:
    """Give the layer's parameters and running statistics values that are not the first ones."""
    generator = np.random.default_rng(seed)
    for array in [*layer.parameters().values(), *layer.buffers().values()]:
        array[...] = generator.integers(1, 9) if array.dtype.kind == "i" else generator.uniform(0.5, 2, array.shape)
    return layer


def unchanged(layer: nn.Layer, state: Mapping[str, Array]) -> bool:
    now = layer.state_dict()
    return list(now) == list(state) and all(np.array_equal(now[name], state[name], equal_nan=True) for name in state)


def batch_norm(layer: Any, x: Array) -> Array:
    mean, var = (None if part is None else part.copy() for part in (layer.running_mean, layer.running_var))
    return fastnorm.batch_norm(
        x, mean, var, layer.weight, layer.bias,
        training=layer.training or mean is None, momentum=0.1, eps=layer.eps, channel_axis=layer.channel_axis,
    )  # fmt: skip


def instance_norm(layer: Any, x: Array) -> Array:
    if not layer.training and layer.running_mean is not None:
        return batch_norm(layer, x)
    return fastnorm.instance_norm(x, layer.weight, layer.bias, eps=layer.eps, channel_axis=layer.channel_axis)


def switchable_norm(layer: Any, x: Array) -> Array:
    mean, var = (None if part is None else part.copy() for part in (layer.running_mean, layer.running_var))
    return fastnorm.switchable_norm(
        x, layer.mean_weight, layer.var_weight, layer.weight, layer.bias, mean, var,
        training=layer.training or mean is None, eps=layer.eps, channel_axis=layer.channel_axis,
    )  # fmt: skip


def group_norm(layer: Any, x: Array) -> Array:
    return fastnorm.group_norm(
        x, layer.num_groups, layer.weight, layer.bias, eps=layer.eps, channel_axis=layer.channel_axis
    )


def layer_norm(layer: Any, x: Array) -> Array:
    axes = tuple(range(-len(layer.normalized_shape), 0))
    return fastnorm.layer_norm(x, layer.weight, layer.bias, axis=axes, eps=layer.eps)


def rms_norm(layer: Any, x: Array) -> Array:
    eps = np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps if layer.eps is None else layer.eps
    return fastnorm.rms_norm(x, layer.weight, axis=tuple(range(-len(layer.normalized_shape), 0)), eps=float(eps))


def cases() -> list[Any]:
    """Layers, the function each of them is, and the shape of an x."""
    found: list[tuple[nn.Layer, Function, tuple[int, ...]]] = []
    for name, dimensions in DIMENSIONS.items():
        for ndim in dimensions:
            shape = SHAPES[ndim]
            last = (shape[0], *shape[2:], CHANNELS)
            found += [
                (BATCH[name](CHANNELS), batch_norm, shape),
                (BATCH[name](CHANNELS, 1e-2, affine=False, channel_axis=-1), batch_norm, last),
                (BATCH[name](CHANNELS, track_running_stats=False, bias=False), batch_norm, shape),
            ]
            if ndim > 2:
                found += [
                    (INSTANCE[name](CHANNELS), instance_norm, shape),
                    (INSTANCE[name](CHANNELS, 1e-2, affine=True, channel_axis=-1), instance_norm, last),
                    (INSTANCE[name](CHANNELS, track_running_stats=True, affine=True), instance_norm, shape),
                ]
    for layer in (nn.SwitchableNorm2d(CHANNELS), nn.SwitchableNorm2d(CHANNELS, affine=False, track_running_stats=False)):
        found.append((layer, switchable_norm, SHAPES[4]))
    found += [
        (nn.SwitchableNorm2d(CHANNELS, channel_axis=-1), switchable_norm, (3, 5, 4, CHANNELS)),
        (nn.GroupNorm(2, CHANNELS), group_norm, SHAPES[4]),
        (nn.GroupNorm(3, CHANNELS, 1e-2, False), group_norm, SHAPES[2]),
        (nn.GroupNorm(3, CHANNELS, bias=False, channel_axis=-1), group_norm, (3, 5, 4, CHANNELS)),
        (nn.LayerNorm(7), layer_norm, (5, 7)),
        (nn.LayerNorm((6, 7), 1e-2, bias=False), layer_norm, (4, 6, 7)),
        (nn.LayerNorm([7], elementwise_affine=False), layer_norm, (7,)),
        (nn.RMSNorm(7), rms_norm, (5, 7)),
        (nn.RMSNorm((6, 7), 1e-2), rms_norm, (4, 6, 7)),
        (nn.RMSNorm(7, elementwise_affine=False), rms_norm, (2, 3, 7)),
        (nn.PixelNorm(), lambda _, x: fastnorm.pixel_norm(x), SHAPES[4]),
        (nn.PixelNorm(1e-2, channel_axis=-1), lambda _, x: fastnorm.pixel_norm(x, eps=1e-2, channel_axis=-1), (3, 4, 5)),
        (nn.LocalResponseNorm(3), lambda _, x: fastnorm.local_response_norm(x, 3), SHAPES[4]),
        (
            nn.LocalResponseNorm(2, 0.5, 0.6, 2.0, channel_axis=-1),
            lambda _, x: fastnorm.local_response_norm(x, 2, alpha=0.5, beta=0.6, k=2.0, channel_axis=-1),
            (3, 4, 5),
        ),
    ]
    return [pytest.param(*case, id=f"{case[0]!r} {case[2]}") for case in found]


CASES = cases()


def layers() -> list[Any]:
    return [pytest.param(case.values[0], id=case.id) for case in CASES]


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


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(CHANNELS), nn.InstanceNorm2d(CHANNELS, track_running_stats=True)], ids=repr
)
def test_tracking_can_be_switched_off_in_training(layer: Any) -> None:
    layer = randomized(copy.deepcopy(layer))
    layer.track_running_stats = False
    state, x = layer.state_dict(), sample(SHAPES[4])
    trained = layer(x)
    assert unchanged(layer, state)
    assert np.abs(trained - layer.eval()(x)).max() > 0.1  # which still uses the running statistics


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


# Modes and options


@pytest.mark.parametrize("layer", layers())
def test_modes(layer: nn.Layer) -> None:
    layer = copy.deepcopy(layer)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training
    assert not layer.train(False).training
    with pytest.raises(TypeError, match=f"{type(layer).__name__}: train: mode must be a bool, got int"):
        layer.train(1)


def test_affine_and_tracking_decide_what_there_is() -> None:
    affine, running = ["weight", "bias"], ["running_mean", "running_var", "num_batches_tracked"]
    for kind in (nn.BatchNorm1d, nn.InstanceNorm3d):
        for with_affine in (True, False):
            for with_running in (True, False):
                layer = kind(3, affine=with_affine, track_running_stats=with_running)
                assert list(layer.parameters()) == affine * with_affine
                assert list(layer.buffers()) == running * with_running
                assert (layer.weight is None) == (layer.bias is None) == (not with_affine)
                assert (layer.running_mean is None) == (layer.num_batches_tracked is None) == (not with_running)
    assert list(nn.BatchNorm1d(3, bias=False).parameters()) == ["weight"]
    assert list(nn.GroupNorm(1, 3, affine=False).state_dict()) == []
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(nn.RMSNorm(3).state_dict()) == ["weight"]
    assert list(nn.RMSNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(nn.PixelNorm().state_dict()) == list(nn.LocalResponseNorm(2).state_dict()) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "float64"])
def test_dtype_is_that_of_parameters_and_buffers(dtype: Any) -> None:
    for layer in (nn.BatchNorm1d(3, dtype=dtype), nn.LayerNorm(3, dtype=dtype), nn.SwitchableNorm2d(3, dtype=dtype)):
        for name, array in layer.state_dict().items():
            assert array.dtype == (np.int64 if name == "num_batches_tracked" else np.dtype(dtype))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            nn.BatchNorm1d(3, momentum=None),
            "BatchNorm1d(3, eps=1e-05, momentum=None, affine=True, bias=True, track_running_stats=True)",
        ),
        (
            nn.BatchNorm3d(3, bias=False, channel_axis=-1),
            "BatchNorm3d(3, eps=1e-05, momentum=0.1, affine=True, bias=False, track_running_stats=True, "
            "channel_axis=-1)",
        ),
        (
            nn.InstanceNorm2d(3),
            "InstanceNorm2d(3, eps=1e-05, momentum=0.1, affine=False, bias=False, track_running_stats=False)",
        ),
        (
            nn.SwitchableNorm2d(3, eps=1),
            "SwitchableNorm2d(3, eps=1.0, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        ),
        (nn.GroupNorm(2, 4, affine=False), "GroupNorm(2, 4, eps=1e-05, affine=False, bias=False)"),
        (nn.LayerNorm((3, 4)), "LayerNorm((3, 4), eps=1e-05, elementwise_affine=True, bias=True)"),
        (nn.RMSNorm(np.int64(3)), "RMSNorm((3,), eps=None, elementwise_affine=True)"),
        (nn.LocalResponseNorm(5), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"),
        (nn.PixelNorm(), "PixelNorm(eps=1e-08)"),
    ],
)
def test_repr(layer: nn.Layer, expected: str) -> None:
    assert repr(layer) == expected


# Attributes


def test_parameters_are_the_arrays_themselves() -> None:
    layer: Any = nn.BatchNorm1d(3)
    assert layer.weight is layer.parameters()["weight"]
    assert layer.running_var is layer.buffers()["running_var"]
    held = layer.weight
    layer.weight = [1, 2, 3]
    layer.weight *= 2
    assert layer.weight is held
    np.testing.assert_array_equal(held, np.array([2, 4, 6], np.float32))
    layer.parameters().clear()
    assert layer.weight is held


def test_attributes_reject_what_does_not_fit() -> None:
    layer: Any = nn.BatchNorm1d(3, bias=False)
    with pytest.raises(ValueError, match=r"BatchNorm1d: weight must have shape \(3,\), got \(4,\)"):
        layer.weight = np.ones(4)
    with pytest.raises(TypeError, match="BatchNorm1d: weight must have a real number dtype"):
        layer.weight = None
    with pytest.raises(TypeError, match="num_batches_tracked must have an integer dtype, got float64"):
        layer.num_batches_tracked = 0.5
    with pytest.raises(AttributeError, match="has been made without bias"):
        layer.bias = np.ones(3)
    assert unchanged(layer, nn.BatchNorm1d(3, bias=False).state_dict())


def test_attributes_are_documented_on_the_class() -> None:
    assert "scale" in nn.BatchNorm1d.weight.__doc__


# Errors of the arguments


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(0), ValueError, "BatchNorm1d: num_features must be at least 1, got 0"),
        (lambda: nn.BatchNorm2d(3.0), TypeError, "BatchNorm2d: num_features must be an int, got float"),
        (lambda: nn.BatchNorm2d(3, eps=-1), ValueError, "BatchNorm2d: eps must be at least 0, got -1"),
        (lambda: nn.BatchNorm2d(3, momentum=1.5), ValueError, "BatchNorm2d: momentum must be at most 1, got 1.5"),
        (lambda: nn.InstanceNorm2d(3, channel_axis=0), ValueError, "InstanceNorm2d: channel_axis must not be 0"),
        (lambda: nn.BatchNorm2d(3, dtype=int), TypeError, "BatchNorm2d: dtype must be float16"),
        (lambda: nn.SwitchableNorm2d(3, momentum=None), TypeError, "SwitchableNorm2d: momentum must be a real number"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "GroupNorm: num_groups must divide num_channels, got 3 and 4"),
        (lambda: nn.GroupNorm(0, 4), ValueError, "GroupNorm: num_groups must be at least 1"),
        (lambda: nn.GroupNorm(1, True), TypeError, "GroupNorm: num_channels must be an int, got bool"),
        (lambda: nn.LayerNorm(()), ValueError, "LayerNorm: normalized_shape must name at least one axis"),
        (lambda: nn.LayerNorm((3, "4")), TypeError, "LayerNorm: normalized_shape must be an int, got str"),
        (lambda: nn.LayerNorm(3, eps=np.nan), ValueError, "LayerNorm: eps must be a number, got NaN"),
        (lambda: nn.RMSNorm(-1), ValueError, "RMSNorm: normalized_shape must be at least 1, got -1"),
        (lambda: nn.RMSNorm(3, eps="0"), TypeError, "RMSNorm: eps must be a real number, got str"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "LocalResponseNorm: size must be at least 1"),
        (lambda: nn.LocalResponseNorm(2, alpha="1"), TypeError, "LocalResponseNorm: alpha must be a real number"),
        (lambda: nn.PixelNorm(-1.0), ValueError, "PixelNorm: eps must be at least 0"),
        (lambda: nn.PixelNorm(channel_axis=0), ValueError, "PixelNorm: channel_axis must not be 0"),
        (nn.Layer, TypeError, "abstract"),
    ],
)
def test_constructors_reject_what_does_not_fit(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(("name", "dimensions"), [(name, found) for name, found in DIMENSIONS.items()])
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
    [nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4, affine=False)],
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


# The state_dict


@pytest.mark.parametrize("layer", layers())
def test_state_dict_makes_another_layer_equal(layer: nn.Layer) -> None:
    source, target = randomized(copy.deepcopy(layer)), copy.deepcopy(layer)
    held = {**target.parameters(), **target.buffers()}
    assert target.load_state_dict(source.state_dict()) == ([], [])
    assert unchanged(target, source.state_dict())
    for name, array in {**target.parameters(), **target.buffers()}.items():
        assert array is held[name]


def test_state_dict_is_a_copy() -> None:
    layer: Any = nn.BatchNorm1d(3)
    state = layer.state_dict()
    layer(sample((4, 3)))
    layer.weight *= 2
    assert unchanged(nn.BatchNorm1d(3), state)


def test_state_dict_has_the_names_of_torch() -> None:
    assert list(nn.BatchNorm2d(3).state_dict()) == [
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    ]  # fmt: skip
    assert list(nn.SwitchableNorm2d(3).state_dict()) == [
        "weight", "bias", "mean_weight", "var_weight", "running_mean", "running_var",
    ]  # fmt: skip


def test_state_dict_survives_npz(tmp_path: Any) -> None:
    source, target = randomized(nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    np.savez(tmp_path / "layer.npz", **source.state_dict())
    with np.load(tmp_path / "layer.npz") as stored:
        target.load_state_dict(stored)
    assert unchanged(target, source.state_dict())


def test_load_state_dict_casts_and_takes_sequences() -> None:
    layer: Any = nn.LayerNorm(2)
    layer.load_state_dict({"weight": [1, 2], "bias": np.array([1e300, 0.5])})
    np.testing.assert_array_equal(layer.weight, [1, 2])
    np.testing.assert_array_equal(layer.bias, [np.inf, 0.5])
    assert layer.weight.dtype == np.float32
    layer.load_state_dict({"weight": layer.bias, "bias": layer.weight})  # its own arrays, exchanged
    np.testing.assert_array_equal(layer.bias, [1, 2])


def test_load_state_dict_needs_no_number_of_batches() -> None:
    layer: Any = randomized(nn.BatchNorm1d(3))
    state, count = layer.state_dict(), int(layer.num_batches_tracked)
    del state["num_batches_tracked"]
    assert layer.load_state_dict(state) == ([], [])
    assert layer.num_batches_tracked == count
    layer.load_state_dict(state | {"num_batches_tracked": [7]})
    assert layer.num_batches_tracked == 7


def test_load_state_dict_of_switchable_norm_takes_the_shapes_of_its_authors() -> None:
    for channels in (4, 1, 3):
        layer = nn.SwitchableNorm2d(channels)
        state = randomized(nn.SwitchableNorm2d(channels)).state_dict()
        shapes = {"weight": (1, -1, 1, 1), "bias": (1, -1, 1, 1), "running_mean": (1, -1, 1), "running_var": (1, -1, 1)}
        layer.load_state_dict(state | {name: state[name].reshape(shape) for name, shape in shapes.items()})
        assert unchanged(layer, state)
    with pytest.raises(ValueError, match=r"SwitchableNorm2d: weight must have shape \(3,\), got \(1, 1, 1, 1\)"):
        layer.weight = np.ones((1, 1, 1, 1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bias": None}, TypeError, "BatchNorm1d: bias must have a real number dtype"),
        ({"bias": np.ones(4)}, ValueError, r"BatchNorm1d: bias must have shape \(3,\), got \(4,\)"),
        ({"bias": 1.0}, ValueError, r"BatchNorm1d: bias must have shape \(3,\), got \(\)"),
        ({"running_var": np.ones((3, 1))}, ValueError, r"running_var must have shape \(3,\), got \(3, 1\)"),
        ({"running_var": np.ones(3, complex)}, TypeError, "running_var must have a real number dtype"),
        ({"num_batches_tracked": 1.5}, TypeError, "num_batches_tracked must have an integer dtype, got float64"),
        ({"num_batches_tracked": [1, 2]}, ValueError, r"num_batches_tracked must have shape \(\), got \(2,\)"),
        ({"wieght": np.ones(3)}, KeyError, "unexpected 'wieght'"),
    ],
)
def test_load_state_dict_changes_nothing_on_an_error(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    layer = nn.BatchNorm1d(3)
    state = layer.state_dict()
    with pytest.raises(error, match=message):
        layer.load_state_dict(randomized(nn.BatchNorm1d(3)).state_dict() | change)
    assert unchanged(layer, state)


def test_load_state_dict_names_all_keys() -> None:
    layer: Any = nn.BatchNorm1d(3)
    message = "BatchNorm1d: load_state_dict: missing 'bias', 'running_mean', 'running_var'; unexpected 'extra'"
    state = {"weight": np.full(3, 2.0), "extra": np.ones(3)}
    with pytest.raises(KeyError, match=message):
        layer.load_state_dict(state)
    with pytest.raises(TypeError, match="BatchNorm1d: load_state_dict: expected a mapping, got list"):
        layer.load_state_dict([("weight", np.ones(3))])
    assert (layer.weight == 1).all()
    found = layer.load_state_dict(state, strict=False)
    assert found.missing_keys == ["bias", "running_mean", "running_var"]
    assert found.unexpected_keys == ["extra"]
    assert (layer.weight == 2).all()


# Copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_copies_are_equal_and_apart(
    layer: nn.Layer, function: Function, shape: tuple[int, ...], duplicate: Callable[[nn.Layer], nn.Layer]
) -> None:
    layer = randomized(copy.deepcopy(layer)).eval()
    state, twin = layer.state_dict(), duplicate(layer)
    assert repr(twin) == repr(layer)
    assert twin.training is False
    assert unchanged(twin, state)
    x = sample(shape)
    np.testing.assert_array_equal(twin(x), layer(x))
    for array in twin.parameters().values():
        array[...] = 5
    assert unchanged(layer, state)
