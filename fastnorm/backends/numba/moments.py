"""What the row form and the column form share: the algebra of moments and of coefficients, all in float64.

The Numba side of ``src_pyx/moments.pxi``, operation for operation. Moments are tuples (count, hi, lo, m2).
"""

from math import inf, sqrt

from fastnorm.backends.numba.jit import compiled, helper
from fastnorm.backends.numba.lanes import fused, fused_scalar, lane_count, magnitude, rounded
from fastnorm.ranges import LARGEST_RSTD, LARGEST_SQUARES, SMALLEST_RSTD, SMALLEST_SQUARES
from fastnorm.recipe import Measure

SQUARES, VARIANCE, MAGNITUDES = map(int, Measure)


@helper
def absorb(a, count, hi, lo, m2):
    """Chan, Golub and LeVeque (1979): the moments of two parts joined, in float64."""
    if a[0] == 0.0:
        return count, hi, lo, m2
    total_count = a[0] + count
    delta = (hi - a[1]) + (lo - a[2])
    return (
        total_count,
        a[1],
        a[2] + delta * (count / total_count),
        a[3] + (m2 + delta * delta * (a[0] * count / total_count)),
    )


@helper
def inverse(m2, measure, divisor, eps, floor):
    """1 / denominator; 1 where it is 0, since the deviations are 0 there too."""
    denominator = m2 / divisor
    if floor:
        if measure != MAGNITUDES:
            denominator = sqrt(denominator)
        if denominator < eps:
            denominator = eps
    else:
        denominator = sqrt(denominator + eps)
    return 1.0 / denominator if denominator != 0.0 else 1.0


@helper
def below_one(like):
    """What a scale is multiplied by for its first part, so that the rest has its sign and is not 0.

    With them infinity stays infinity, instead of infinity * 0 or infinity - infinity.
    """
    return 1.0 - 2.0**-23 if lane_count(like) == 32 else 1.0 - 2.0**-52


@helper
def coefficients(like, hi, lo, scale, shift):
    """(centre, scale, scale_rest, shift) of a line with the mean hi + lo; see src_pyx/moments.pxi."""
    centre = rounded(like, hi + lo)
    head = rounded(like, scale * below_one(like))
    return centre, head, rounded(like, scale - head), rounded(like, shift - ((hi - centre) + lo) * scale)


@helper
def are_applied(like, rstd, scale):
    """Whether vectors apply these, `scale` being rstd times a weight; without branches."""
    if lane_count(like) == 32:
        size = abs(scale)
        inside = (rstd >= SMALLEST_RSTD) & (rstd <= LARGEST_RSTD) & (size <= LARGEST_RSTD)
        return inside & ((size >= SMALLEST_RSTD) | (size == 0.0))
    return abs(scale) != inf  # of which there are no two parts


@helper
def is_wide(like, rstd, scale):
    """Whether a line must be applied element by element, in float64; `scale` is rstd times its weight."""
    return not are_applied(like, rstd, scale)


@helper
def applied(like, x, hi, lo, scale, shift, wide):
    """What the vector code makes of one element, or the same in float64 if the line is wide."""
    if wide:
        return ((x - hi) - lo) * scale + shift
    centre, head, rest, addend = coefficients(like, hi, lo, scale, shift)
    d = rounded(like, x - centre)
    return fused_scalar(like, d, head, fused_scalar(like, d, rest, addend))


@helper
def apply(x, centre, scale, scale_rest, shift):
    d = x - centre
    return fused(d, scale, fused(d, scale_rest, shift))


@helper
def out_of_range(like, squares, measure):
    """Whether a sum of squares has overflowed, or lost digits to underflow."""
    fits = (squares >= SMALLEST_SQUARES or measure == MAGNITUDES) and squares <= LARGEST_SQUARES
    return lane_count(like) == 32 and not fits


@helper
def is_far(e, q, n):
    """Whether the shift is further than half a standard deviation from the mean: rounding errors would show."""
    return 5.0 * (e * (e / n)) > q


@helper
def unscaled(sum_of_powers, measure, scale):
    """A sum of squares, or of magnitudes, of numbers that were multiplied by `scale`."""
    if measure == MAGNITUDES:
        return sum_of_powers / scale
    return sum_of_powers / scale / scale


@helper
def add_to(q, d, measure):
    """Add d * d, or |d|."""
    if measure == MAGNITUDES:
        return q + magnitude(d)
    return fused(d, d, q)


@helper
def deviation(x, centre, before, after, rescaled):
    """X - centre; rescaled, (x * before - centre) * after with powers of two, so that squares stay in range."""
    if rescaled:
        return (x * before - centre) * after
    return x - centre


@compiled
def merge(hi, lo, m2, count, last, merged_hi, merged_lo, merged_m2):
    """Join parts along the middle axis, in order; each has `count` elements, the last one `last`."""
    parts = hi.shape[1]
    for a in range(hi.shape[0]):
        for c in range(hi.shape[2]):
            line = (0.0, 0.0, 0.0, 0.0)
            for b in range(parts):
                line = absorb(line, last if b == parts - 1 else count, hi[a, b, c], lo[a, b, c], m2[a, b, c])
            merged_hi[a, c], merged_lo[a, c], merged_m2[a, c] = line[1], line[2], line[3]
