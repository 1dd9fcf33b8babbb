# The result of a row beside the sums of another, in one loop: while one waits for memory, the other computes.
# Operation for operation what they are one after the other.

cdef enum:
    ROWS_BESIDE = 2         # whose results are written beside the sums of as many, so that divisions overlap
    PAIRED = 32             # bundles: longer rows and their results leave L1, which costs more than is saved in cache

cdef extern from "rows/row_pairs.h" nogil:
    void lanes32_step_of_pair(
        const lanes32* x, lanes32* y, const lanes32* weight, const lanes32* bias, int weights, lanes32 centre,
        lanes32 scale, lanes32 scale_rest, lanes32 shift, bint streamed, const lanes32* ahead, lanes32 middle,
        bint variance, lanes32* sums, lanes32* squares
    )
    void lanes64_step_of_pair(
        const lanes64* x, lanes64* y, const lanes64* weight, const lanes64* bias, int weights, lanes64 centre,
        lanes64 scale, lanes64 scale_rest, lanes64 shift, bint streamed, const lanes64* ahead, lanes64 middle,
        bint variance, lanes64* sums, lanes64* squares
    )


cdef inline void result_beside_sums(
    const lanes* x, lanes* y, Py_ssize_t n, Coefficients c, const lanes* weight, const lanes* bias, int weights,
    bint streamed, const lanes* ahead, Measure measure, double shift, double* sums
) noexcept nogil:
    """The result of a row x (`weights` 2: with weight and bias, 1: a weight, 0: neither), and the sums of `ahead`."""
    cdef Py_ssize_t i, j, step = lane_count(x), whole = n - n % step, group = RUN * step, rest = n - whole
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes scale_rest = splat(x, c.scale_rest), addend = splat(x, c.shift), middle = splat(x, shift)
    cdef lanes v, d, e, q, sum_e = splat(x, 0.0), sum_q = splat(x, 0.0), b = splat(x, 0.0)
    for i from 0 <= i < whole by group:
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by step:
            prefetch(ahead, j + READ_AHEAD * step)
            if not streamed:
                prefetch(y, j + WRITE_AHEAD * step)
            if lanes is lanes32:
                lanes32_step_of_pair(
                    at(x, j), at(y, j), at(weight, j), at(bias, j), weights, centre, scale, scale_rest, addend,
                    streamed, at(ahead, j), middle, measure == VARIANCE, &e, &q
                )
            else:
                lanes64_step_of_pair(
                    at(x, j), at(y, j), at(weight, j), at(bias, j), weights, centre, scale, scale_rest, addend,
                    streamed, at(ahead, j), middle, measure == VARIANCE, &e, &q
                )
        sum_e, sum_q = add(sum_e, e), add(sum_q, q)
    if rest:
        d = subtract(load_partial(ahead, whole, rest, shift), middle)
        if measure == VARIANCE:
            sum_e = add(sum_e, d)
        sum_q = fused(d, d, sum_q)
        v = apply(load_partial(x, whole, rest, 0.0), centre, scale, scale_rest, addend)
        if weights > 1:
            b = load_partial(bias, whole, rest, 0.0)
        if weights:
            v = fused(v, load_partial(weight, whole, rest, 0.0), b)
        store_partial(y, whole, rest, v)
    sums[0], sums[1] = total(sum_e), total(sum_q)


cdef inline void result_beside_sums_of(
    const lanes* x, lanes* y, Py_ssize_t n, const Coefficients* c, const lanes* weight, const lanes* bias,
    bint streamed, const lanes* ahead, Measure measure, double shift, double* sums
) noexcept nogil:
    """Once for each form of weights, NULL if they are missing, and of stores, so that the loop need not ask."""
    if weight and bias and not streamed:
        result_beside_sums(x, y, n, c[0], weight, bias, 2, False, ahead, measure, shift, sums)
    elif weight and not streamed:
        result_beside_sums(x, y, n, c[0], weight, x, 1, False, ahead, measure, shift, sums)
    elif not streamed:
        result_beside_sums(x, y, n, c[0], x, x, 0, False, ahead, measure, shift, sums)
    elif weight and bias:
        result_beside_sums(x, y, n, c[0], weight, bias, 2, True, ahead, measure, shift, sums)
    elif weight:
        result_beside_sums(x, y, n, c[0], weight, x, 1, True, ahead, measure, shift, sums)
    else:
        result_beside_sums(x, y, n, c[0], x, x, 0, True, ahead, measure, shift, sums)


cdef void result_beside_next(
    const lanes* x, lanes* y, Py_ssize_t n, const Coefficients* c, const lanes* weight, const lanes* bias,
    bint streamed, const lanes* ahead, Measure measure, double shift, double* sums
) noexcept nogil:
    """And once for the variance and for squares, the measures that are paired."""
    if measure == VARIANCE:
        result_beside_sums_of(x, y, n, c, weight, bias, streamed, ahead, VARIANCE, shift, sums)
    else:
        result_beside_sums_of(x, y, n, c, weight, bias, streamed, ahead, SQUARES, shift, sums)


cdef inline bint are_paired(const lanes* y, Py_ssize_t n, View u, Py_ssize_t segments, Measure measure) noexcept nogil:
    """Whether one loop can do both, rows being a single block and a single run, and is the faster way."""
    if n > BLOCK or segments > 1 or measure == MAGNITUDES:
        return False
    return aligned_rows(y, u.outer_stride) if u.streamed else n <= PAIRED * lane_count(y)


cdef inline const lanes* summed_row(
    const lanes* x, const Work* w, const Fusion* fusion, lanes* near, Py_ssize_t row
) noexcept nogil:
    """A row of x, a sum if there is a residual; in `near`, if that is given, for sums that are large."""
    cdef Py_ssize_t n = w.x.n
    if near:
        sum_apart(x, w, near, row * n, n)
        return near
    if fusion:
        before_part(x, fusion, row * n, n)
    return at(x, row * w.x.outer_stride)


cdef void normalize_row_pairs(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`normalize_rows` of paired rows: the results of two beside the sums of the next two, whose divisions overlap.

    What is fused is made in rows of their own if arrays are large: sums, and results that have an activation to go
    through, then need not be read before they are written past the caches. Nobody reads a result that becomes int8.
    """
    cdef Py_ssize_t o, k, row, n = w.x.n, p = 0 if w.per_position else start % w.parameters, together = ROWS_BESIDE
    cdef Py_ssize_t here, ahead
    cdef double scale, shift, rstd
    cdef double head[ROWS_BESIDE]
    cdef double sums[2 * ROWS_BESIDE]
    cdef Moments line[ROWS_BESIDE]
    cdef Exact e[ROWS_BESIDE]
    cdef Coefficients c[ROWS_BESIDE]
    cdef const lanes* y = <const lanes*> w.y.data
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const Fusion* fusion = steps_of(w)
    cdef const lanes* rows[2 * ROWS_BESIDE]     # of x, those on the way
    cdef lanes near_x[2 * ROWS_BESIDE * PAIRED]
    cdef lanes near_y[PAIRED]
    cdef lanes* target
    cdef bint near = fusion and n <= PAIRED * lane_count(x)
    cdef bint large = near and w.large and aligned_rows(y, w.y.outer_stride)
    cdef bint sums_near = large and fusion.residual and (w.x.data == w.y.data or aligned_rows(x, w.x.outer_stride))
    cdef bint results_near = near and (fusion.quantized or (large and fusion.activate))
    cdef bint streamed = w.y.streamed or (large and not results_near and (sums_near or not fusion.residual))
    for o from start - together <= o < stop by together:
        for k in range(together):  # the result of row o + k, and the sums of one that is as many further
            row = o + k
            here = (row - start + 2 * together) % (2 * together)
            ahead = (here + together) % (2 * together)
            target = &near_y[0] if results_near else at(y, max(row, start) * w.y.outer_stride)
            if row + together < stop:
                rows[ahead] = summed_row(
                    x, w, fusion, &near_x[ahead * PAIRED] if sums_near else NULL, row + together
                )
                head[k] = head_mean(rows[ahead], n, w.rule.measure, False, 1.0)
            if start <= row < stop - together and not e[k].wide:
                result_beside_next(
                    rows[here], target, n, &c[k], weight if w.per_position else NULL, bias, streamed, rows[ahead],
                    w.rule.measure, head[k], &sums[2 * k]
                )
            else:
                if start <= row < stop and w.per_position:
                    apply_positions(rows[here], target, n, &e[k], weight, bias, streamed)
                elif start <= row < stop:
                    apply_scalar(rows[here], target, n, &e[k], streamed)
                if row + together < stop:
                    sums_of(rows[ahead], n, w.rule.measure, head[k], &sums[2 * k])
            if start <= row < stop and results_near:
                after_near(target, at(y, row * w.y.outer_stride), fusion, row, n)
            elif start <= row < stop and fusion:
                after_lines(y, fusion, row, 1, n)
        for k in range(min(together, stop - together - o)):
            row = o + together + k
            line[k].count = 0.0
            ahead = (row - start) % (2 * together)
            absorb_sums(&line[k], rows[ahead], n, w.rule.measure, head[k], &sums[2 * k])
            rstd = inverse(&w.rule, line[k].m2)
            scale, shift = (rstd, 0.0) if w.per_position else (rstd * element(weight, p), element(bias, p))
            p = following(p, w.parameters)
            e[k] = Exact(line[k].hi, line[k].lo, scale, shift, is_wide(x, rstd, scale))
            c[k] = coefficients(x, e[k].hi, e[k].lo, scale, shift)
            if w.mean:
                w.mean[row], w.m2[row] = line[k].hi + line[k].lo, line[k].m2
