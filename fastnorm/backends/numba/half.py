"""16-bit floats to float32 and back, by their bits: Numba takes neither float16 nor bfloat16.

As in ``src_pyx/vectors/half.h``. Every function chooses between numbers that are all computed, so that LLVM makes
vectors of the loops.
"""

import numpy as np
from numba import types

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lowering import bit_casts

# Elements to a unit of work.
PIECE = 4096

SIGN = np.uint32(0x8000)
INFINITE = np.uint32(0x7F800000)  # of float32; what is above, without its sign, is NaN
HALF_INFINITE = np.uint32(0x7C00)
ONE, TEN, THIRTEEN, SIXTEEN = (np.uint32(bits) for bits in (1, 10, 13, 16))


bits_of, float_of = bit_casts(types.float32, types.uint32)


@helper
def half_widened(half):
    """The bits of a float16 as a float32."""
    magnitude = (np.uint32(half) & np.uint32(0x7FFF)) << THIRTEEN
    finite = bits_of(float_of(magnitude) * np.float32(2.0**112))  # the exponent was 112 off; subnormals are exact too
    bits = magnitude | INFINITE if magnitude >= HALF_INFINITE << THIRTEEN else finite
    return float_of(bits | (np.uint32(half) & SIGN) << SIXTEEN)


@helper
def half_narrowed(x):
    """The bits of the nearest float16, ties to even."""
    bits = bits_of(x)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    # Below 2^-14 float16 counts in 2^-24, and so does float32 above 0.5.
    counted = bits_of(float_of(magnitude) + np.float32(0.5)) - bits_of(np.float32(0.5))
    rounded = (magnitude + np.uint32(0xFFF) + ((magnitude >> THIRTEEN) & ONE)) >> THIRTEEN
    half = counted if magnitude < np.uint32(0x38800000) else rounded - (np.uint32(112) << TEN)
    half = HALF_INFINITE if magnitude >= np.uint32(0x477FF000) else half  # 65,520
    half = np.uint32(0x7E00) if magnitude > INFINITE else half
    return np.uint16(half | (bits >> SIXTEEN & SIGN))


@helper
def bfloat_widened(bfloat):
    """The bits of a bfloat16, the upper half of a float32, as a float32."""
    return float_of(np.uint32(bfloat) << SIXTEEN)


@helper
def bfloat_narrowed(x):
    """The bits of the nearest bfloat16, ties to even; a NaN stays one."""
    bits = bits_of(x)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> SIXTEEN & ONE)) >> SIXTEEN
    nan = (bits >> SIXTEEN & SIGN) | np.uint32(0x7FC0)
    return np.uint16(nan if bits & np.uint32(0x7FFFFFFF) > INFINITE else rounded)


@kernel
def widen(source, target, is_half, start, stop):
    """Write the pieces `start` to `stop` of 16-bit floats, uint16 (n,), to float32 (n,)."""
    x, y = source[start * PIECE : stop * PIECE], target[start * PIECE : stop * PIECE]
    if is_half:
        for i in range(x.size):
            y[i] = half_widened(x[i])
    else:
        for i in range(x.size):
            y[i] = bfloat_widened(x[i])


@kernel
def narrow(source, target, is_half, start, stop):
    """Round the pieces `start` to `stop` of float32 (n,) to 16-bit floats, uint16 (n,)."""
    x, y = source[start * PIECE : stop * PIECE], target[start * PIECE : stop * PIECE]
    if is_half:
        for i in range(x.size):
            y[i] = half_narrowed(x[i])
    else:
        for i in range(x.size):
            y[i] = bfloat_narrowed(x[i])
