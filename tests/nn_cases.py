"""Layers of every kind, the function that each of them is, and what tests of them have in common."""

from __future__ import annotations

import importlib.util
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


def needs_safetensors() -> None:
    """Skip the test where what reads and writes files of safetensors is not installed."""
    for package in ("safetensors", "ml_dtypes"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package}, of the safetensors extra, is not installed")


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
    eps = np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32).eps if layer.eps is None else layer.eps
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
    for layer in (
        nn.SwitchableNorm2d(CHANNELS),
        nn.SwitchableNorm2d(CHANNELS, affine=False, track_running_stats=False),
    ):
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
        (
            nn.PixelNorm(1e-2, channel_axis=-1),
            lambda _, x: fastnorm.pixel_norm(x, eps=1e-2, channel_axis=-1),
            (3, 4, 5),
        ),
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
