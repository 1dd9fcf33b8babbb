# What the row form and the column form share: the algebra of moments and of coefficients, all in float64.

from libc.math cimport INFINITY, fabs, sqrt
from libc.string cimport memcpy, memset

from fastnorm import ranges as _ranges

cdef double SMALLEST_SQUARES = _ranges.SMALLEST_SQUARES
cdef double LARGEST_SQUARES = _ranges.LARGEST_SQUARES
cdef double RESCALE = _ranges.RESCALE
cdef double SMALLEST_RSTD = _ranges.SMALLEST_RSTD
cdef double LARGEST_RSTD = _ranges.LARGEST_RSTD


cdef struct Moments:
    double count
    double hi       # the mean is hi + lo; hi is exact in the storage type
    double lo
    double m2       # sum of squared deviations from the mean


cdef inline void absorb(Moments* a, double count, double hi, double lo, double m2) noexcept nogil:
    """Chan, Golub and LeVeque (1979): the moments of two parts joined, in float64."""
    cdef double delta, total
    if a.count == 0.0:
        a.count, a.hi, a.lo, a.m2 = count, hi, lo, m2
        return
    total = a.count + count
    delta = (hi - a.hi) + (lo - a.lo)
    a.lo = a.lo + delta * (count / total)
    a.m2 = a.m2 + (m2 + delta * delta * (a.count * count / total))
    a.count = total


cdef inline void absorb_lines(
    double count, double more, const double* hi, const double* lo, const double* m2, double* all_hi, double* all_lo,
    double* all_m2, Py_ssize_t lines
) noexcept nogil:
    """`absorb` for lines side by side, of `count` elements so far and `more` in the parts that join them."""
    cdef double share = more / (count + more), weight = count * more / (count + more), delta
    cdef Py_ssize_t i
    if count == 0.0:
        memcpy(all_hi, hi, lines * sizeof(double))
        memcpy(all_lo, lo, lines * sizeof(double))
        memcpy(all_m2, m2, lines * sizeof(double))
        return
    for i in range(lines):
        delta = (hi[i] - all_hi[i]) + (lo[i] - all_lo[i])
        all_lo[i] = all_lo[i] + delta * share
        all_m2[i] = all_m2[i] + (m2[i] + delta * delta * weight)


cdef enum Measure:
    # What `m2` adds up over a line.
    SQUARES         # of the elements (RMSNorm, L2)
    VARIANCE        # squares of the deviations from the mean (LayerNorm)
    MAGNITUDES      # of the elements (L1)


cdef struct Rule:
    Measure measure
    double divisor      # what m2 is divided by: the count, the count less ddof, or 1
    double eps
    bint floor          # eps is the least value of the root, not a term under it


cdef struct Coefficients:
    # y = (x - centre) * scale + shift as the kernels compute it: with d = x - centre,
    # fused(d, scale, fused(d, scale_rest, shift)). What the storage type cannot hold of the centre and of the scale is
    # not lost: scale_rest is the rest of the scale, and the rest of the centre is in the shift.
    double centre
    double scale
    double scale_rest
    double shift


cdef struct Exact:
    # The same in float64, for lines where the storage type would overflow or underflow on the way.
    double hi
    double lo
    double scale
    double shift
    bint wide


cdef double BELOW_ONE_SINGLE = 1.0 - 2.0 ** -23
cdef double BELOW_ONE_DOUBLE = 1.0 - 2.0 ** -52


cdef inline double inverse(const Rule* rule, double m2) noexcept nogil:
    """1 / denominator; 1 where it is 0, since the deviations are 0 there too."""
    cdef double denominator = m2 / rule.divisor
    if rule.floor:
        if rule.measure != MAGNITUDES:
            denominator = sqrt(denominator)
        if denominator < rule.eps:
            denominator = rule.eps
    else:
        denominator = sqrt(denominator + rule.eps)
    return 1.0 / denominator if denominator != 0.0 else 1.0


cdef inline double first_part(const lanes* like, double scale) noexcept nogil:
    """What the storage type takes of a scale: a little less, so that the rest has its sign and is not 0.

    With them infinity stays infinity, instead of infinity * 0 or infinity - infinity.
    """
    return rounded(like, scale * (BELOW_ONE_SINGLE if lanes is lanes32 else BELOW_ONE_DOUBLE))


cdef inline Coefficients coefficients(
    const lanes* like, double hi, double lo, double scale, double shift
) noexcept nogil:
    """The coefficients of a line with the mean hi + lo."""
    cdef Coefficients c
    c.centre = rounded(like, hi + lo)
    c.scale = first_part(like, scale)
    c.scale_rest = rounded(like, scale - c.scale)
    c.shift = rounded(like, shift - ((hi - c.centre) + lo) * scale)
    return c


cdef inline bint are_applied(bint single, double rstd, double scale) noexcept nogil:
    """Whether vectors of float32 or float64 apply these, `scale` being rstd times a weight; without branches."""
    cdef double size = fabs(scale)
    if single:
        return (
            (rstd >= SMALLEST_RSTD) & (rstd <= LARGEST_RSTD) & (size <= LARGEST_RSTD)
            & ((size >= SMALLEST_RSTD) | (size == 0.0))
        )
    return size != INFINITY  # of which there are no two parts


cdef inline bint is_wide(const lanes* like, double rstd, double scale) noexcept nogil:
    """Whether a line must be applied element by element, in float64; `scale` is rstd times its weight."""
    return not are_applied(lanes is lanes32, rstd, scale)


cdef inline double applied(const lanes* like, double x, const Exact* c) noexcept nogil:
    """What the vector code makes of one element, or the same in float64 if the line is wide."""
    cdef Coefficients k
    cdef double d
    if c.wide:
        return ((x - c.hi) - c.lo) * c.scale + c.shift
    k = coefficients(like, c.hi, c.lo, c.scale, c.shift)
    d = rounded(like, x - k.centre)
    return fused_scalar(like, d, k.scale, fused_scalar(like, d, k.scale_rest, k.shift))


cdef inline lanes apply(lanes x, lanes centre, lanes scale, lanes scale_rest, lanes shift) noexcept nogil:
    cdef lanes d = subtract(x, centre)
    return fused(d, scale, fused(d, scale_rest, shift))


cdef inline bint out_of_range(const lanes* like, double squares, Measure measure) noexcept nogil:
    """Whether a sum of squares has overflowed, or lost digits to underflow; without branches."""
    if lanes is lanes32:
        return ((not squares >= SMALLEST_SQUARES) & (measure != MAGNITUDES)) | (not squares <= LARGEST_SQUARES)
    else:
        return False


cdef inline bint is_far(double e, double q, double n) noexcept nogil:
    """Whether the shift is further than half a standard deviation from the mean: rounding errors would show."""
    return 5.0 * (e * (e / n)) > q


cdef inline double unscaled(double sum_of_powers, Measure measure, double scale) noexcept nogil:
    """A sum of squares, or of magnitudes, of numbers that were multiplied by `scale`."""
    if measure == MAGNITUDES:
        return sum_of_powers / scale
    return sum_of_powers / scale / scale


cdef inline lanes power(lanes d, Measure measure) noexcept nogil:
    """What the measure adds up of a deviation."""
    return magnitude(d) if measure == MAGNITUDES else multiply(d, d)


cdef inline lanes deviation(lanes x, lanes centre, lanes before, lanes after, bint rescaled) noexcept nogil:
    """x - centre; rescaled, (x * before - centre) * after with powers of two, so that squares stay in range."""
    if rescaled:
        return multiply(subtract(multiply(x, before), centre), after)
    return subtract(x, centre)
