"""Activations of one number, by the names of `fastnorm.activations`, with the device's own exp, tanh and erfc.

Arguments and results are of the type that is computed in; float32 is computed in float32.
"""

import math
from collections.abc import Callable
from typing import Any

from fastnorm.backends.cuda.compat import device_function


def _functions(real: Any) -> dict[str, Callable[..., Any]]:
    zero, half, one = real(0), real(0.5), real(1)
    root_of_half = real(0.5**0.5)
    slope, cube = real(2.0 * (2.0 / math.pi) ** 0.5), real(0.044715)
    # Minus infinity times a weight of 0 is to be 0.
    gelu_floor, silu_floor = real(-200), real(-800)

    @device_function
    def at_least(x, bound):
        return bound if x < bound else x

    @device_function
    def sigmoid(x):
        return one / (one + real(math.exp(-x)))

    @device_function
    def relu(x):
        return zero if x < zero else x

    @device_function
    def gelu(x):
        return at_least(x, gelu_floor) * (half * real(math.erfc(-x * root_of_half)))

    @device_function
    def gelu_tanh(x):
        return at_least(x, gelu_floor) * sigmoid(slope * (x + cube * (x * x * x)))

    @device_function
    def silu(x):
        return at_least(x, silu_floor) * sigmoid(x)

    @device_function
    def tanh(x):
        return real(math.tanh(x))

    return {
        "relu": relu,
        "gelu": gelu,
        "gelu_tanh": gelu_tanh,
        "silu": silu,
        "sigmoid": sigmoid,
        "tanh": tanh,
    }


def activation(name: str | None, real: Any) -> Callable[..., Any]:
    """Return the activation of a name as a part of kernels; without one, the identity."""
    if name is None:
        return device_function(lambda x: x)
    return _functions(real)[name]
