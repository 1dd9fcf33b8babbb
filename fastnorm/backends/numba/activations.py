"""Activations, in place: float32 by polynomials, float64 by libm.

The Numba side of ``src_pyx/vectors/activations.h``, operation for operation, over a range of work units; that file
says where the formulas come from.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastnorm.activations import CODES
from fastnorm.backends.numba.jit import HELPER, helper, kernel
from fastnorm.backends.numba.lanes import fused
from fastnorm.backends.numba.lowering import libm

# Elements to a unit of work.
BLOCK = 8192
# All of the table: one more there must be one more here, and in `activate`.
RELU, GELU, GELU_TANH, SILU, SIGMOID, TANH = CODES.values()
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
    """2^k, float32, for the integer k in the low bits of k + TO_INTEGER; 0 for -127."""

    def generate(context, builder, sig, args):
        word = ir.IntType(32)
        biased = builder.add(builder.bitcast(args[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.float32), generate


exp_double = libm("exp")
erfc_double = libm("erfc")
tanh_double = libm("tanh")


@helper
def at_least(x, bound):
    """The larger of the two; NaN stays."""
    return constant(x, bound) if x < constant(x, bound) else x


@helper
def at_most(x, bound):
    """The smaller of the two; NaN stays."""
    return constant(x, bound) if x > constant(x, bound) else x


@helper
def expm1_parts(x):
    """(q, 2^k) with expm1(x) = 2^k * q + (2^k - 1)."""
    x = at_most(at_least(x, -88.0), 88.0)
    shifted = fused(x, np.float32(1.44269504), TO_INTEGER)
    k = shifted - TO_INTEGER
    r = fused(k, np.float32(-0.69314718), x)
    r = fused(k, np.float32(1.90465430e-9), r)
    p = np.float32(1.9875691500e-4)
    p = fused(p, r, np.float32(1.3981999507e-3))
    p = fused(p, r, np.float32(8.3334519073e-3))
    p = fused(p, r, np.float32(4.1665795894e-2))
    p = fused(p, r, np.float32(1.6666665459e-1))
    p = fused(p, r, np.float32(5.0000001201e-1))
    return fused(r * r, p, r), power_of_two(shifted)


@helper
def exp_single(x):
    """0 where it would be below 2^-126.5, finite from 88 up."""
    q, power = expm1_parts(x)
    return fused(power, q, power)


@helper
def sigmoid_single(x):
    e = exp_single(x)
    return e / (e + np.float32(1.0))


def tanh_single(x):
    q, power = expm1_parts(at_most(at_least(x, -10.0), 10.0) * np.float32(2.0))
    e = fused(power, q, power - np.float32(1.0))
    return e / (e + np.float32(2.0))


def gelu_single(x):
    size = abs(x)
    t = np.float32(1.0) / fused(size, np.float32(0.35355339), np.float32(1.0))
    p = np.float32(0.17087277)
    p = fused(p, t, np.float32(-0.82215223))
    p = fused(p, t, np.float32(1.48851587))
    p = fused(p, t, np.float32(-1.13520398))
    p = fused(p, t, np.float32(0.27886807))
    p = fused(p, t, np.float32(-0.18628806))
    p = fused(p, t, np.float32(0.09678418))
    p = fused(p, t, np.float32(0.37409196))
    p = fused(p, t, np.float32(1.00002368))
    p = fused(p, t, np.float32(-1.26551223))
    e = exp_single(fused(size * np.float32(-0.5), size, p))
    return fused(at_most(size, 200.0) * np.float32(-0.5), t * e, at_least(x, 0.0))


def gelu_tanh_single(x):
    cubic = fused((x * x) * np.float32(0.044715), x, x)
    return at_least(x, -200.0) * sigmoid_single(cubic * np.float32(1.5957691216057308))


def silu_single(x):
    return at_least(x, -200.0) * sigmoid_single(x)


@helper
def sigmoid_double(x):
    return 1.0 / (1.0 + exp_double(-x))


def gelu_double(x):
    return at_least(x, -200.0) * (0.5 * erfc_double(x * -0.70710678118654752))


def gelu_tanh_double(x):
    return at_least(x, -200.0) * sigmoid_double(1.5957691216057308 * (x + 0.044715 * (x * x * x)))


def silu_double(x):
    return at_least(x, -800.0) * sigmoid_double(x)


def _by_type(single, double):
    """Return a function for kernels that is `single` of a float32 and `double` of a float64."""

    def chosen(x):
        raise NotImplementedError

    overload(chosen, jit_options=HELPER)(lambda x: single if x == types.float32 else double)
    return chosen


gelu = _by_type(gelu_single, gelu_double)
gelu_tanh = _by_type(gelu_tanh_single, gelu_tanh_double)
silu = _by_type(silu_single, silu_double)
# Of what kernels call themselves an overload needs a plain function.
sigmoid = _by_type(lambda x: sigmoid_single(x), lambda x: sigmoid_double(x))
tanh = _by_type(tanh_single, lambda x: tanh_double(x))


@kernel
def activate(y, number, start, stop):
    """Apply an activation, by its number, to the blocks `start` to `stop` of y, (n,), in place."""
    part = y[start * BLOCK : min(stop * BLOCK, y.size)]
    if number == RELU:
        for i in range(part.size):
            part[i] = at_least(part[i], 0.0)
    elif number == GELU:
        for i in range(part.size):
            part[i] = gelu(part[i])
    elif number == GELU_TANH:
        for i in range(part.size):
            part[i] = gelu_tanh(part[i])
    elif number == SILU:
        for i in range(part.size):
            part[i] = silu(part[i])
    elif number == SIGMOID:
        for i in range(part.size):
            part[i] = sigmoid(part[i])
    elif number == TANH:
        for i in range(part.size):
            part[i] = tanh(part[i])
