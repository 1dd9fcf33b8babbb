"""Activations, in place: float32 by polynomials whose products and sums are rounded one by one, float64 by libm.

The Numba side of ``src_pyx/activations.h``, operation for operation, over a range of work units; that file says where
the formulas come from.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fastnorm.backends.numba_jit import HELPER, helper, kernel, parallel_kernel

# Elements to a unit of work.
BLOCK = 8192
# In the order of fastnorm/activations.py.
RELU, GELU, GELU_TANH, SILU, SIGMOID, TANH = range(6)
# 1.5 * 2^23: a number added to it is rounded to an integer, which the low bits hold.
TO_INTEGER = np.float32(12582912.0)


@intrinsic
def constant(typing_context, like, value):
    """A float64 rounded to the type of the number `like`."""

    def generate(context, builder, sig, args):
        return context.cast(builder, args[1], types.float64, sig.args[0])

    return like(like, types.float64), generate


@intrinsic
def power_of_two(typing_context, shifted):
    """2^k, float32, for the integer k in the low bits of k + TO_INTEGER."""

    def generate(context, builder, sig, args):
        word = ir.IntType(32)
        biased = builder.add(builder.bitcast(args[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.float32), generate


def _libm(name):
    """Return a function for kernels, the C library's of a float64: it, and not what LLVM may have for those it knows.

    (Where Intel's SVML is installed, Numba lets LLVM put its functions into loops, with other last bits.)
    """

    @intrinsic
    def call(typing_context, x):
        def generate(context, builder, sig, args):
            function_type = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()])
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            function.attributes.add("nobuiltin")
            return builder.call(function, args)

        return types.float64(types.float64), generate

    return call


exp_double = _libm("exp")
erfc_double = _libm("erfc")
tanh_double = _libm("tanh")


@helper
def expm1_parts(x):
    """(q, 2^k) with expm1(x) = 2^k * q + (2^k - 1)."""
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    x = np.float32(88.0) if x > np.float32(88.0) else x
    shifted = x * np.float32(1.44269504) + TO_INTEGER
    k = shifted - TO_INTEGER
    r = (x - k * np.float32(0.693359375)) - k * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return r + (r * r) * p, power_of_two(shifted)


def sigmoid_single(x):
    q, power = expm1_parts(-x)
    s = np.float32(1.0) / (np.float32(1.0) + (power + power * q))
    return np.float32(0.0) if x < np.float32(-87.0) else s


def tanh_single(x):
    size = -x if x < np.float32(0.0) else x
    q, power = expm1_parts(np.float32(2.0) * size)
    e = power * q + (power - np.float32(1.0))
    t = e / (e + np.float32(2.0))
    t = np.float32(1.0) if size > np.float32(9.0) else t
    return -t if x < np.float32(0.0) else t


def normal_single(x):
    z = (-x if x < np.float32(0.0) else x) * np.float32(0.70710678)
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.5) * z)
    p = np.float32(0.17087277)
    p = p * t + np.float32(-0.82215223)
    p = p * t + np.float32(1.48851587)
    p = p * t + np.float32(-1.13520398)
    p = p * t + np.float32(0.27886807)
    p = p * t + np.float32(-0.18628806)
    p = p * t + np.float32(0.09678418)
    p = p * t + np.float32(0.37409196)
    p = p * t + np.float32(1.00002368)
    p = p * t + np.float32(-1.26551223)
    q, power = expm1_parts(p - z * z)
    tail = (np.float32(0.5) * t) * (power + power * q)
    return tail if x < np.float32(0.0) else np.float32(1.0) - tail


def sigmoid_double(x):
    return 1.0 / (1.0 + exp_double(-x))


def normal_double(x):
    return 0.5 * erfc_double(x * -0.70710678118654752)


def _by_type(single, double):
    """Return a function for kernels that is `single` of a float32 and `double` of a float64."""

    def chosen(x):
        raise NotImplementedError

    overload(chosen, jit_options=HELPER)(lambda x: single if x == types.float32 else double)
    return chosen


sigmoid = _by_type(sigmoid_single, sigmoid_double)
tanh = _by_type(tanh_single, lambda x: tanh_double(x))
# The distribution function of the normal distribution.
normal = _by_type(normal_single, normal_double)


@helper
def at_least(x, bound):
    """Minus infinity times a weight of 0 is to be 0."""
    return constant(x, bound) if x < constant(x, bound) else x


@kernel
def activate(y, number, start, stop):
    """Apply an activation, by its number, to the blocks `start` to `stop` of y, (n,), in place."""
    part = y[start * BLOCK : min(stop * BLOCK, y.size)]
    if number == RELU:
        for i in range(part.size):
            x = part[i]
            part[i] = constant(x, 0.0) if x < constant(x, 0.0) else x
    elif number == GELU:
        for i in range(part.size):
            x = part[i]
            part[i] = at_least(x, -200.0) * normal(x)
    elif number == GELU_TANH:
        for i in range(part.size):
            x = part[i]
            cubic = x + constant(x, 0.044715) * (x * x * x)
            part[i] = at_least(x, -200.0) * sigmoid(constant(x, 1.5957691216057308) * cubic)
    elif number == SILU:
        for i in range(part.size):
            x = part[i]
            part[i] = at_least(x, -800.0) * sigmoid(x)
    elif number == SIGMOID:
        for i in range(part.size):
            part[i] = sigmoid(part[i])
    elif number == TANH:
        for i in range(part.size):
            part[i] = tanh(part[i])


@parallel_kernel
def parallel_activate(y, number, units, tasks):
    for t in numba.prange(tasks):
        activate(y, number, t * units // tasks, (t + 1) * units // tasks)
