"""Calls of JAX: the formulas, compiled, waited for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fastnorm.cli.benchmark.arrays import Inputs
from fastnorm.cli.benchmark.grid import Cell
from fastnorm.cli.benchmark.with_numpy import AXES, EPSILON


def prepare(cell: Cell, given: Inputs, threads: int) -> Callable[[], Any]:
    """Return a cell's call; the environment of the process says how many threads, since JAX asks only once."""
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", cell.dtype == "float64")  # off by default
    arrays = [jax.numpy.asarray(array) for array in given]
    compiled = jax.jit(lambda *values: _formula(jax, cell, Inputs(*values)))
    return lambda: jax.block_until_ready(compiled(*arrays))


def _formula(jax: Any, cell: Cell, given: Inputs) -> Any:
    x, weight, bias, mean, var = given
    if cell.op == "moments":
        axis = AXES[cell.along]
        return x.mean(axis), x.var(axis)
    if cell.op == "layer_norm":
        return _normalized(jax, x, -1) * weight + bias
    if cell.op == "rms_norm":
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight
    if cell.op == "l2_normalize":
        return x / jax.numpy.maximum(jax.numpy.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    channels = [slice(None) if axis == 1 else None for axis in range(x.ndim)]

    def per_channel(parameter: Any) -> Any:
        return parameter[tuple(channels)]

    if cell.op == "batch_norm":
        if not cell.training:
            scale = jax.lax.rsqrt(per_channel(var) + EPSILON) * per_channel(weight)
            return (x - per_channel(mean)) * scale + per_channel(bias)
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        count = x.size // x.shape[1]
        new_mean, new_var = x.mean(axes), x.var(axes)
        y = (x - per_channel(new_mean)) * jax.lax.rsqrt(per_channel(new_var) + EPSILON)
        unbiased = new_var * (count / (count - 1))
        running = (0.9 * mean + 0.1 * new_mean, 0.9 * var + 0.1 * unbiased)
        return y * per_channel(weight) + per_channel(bias), *running
    if cell.op == "group_norm":
        y = _normalized(jax, x.reshape(x.shape[0], cell.groups, -1), -1).reshape(x.shape)
    else:
        y = _normalized(jax, x, tuple(range(2, x.ndim)))
    return y * per_channel(weight) + per_channel(bias)


def _normalized(jax: Any, x: Any, axes: int | tuple[int, ...]) -> Any:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + EPSILON)
