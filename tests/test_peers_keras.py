"""Parity with Keras 3.15, whose JAX backend serves it unless KERAS_BACKEND says otherwise.

Where a test has no dtype, Keras computes in float32 on every backend but TensorFlow, for layers of float64 as well.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import peer_cases
import pytest
from peer_cases import DTYPES, Array, Shape, affine, sample, sample_gradients, statistics

import fastnorm
from fastnorm import nn

pytest.importorskip("jax", reason="jax, the backend of keras here, is not installed")
os.environ.setdefault("KERAS_BACKEND", "jax")
# Keras writes its configuration when it is imported, by default into the home directory.
with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
    patch.setenv("KERAS_HOME", os.environ.get("KERAS_HOME", folder))
    keras = pytest.importorskip("keras", reason="keras, which these tests compare with, is not installed")

pytestmark = pytest.mark.usefixtures("double_precision")


def built(layer: Any, shape: Shape, *weights: Array | None) -> Any:
    """Return the layer with these weights, where they are not None; copies, as JAX may keep the memory it is given."""
    layer.build(shape)
    layer.set_weights([weight.copy() for weight in weights if weight is not None])
    return layer


def as_numpy(value: Any) -> Array:
    """Return an array or a variable of Keras as NumPy's."""
    return np.array(keras.ops.convert_to_tensor(value))


def assert_close(ours: Array, theirs: Any, *, absolute: float | None = None) -> None:
    peer_cases.assert_close(ours, as_numpy(theirs), absolute=absolute)


BATCHES = [((64, 6), -1), ((4, 9, 6), -1), ((3, 8, 7, 6), -1), ((3, 6, 8, 7), 1), ((2, 6, 4, 5, 3), 1)]


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize(("shape", "axis"), BATCHES, ids=str)
def test_batch_normalization(shape: Shape, axis: int, with_affine: bool) -> None:
    (weight, bias), (mean, var) = affine((6,), given=with_affine), statistics((6,))
    for step, momentum in enumerate((0.99, 0.6, 0.0)):
        layer = keras.layers.BatchNormalization(axis, momentum, 1e-2, center=with_affine, scale=with_affine)
        built(layer, shape, weight, bias, mean, var)
        x, ours = sample(shape, seed=step), {"eps": 1e-2, "channel_axis": axis}
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, **ours), layer(x, training=False))
        ours |= {"training": True, "momentum": momentum, "convention": "keras"}
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, **ours), layer(x, training=True))
        assert_close(mean, layer.moving_mean)
        assert_close(var, layer.moving_variance)


def test_a_batch_norm_of_the_keras_convention_is_theirs_as_it_comes() -> None:
    shape = (3, 8, 7, 6)
    ours, theirs = nn.BatchNorm2d(6, channel_axis=-1, convention="keras"), keras.layers.BatchNormalization()
    for step in range(3):
        x = sample(shape, seed=step)
        assert_close(ours(x), theirs(x, training=True))
        assert_close(ours.running_mean, theirs.moving_mean)
        assert_close(ours.running_var, theirs.moving_variance)
    assert_close(ours.eval()(x), theirs(x, training=False))


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis", "lines"),
    [((5, 768), -1, (768,)), ((2, 3, 7), -1, (7,)), ((3, 4, 5), (-2, -1), (4, 5)), ((2, 6, 5), 1, (6,))],
    ids=str,
)
def test_layer_normalization(shape: Shape, axis: Any, lines: Shape, with_affine: bool) -> None:
    x, (weight, bias) = sample(shape), affine(lines, given=with_affine)
    for eps in (1e-3, 0.5):
        layer = keras.layers.LayerNormalization(axis, eps, center=with_affine, scale=with_affine)
        theirs = built(layer, shape, weight, bias)(x)
        assert_close(fastnorm.layer_norm(x, weight, bias, axis=axis, eps=eps), theirs)


@pytest.mark.parametrize(
    ("shape", "axis", "lines"),
    [((5, 768), -1, (768,)), ((2, 3, 7), -1, (7,)), ((3, 4, 5), (-2, -1), (4, 5))],
    ids=str,
)
def test_rms_normalization(shape: Shape, axis: Any, lines: Shape) -> None:
    x, (weight, _) = sample(shape), affine(lines)
    for eps in (1e-6, 0.5):
        theirs = built(keras.layers.RMSNormalization(axis, eps), shape, weight)(x)
        assert_close(fastnorm.rms_norm(x, weight, axis=axis, eps=eps), theirs)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("groups", [1, 3, -1])
@pytest.mark.parametrize(("shape", "axis"), BATCHES[2:4], ids=str)
def test_group_normalization(shape: Shape, axis: int, groups: int, with_affine: bool) -> None:
    x, (weight, bias) = sample(shape), affine((6,), given=with_affine)
    layer = keras.layers.GroupNormalization(groups, axis, 1e-2, center=with_affine, scale=with_affine)
    theirs, options = built(layer, shape, weight, bias)(x), {"eps": 1e-2, "channel_axis": axis}
    if groups == -1:
        assert_close(fastnorm.instance_norm(x, weight, bias, **options), theirs)
        groups = 6
    assert_close(fastnorm.group_norm(x, groups, weight, bias, **options), theirs)


def weights_of(layer: Any) -> dict[str, Array]:
    """Return what Keras has learnt under the names of a state_dict."""
    names = {"gamma": "weight", "scale": "weight", "beta": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    return {names[variable.name]: as_numpy(variable) for variable in layer.weights}


def test_layers_of_ours_with_the_weights_of_theirs() -> None:
    x, (weight, bias), mean = sample((3, 8, 7, 6)), affine((6,)), sample((6,), seed=3)
    layer = built(keras.layers.BatchNormalization(), x.shape, weight, bias, mean, np.square(mean))
    layer(x, training=True)
    ours = nn.BatchNorm2d(6, eps=1e-3, channel_axis=-1).eval()
    ours.load_state_dict({**weights_of(layer), "num_batches_tracked": np.array(1)})
    assert_close(ours(x), layer(x, training=False))
    for ours, layer, learnt in (
        (nn.LayerNorm(6, 1e-3), keras.layers.LayerNormalization(), (weight, bias)),
        (nn.RMSNorm(6, 1e-6), keras.layers.RMSNormalization(), (weight,)),
        (nn.GroupNorm(2, 6, 1e-3, channel_axis=-1), keras.layers.GroupNormalization(2), (weight, bias)),
    ):
        theirs = built(layer, x.shape, *learnt)(x)
        ours.load_state_dict(weights_of(layer))
        assert_close(ours(x), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_unit_normalization(axis: int, dtype: Any) -> None:
    x = sample((3, 4, 50), dtype)
    x[:, :1] = 0  # lines of zeros stay so
    layer = keras.layers.UnitNormalization(axis, dtype=np.dtype(dtype).name)
    assert_close(fastnorm.l2_normalize(x, axis=axis), layer(x), absolute=0)  # small numbers, without a sum
    theirs = keras.ops.normalize(x, axis=axis, epsilon=8.0)
    assert_close(fastnorm.l2_normalize(x, axis=axis, eps=8.0), theirs, absolute=0)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_normalize_of_ops(axis: int, p: int) -> None:
    x = sample((3, 4, 50))
    x[:, :1] = 0  # lines of zeros stay so
    assert_close(fastnorm.lp_normalize(x, p=p, axis=axis), keras.ops.normalize(x, axis, p), absolute=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 2, 3, np.inf])
@pytest.mark.parametrize("axis", [-1, 1])  # it takes axis 0 for the last
def test_normalize_of_utils(axis: int, p: float, dtype: Any) -> None:
    x = sample((3, 4, 50), dtype)
    x[:1] = 0  # lines of zeros stay so
    assert_close(fastnorm.lp_normalize(x, p=p, axis=axis), keras.utils.normalize(x, axis, p), absolute=0)


def test_normalization_adapted_to_data() -> None:
    x = sample((40, 6))
    x[:, 2] = 3  # a constant column becomes 0
    layer, whole = keras.layers.Normalization(), keras.layers.Normalization(axis=None)
    layer.adapt(x)
    whole.adapt(x)
    moments = fastnorm.moments(x, axis=0)
    assert_close(moments.mean.astype(np.float32), layer.adapt_mean)
    assert_close(moments.var.astype(np.float32), layer.adapt_variance)
    assert_close(fastnorm.standardize(x), layer(x))
    assert_close(fastnorm.standardize(x, axis=None), whole(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 8, 7, 6), -1), ((2, 6, 8, 7), 1)], ids=str)
def test_normalization_by_given_statistics(shape: Shape, axis: int, dtype: Any) -> None:
    x, (mean, var) = sample(shape, dtype), statistics((6,), dtype)
    layer = keras.layers.Normalization(axis, mean, var, dtype=np.dtype(dtype).name)
    assert_close(fastnorm.normalize(x, mean, var, channel_axis=axis, eps=0), layer(x))
    weight, bias = affine((6,), dtype)
    theirs = keras.ops.batch_normalization(x, mean, var, axis, bias, weight, 1e-2)
    assert_close(fastnorm.normalize(x, mean, var, weight, bias, channel_axis=axis, eps=1e-2), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 2), (0, 1, 2)], ids=str)
def test_moments(axes: tuple[int, ...], dtype: Any) -> None:
    x = sample((6, 4, 30), dtype)
    ours, (mean, var) = fastnorm.moments(x, axis=axes), keras.ops.moments(x, list(axes))
    assert_close(np.asarray(ours.mean).astype(dtype), mean)
    assert_close(np.asarray(ours.var).astype(dtype), var)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("kernel", [(5, 4), (3, 2, 5, 4)], ids=str)
def test_spectral_normalization(kernel: Shape, iterations: int, dtype: Any) -> None:
    name, w = np.dtype(dtype).name, sample(kernel, dtype)
    if len(kernel) == 2:
        inner, x = keras.layers.Dense(4, use_bias=False, dtype=name), sample((3, 5), dtype)
    else:
        inner, x = keras.layers.Conv2D(4, kernel[:2], use_bias=False, dtype=name), sample((1, 6, 6, 5), dtype)
    layer = keras.layers.SpectralNormalization(inner, iterations, dtype=name)
    layer.build(x.shape)
    inner.kernel.assign(w)
    u = as_numpy(layer.vector_u)
    layer(x, training=True)  # normalises the kernel itself
    ours = fastnorm.spectral_norm(np.moveaxis(w, -1, 0), u[0], n_power_iterations=iterations)
    assert_close(np.moveaxis(ours.weight, 0, -1), inner.kernel)
    assert_close(ours.u[None], layer.vector_u)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.5, 7.0, 1e3])
def test_clipping_of_gradients(limit: float, dtype: Any) -> None:
    """A step of length 1 from 0 ends at minus what the optimizer made of the gradient."""
    gradients = sample_gradients(dtype)

    def clipped(**options: float) -> list[Any]:
        variables = [keras.Variable(np.zeros_like(gradient), dtype=gradient.dtype.name) for gradient in gradients]
        keras.optimizers.SGD(1.0, **options).apply([keras.ops.array(g) for g in gradients], variables)
        return [-variable.value for variable in variables]

    together, _ = fastnorm.clip_by_global_norm(gradients, limit)
    alone = [fastnorm.clip_by_norm(gradient, limit) for gradient in gradients]
    bounded = [fastnorm.clip_by_value(gradient, -limit, limit) for gradient in gradients]
    for ours, theirs in (
        (together, clipped(global_clipnorm=limit)),
        (alone, clipped(clipnorm=limit)),
        (bounded, clipped(clipvalue=limit)),
    ):
        for part, other in zip(ours, theirs, strict=True):
            assert_close(part, other)
