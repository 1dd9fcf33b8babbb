"""Statistics of what a row's threads hold in registers, and the coefficients that follow: parts of kernels.

The mean is found about the row's first element, so that a constant row has exactly its value; sums of deviations and of
their squares about it, rounded to `hi`, then correct both. The sums are of the type that is computed in; what is done
once a row is float64.
"""

import math

import numpy as np

from fastnorm.backends.cuda.compat import device_function
from fastnorm.backends.cuda.machine import any_row, fused, row_sum

# A float32 sum of squares outside of these has left the range, or come so near its ends that squares were lost.
LEAST_SQUARES, MOST_SQUARES = 2.0**-100, 2.0**126
# Beyond these rstd is not handed to float32 arithmetic in one factor.
LARGEST_POWER, SMALLEST_POWER = 2.0**60, 2.0**-60
# An eps from which on it does not matter what squares below LEAST_SQUARES add up to.
EPS_THAT_COVERS = 2.0**-60


def row_statistics(shape, real, centred):
    """Return a function that makes (hi, lo, m2), hi of the type computed in, of the elements held of a row.

    ``(held, lane, length, first, least, scratch, wide_scratch)``: `held` (slots * vector,) has slot j's elements from
    position ``lane + j * stride`` of the row on, as far as there are any; `first` is the row's first element, `least`
    the sum of squares below which it is made again in float64.
    """
    vector, width, _, slots = shape
    stride = vector * width
    added_up = row_sum(width)
    any_of = any_row(width)
    narrow = real is np.float32

    @device_function
    def in_float64(held, lane, length, scratch):
        """Sums whose squares would not fit into float32."""
        total = np.float64(0)
        if centred:
            for j in range(slots):
                if lane + j * stride < length:
                    for e in range(vector):
                        total += np.float64(held[j * vector + e])
            total = added_up(total, scratch)
        mean = total / np.float64(length)
        squares = np.float64(0)
        for j in range(slots):
            if lane + j * stride < length:
                for e in range(vector):
                    deviation = np.float64(held[j * vector + e]) - mean
                    squares += deviation * deviation
        return mean, added_up(squares, scratch)

    @device_function
    def statistics(held, lane, length, first, least, scratch, wide_scratch):
        hi = real(0)
        if centred:
            total = real(0)
            for j in range(slots):
                if lane + j * stride < length:
                    part = real(0)
                    for e in range(vector):
                        part += held[j * vector + e] - first
                    total += part
            hi = first + added_up(total, scratch) / real(length)
        total = real(0)
        squares = real(0)
        for j in range(slots):
            if lane + j * stride < length:
                part = real(0)
                part_squares = real(0)
                for e in range(vector):
                    deviation = held[j * vector + e] - hi
                    part += deviation
                    part_squares += deviation * deviation
                total += part
                squares += part_squares
        squares = added_up(squares, scratch)
        lo = np.float64(0)
        m2 = np.float64(squares)
        if centred:
            lo = np.float64(added_up(total, scratch)) / np.float64(length)
            m2 = m2 - lo * lo * np.float64(length)
        if narrow:
            lost = not (squares >= least and squares <= real(MOST_SQUARES))
            if any_of(lost):
                wide_mean, wide_m2 = in_float64(held, lane, length, wide_scratch)
                if lost:
                    hi = real(wide_mean)
                    lo = wide_mean - np.float64(hi)
                    m2 = wide_m2
        return hi, lo, m2

    return statistics


@device_function
def two_sum(a, b):
    """(sum, error): a + b and what its rounding leaves (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def reciprocal_root(floor):
    """Return a function ``(m2, divisor, eps)``: 1 / denominator, and 1 where that is 0, as in `fastnorm.recipe`."""

    @device_function
    def rstd_of(m2, divisor, eps):
        variance = m2 / divisor
        if floor:
            root = math.sqrt(variance)
            root = eps if root < eps else root  # NaN stays
        else:
            root = math.sqrt(variance + eps)
        return 1.0 / (1.0 if root == 0.0 else root)

    return rstd_of


def normalizer(real):
    """Return functions: a mean hi + lo and rstd as numbers of `real`, and the normalised x from these."""

    @device_function
    def split(hi, lo, rstd):
        """(hi, power, scale, rest, offset): see `normalized`."""
        power = 1.0
        if rstd > LARGEST_POWER:
            power = LARGEST_POWER
        elif rstd < SMALLEST_POWER:
            power = SMALLEST_POWER
        scaled = rstd / power
        scale = real(scaled)
        return hi, real(power), scale, real(scaled - np.float64(scale)), real(-lo * power * scaled)

    @device_function
    def normalized(x, coefficients):
        """(x - mean) * rstd with two roundings: of the deviation, and of the outer of two fused products."""
        hi, power, scale, rest, offset = coefficients
        deviation = (x - hi) * power
        return fused(deviation, scale, fused(deviation, rest, offset))

    return split, normalized
