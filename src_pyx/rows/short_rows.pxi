# Rows so short that what is done once a row (sums over the lanes of a bundle, divisions, a root) takes longer than the
# row itself: several are in flight, stage by stage, so that the latency of one hides behind the others and the algebra
# runs in vectors. Bit for bit what rows.pxi makes of the same rows one by one; a row that is not ordinary goes there.

cdef enum:
    ROWS = 16                   # in flight, where they are not transposed
    MOST_ROWS = 32              # where they are: the lanes of a bundle of float32
    SHORT = 8                   # bundles: with longer rows, x and y of those in flight leave L1

cdef struct Flight:
    # The numbers of the rows in flight.
    double held[2][ROWS * 8]    # vectors of 64 bytes whose lanes are still to be added
    double origin[MOST_ROWS]         # of deviations, in the storage type
    double e[MOST_ROWS]              # sum of deviations
    double q[MOST_ROWS]              # sum of their squares, or magnitudes
    double weight[MOST_ROWS]
    double bias[MOST_ROWS]
    double lo[MOST_ROWS]             # the mean is origin + lo
    double m2[MOST_ROWS]
    double rstd[MOST_ROWS]
    double centre[MOST_ROWS]         # the coefficients, in the storage type
    double scale[MOST_ROWS]
    double scale_rest[MOST_ROWS]
    double addend[MOST_ROWS]


include "rows/tiny_rows.pxi"


cdef inline void empty(Flight* f, Py_ssize_t rows) noexcept nogil:
    """No shift, and zeros for rows folded beside the last: what lies there may be subnormal, and slow to add."""
    cdef Py_ssize_t size = min(ROWS, (rows + 3) // 4 * 4) * 8 * sizeof(double)
    memset(f.origin, 0, sizeof(f.origin))
    memset(f.held[0], 0, size)
    memset(f.held[1], 0, size)


cdef inline void stage_sums(
    const lanes* x, View v, Measure measure, Py_ssize_t start, Py_ssize_t count, Flight* f
) noexcept nogil:
    """The sums of the rows in flight, as head_mean and deviation_sums make them of a row that is one run."""
    cdef Py_ssize_t j, k, step = lane_count(x), whole = v.n - v.n % step
    cdef double first = min(v.n, 2 * step)
    cdef lanes* held_e = <lanes*> f.held[0]
    cdef lanes* held_q = <lanes*> f.held[1]
    cdef const lanes* source
    cdef lanes d, e, q, centre
    if measure == VARIANCE:
        for k in range(count):
            hold(held_e, k, head(at(x, (start + k) * v.outer_stride), v.n, False, 1.0))
        totals(held_e, count, f.e)
        for k in range(count):
            set_element(<lanes*> f.origin, k, f.e[k] / first)
    for k in range(count):
        source = at(x, (start + k) * v.outer_stride)
        centre = splat(x, element(<const lanes*> f.origin, k))
        for j from 0 <= j < v.n by step:  # the row that comes in this one's place
            prefetch(x, (start + count + k) * v.outer_stride + j)
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j from 0 <= j < whole by step:
            d = subtract(load(source, j), centre)
            e = add(e, d)
            q = add(q, magnitude(d)) if measure == MAGNITUDES else fused(d, d, q)
        if whole < v.n:
            d = load_partial(source, whole, v.n - whole, element(<const lanes*> f.origin, k))
            d = subtract(d, centre)
            e = add(e, d)
            q = add(q, magnitude(d)) if measure == MAGNITUDES else fused(d, d, q)
        if measure == VARIANCE:
            hold(held_e, k, e)
        hold(held_q, k, q)
    if measure == VARIANCE:
        totals(held_e, count, f.e)
    totals(held_q, count, f.q)


cdef inline bint algebra(
    const lanes* like, Flight* f, Py_ssize_t count, double n, Measure measure, const Rule* rule
) noexcept nogil:
    """From sums to moments, rstd and coefficients, as absorb_block, inverse and coefficients do it.

    Return whether every row is ordinary.
    """
    cdef double denominator, scale, shift, centre, first
    cdef Py_ssize_t k, strange = 0
    for k in range(count):
        f.lo[k] = f.e[k] / n if measure == VARIANCE else 0.0
        f.m2[k] = f.q[k] - f.e[k] * f.lo[k] if measure == VARIANCE else f.q[k]
    if rule.floor:
        for k in range(count):
            denominator = f.m2[k] / rule.divisor
            denominator = denominator if measure == MAGNITUDES else sqrt(denominator)
            f.rstd[k] = rule.eps if denominator < rule.eps else denominator
    else:
        for k in range(count):
            f.rstd[k] = sqrt(f.m2[k] / rule.divisor + rule.eps)
    for k in range(count):
        f.rstd[k] = 1.0 / (f.rstd[k] if f.rstd[k] != 0.0 else 1.0)
        scale = f.rstd[k] * f.weight[k]
        shift = element(<const lanes*> f.origin, k)
        centre, first = rounded(like, shift + f.lo[k]), first_part(like, scale)
        set_element(<lanes*> f.centre, k, centre)
        set_element(<lanes*> f.scale, k, first)
        set_element(<lanes*> f.scale_rest, k, scale - first)
        set_element(<lanes*> f.addend, k, f.bias[k] - ((shift - centre) + f.lo[k]) * scale)
    for k in range(count):
        strange += not is_ordinary(like, f, k, n, measure)
    return strange == 0


cdef inline bint is_near(const lanes* like, const Flight* f, Py_ssize_t k, double n, Measure measure) noexcept nogil:
    """Whether the sums of the row need neither a second pass nor more than the storage type's range."""
    cdef bint near = measure != VARIANCE or not is_far(f.e[k], f.q[k], n)
    cdef bint single = (measure == VARIANCE) & (n == 1.0) & (f.q[k] == 0.0)  # 0 is right there, not an underflow
    return single | (near & (not out_of_range(like, f.q[k], measure)))


cdef inline bint is_ordinary(
    const lanes* like, const Flight* f, Py_ssize_t k, double n, Measure measure
) noexcept nogil:
    """Whether neither the sums nor the result of row k need a second pass or float64; without branches."""
    return is_near(like, f, k, n, measure) & (not is_wide(like, f.rstd[k], f.rstd[k] * f.weight[k]))


cdef inline const lanes* nearby(const lanes* parameter, Py_ssize_t n, lanes* room) noexcept nogil:
    """A copy of weight or bias, NULL of NULL, that begins at a line of cache: a vector in two takes two loads."""
    if parameter:
        memcpy(room, parameter, n * (sizeof(lanes) // lane_count(parameter)))
    return room if parameter else NULL


cdef inline void fly(
    const lanes* x, const Work* w, Measure measure, bint tiny, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    cdef Py_ssize_t o, j, k, count, n = w.x.n, rows = lane_count(x) if tiny else ROWS
    cdef View v = w.x, u = w.y  # copies: for all the compiler knows, what is written may lie in *w
    cdef bint ordinary, per_position = w.per_position
    cdef Coefficients c
    cdef Flight f
    cdef lanes tile[TILE_ROOM]
    cdef lanes room[2 * SHORT]
    cdef const lanes* y = <const lanes*> w.y.data
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const Fusion* fusion = steps_of(w)
    cdef const lanes* source
    cdef lanes* target
    if per_position and not tiny and stop - start >= ROWS:
        weight, bias = nearby(weight, n, room), nearby(bias, n, room + SHORT)
    if tiny:
        memset(&f, 0, sizeof(f))
        memset(tile, 0, n * sizeof(lanes))
    else:
        empty(&f, stop - start)
    for k in range(MOST_ROWS):
        f.weight[k], f.bias[k] = 1.0, 0.0
    for o from start <= o < stop by rows:
        count = min(rows, stop - o)
        if fusion:
            before_part(x, fusion, o * n, count * n)
        if tiny:
            transpose(at(x, o * v.outer_stride), v.outer_stride, count, n, tile, lane_count(x))
            stage_tile(tile, n, measure, &f)
        else:
            stage_sums(x, v, measure, o, count, &f)
        if not per_position:
            read_cycle(weight, w.parameters, o, count, f.weight)
            read_cycle(bias, w.parameters, o, count, f.bias)
        ordinary = algebra(x, &f, count, n, measure, &w.rule)
        if tiny:
            apply_tile(tile, n, weight if per_position else NULL, bias, &f)
        if tiny and ordinary:
            transpose(tile, lane_count(x), n, count, at(y, o * u.outer_stride), u.outer_stride)
        for k in range(0 if tiny and ordinary else count):
            source, target = at(x, (o + k) * v.outer_stride), at(y, (o + k) * u.outer_stride)
            if not ordinary and not is_ordinary(x, &f, k, n, measure):
                normalize_row(x, w, o + k)
                continue
            c = Coefficients(
                element(<const lanes*> f.centre, k), element(<const lanes*> f.scale, k),
                element(<const lanes*> f.scale_rest, k), element(<const lanes*> f.addend, k)
            )
            if tiny:
                for j in range(n):
                    set_element(target, j, element(tile, j * lane_count(x) + k))
            elif per_position:
                apply_positions_within(source, target, n, c, weight, bias, u.streamed)
            else:
                apply_scalar_within(source, target, n, c, u.streamed)
        for k in range(count if w.mean else 0):
            if ordinary or is_ordinary(x, &f, k, n, measure):
                w.mean[o + k], w.m2[o + k] = element(<const lanes*> f.origin, k) + f.lo[k], f.m2[k]
        if fusion:
            after_lines(y, fusion, o, count, n)


cdef void normalize_short_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Statistics and result of the lines `start` to `stop`; as normalize_rows with one segment."""
    # Once for each measure, and for tiles, so that loops need not ask.
    if w.x.n < lane_count(x):
        fly_by_measure(x, w, True, start, stop)
    else:
        fly_by_measure(x, w, False, start, stop)


cdef inline void fly_by_measure(
    const lanes* x, const Work* w, bint tiny, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    if w.rule.measure == VARIANCE:
        fly(x, w, VARIANCE, tiny, start, stop)
    elif w.rule.measure == SQUARES:
        fly(x, w, SQUARES, tiny, start, stop)
    else:
        fly(x, w, MAGNITUDES, tiny, start, stop)


cdef inline void fly_moments(
    const lanes* x, View v, Measure measure, bint tiny, double* hi, double* lo, double* m2, Py_ssize_t start,
    Py_ssize_t stop
) noexcept nogil:
    cdef Py_ssize_t o, k, count, rows = lane_count(x) if tiny else ROWS
    cdef double n = v.n
    cdef Flight f
    cdef lanes tile[TILE_ROOM]
    empty(&f, stop - start)
    if tiny:
        memset(tile, 0, v.n * sizeof(lanes))
    for o from start <= o < stop by rows:
        count = min(rows, stop - o)
        if tiny:
            transpose(at(x, o * v.outer_stride), v.outer_stride, count, v.n, tile, lane_count(x))
            stage_tile(tile, v.n, measure, &f)
        else:
            stage_sums(x, v, measure, o, count, &f)
        if measure == VARIANCE:
            for k in range(count):
                hi[o + k], lo[o + k] = element(<const lanes*> f.origin, k), f.e[k] / n
                m2[o + k] = f.q[k] - f.e[k] * (f.e[k] / n)
        else:
            for k in range(count):
                hi[o + k], lo[o + k], m2[o + k] = 0.0, 0.0, f.q[k]
        for k in range(count):
            if not is_near(x, &f, k, n, measure):
                moments_rows(x, v, measure, hi, lo, m2, o + k, o + k + 1)


cdef void moments_short_rows(
    const lanes* x, View v, Measure measure, double* hi, double* lo, double* m2, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The moments of the lines `start` to `stop`, each of a single chunk; as moments_rows."""
    if v.n < lane_count(x):
        fly_moments_by_measure(x, v, measure, True, hi, lo, m2, start, stop)
    else:
        fly_moments_by_measure(x, v, measure, False, hi, lo, m2, start, stop)


cdef inline void fly_moments_by_measure(
    const lanes* x, View v, Measure measure, bint tiny, double* hi, double* lo, double* m2, Py_ssize_t start,
    Py_ssize_t stop
) noexcept nogil:
    if measure == VARIANCE:
        fly_moments(x, v, VARIANCE, tiny, hi, lo, m2, start, stop)
    elif measure == SQUARES:
        fly_moments(x, v, SQUARES, tiny, hi, lo, m2, start, stop)
    else:
        fly_moments(x, v, MAGNITUDES, tiny, hi, lo, m2, start, stop)
