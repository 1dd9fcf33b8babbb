# The row form: a line is contiguous, its statistics are folded over the lanes of a bundle.
#
# A line is cut into chunks of CHUNK elements, these into blocks of BLOCK; both are part of the definition of the
# result, not of the tuning. Threads take whole chunks, so no bit of a result depends on how many there are.

cdef enum:
    RUN = 8                 # bundles: the longest chain of additions; a block's runs are added in a second chain
    BLOCK = 4096            # elements: the longest part that is summed in the storage type; fits in L1
    CHUNK = 16 * BLOCK      # elements: the unit that a thread takes of a long line
    OVERLAPPED = 64         # bundles: x and y of two rows of that length stay in L1
    OVERLAPPING = 4         # bundles: in shorter runs the stores of the rest take as long as another bundle
    RESIDENT = 131072       # elements: x and y of so many are in L2; from farther away rows had better come one by one
    LONG = 64               # bundles: with shorter runs, streaming what begins in the midst of a part costs more

cdef inline void deviation_sums(
    const lanes* x, Py_ssize_t n, Measure measure, double shift, bint rescaled, double before, double after,
    double* sum, double* squares
) noexcept nogil:
    """The sum of d (for the variance), and of d * d or |d|, for d = x - shift."""
    cdef Py_ssize_t i, j, step = lane_count(x), whole = n - n % step, group = RUN * step
    cdef lanes lanes_before = splat(x, before), lanes_after = splat(x, after)
    cdef lanes centre = splat(x, shift * before)
    cdef lanes e, q, d, sum_e = splat(x, 0.0), sum_q = splat(x, 0.0)
    for i from 0 <= i < whole by group:
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by step:
            prefetch(x, j + READ_AHEAD * step)
            d = deviation(load(x, j), centre, lanes_before, lanes_after, rescaled)
            if measure == VARIANCE:
                e = add(e, d)
            if measure == MAGNITUDES:
                q = add(q, magnitude(d))
            else:
                q = fused(d, d, q)
        sum_e, sum_q = add(sum_e, e), add(sum_q, q)
    if whole < n:
        # Lanes without an element hold the shift: their deviation is 0 and changes no sum.
        d = deviation(load_partial(x, whole, n - whole, shift), centre, lanes_before, lanes_after, rescaled)
        if measure == VARIANCE:
            sum_e = add(sum_e, d)
        if measure == MAGNITUDES:
            sum_q = add(sum_q, magnitude(d))
        else:
            sum_q = fused(d, d, sum_q)
    sum[0] = total(sum_e) / (before * after)
    squares[0] = unscaled(total(sum_q), measure, before * after)


cdef inline double head_mean(
    const lanes* x, Py_ssize_t n, Measure measure, bint rescaled, double before
) noexcept nogil:
    """The mean of the first two bundles, in the storage type; 0 where no mean is wanted."""
    cdef double sum_of_head
    if measure != VARIANCE:
        return 0.0
    sum_of_head = total(head(x, n, rescaled, before))
    if n >= 2 * lane_count(x):  # a power of two: a product has the same bits, sooner
        return rounded(x, sum_of_head * (0.5 / lane_count(x))) / before
    return rounded(x, sum_of_head / n) / before


cdef inline lanes head(const lanes* x, Py_ssize_t n, bint rescaled, double before) noexcept nogil:
    """The sum of the first two bundles, each element times `before` if rescaled."""
    cdef Py_ssize_t step = lane_count(x), first = min(n, 2 * step)
    cdef lanes a, b
    if first < 2 * step:
        a, b = load_partial(x, 0, first, 0.0), load_partial(x, step, first - step, 0.0)
    else:
        a, b = load(x, 0), load(x, step)
    if rescaled:
        a, b = multiply(a, splat(x, before)), multiply(b, splat(x, before))
    return add(a, b)


cdef inline void sums_of(const lanes* x, Py_ssize_t n, Measure measure, double shift, double* sums) noexcept nogil:
    """The sums of an ordinary block: once for each measure, so that the loop need not ask."""
    if measure == VARIANCE:
        deviation_sums(x, n, VARIANCE, shift, False, 1.0, 1.0, &sums[0], &sums[1])
    elif measure == SQUARES:
        deviation_sums(x, n, SQUARES, shift, False, 1.0, 1.0, &sums[0], &sums[1])
    else:
        deviation_sums(x, n, MAGNITUDES, shift, False, 1.0, 1.0, &sums[0], &sums[1])


cdef double corrected(
    const lanes* x, Py_ssize_t n, double shift, bint rescaled, double before, double after, double* sums
) noexcept nogil:
    """The sums again about the mean of the block, from which the shift was far; return the shift that was taken."""
    shift = rounded(x, shift + sums[0] / n)
    deviation_sums(x, n, VARIANCE, shift, rescaled, before, after, &sums[0], &sums[1])
    return shift


cdef double rescaled_sums(const lanes* x, Py_ssize_t n, Measure measure, double shift, double* sums) noexcept nogil:
    """The sums again in a range where squares neither overflow nor lose digits; return the shift that was taken."""
    cdef double before = 1.0, after = 1.0
    if sums[1] < SMALLEST_SQUARES:
        after = RESCALE
    else:
        before = 1.0 / RESCALE
        shift = head_mean(x, n, measure, True, before)
    deviation_sums(x, n, measure, shift, True, before, after, &sums[0], &sums[1])
    if measure == VARIANCE and is_far(sums[0], sums[1], n):
        shift = corrected(x, n, shift, True, before, after, sums)
    return shift


cdef inline void absorb_block(Moments* line, const lanes* x, Py_ssize_t n, Measure measure) noexcept nogil:
    """The moments of a block join those of the line."""
    cdef double sums[2]
    cdef double shift = head_mean(x, n, measure, False, 1.0)
    sums_of(x, n, measure, shift, sums)
    absorb_sums(line, x, n, measure, shift, sums)


cdef inline void absorb_sums(
    Moments* line, const lanes* x, Py_ssize_t n, Measure measure, double shift, double* sums
) noexcept nogil:
    """The same, given the sums of deviations from the mean of the first two bundles.

    From there, one pass over the block is enough. Where that proves to be further than half a standard deviation from
    the mean of the block (a trend, an outlier in front), the pass is repeated about the mean: the corrected two-pass
    algorithm.
    """
    if measure == VARIANCE and is_far(sums[0], sums[1], n):
        shift = corrected(x, n, shift, False, 1.0, 1.0, sums)
    if out_of_range(x, sums[1], measure):
        shift = rescaled_sums(x, n, measure, shift, sums)
    if measure == VARIANCE:
        absorb(line, n, shift, sums[0] / n, sums[1] - sums[0] * (sums[0] / n))
    else:
        absorb(line, n, 0.0, 0.0, sums[1])


cdef inline Moments chunk_moments(const lanes* x, Py_ssize_t n, Measure measure) noexcept nogil:
    cdef Moments chunk = Moments(0.0, 0.0, 0.0, 0.0)
    cdef Py_ssize_t i
    for i from 0 <= i < n by BLOCK:
        absorb_block(&chunk, at(x, i), min(n - i, BLOCK), measure)
    return chunk


cdef inline Moments line_moments(const lanes* x, Py_ssize_t n, Measure measure) noexcept nogil:
    cdef Moments line = Moments(0.0, 0.0, 0.0, 0.0)
    cdef Moments chunk
    cdef Py_ssize_t i
    for i from 0 <= i < n by CHUNK:
        chunk = chunk_moments(at(x, i), min(n - i, CHUNK), measure)
        absorb(&line, chunk.count, chunk.hi, chunk.lo, chunk.m2)
    return line


cdef inline void apply_scalar(const lanes* x, lanes* y, Py_ssize_t n, const Exact* e, bint streamed) noexcept nogil:
    """y = (x - centre) * scale + shift with one scale and one shift for the whole run."""
    cdef Py_ssize_t i
    if e.wide:
        for i in range(n):
            set_element(y, i, applied(x, element(x, i), e))
    else:
        apply_scalar_within(x, y, n, coefficients(x, e.hi, e.lo, e.scale, e.shift), streamed)


cdef inline bint streams(const lanes* y, Py_ssize_t n, bint streamed) noexcept nogil:
    """Whether a run is written past the caches: if it is short, both of its ends must not be in the midst of a part."""
    return streamed and (n >= LONG * lane_count(y) or (n >= lane_count(y) and before_aligned(y) == 0))


cdef inline void apply_scalar_within(
    const lanes* x, lanes* y, Py_ssize_t n, Coefficients c, bint streamed
) noexcept nogil:
    """The same in the storage type."""
    cdef Py_ssize_t before, step = lane_count(x)
    if n % (step // 8) != 0 and step < n < OVERLAPPING * step and not streamed:
        apply_overlapping(x, y, n, c)
    elif streams(y, n, streamed):
        before = before_aligned(y)
        apply_one(x, y, before, c, False)
        apply_one(at(x, before), at(y, before), n - before, c, True)
    else:
        apply_one(x, y, n, c, False)


cdef inline void apply_overlapping(const lanes* x, lanes* y, Py_ssize_t n, Coefficients c) noexcept nogil:
    """A few bundles, and a rest that would take several stores: the last bundle begins where it ends with the run.

    Some elements are made twice. The last ones are read before anything is written, since y may be x.
    """
    cdef Py_ssize_t i, step = lane_count(x)
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes scale_rest = splat(x, c.scale_rest), shift = splat(x, c.shift)
    cdef lanes last = apply(load(x, n - step), centre, scale, scale_rest, shift)
    for i from 0 <= i < n - step by step:
        store(y, i, apply(load(x, i), centre, scale, scale_rest, shift))
    store(y, n - step, last)


cdef inline void apply_one(const lanes* x, lanes* y, Py_ssize_t n, Coefficients c, bint streamed) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(x), whole = n - n % step
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes scale_rest = splat(x, c.scale_rest), shift = splat(x, c.shift), v
    for i from 0 <= i < whole by step:
        put(y, i, apply(load(x, i), centre, scale, scale_rest, shift), streamed)
    if whole < n:
        v = load_partial(x, whole, n - whole, 0.0)
        store_partial(y, whole, n - whole, apply(v, centre, scale, scale_rest, shift))


cdef inline void apply_positions(
    const lanes* x, lanes* y, Py_ssize_t n, const Exact* e, const lanes* weight, const lanes* bias, bint streamed
) noexcept nogil:
    """y = (x - centre) * scale * weight + bias with a weight and a bias (NULL: 0) for each position of the run."""
    cdef Py_ssize_t i
    if e.wide:
        for i in range(n):
            set_element(y, i, applied(x, element(x, i), e) * element(weight, i) + (element(bias, i) if bias else 0.0))
    else:
        apply_positions_within(x, y, n, coefficients(x, e.hi, e.lo, e.scale, e.shift), weight, bias, streamed)


cdef inline void apply_positions_within(
    const lanes* x, lanes* y, Py_ssize_t n, Coefficients c, const lanes* weight, const lanes* bias, bint streamed
) noexcept nogil:
    """The same in the storage type."""
    cdef Py_ssize_t before
    if streams(y, n, streamed):
        before = before_aligned(y)
        apply_both(x, y, before, c, weight, bias, bias != NULL, False)
        if bias:
            bias = at(bias, before)
        apply_both(at(x, before), at(y, before), n - before, c, at(weight, before), bias, bias != NULL, True)
    elif bias:
        apply_both(x, y, n, c, weight, bias, True, False)
    else:
        apply_both(x, y, n, c, weight, bias, False, False)


cdef inline void apply_both(
    const lanes* x, lanes* y, Py_ssize_t n, Coefficients c, const lanes* weight, const lanes* bias, bint with_bias,
    bint streamed
) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(x), whole = n - n % step, rest = n - whole
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes scale_rest = splat(x, c.scale_rest), shift = splat(x, c.shift), v
    cdef lanes b = splat(x, 0.0)
    for i from 0 <= i < whole by step:
        v = apply(load(x, i), centre, scale, scale_rest, shift)
        put(y, i, fused(v, load(weight, i), load(bias, i) if with_bias else b), streamed)
    if rest:
        v = apply(load_partial(x, whole, rest, 0.0), centre, scale, scale_rest, shift)
        if with_bias:
            b = load_partial(bias, whole, rest, 0.0)
        store_partial(y, whole, rest, fused(v, load_partial(weight, whole, rest, 0.0), b))


cdef void moments_rows(
    const lanes* x, View v, Measure measure, double* hi, double* lo, double* m2, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The moments of the chunks `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t i, k, chunks = parts(v.n, CHUNK)
    cdef Place place = place_of(start, chunks, 1)
    cdef Moments chunk
    for k in range(start, stop):
        i = place.piece * CHUNK
        chunk = chunk_moments(at(x, place.line * v.outer_stride + i), min(v.n - i, CHUNK), measure)
        hi[k], lo[k], m2[k] = chunk.hi, chunk.lo, chunk.m2
        advance(&place, chunks, 1)


include "rows/row_pairs.pxi"


cdef inline void finish_row(
    const lanes* x, const Work* w, Py_ssize_t row, const Moments* line, double rstd
) noexcept nogil:
    """The result of a row from its moments, which are written where they are wanted."""
    cdef const lanes* source = at(x, row * w.x.outer_stride)
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef lanes* target = at(<const lanes*> w.y.data, row * w.y.outer_stride)
    cdef Py_ssize_t j, p, length
    cdef Exact e = Exact(line.hi, line.lo, rstd, 0.0, is_wide(x, rstd, rstd))
    if w.per_position:
        apply_positions(source, target, w.x.n, &e, weight, bias, w.y.streamed)
    else:
        p, length = row * w.segments % w.parameters, w.x.n // w.segments
        for j in range(w.segments):
            e.scale, e.shift = rstd * element(weight, p), element(bias, p)
            e.wide = is_wide(x, rstd, e.scale)
            apply_scalar(at(source, j * length), at(target, j * length), length, &e, w.y.streamed)
            p = following(p, w.parameters)
    if w.mean:
        w.mean[row], w.m2[row] = line.hi + line.lo, line.m2


cdef void normalize_row(const lanes* x, const Work* w, Py_ssize_t row) noexcept nogil:
    """Statistics and result of a single row, without what is fused; not inline, since short rows seldom need it."""
    cdef Moments line = line_moments(at(x, row * w.x.outer_stride), w.x.n, w.rule.measure)
    finish_row(x, w, row, &line, inverse(&w.rule, line.m2))


cdef void normalize_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Statistics and result of the lines `start` to `stop`, each while it is in cache, with what is fused."""
    cdef Py_ssize_t o, n = w.x.n
    cdef bint lag = n <= OVERLAPPED * lane_count(x) and (stop - start) * n <= RESIDENT
    cdef const lanes* y = <const lanes*> w.y.data
    cdef const Fusion* fusion = steps_of(w)
    cdef double rstd, next_rstd = 0.0
    cdef Moments line, next_line = Moments(0.0, 0.0, 0.0, 0.0)
    if are_paired(y, n, w.y, w.segments, w.rule.measure):
        normalize_row_pairs(x, w, start, stop)
        return
    for o in range(start, stop + lag):
        # A short row's result waits for divisions and a root: the next row's sums are made meanwhile.
        line, rstd = next_line, next_rstd
        if o < stop:
            if fusion:
                before_part(x, fusion, o * n, n)
            next_line = line_moments(at(x, o * w.x.outer_stride), n, w.rule.measure)
            next_rstd = inverse(&w.rule, next_line.m2)
        if not lag:
            line, rstd = next_line, next_rstd
        if o - lag >= start:
            finish_row(x, w, o - lag, &line, rstd)
            if fusion:
                after_lines(y, fusion, o - lag, 1, n)


cdef void affine_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """y = (x - centre) * scale + shift for the pieces `start` to `stop`, counted over (outer, chunks).

    With weight and bias, which go with the position: times it, plus that, and no shift.
    """
    cdef Py_ssize_t i, k, p, length, pieces = parts(w.x.n, CHUNK)
    cdef Place place = place_of(start, pieces, w.lines)
    cdef Exact e
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const lanes* source
    cdef lanes* target
    for k in range(start, stop):
        i, p = place.piece * CHUNK, place.number
        length = min(w.x.n - i, CHUNK)
        source = at(x, place.line * w.x.outer_stride + i)
        target = at(<const lanes*> w.y.data, place.line * w.y.outer_stride + i)
        e = Exact(w.coefficients[0][p], w.coefficients[1][p], w.coefficients[2][p], 0.0, False)
        if weight:
            apply_positions(source, target, length, &e, at(weight, i), at(bias, i) if bias else NULL, w.y.streamed)
        else:
            e.shift = w.coefficients[3][p]
            apply_scalar(source, target, length, &e, w.y.streamed)
        advance(&place, pieces, w.lines)


cdef void extrema_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The least and the largest element of the chunks `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t i, j, k, length, rest, step = lane_count(x), chunks = parts(w.x.n, CHUNK)
    cdef Place place = place_of(start, chunks, 1)
    cdef const lanes* source
    cdef lanes low, high, values
    for k in range(start, stop):
        i = place.piece * CHUNK
        source = at(x, place.line * w.x.outer_stride + i)
        length = min(w.x.n - i, CHUNK)
        rest = length % step
        low = splat(x, element(source, 0))
        high = low
        for j from 0 <= j < length - rest by step:
            prefetch(source, j + READ_AHEAD * step)
            values = load(source, j)
            low, high = minimum(low, values), maximum(high, values)
        if rest:
            values = load_partial(source, length - rest, rest, element(source, 0))
            low, high = minimum(low, values), maximum(high, values)
        set_element(<lanes*> w.lows, k, least(low))
        set_element(<lanes*> w.highs, k, largest(high))
        advance(&place, chunks, 1)
