"""The layers going backward: their gradients are the derivatives, in either mode; what is kept, and for how long."""

from __future__ import annotations

import copy
import gc
import itertools
import pathlib
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from nn_cases import CASES, CHANNELS, SHAPES, Function, layers, randomized, sample

import fastnorm
from fastnorm import nn

Array = np.ndarray


def difference(function: Any, at: Array, direction: Array, dy: Array) -> float:
    """Return the derivative of sum(dy * y) along a direction of an array, by central differences of two steps."""
    estimates, start = [], at.copy()
    for step in (2.0**-9, 2.0**-10):
        at[...] = start + step * direction
        above = function()
        at[...] = start - step * direction
        estimates.append((dy * (above - function())).sum() / (2 * step))
    at[...] = start
    return float((4 * estimates[1] - estimates[0]) / 3)


def in_float64(layer: nn.Layer) -> nn.Layer:
    """Return a copy with parameters and buffers of float64."""
    layer = copy.deepcopy(layer)
    for entries in (layer._parameters, layer._buffers):
        for name, array in entries.items():
            if array.dtype.kind == "f":
                entries[name] = array.astype(np.float64)
    return randomized(layer)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_gradients_are_derivatives(layer: nn.Layer, function: Function, shape: tuple[int, ...], training: bool) -> None:
    """Along three directions of length 1 for each array, of the function with the statistics from before the call.

    Differences are off by h^4 / 480 = 2^-45 of the fifth derivative, less than 5! 4^5 = 2^17 of the first with standard
    deviations above 0.5, and by roundings over h: 2^-53 * 2^10 of sum(|dy y|), 100 to 1000 here.
    """
    layer = in_float64(layer).train(training)
    x, rng = sample(shape, dtype=np.float64), np.random.default_rng(2)
    dy = rng.standard_normal(shape)
    before = copy.deepcopy(layer)
    result = layer(x)
    dx = layer.backward(dy)
    assert dx.shape == shape
    assert dx.dtype == result.dtype
    gradients = layer.gradients()
    assert list(gradients) == list(layer.parameters())
    arrays = {"x": (x, dx), **{name: (array, gradients[name]) for name, array in before.parameters().items()}}
    for name, (array, gradient) in arrays.items():
        assert gradient.shape == array.shape
        assert gradient.dtype == array.dtype
        for _ in range(3):
            direction = rng.standard_normal(array.shape)
            direction /= np.sqrt((direction * direction).sum())
            expected = difference(lambda: function(before, x), array, direction, dy)
            np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-7, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_gradients_have_the_dtypes_of_what_they_belong_to(
    layer: nn.Layer, function: Function, shape: tuple[int, ...]
) -> None:
    layer = randomized(copy.deepcopy(layer))
    for dtype, result in ((np.float16, np.float16), (np.float64, np.float64), (np.uint8, np.float32)):
        x = np.abs(sample(shape) * 9).astype(dtype)
        y = layer(x.tolist() if dtype == np.float64 else x)
        dx = layer.backward(np.ones(shape, int).tolist())
        assert y.dtype == dx.dtype == result
        assert all(layer.gradients()[name].dtype == array.dtype for name, array in layer.parameters().items())


@pytest.mark.parametrize("kind", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d])
@pytest.mark.parametrize("tracking", [True, False])
def test_one_item_alone_has_the_gradients_of_a_batch_of_one(kind: Any, tracking: bool) -> None:
    options = {"affine": True, "track_running_stats": tracking}
    alone, batched = (randomized(kind(CHANNELS, **options)) for _ in range(2))
    shape = SHAPES[max(kind._dimensions)][1:]
    x, dy = sample(shape), sample(shape, 1)
    batch = x[np.newaxis]
    for mode in (True, False):
        alone.train(mode)(x)
        batched.train(mode)(batch)
        np.testing.assert_array_equal(alone.backward(dy), batched.backward(dy[np.newaxis])[0])
        for name, gradient in alone.gradients().items():
            np.testing.assert_array_equal(gradient, batched.gradients()[name])


# Modes and calls


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(CHANNELS), nn.InstanceNorm2d(CHANNELS, track_running_stats=True), nn.SwitchableNorm2d(CHANNELS)],
    ids=repr,
)
def test_the_mode_is_that_of_the_call(layer: nn.Layer) -> None:
    layer, x, dy = randomized(copy.deepcopy(layer)), sample(SHAPES[4]), sample(SHAPES[4], 1)
    found = []
    for mode in (True, False):
        for switched in (mode, not mode):
            layer.train(mode)(x)
            layer.train(switched)
            state = layer.state_dict()
            found.append(layer.backward(dy))
            assert all(np.array_equal(state[name], array) for name, array in layer.state_dict().items())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], found[3])
    assert not np.allclose(found[0], found[2])


def test_options_of_batch_norm_change_no_gradient() -> None:
    x, dy = sample(SHAPES[4]), sample(SHAPES[4], 1)
    options = [{}, {"momentum": None}, {"track_running_stats": False}, {"momentum": 0.9}]
    made = [nn.BatchNorm2d(CHANNELS, **option) for option in options]
    for layer in made:
        layer(x)
    gradients = [layer.backward(dy) for layer in made]
    for layer, gradient in zip(made, gradients, strict=True):
        np.testing.assert_array_equal(gradient, gradients[0])
        np.testing.assert_array_equal(layer.gradients()["bias"], made[0].gradients()["bias"])
    assert list(nn.BatchNorm2d(CHANNELS, bias=False).parameters()) == ["weight"]


def test_gradients_are_those_of_the_last_pass_and_do_not_add_up() -> None:
    layer, x, dy = nn.LayerNorm(7), sample((5, 7)), sample((5, 7), 1)
    assert layer.gradients() == {}
    layer(x)
    layer.backward(dy)
    first = layer.gradients()
    kept = {name: gradient.copy() for name, gradient in first.items()}
    layer(x)
    layer.backward(2 * dy)
    for name, gradient in layer.gradients().items():
        np.testing.assert_allclose(gradient, 2 * kept[name], rtol=1e-6)
        np.testing.assert_array_equal(first[name], kept[name])
    layer.gradients().clear()
    assert list(layer.gradients()) == ["weight", "bias"]


@pytest.mark.parametrize("layer", layers())
def test_backward_needs_a_call_for_each_pass(layer: nn.Layer) -> None:
    layer = copy.deepcopy(layer)
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}: backward needs a call of the layer before it"):
        layer.backward(np.ones(3))


@pytest.mark.parametrize(("layer", "function", "shape"), CASES)
def test_a_gradient_of_another_shape_is_an_error(layer: nn.Layer, function: Function, shape: tuple[int, ...]) -> None:
    layer, x = copy.deepcopy(layer), sample(shape)
    layer(x)
    name = type(layer).__name__
    for bad in (np.ones((*shape, 1)), np.ones((1, *shape)), 1.0):
        with pytest.raises(ValueError, match=rf"{name}: dy must have the shape of x, \({shape[0]}.*, got \("):
            layer.backward(bad)
    with pytest.raises(TypeError, match=f"{name}: dy must have a real number dtype"):
        layer.backward(np.ones(shape, complex))
    assert layer.gradients() == {}
    assert layer.backward(np.ones(shape)).shape == shape, "the call is still good for a pass"
    with pytest.raises(RuntimeError, match="one for each"):
        layer.backward(np.ones(shape))


@pytest.mark.parametrize("shape", [(0, CHANNELS, 5, 4), (3, CHANNELS, 0, 4)])
def test_nothing_has_gradients_of_zero(shape: tuple[int, ...]) -> None:
    for layer in (nn.BatchNorm2d(CHANNELS), nn.InstanceNorm2d(CHANNELS, affine=True), nn.SwitchableNorm2d(CHANNELS)):
        x = np.empty(shape, np.float32)
        layer(x)
        assert layer.backward(x).shape == shape
        assert not any(gradient.any() for gradient in layer.gradients().values())


# What is kept


def test_training_keeps_x_until_the_backward_pass_without_a_copy() -> None:
    layer = nn.BatchNorm2d(CHANNELS)
    x = sample(SHAPES[4])
    kept = weakref.ref(x)
    layer(x)
    dy = np.ones_like(x)
    del x
    gc.collect()
    assert kept() is not None
    layer.backward(dy)
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_have_seen_nothing(duplicate: Any) -> None:
    layer, x = nn.LayerNorm(50), sample((100, 50))
    layer(x)
    layer.backward(x)
    layer(x)
    assert len(pickle.dumps(layer)) < x.nbytes
    other = duplicate(layer)
    assert other.gradients() == {}
    with pytest.raises(RuntimeError, match="backward needs a call"):
        other.backward(x)
    np.testing.assert_array_equal(other(x), layer(x))
    np.testing.assert_array_equal(other.backward(x), layer.backward(x))


def test_gradients_lead_downhill() -> None:
    """Least squares through two layers: steps against the gradients must make them smaller."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((64, 6)), rng.standard_normal((64, 6)).cumsum(axis=1)
    first, second = nn.BatchNorm1d(6, dtype=np.float64), nn.LayerNorm(6, dtype=np.float64)
    losses = []
    for _ in range(50):
        residual = second(first(x)) - target
        losses.append((residual**2).mean())
        first.backward(second.backward(2 * residual / residual.size))
        for layer in (first, second):
            for name, gradient in layer.gradients().items():
                layer.parameters()[name] -= 0.5 * gradient
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]


def test_inference_keeps_no_input_alive() -> None:
    layer = nn.LayerNorm(3).eval()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    alive = weakref.ref(x)
    layer(x)
    layer.backward(np.ones_like(x))  # the caller has it still
    layer(x)
    del x
    assert alive() is None
    with pytest.raises(RuntimeError, match=r"LayerNorm: x of the last call is gone"):
        layer.backward(np.ones((2, 3), np.float32))


def test_inference_keeps_what_it_made_of_lists_and_other_arrays(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x"
    np.arange(6, dtype=np.float64).tofile(file)
    mapped: Any = np.memmap(file, np.float64, "r", shape=(2, 3))
    expected = fastnorm.layer_norm_backward(np.eye(2, 3), np.array(mapped)).dx
    for x in (mapped, mapped.tolist(), np.array(mapped).view(np.matrix)):
        layer = nn.LayerNorm(3).eval()
        layer(x)
        np.testing.assert_allclose(layer.backward(np.eye(2, 3)), expected, rtol=1e-12)
    layer = nn.GroupNorm(1, 1).eval()
    layer([[[1.0, 3.0, 0.0]]], where=[[[True, True, False]]])
    assert layer.backward([[[1.0, 0.0, 0.0]]]).shape == (1, 1, 3)
