"""The layers: their options, modes, attributes, reprs and copies, and the exchange of their state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_cases import CASES, Function, layers, randomized, sample, unchanged

from fastnorm import nn

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
            nn.BatchNorm1d(3, channel_axis=-1, convention="keras"),
            "BatchNorm1d(3, eps=0.001, momentum=0.99, affine=True, bias=True, track_running_stats=True, "
            "channel_axis=-1, convention='keras')",
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
        (lambda: nn.BatchNorm2d(3, eps=None), TypeError, "BatchNorm2d: eps must be a real number, got NoneType"),
        (lambda: nn.BatchNorm2d(3, eps="keras"), TypeError, "eps must be a real number or 'convention', got 'keras'"),
        (lambda: nn.BatchNorm2d(3, momentum="0.1"), TypeError, "momentum must be a real number or 'convention'"),
        (lambda: nn.BatchNorm2d(3, convention="caffe"), ValueError, "convention must be one of torch, keras, onnx, fl"),
        (lambda: nn.BatchNorm2d(3, convention=["torch"]), ValueError, "BatchNorm2d: convention must be one of"),
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
