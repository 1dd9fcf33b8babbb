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
    const lanes* x, View v, const Rule* rule, const double* mean, const double* rstd, Py_ssize_t row, double* centre,
    double* inverse_root
) noexcept nogil:
    """Mean and rstd of a row as they are given, the mean 0 if it is missing, or made."""
    cdef Moments line
    if rstd:
        centre[0], inverse_root[0] = mean[row] if mean else 0.0, rstd[row]
    else:
        line = line_moments(<const lanes*> at(x, row * v.outer_stride), v.n, rule.measure)
        centre[0], inverse_root[0] = line.hi + line.lo, inverse(rule, line.m2)


cdef void normalize_grad_row_pairs(
    const lanes* x, const lanes* dy, lanes* dx, View v, View w, View u, const lanes* weight, Py_ssize_t parameters,
    bint per_position, const Rule* rule, const double* mean, const double* rstd, double* products, double* sums,
    Py_ssize_t rows, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """`normalize_grad_rows` of rows that are paired."""
    cdef Py_ssize_t o, r, p, first = start * rows, last = min(stop * rows, v.outer), together, count
    cdef double centre[TOGETHER]        # of the rows whose sums of positions are made together
    cdef double inverse_root[TOGETHER]
    cdef double found[2]
    cdef double next_found[2]
    cdef double next_centre, next_root, slope, shift, scale, factor
    cdef bint narrow_range
    cdef Slope c
    cdef const lanes* run_weight = weight if per_position else NULL
    cdef const lanes* row
    cdef const lanes* upstream
    cdef const lanes* ahead = <const lanes*> at(x, first * v.outer_stride)
    cdef const lanes* ahead_dy = <const lanes*> at(dy, first * w.outer_stride)
    cdef lanes* target
    together = min(max(1, min(rows, GRADIENT_CACHE // v.n)), TOGETHER)
    p = 0 if per_position else first % parameters
    statistics_of_row(x, v, rule, mean, rstd, first, &next_centre, &next_root)
    line_dots(ahead, ahead_dy, run_weight, v.n, next_centre, has_range(x, next_root), next_found)
    for o in range(first, last):
        r, count = o - first, min(min(together, rows - first % rows), last - first)
        centre[r], inverse_root[r] = next_centre, next_root
        found[0], found[1] = next_found[0], next_found[1] * next_root
        row, upstream, target = ahead, ahead_dy, at(dx, o * u.outer_stride)
        factor = 1.0
        if not per_position:
            factor = element(weight, p)
            p = following(p, parameters)
            if sums:
                sums[o], products[o] = found[0], found[1]
            found[0], found[1] = 0.0 + factor * found[0], 0.0 + factor * found[1]
        line_terms(rule, found[0], found[1], v.n, inverse_root[r], &slope, &shift)
        scale = inverse_root[r] * factor
        narrow_range = is_sloped(x, scale, slope)
        c = slope_of(x, centre[r], scale, slope, shift, narrow_range)
        if o + 1 < last:
            ahead, ahead_dy = <const lanes*> at(row, v.outer_stride), <const lanes*> at(upstream, w.outer_stride)
            statistics_of_row(x, v, rule, mean, rstd, o + 1, &next_centre, &next_root)
        if o + 1 < last and narrow_range and has_range(x, next_root):
            slope_beside_dots_of(
                row, upstream, target, v.n, &c, run_weight, u.streamed, ahead, ahead_dy, rounded(x, next_centre),
                next_found
            )
            finish_dots(ahead, ahead_dy, run_weight, v.n, next_centre, next_found)
        else:
            apply_slope(row, upstream, target, run_weight, v.n, c, narrow_range, u.streamed)
            if o + 1 < last:
                line_dots(
                    ahead, ahead_dy, run_weight, v.n, next_centre, has_range(x, next_root), next_found
                )
        if r + 1 == count:
            if per_position and sums:
                position_sums(
                    <const lanes*> at(x, first * v.outer_stride), v.outer_stride,
                    <const lanes*> at(dy, first * w.outer_stride), w.outer_stride, count, v.n, centre, inverse_root,
                    products + first // rows * v.n, sums + first // rows * v.n
                )
            first = o + 1
