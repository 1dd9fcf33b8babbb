# Backward passes. With d = x - mean and g = weight * dy, a line needs the sums of g and of g * d; then its gradient is
#
#     dx = scale * g + slope * d + shift
#
# where scale = rstd * weight, slope = -rstd^2 * B and shift = -rstd * A (fastnorm/gradients.py says what A and B are).

cdef extern from "gradients/gradients.h" nogil:
    void lanes32_position_sums(
        const lanes32* x, Py_ssize_t x_stride, const lanes32* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, const double* rstd, double* products, double* sums
    )
    void lanes64_position_sums(
        const lanes64* x, Py_ssize_t x_stride, const lanes64* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, const double* rstd, double* products, double* sums
    )
    void lanes32_column_dots(
        const lanes32* x, Py_ssize_t x_stride, const lanes32* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, double* products, double* sums
    )
    void lanes64_column_dots(
        const lanes64* x, Py_ssize_t x_stride, const lanes64* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, double* products, double* sums
    )

cdef double SMALLEST_SLOPED = _ranges.SMALLEST_SLOPED
cdef double LARGEST_SLOPED = _ranges.LARGEST_SLOPED


cdef struct Slope:
    # dx = scale * g + slope * (x - centre) + shift
    double centre
    double scale
    double slope
    double shift


cdef inline bint is_finite(double value) noexcept nogil:
    return value - value == 0.0


cdef inline bint has_range(const lanes* like, double rstd) noexcept nogil:
    """Whether the storage type can hold products of a gradient and deviations."""
    if lanes is lanes32:
        return SMALLEST_SLOPED <= rstd <= LARGEST_SLOPED
    else:
        return True


cdef inline bint is_sloped(const lanes* like, double scale, double slope) noexcept nogil:
    """Whether the storage type can hold the gradient's coefficients, with room for their products."""
    if lanes is lanes32:
        return is_coefficient(scale) & is_coefficient(slope)
    else:
        return True


cdef inline bint is_coefficient(double value) noexcept nogil:
    cdef double size = fabs(value)
    return (size == 0.0) | ((size >= SMALLEST_SLOPED * SMALLEST_SLOPED) & (size <= LARGEST_SLOPED * LARGEST_SLOPED))


cdef inline void lane_dots(
    const lanes* x, const lanes* dy, const lanes* weight, bint weighted, Py_ssize_t n, double centre, lanes* total_s,
    lanes* total_p
) noexcept nogil:
    """The sums of g and of g * (x - centre) over a block, lane by lane, for a centre in the storage type."""
    cdef Py_ssize_t i, j, step = lane_count(x), whole = n - n % step, group = RUN * step
    cdef lanes middle = splat(x, centre)
    cdef lanes s, p, g, sum_s = splat(x, 0.0), sum_p = splat(x, 0.0)
    for i from 0 <= i < whole by group:
        s, p = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by step:
            prefetch(x, j + READ_AHEAD * step)
            prefetch(dy, j + READ_AHEAD * step)
            g = load(dy, j)
            if weighted:
                g = multiply(g, load(weight, j))
            s = add(s, g)
            p = fused(g, subtract(load(x, j), middle), p)
        sum_s, sum_p = add(sum_s, s), add(sum_p, p)
    if whole < n:
        # Lanes without an element hold dy = 0.
        g = load_partial(dy, whole, n - whole, 0.0)
        if weighted:
            g = multiply(g, load_partial(weight, whole, n - whole, 0.0))
        sum_s = add(sum_s, g)
        sum_p = fused(g, subtract(load_partial(x, whole, n - whole, centre), middle), sum_p)
    total_s[0], total_p[0] = sum_s, sum_p


cdef inline void block_dots(
    const lanes* x, const lanes* dy, const lanes* weight, bint weighted, Py_ssize_t n, double centre, double* sums
) noexcept nogil:
    """Add the sums over a block."""
    cdef lanes s, p
    lane_dots(x, dy, weight, weighted, n, centre, &s, &p)
    sums[0] += total(s)
    sums[1] += total(p)


cdef void wide_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, double* sums
) noexcept nogil:
    """The same in float64, element by element."""
    cdef Py_ssize_t i
    cdef double g
    sums[0] = sums[1] = 0.0
    for i in range(n):
        g = element(dy, i) * (element(weight, i) if weight else 1.0)
        sums[0] += g
        sums[1] += g * (element(x, i) - mean)


cdef inline void line_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, bint in_range, double* sums
) noexcept nogil:
    """The sums of g and of g * (x - mean) over a line, or a part of it; NULL for a weight of 1."""
    cdef Py_ssize_t i
    cdef double centre = rounded(x, mean)
    sums[0] = sums[1] = 0.0
    if in_range:
        for i from 0 <= i < n by BLOCK:
            if weight:
                block_dots(at(x, i), at(dy, i), at(weight, i), True, min(n - i, BLOCK), centre, sums)
            else:
                block_dots(at(x, i), at(dy, i), x, False, min(n - i, BLOCK), centre, sums)
        finish_dots(x, dy, weight, n, mean, sums)
    else:
        wide_dots(x, dy, weight, n, mean, sums)


cdef inline void finish_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, double* sums
) noexcept nogil:
    """From sums about the rounded mean to those about the mean; once more in float64 where they are not finite."""
    sums[1] -= (mean - rounded(x, mean)) * sums[0]
    if not is_finite(sums[0]) or not is_finite(sums[1]):
        wide_dots(x, dy, weight, n, mean, sums)


cdef inline void slope_run(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, bint weighted, Py_ssize_t n, Slope c, bint streamed
) noexcept nogil:
    """dx of a run whose coefficients the storage type can hold; without `weighted`, weight is not read."""
    cdef Py_ssize_t before
    if streams(dx, n, streamed):
        before = before_aligned(dx)
        slope_part(x, dy, dx, weight, weighted, before, c, False)
        slope_part(at(x, before), at(dy, before), at(dx, before), at(weight, before), weighted, n - before, c, True)
    else:
        slope_part(x, dy, dx, weight, weighted, n, c, False)


cdef inline void slope_part(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, bint weighted, Py_ssize_t n, Slope c, bint streamed
) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(x), whole = n - n % step, rest = n - whole
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes slope = splat(x, c.slope), shift = splat(x, c.shift), g
    for i from 0 <= i < whole by step:
        g = load(dy, i)
        if weighted:
            g = multiply(g, load(weight, i))
        put(dx, i, fused(g, scale, fused(subtract(load(x, i), centre), slope, shift)), streamed)
    if rest:
        g = load_partial(dy, whole, rest, 0.0)
        if weighted:
            g = multiply(g, load_partial(weight, whole, rest, 0.0))
        centre = subtract(load_partial(x, whole, rest, 0.0), centre)
        store_partial(dx, whole, rest, fused(g, scale, fused(centre, slope, shift)))


cdef inline Slope slope_of(
    const lanes* like, double mean, double scale, double slope, double shift, bint in_range
) noexcept nogil:
    """dx = scale * g + slope * (x - mean) + shift, about a centre in the storage type if that has the range."""
    cdef double centre = rounded(like, mean)
    if not in_range:
        return Slope(mean, scale, slope, shift)
    return Slope(centre, scale, slope, shift - slope * (mean - centre))


cdef inline void apply_slope(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, Py_ssize_t n, Slope c, bint in_range, bint streamed
) noexcept nogil:
    """dx of a line, or a part of it; NULL for a weight of 1."""
    cdef Py_ssize_t i
    if not in_range:
        for i in range(n):
            set_element(
                dx, i, c.scale * element(dy, i) * (element(weight, i) if weight else 1.0)
                + (c.slope * (element(x, i) - c.centre) + c.shift)
            )
    elif weight:
        slope_run(x, dy, dx, weight, True, n, c, streamed)
    else:
        slope_run(x, dy, dx, x, False, n, c, streamed)
