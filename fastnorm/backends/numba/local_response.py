"""Local response normalization, in float64: as in ``src_pyx/local_response/``, step by step, for the same bits."""

from math import factorial, log

import numpy as np
from numba import types

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lowering import bit_casts, libm

NUMBERS = 8192  # on a desk, or a number of each channel if that is more
POWERS = 64  # made at a time

LN_2 = log(2.0)
LN_2_HIGH, LN_2_LOW = float.fromhex("0x1.62e42fefap-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")
TWO_TO_52 = 2.0**52
TO_WHOLE = 1.5 * 2.0**52
LARGEST_LOG = 700.0
SMALLEST_NORMAL, LARGEST = float(np.finfo(np.float64).tiny), float(np.finfo(np.float64).max)
LOG_SERIES = tuple(1.0 / odd for odd in range(3, 19, 2))
LOW_SERIES = tuple(1.0 / factorial(n) for n in range(8))
HIGH_SERIES = tuple(1.0 / factorial(n) for n in range(8, 16))
ROOT_OF_HALF = np.float64(0.70710678118654752440).view(np.uint64)
BIAS = np.uint64(1023 << 52)
FIFTY_TWO, EXPONENT_BIAS = np.uint64(52), np.uint64(1023)
BITS_OF_TWO_TO_52 = np.float64(TWO_TO_52).view(np.uint64)


bits_of, number_of = bit_casts(types.float64, types.uint64)
log_double, pow_double = libm("log"), libm("pow", operands=2)


@helper
def of_eight(c, x, square):
    """c[0] + c[1] x + ... + c[7] x^7, by pairs."""
    low = (c[0] + c[1] * x) + (c[2] + c[3] * x) * square
    high = (c[4] + c[5] * x) + (c[6] + c[7] * x) * square
    return low + high * (square * square)


@helper
def is_ordinary(base, logarithm):
    """Whether a base is normal and positive, and the logarithm of its power far from the ends of the range."""
    return (base >= SMALLEST_NORMAL) & (base <= LARGEST) & (abs(logarithm) <= LARGEST_LOG)


@helper
def raise_all(bases, powers, exponent):
    """powers = bases^exponent, of up to POWERS numbers, by the series of the logarithm and of the exponential."""
    whole, rest = np.empty(POWERS), np.empty(POWERS)
    strange = 0
    for i in range(bases.size):
        bits = bits_of(bases[i])
        biased = (bits + (BIAS - ROOT_OF_HALF)) >> FIFTY_TWO
        m = number_of(bits + BIAS - (biased << FIFTY_TWO))
        whole[i] = number_of(biased | BITS_OF_TWO_TO_52) - (TWO_TO_52 + 1023.0)
        rest[i] = (m - 1.0) / (m + 1.0)
    for i in range(bases.size):
        s = rest[i]
        square = s * s
        logarithm = whole[i] * LN_2 + 2.0 * (s + s * square * of_eight(LOG_SERIES, square, square * square))
        powers[i] = exponent * logarithm
    for i in range(bases.size):
        shifted = powers[i] * (1.0 / LN_2) + TO_WHOLE
        k = shifted - TO_WHOLE
        strange += not is_ordinary(bases[i], powers[i])
        rest[i] = (powers[i] - k * LN_2_HIGH) - k * LN_2_LOW
        whole[i] = number_of((bits_of(shifted) + EXPONENT_BIAS) << FIFTY_TWO)
    for i in range(bases.size):
        r = rest[i]
        square = r * r
        fourth = square * square
        powers[i] = whole[i] * (of_eight(LOW_SERIES, r, square) + of_eight(HIGH_SERIES, r, square) * (fourth * fourth))
    if strange:
        for i in range(bases.size):
            if not is_ordinary(bases[i], exponent * log_double(bases[i])):
                powers[i] = pow_double(bases[i], exponent)


@helper
def powers_of(x, bases, powers, exponent):
    """Float32 takes the series; float64 needs all that the C library has."""
    if x.itemsize == 4:
        raise_all(bases, powers, exponent)
    else:
        for i in range(bases.size):
            powers[i] = pow_double(bases[i], exponent)


@helper
def neighbour_sums(values, first, step, before, after, squared, sums):
    """sums[i] = the values at first + i + shift * step, shift from -before to after; or their squares."""
    sums[:] = 0.0
    for shift in range(-before, after + 1):
        place = first + shift * step
        for j in range(max(0, -place), min(sums.size, values.size - place)):
            value = np.float64(values[place + j])
            sums[j] += value * value if squared else value


@helper
def bases_of(x, first, step, before, after, slope, k, bases):
    neighbour_sums(x, first, step, before, after, True, bases)
    for j in range(bases.size):
        bases[j] = k + slope * bases[j]


@helper
def width_of_unit(channels, positions):
    """How many positions are worked on together."""
    width = max(NUMBERS // channels, 1)
    if width > POWERS:
        width -= width % POWERS
    return min(width, positions)


@kernel
def local_response(source, target, before, after, slope, beta, k, rstd, start, stop):
    """The units `start` to `stop` of (items, channels, positions), counted over (items, pieces of positions)."""
    _, channels, positions = source.shape
    width = width_of_unit(channels, positions)
    pieces = -(-positions // width)
    desk, block = np.empty(channels * width), np.empty(POWERS)
    for unit in range(start, stop):
        first = unit % pieces * width
        count = min(width, positions - first)
        x, y = source[unit // pieces].reshape(-1), target[unit // pieces].reshape(-1)
        runs, length = (1, channels * count) if count == positions else (channels, count)
        for r in range(runs):
            for i in range(0, length, POWERS):
                bases = block[: min(POWERS, length - i)]
                bases_of(x, r * positions + first + i, positions, before, after, slope, k, bases)
                place = r * length + i
                powers_of(x, bases, desk[place : place + bases.size], -beta)
        for r in range(runs):
            place = r * positions + first
            for i in range(length):
                y[place + i] = x[place + i] * desk[r * length + i]
            if rstd.size:
                rstd[unit // pieces].reshape(-1)[place : place + length] = desk[r * length : (r + 1) * length]


@kernel
def local_response_grad(source, upstream, target, before, after, slope, beta, k, rstd, start, stop):
    """The gradient, unit by unit as `local_response`; `rstd`, if it has elements, is given."""
    _, channels, positions = source.shape
    width = width_of_unit(channels, positions)
    pieces = -(-positions // width)
    all_scaled, all_products, block = np.empty(channels * width), np.empty(channels * width), np.empty(POWERS)
    factor = 2.0 * slope * beta
    for unit in range(start, stop):
        first = unit % pieces * width
        count = min(width, positions - first)
        x, dy = source[unit // pieces].reshape(-1), upstream[unit // pieces].reshape(-1)
        dx = target[unit // pieces].reshape(-1)
        scaled, products = all_scaled[: channels * count], all_products[: channels * count]
        runs, length = (1, channels * count) if count == positions else (channels, count)
        for r in range(runs):
            for i in range(0, length, POWERS):
                bases, place = block[: min(POWERS, length - i)], r * positions + first + i
                bases_of(x, place, positions, before, after, slope, k, bases)
                direct, product = scaled[r * length + i :], products[r * length + i :]
                if rstd.size:
                    direct[: bases.size] = rstd[unit // pieces].reshape(-1)[place : place + bases.size]
                else:
                    powers_of(x, bases, direct[: bases.size], -beta)
                for j in range(bases.size):
                    direct[j] = dy[place + j] * direct[j]
                    product[j] = direct[j] * x[place + j] / bases[j]
        for r in range(runs):
            for i in range(0, length, POWERS):
                sums, place = block[: min(POWERS, length - i)], r * positions + first + i
                neighbour_sums(products, r * length + i, count, after, before, False, sums)
                for j in range(sums.size):
                    dx[place + j] = scaled[r * length + i + j] - factor * x[place + j] * sums[j]
