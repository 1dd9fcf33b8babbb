"""Parity with JAX 0.10 on the CPU: jax.nn, jax.numpy and the formulas of the norms written in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import peer_cases
import pytest
from peer_cases import Array, Shape, affine, sample, sample_gradients, statistics

import fastnorm

jax = pytest.importorskip("jax", reason="jax, which these tests compare with, is not installed")
jnp = jax.numpy

pytestmark = pytest.mark.usefixtures("double_precision")

DTYPES = [*peer_cases.DTYPES, np.float16, jnp.bfloat16]
# In half precision both sides round a float32 result (jnp.std its variance too), which near a tie goes either way: one
# unit in the last place.
TOLERANCES = peer_cases.TOLERANCES | {
    np.dtype(half): (float(jnp.finfo(half).eps), 1e-5) for half in (np.float16, jnp.bfloat16)
}


def wide(*arrays: Array) -> tuple[Any, ...]:
    """Return JAX's arrays, of float32 where NumPy's are of half precision."""
    return tuple(jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32)) for array in arrays)


def assert_close(ours: Array, theirs: Any, *, absolute: float | None = None) -> None:
    """Compare in float64, after rounding what JAX computed in float32 for a result of half precision."""
    expected = np.asarray(theirs)
    if ours.dtype.itemsize == 2 and expected.dtype == np.float32:
        expected = expected.astype(ours.dtype)
    assert ours.dtype == expected.dtype
    both = ours.astype(np.float64), expected.astype(np.float64)
    peer_cases.assert_close(*both, absolute=absolute, tolerance=TOLERANCES[ours.dtype])


def whitened(x: Any, axes: Any, eps: float) -> Any:
    return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + eps)


def per_channel(vector: Any, ndim: int) -> Any:
    return vector.reshape(-1, *(1,) * (ndim - 2))


LINES = [((5, 768), 1), ((2, 3, 7), 1), ((3, 4, 5), 2), ((1, 1), 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_layer_norm(shape: Shape, length: int, dtype: Any) -> None:
    x, axes = sample(shape, dtype), tuple(range(-length, 0))
    weight, bias = affine(shape[-length:], dtype)
    their_x, their_weight, their_bias = wide(x, weight, bias)
    for eps in (1e-5, 0.5):
        theirs = whitened(their_x, axes, eps) * their_weight + their_bias
        assert_close(fastnorm.layer_norm(x, weight, bias, axis=axes, eps=eps), theirs)
        assert_close(fastnorm.layer_norm(x, axis=axes, eps=eps), jax.nn.standardize(their_x, axes, epsilon=eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None], ids=str)
def test_standardize(axis: Any, dtype: Any) -> None:
    x = sample((6, 4, 30), dtype)
    (their_x,) = wide(x)
    assert_close(fastnorm.standardize(x, axis=axis), jax.nn.standardize(their_x, axis, epsilon=0.0))
    # the unbiased variance, which jax.nn.standardize has to be given
    variance = their_x.var(axis, keepdims=True, ddof=1)
    theirs = jax.nn.standardize(their_x, axis, variance=variance, epsilon=0.0)
    assert_close(fastnorm.standardize(x, axis=axis, ddof=1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channel_axis", [-1, 1, 0])
def test_normalize(channel_axis: int, dtype: Any) -> None:
    x = sample((6, 5, 7), dtype)
    channels = x.shape[channel_axis]
    mean, variance = statistics((channels,), dtype)
    their_x, their_mean, their_variance = wide(x, mean, variance)
    theirs = jax.nn.standardize(jnp.moveaxis(their_x, channel_axis, -1), -1, their_mean, their_variance, 1e-3)
    ours = fastnorm.normalize(x, mean, variance, channel_axis=channel_axis, eps=1e-3)
    assert_close(ours, jnp.moveaxis(theirs, -1, channel_axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "length"), LINES, ids=str)
def test_rms_norm(shape: Shape, length: int, dtype: Any) -> None:
    x, axes = sample(shape, dtype), tuple(range(-length, 0))
    weight, _ = affine(shape[-length:], dtype)
    their_x, their_weight = wide(x, weight)
    for eps in (1e-6, 0.5):
        theirs = their_x * jax.lax.rsqrt(jnp.square(their_x).mean(axes, keepdims=True) + eps) * their_weight
        assert_close(fastnorm.rms_norm(x, weight, axis=axes, eps=eps), theirs)


BATCHES = [(64, 6), (3, 6, 8, 7), (2, 6, 4, 5, 3)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_batch_norm_in_inference(shape: Shape, dtype: Any) -> None:
    x, ndim = sample(shape, dtype), len(shape)
    weight, bias = affine(shape[1:2], dtype)
    mean, var = statistics(shape[1:2], dtype)
    their_x, *parameters = wide(x, mean, var, weight, bias)
    their_mean, their_var, their_weight, their_bias = (per_channel(vector, ndim) for vector in parameters)
    theirs = (their_x - their_mean) * jax.lax.rsqrt(their_var + 1e-3) * their_weight + their_bias
    assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, eps=1e-3), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_batch_norm_in_training(shape: Shape, dtype: Any) -> None:
    x, axes = sample(shape, dtype), (0, *range(2, len(shape)))
    weight, bias = affine(shape[1:2], dtype)
    their_x, *parameters = wide(x, weight, bias)
    their_weight, their_bias = (per_channel(vector, len(shape)) for vector in parameters)
    theirs = whitened(their_x, axes, 1e-5) * their_weight + their_bias
    for convention, old, ddof in (("torch", 0.75, 1), ("keras", 0.25, 0), ("onnx", 0.25, 0), ("flax", 0.25, 0)):
        mean, var = np.zeros(shape[1], their_x.dtype), np.ones(shape[1], their_x.dtype)
        options = {"training": True, "momentum": 0.25, "eps": 1e-5, "convention": convention}
        assert_close(fastnorm.batch_norm(x, mean, var, weight, bias, **options), theirs)
        assert_close(mean, (1 - old) * their_x.mean(axes))
        assert_close(var, old + (1 - old) * their_x.var(axes, ddof=ddof))
    last = fastnorm.batch_norm(np.moveaxis(x, 1, -1), None, None, weight, bias, training=True, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("shape", [(5, 12), (4, 6, 9), (3, 6, 8, 7)], ids=str)
def test_group_norm(shape: Shape, num_groups: int, dtype: Any) -> None:
    x = sample(shape, dtype)
    weight, bias = affine(shape[1:2], dtype)
    their_x, *parameters = wide(x, weight, bias)
    their_weight, their_bias = (per_channel(vector, len(shape)) for vector in parameters)
    groups = whitened(their_x.reshape(shape[0], num_groups, -1), -1, 1e-3).reshape(shape)
    theirs = groups * their_weight + their_bias
    assert_close(fastnorm.group_norm(x, num_groups, weight, bias, eps=1e-3), theirs)
    last = fastnorm.group_norm(np.moveaxis(x, 1, -1), num_groups, weight, bias, eps=1e-3, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES[1:], ids=str)
def test_instance_norm(shape: Shape, dtype: Any) -> None:
    x = sample(shape, dtype)
    weight, bias = affine(shape[1:2], dtype)
    their_x, *parameters = wide(x, weight, bias)
    their_weight, their_bias = (per_channel(vector, len(shape)) for vector in parameters)
    theirs = whitened(their_x, tuple(range(2, len(shape))), 1e-3) * their_weight + their_bias
    assert_close(fastnorm.instance_norm(x, weight, bias, eps=1e-3), theirs)
    last = fastnorm.instance_norm(np.moveaxis(x, 1, -1), weight, bias, eps=1e-3, channel_axis=-1)
    assert_close(np.moveaxis(last, -1, 1), theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0, (0, 2)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_moments(masked: bool, axis: Any, dtype: Any) -> None:
    x = sample((6, 4, 30), dtype)
    where = np.random.default_rng(5).random(x.shape) < 0.7 if masked else None
    options = {"axis": axis, "where": where}
    for ddof in (0, 1):
        ours = fastnorm.moments(x, ddof=ddof, **options)
        assert_close(np.asarray(ours.mean).astype(dtype), jnp.mean(jnp.asarray(x), **options))
        assert_close(np.asarray(ours.var).astype(dtype), jnp.var(jnp.asarray(x), ddof=ddof, **options))
        assert_close(np.asarray(ours.std).astype(dtype), jnp.std(jnp.asarray(x), ddof=ddof, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 2, 3, 0.5, np.inf])
@pytest.mark.parametrize(("shape", "axis"), [((5, 384), -1), ((5, 384), 0), ((2, 3, 7), 1)], ids=str)
def test_lp_normalize(shape: Shape, axis: int, p: float, dtype: Any) -> None:
    x = sample(shape, dtype)
    (their_x,) = wide(x)
    norm = jnp.linalg.norm(their_x, p, axis, keepdims=True)
    ours, stats = fastnorm.lp_normalize(x, p=p, axis=axis, return_stats=True)
    unit = float(jnp.finfo(dtype).smallest_subnormal)  # small numbers, without a sum
    assert_close(ours, their_x / norm, absolute=unit)
    assert_close(stats.rstd.astype(their_x.dtype), 1 / norm, absolute=0)
    if p == 2:
        assert_close(fastnorm.l2_normalize(x, axis=axis), their_x / norm, absolute=unit)
        assert_close(fastnorm.l2_normalize(x, axis=axis, eps=8.0), their_x / jnp.maximum(norm, 8.0), absolute=unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 0.5), (-np.inf, 1.0)])
def test_clip_by_value(low: float, high: float, dtype: Any) -> None:
    x = sample((4, 5), dtype)
    x[0, :3] = np.nan, np.inf, -np.inf
    theirs = np.asarray(jnp.clip(jnp.asarray(x), low, high))
    ours = fastnorm.clip_by_value(x, low, high)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours.astype(np.float64), theirs.astype(np.float64))


@pytest.mark.parametrize("dtype", peer_cases.DTYPES)
@pytest.mark.parametrize("max_norm", [0.5, 7.0, 1e3])
def test_clip_by_global_norm(max_norm: float, dtype: Any) -> None:
    optimizers = pytest.importorskip("jax.example_libraries.optimizers", reason="this JAX has no example optimizers")
    gradients = sample_gradients(dtype)
    tree = [jnp.asarray(gradient) for gradient in gradients]
    # what optax.global_norm computes
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in tree))
    clipped, our_norm = fastnorm.clip_by_global_norm(gradients, max_norm)
    assert_close(np.asarray(our_norm, dtype), norm)
    for ours, theirs, leaf in zip(clipped, optimizers.clip_grads(tree, max_norm), tree, strict=True):
        assert_close(ours, theirs)
        assert_close(ours, jnp.where(norm < max_norm, leaf, leaf / norm * max_norm))  # optax.clip_by_global_norm
