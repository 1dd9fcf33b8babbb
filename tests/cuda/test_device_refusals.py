"""What arrays on a device are not served by says so, by a TypeError that names the argument."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_arrays import on_device

import fastnorm
from fastnorm import nn

X = np.ones((3, 4, 5), np.float32)
WEIGHT, MATRIX = X[0, :, 0].copy(), X[0].copy()
LOGITS = (0.0, 0.0, 0.0)

HOST_ONLY: dict[str, Callable[..., Any]] = {
    "switchable_norm": lambda x, w, m: fastnorm.switchable_norm(x, LOGITS, LOGITS, training=True),
    "switchable_norm_backward": lambda x, w, m: fastnorm.switchable_norm_backward(x, x, LOGITS, LOGITS, training=True),
    "lp_normalize": lambda x, w, m: fastnorm.lp_normalize(x, p=1),
    "local_response_norm": lambda x, w, m: fastnorm.local_response_norm(x, 3),
    "local_response_norm_backward": lambda x, w, m: fastnorm.local_response_norm_backward(x, x, 3),
    "standardize": lambda x, w, m: fastnorm.standardize(x),
    "min_max_scale": lambda x, w, m: fastnorm.min_max_scale(x),
    "max_abs_scale": lambda x, w, m: fastnorm.max_abs_scale(x),
    "weight_norm": lambda x, w, m: fastnorm.weight_norm(m, w),
    "weight_standardize": lambda x, w, m: fastnorm.weight_standardize(m),
    "spectral_norm": lambda x, w, m: fastnorm.spectral_norm(m),
    "clip_by_value": lambda x, w, m: fastnorm.clip_by_value(x, 0, 1),
    "clip_by_norm": lambda x, w, m: fastnorm.clip_by_norm(x, 1.0),
    "clip_by_global_norm": lambda x, w, m: fastnorm.clip_by_global_norm([x], 1.0),
    "fold_batch_norm": lambda x, w, m: fastnorm.fold_batch_norm(m, None, w, w, w, w),
    "normalize_image": lambda x, w, m: fastnorm.normalize_image(x, [0.0] * 3, [1.0] * 3),
    "Welford": lambda x, w, m: fastnorm.Welford().update(x),
    "LayerNorm": lambda x, w, m: nn.LayerNorm(5)(x),
    "BatchNorm1d": lambda x, w, m: nn.BatchNorm1d(4)(x),
    "GroupNorm": lambda x, w, m: nn.GroupNorm(2, 4)(x),
    "InstanceNorm1d": lambda x, w, m: nn.InstanceNorm1d(4)(x),
    "PixelNorm": lambda x, w, m: nn.PixelNorm()(x),
    "RMSNorm": lambda x, w, m: nn.RMSNorm(5)(x),
}


@pytest.mark.parametrize("name", HOST_ONLY)
def test_other_functions_and_layers_take_arrays_of_the_host_alone(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}[^:]*: \S+ must be in host memory here, got \w+ on a CUDA device"):
        HOST_ONLY[name](on_device(X), on_device(WEIGHT), on_device(MATRIX))


def test_layers_take_parameters_of_the_host_alone() -> None:
    layer = nn.LayerNorm(4)
    with pytest.raises(TypeError, match="LayerNorm: weight must be in host memory here"):
        layer.weight = on_device(WEIGHT)
    with pytest.raises(TypeError, match="LayerNorm: bias must be in host memory here"):
        layer.load_state_dict({"weight": WEIGHT, "bias": on_device(WEIGHT)})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "complex64"])
@pytest.mark.parametrize("function", ["layer_norm", "instance_norm", "l2_normalize", "moments", "extrema"])
def test_dtypes_that_are_not_floating(function: str, dtype: str) -> None:
    message = rf"{function}: x must be float16, bfloat16, float32 or float64 on a device, got {dtype}"
    with pytest.raises(TypeError, match=message):
        getattr(fastnorm, function)(on_device(X.astype(dtype)))


def test_what_normalizes_must_be_on_the_device_too() -> None:
    x, host, there = on_device(X), np.ones(5, np.float32), on_device(np.ones(5, np.float32))
    for arguments, message in (
        ((host, there), "normalize: mean must be on the device of x, got ndarray in host memory"),
        ((there, None), "normalize: var must be on the device of x, got NoneType in host memory"),
        (
            (there, on_device(np.ones(5))),
            "normalize: mean and var must have one dtype on a device, got float32 and float64",
        ),
        ((there, there, None, host), "normalize: bias must be on the device of x"),
    ):
        with pytest.raises(TypeError, match=message):
            fastnorm.normalize(x, *arguments)
    with pytest.raises(ValueError, match=r"normalize: mean must have shape \(5,\), got \(4,\)"):
        fastnorm.normalize(x, on_device(WEIGHT), there)
