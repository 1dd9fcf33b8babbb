# As rows/row_pairs.pxi: dx of a row beside the sums of the next.

cdef extern from "rows/row_pairs.h" nogil:
    void lanes32_gradient_step_of_pair(
        const lanes32* x, const lanes32* dy, lanes32* dx, const lanes32* weight, bint weighted, lanes32 centre,
        lanes32 scale, lanes32 slope, lanes32 shift, bint streamed, const lanes32* ahead, const lanes32* ahead_dy,
        lanes32 middle, lanes32* sums, lanes32* products
    )
    void lanes64_gradient_step_of_pair(
        const lanes64* x, const lanes64* dy, lanes64* dx, const lanes64* weight, bint weighted, lanes64 centre,
        lanes64 scale, lanes64 slope, lanes64 shift, bint streamed, const lanes64* ahead, const lanes64* ahead_dy,
        lanes64 middle, lanes64* sums, lanes64* products
    )


cdef inline void slope_beside_dots(
    const lanes* x, const lanes* dy, lanes* dx, Py_ssize_t n, const Slope* c, const lanes* weight, bint weighted,
    bint streamed, const lanes* ahead, const lanes* ahead_dy, double middle, double* sums
) noexcept nogil:
    """`slope_run` of a row, and the sums of `line_dots`, about `middle`, of the next."""
    cdef Py_ssize_t i, j, step = lane_count(x), whole = n - n % step, group = RUN * step, rest = n - whole
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale), slope = splat(x, c.slope)
    cdef lanes shift = splat(x, c.shift), about = splat(x, middle), sum_s = splat(x, 0.0), sum_p = splat(x, 0.0)
    cdef lanes s, p, g, w = splat(x, 1.0)
    for i from 0 <= i < whole by group:
        s, p = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by step:
            prefetch(ahead, j + READ_AHEAD * step)
            prefetch(ahead_dy, j + READ_AHEAD * step)
            if not streamed:
                prefetch(dx, j + WRITE_AHEAD * step)
            if lanes is lanes32:
                lanes32_gradient_step_of_pair(
                    at(x, j), at(dy, j), at(dx, j), at(weight, j), weighted, centre, scale, slope, shift, streamed,
                    at(ahead, j), at(ahead_dy, j), about, &s, &p
                )
            else:
                lanes64_gradient_step_of_pair(
                    at(x, j), at(dy, j), at(dx, j), at(weight, j), weighted, centre, scale, slope, shift, streamed,
                    at(ahead, j), at(ahead_dy, j), about, &s, &p
                )
        sum_s, sum_p = add(sum_s, s), add(sum_p, p)
    if rest:
        if weighted:
            w = load_partial(weight, whole, rest, 0.0)
        g = load_partial(ahead_dy, whole, rest, 0.0)
        if weighted:
            g = multiply(g, w)
        sum_s = add(sum_s, g)
        sum_p = fused(g, subtract(load_partial(ahead, whole, rest, middle), about), sum_p)
        g = load_partial(dy, whole, rest, 0.0)
        if weighted:
            g = multiply(g, w)
        centre = subtract(load_partial(x, whole, rest, 0.0), centre)
        store_partial(dx, whole, rest, fused(g, scale, fused(centre, slope, shift)))
    sums[0], sums[1] = 0.0 + total(sum_s), 0.0 + total(sum_p)


cdef void slope_beside_dots_of(
    const lanes* x, const lanes* dy, lanes* dx, Py_ssize_t n, const Slope* c, const lanes* weight, bint streamed,
    const lanes* ahead, const lanes* ahead_dy, double middle, double* sums
) noexcept nogil:
    """Once for each form of weights, NULL if they are missing, and of stores, so that the loop need not ask."""
    if weight and not streamed:
        slope_beside_dots(x, dy, dx, n, c, weight, True, False, ahead, ahead_dy, middle, sums)
    elif not streamed:
        slope_beside_dots(x, dy, dx, n, c, x, False, False, ahead, ahead_dy, middle, sums)
    elif weight:
        slope_beside_dots(x, dy, dx, n, c, weight, True, True, ahead, ahead_dy, middle, sums)
    else:
        slope_beside_dots(x, dy, dx, n, c, x, False, True, ahead, ahead_dy, middle, sums)


cdef inline void statistics_of_row(
    const lanes* x, const Work* w, Py_ssize_t row, double* mean, double* rstd
) noexcept nogil:
    """Mean and rstd of a row as they are given, the mean 0 if it is missing, or made."""
    cdef Moments line
    if w.rstd:
        mean[0], rstd[0] = w.mean[row] if w.mean else 0.0, w.rstd[row]
    else:
        line = line_moments(at(x, row * w.x.outer_stride), w.x.n, w.rule.measure)
        mean[0], rstd[0] = line.hi + line.lo, inverse(&w.rule, line.m2)


cdef void normalize_grad_row_pairs(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`normalize_grad_rows` of rows that are paired."""
    cdef Py_ssize_t n = w.x.n, first = start * w.rows, last = min(stop * w.rows, w.x.outer), o, r, p, count
    cdef Py_ssize_t together = rows_together(w)
    cdef double mean[TOGETHER]          # of the rows whose sums of positions are made together
    cdef double rstd[TOGETHER]
    cdef double found[2]
    cdef double next_found[2]
    cdef double next_mean, next_rstd, slope, shift, scale, factor
    cdef bint in_range
    cdef Slope c
    cdef const lanes* dy = <const lanes*> w.dy.data
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* run_weight = weight if w.per_position else NULL
    cdef const lanes* row
    cdef const lanes* upstream
    cdef const lanes* ahead = at(x, first * w.x.outer_stride)
    cdef const lanes* ahead_dy = at(dy, first * w.dy.outer_stride)
    cdef lanes* target
    p = 0 if w.per_position else first % w.parameters
    statistics_of_row(x, w, first, &next_mean, &next_rstd)
    line_dots(ahead, ahead_dy, run_weight, n, next_mean, has_range(x, next_rstd), next_found)
    for o in range(first, last):
        r, count = o - first, min(min(together, w.rows - first % w.rows), last - first)
        mean[r], rstd[r] = next_mean, next_rstd
        found[0], found[1] = next_found[0], next_found[1] * next_rstd
        row, upstream, target = ahead, ahead_dy, at(<const lanes*> w.y.data, o * w.y.outer_stride)
        factor = 1.0
        if not w.per_position:
            factor = element(weight, p)
            p = following(p, w.parameters)
            if w.sums:
                w.sums[o], w.products[o] = found[0], found[1]
            found[0], found[1] = 0.0 + factor * found[0], 0.0 + factor * found[1]
        line_slope(&w.rule, found[0], found[1], n, rstd[r], &slope, &shift)
        scale = rstd[r] * factor
        in_range = is_sloped(x, scale, slope)
        c = slope_of(x, mean[r], scale, slope, shift, in_range)
        if o + 1 < last:
            ahead, ahead_dy = at(row, w.x.outer_stride), at(upstream, w.dy.outer_stride)
            statistics_of_row(x, w, o + 1, &next_mean, &next_rstd)
        if o + 1 < last and in_range and has_range(x, next_rstd):
            slope_beside_dots_of(
                row, upstream, target, n, &c, run_weight, w.y.streamed, ahead, ahead_dy, rounded(x, next_mean),
                next_found
            )
            finish_dots(ahead, ahead_dy, run_weight, n, next_mean, next_found)
        else:
            apply_slope(row, upstream, target, run_weight, n, c, in_range, w.y.streamed)
            if o + 1 < last:
                line_dots(ahead, ahead_dy, run_weight, n, next_mean, has_range(x, next_rstd), next_found)
        if r + 1 == count:
            if w.per_position and w.sums:
                position_sums(
                    at(x, first * w.x.outer_stride), w.x.outer_stride, at(dy, first * w.dy.outer_stride),
                    w.dy.outer_stride, count, n, mean, rstd, w.products + first // w.rows * n,
                    w.sums + first // w.rows * n
                )
            first = o + 1
