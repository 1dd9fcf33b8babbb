# Backward passes of rows: the sums of a line, dx from given ones, or both, and the sums for the parameters, in one go.

cdef enum:
    GRADIENT_CACHE = 32768      # elements: x and dy of the rows that are read again for the sums of positions, in L2
    TOGETHER = 256              # rows whose statistics are kept for that


cdef void dots_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The sums of dy and of dy * (x - mean) over the chunks `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t o, i, k, chunks = parts(w.x.n, CHUNK)
    cdef Place place = place_of(start, chunks, w.lines)
    cdef View of_x = w.x, of_dy = w.dy  # copies, as in `fly`
    cdef const lanes* dy = <const lanes*> of_dy.data
    cdef double found[2]
    for k in range(start, stop):
        o, i = place.line, place.piece * CHUNK
        line_dots(
            at(x, o * of_x.outer_stride + i), at(dy, o * of_dy.outer_stride + i), <const lanes*> NULL,
            min(of_x.n - i, CHUNK), w.mean[place.number], True, found
        )
        w.sums[k], w.products[k] = found[0], found[1]
        advance(&place, chunks, w.lines)


cdef void affine_grad_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx = scale * dy + slope * (x - mean) + shift for the pieces `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t o, i, k, p, pieces = parts(w.x.n, CHUNK)
    cdef Place place = place_of(start, pieces, w.lines)
    cdef View of_x = w.x, of_dy = w.dy, of_dx = w.y
    cdef const lanes* dy = <const lanes*> of_dy.data
    cdef lanes* dx = <lanes*> of_dx.data
    cdef Slope c
    for k in range(start, stop):
        o, i, p = place.line, place.piece * CHUNK, place.number
        c = slope_of(x, w.coefficients[0][p], w.coefficients[1][p], w.coefficients[2][p], w.coefficients[3][p], True)
        slope_run(
            at(x, o * of_x.outer_stride + i), at(dy, o * of_dy.outer_stride + i), at(dx, o * of_dx.outer_stride + i), x,
            False, min(of_x.n - i, CHUNK), c, of_dx.streamed
        )
        advance(&place, pieces, w.lines)


cdef inline void position_sums(
    const lanes* x, Py_ssize_t x_stride, const lanes* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
    const double* mean, const double* rstd, double* products, double* sums
) noexcept nogil:
    """Rows, each with its statistics: sums += dy, products += dy * xhat, position by position."""
    if lanes is lanes32:
        lanes32_position_sums(x, x_stride, dy, dy_stride, rows, n, mean, rstd, products, sums)
    else:
        lanes64_position_sums(x, x_stride, dy, dy_stride, rows, n, mean, rstd, products, sums)


cdef inline void line_slope(
    const Rule* rule, double sum_g, double sum_gx, double n, double rstd, double* slope, double* shift
) noexcept nogil:
    """Slope and shift of a line from its sums of g and of g * xhat."""
    cdef double b = sum_gx / rule.divisor
    if rule.floor and rstd >= 1.0 / rule.eps:  # divided by eps: a constant
        b = 0.0
    slope[0] = -rstd * rstd * b
    shift[0] = -rstd * (sum_g / n) if rule.measure == VARIANCE else 0.0


cdef inline Py_ssize_t rows_together(const Work* w) noexcept nogil:
    """How many rows of a unit, still in cache, are read again for the sums of positions."""
    return min(max(1, min(w.rows, GRADIENT_CACHE // w.x.n)), TOGETHER)


include "gradients/row_pairs.pxi"


cdef void normalize_grad_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx of rows and the sums for their parameters, in units of `rows` rows, each row while it is in cache.

    Statistics that are not given are made on the way; a mean that is not given is 0 if rstd is. Sums of
    positions are one row of n for each unit.
    """
    cdef Py_ssize_t r, unit, last, count, first, n = w.x.n
    cdef Py_ssize_t together = rows_together(w)
    cdef const lanes* dy = <const lanes*> w.dy.data
    cdef double mean[TOGETHER]
    cdef double rstd[TOGETHER]
    if are_paired(<const lanes*> w.y.data, n, w.y, 1 if w.per_position else w.segments, w.rule.measure):
        normalize_grad_row_pairs(x, w, start, stop)
        return
    for unit in range(start, stop):
        last = min((unit + 1) * w.rows, w.x.outer)
        for first from unit * w.rows <= first < last by together:
            count = min(together, last - first)
            for r in range(count):
                statistics_of_row(x, w, first + r, &mean[r], &rstd[r])
                if w.per_position:
                    position_row(x, w, first + r, mean[r], rstd[r])
                else:
                    segmented_row(x, w, first + r, mean[r], rstd[r])
            if w.per_position and w.sums:
                position_sums(
                    at(x, first * w.x.outer_stride), w.x.outer_stride, at(dy, first * w.dy.outer_stride),
                    w.dy.outer_stride, count, n, mean, rstd, w.products + unit * n, w.sums + unit * n
                )


cdef inline void position_row(const lanes* x, const Work* w, Py_ssize_t row, double mean, double rstd) noexcept nogil:
    """dx of a row with a weight for each position."""
    cdef const lanes* source = at(x, row * w.x.outer_stride)
    cdef const lanes* upstream = at(<const lanes*> w.dy.data, row * w.dy.outer_stride)
    cdef lanes* target = at(<const lanes*> w.y.data, row * w.y.outer_stride)
    cdef const lanes* weight = <const lanes*> w.weight
    cdef double found[2]
    cdef double slope, shift
    cdef bint in_range = has_range(x, rstd)
    line_dots(source, upstream, weight, w.x.n, mean, in_range, found)
    line_slope(&w.rule, found[0], found[1] * rstd, w.x.n, rstd, &slope, &shift)
    in_range = is_sloped(x, rstd, slope)
    apply_slope(
        source, upstream, target, weight, w.x.n, slope_of(x, mean, rstd, slope, shift, in_range), in_range, w.y.streamed
    )


cdef inline void segmented_row(const lanes* x, const Work* w, Py_ssize_t row, double mean, double rstd) noexcept nogil:
    """dx of a row whose runs have a weight each, and the sums of the runs."""
    cdef const lanes* source = at(x, row * w.x.outer_stride)
    cdef const lanes* upstream = at(<const lanes*> w.dy.data, row * w.dy.outer_stride)
    cdef lanes* target = at(<const lanes*> w.y.data, row * w.y.outer_stride)
    cdef const lanes* weight = <const lanes*> w.weight
    cdef Py_ssize_t number = row * w.segments, p = number % w.parameters, length = w.x.n // w.segments, j, i
    cdef double found[2]
    cdef double slope, shift, scale, sum_g = 0.0, sum_gx = 0.0
    cdef bint in_range = has_range(x, rstd)
    for j in range(w.segments):
        i = j * length
        line_dots(at(source, i), at(upstream, i), <const lanes*> NULL, length, mean, in_range, found)
        found[1] = found[1] * rstd
        scale = element(weight, p)
        p = following(p, w.parameters)
        sum_g += scale * found[0]
        sum_gx += scale * found[1]
        if w.sums:
            w.sums[number + j], w.products[number + j] = found[0], found[1]
    line_slope(&w.rule, sum_g, sum_gx, w.x.n, rstd, &slope, &shift)
    p = number % w.parameters
    for j in range(w.segments):
        i = j * length
        scale = rstd * element(weight, p)
        p = following(p, w.parameters)
        in_range = is_sloped(x, scale, slope)
        apply_slope(
            at(source, i), at(upstream, i), at(target, i), <const lanes*> NULL, length,
            slope_of(x, mean, scale, slope, shift, in_range), in_range, w.y.streamed
        )
