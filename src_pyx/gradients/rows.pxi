# Backward passes of rows: the sums of a line, dx from given ones, or both, and the sums for the parameters, in one go.

cdef enum:
    GRADIENT_CACHE = 32768      # elements: x and dy of the rows that are read again for the sums of positions, in L2
    TOGETHER = 256              # rows whose statistics are kept for that


cdef void dots_rows(
    const lanes* x, const lanes* dy, View v, View w, const double* mean, Py_ssize_t lines, double* products,
    double* sums, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The sums of dy and of dy * (x - mean) over the chunks `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t o, i, k, chunks = parts(v.n, CHUNK)
    cdef Place place = place_of(start, chunks, lines)
    cdef double found[2]
    for k in range(start, stop):
        o, i = place.line, place.piece * CHUNK
        line_dots(
            <const lanes*> at(x, o * v.outer_stride + i), <const lanes*> at(dy, o * w.outer_stride + i),
            <const lanes*> NULL, min(v.n - i, CHUNK), mean[place.number], True, found
        )
        sums[k], products[k] = found[0], found[1]
        advance(&place, chunks, lines)


cdef void affine_grad_rows(
    const lanes* x, const lanes* dy, lanes* dx, View v, View w, View u, const double* mean, const double* scale,
    const double* slope, const double* shift, Py_ssize_t lines, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """dx = scale * dy + slope * (x - mean) + shift for the pieces `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t o, i, k, p, pieces = parts(v.n, CHUNK)
    cdef Place place = place_of(start, pieces, lines)
    for k in range(start, stop):
        o, i, p = place.line, place.piece * CHUNK, place.number
        slope_run(
            <const lanes*> at(x, o * v.outer_stride + i), <const lanes*> at(dy, o * w.outer_stride + i),
            at(dx, o * u.outer_stride + i), x, False, min(v.n - i, CHUNK),
            slope_of(x, mean[p], scale[p], slope[p], shift[p], True), u.streamed
        )
        advance(&place, pieces, lines)


cdef inline void position_sums(
    const lanes* x, Py_ssize_t x_stride, const lanes* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
    const double* mean, const double* rstd, double* products, double* sums
) noexcept nogil:
    """Rows, each with its statistics: sums += dy, products += dy * xhat, position by position."""
    if lanes is lanes32:
        lanes32_position_sums(x, x_stride, dy, dy_stride, rows, n, mean, rstd, products, sums)
    else:
        lanes64_position_sums(x, x_stride, dy, dy_stride, rows, n, mean, rstd, products, sums)


cdef inline void line_terms(
    const Rule* rule, double sum_g, double sum_gx, double n, double rstd, double* slope, double* shift
) noexcept nogil:
    """Slope and shift of a line from its sums of g and of g * xhat."""
    cdef double b = sum_gx / rule.divisor
    if rule.floor and rstd >= 1.0 / rule.eps:  # divided by eps: a constant
        b = 0.0
    slope[0] = -rstd * rstd * b
    shift[0] = -rstd * (sum_g / n) if rule.measure == VARIANCE else 0.0


include "gradients/row_pairs.pxi"


cdef void normalize_grad_rows(
    const lanes* x, const lanes* dy, lanes* dx, View v, View w, View u, const lanes* weight, Py_ssize_t parameters,
    bint per_position, Py_ssize_t segments, const Rule* rule, const double* mean, const double* rstd,
    double* products, double* sums, Py_ssize_t rows, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """dx of rows and the sums for their parameters, in units of `rows` rows, each row while it is in cache.

    Statistics that are not given are made on the way; a mean that is not given is 0 if rstd is. Sums of
    positions are one row of n for each unit.
    """
    cdef Py_ssize_t o, j, r, unit, count, first, together = max(1, min(rows, GRADIENT_CACHE // v.n))
    cdef double centre[TOGETHER]
    cdef double inverse_root[TOGETHER]
    if are_paired(<const lanes*> dx, v.n, u, 1 if per_position else segments, rule.measure):
        normalize_grad_row_pairs(
            x, dy, dx, v, w, u, weight, parameters, per_position, rule, mean, rstd, products, sums, rows, start, stop
        )
        return
    together = min(together, TOGETHER)
    for unit in range(start, stop):
        for first from unit * rows <= first < min((unit + 1) * rows, v.outer) by together:
            count = min(together, min((unit + 1) * rows, v.outer) - first)
            for r in range(count):
                o = first + r
                statistics_of_row(x, v, rule, mean, rstd, o, &centre[r], &inverse_root[r])
                if per_position:
                    position_row(
                        <const lanes*> at(x, o * v.outer_stride), <const lanes*> at(dy, o * w.outer_stride),
                        at(dx, o * u.outer_stride), weight, v.n, rule, centre[r], inverse_root[r],
                        u.streamed
                    )
                else:
                    segmented_row(
                        <const lanes*> at(x, o * v.outer_stride), <const lanes*> at(dy, o * w.outer_stride),
                        at(dx, o * u.outer_stride), weight, o * segments, parameters, segments, v.n, rule, centre[r],
                        inverse_root[r], products, sums, u.streamed
                    )
            if per_position and sums:
                j = unit * v.n
                position_sums(
                    <const lanes*> at(x, first * v.outer_stride), v.outer_stride,
                    <const lanes*> at(dy, first * w.outer_stride), w.outer_stride, count, v.n, centre, inverse_root,
                    products + j, sums + j
                )


cdef inline void position_row(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, Py_ssize_t n, const Rule* rule, double mean,
    double rstd, bint streamed
) noexcept nogil:
    """dx of a row with a weight for each position."""
    cdef double found[2]
    cdef double slope, shift
    cdef bint narrow_range = has_range(x, rstd)
    line_dots(x, dy, weight, n, mean, narrow_range, found)
    line_terms(rule, found[0], found[1] * rstd, n, rstd, &slope, &shift)
    narrow_range = is_sloped(x, rstd, slope)
    apply_slope(
        x, dy, dx, weight, n, slope_of(x, mean, rstd, slope, shift, narrow_range), narrow_range, streamed
    )


cdef inline void segmented_row(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, Py_ssize_t number, Py_ssize_t parameters,
    Py_ssize_t segments, Py_ssize_t n, const Rule* rule, double mean, double rstd, double* products, double* sums,
    bint streamed
) noexcept nogil:
    """dx of a row whose run j has the weight (number + j) % parameters, and the run's sums as number + j."""
    cdef Py_ssize_t j, i, p = number % parameters, length = n // segments
    cdef double found[2]
    cdef double slope, shift, scale, sum_g = 0.0, sum_gx = 0.0
    cdef bint narrow_range = has_range(x, rstd)
    for j in range(segments):
        i = j * length
        line_dots(
            <const lanes*> at(x, i), <const lanes*> at(dy, i), <const lanes*> NULL, length, mean, narrow_range, found
        )
        found[1] = found[1] * rstd
        scale = element(weight, p)
        p = following(p, parameters)
        sum_g += scale * found[0]
        sum_gx += scale * found[1]
        if sums:
            sums[number + j], products[number + j] = found[0], found[1]
    line_terms(rule, sum_g, sum_gx, n, rstd, &slope, &shift)
    p = number % parameters
    for j in range(segments):
        i = j * length
        scale = rstd * element(weight, p)
        p = following(p, parameters)
        narrow_range = is_sloped(x, scale, slope)
        apply_slope(
            <const lanes*> at(x, i), <const lanes*> at(dy, i), at(dx, i), <const lanes*> NULL, length,
            slope_of(x, mean, scale, slope, shift, narrow_range), narrow_range, streamed
        )
