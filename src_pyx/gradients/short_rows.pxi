# Backward passes of short rows, made as rows/short_rows.pxi makes their forward passes: several in flight, stage by
# stage. Bit for bit what gradients.pxi makes of the same rows one by one.

cdef enum:
    SHORT_GRADIENT = 4          # bundles: with longer rows, x, dy and dx of those in flight leave L1
    FAR = 1048576               # elements: x of so many, and dy, lie beyond L2


cdef struct GradientFlight:
    # What is known of the rows in flight.
    double mean[ROWS]
    double rstd[ROWS]
    double sums[ROWS]           # of g
    double products[ROWS]       # of g * (x - mean), then of g * xhat
    double factor[ROWS]         # a row's own weight
    double wide_scale[ROWS]     # the coefficients of dx about the mean
    double wide_slope[ROWS]
    double wide_shift[ROWS]
    double centre[ROWS]         # and in the storage type, about its mean
    double scale[ROWS]
    double slope[ROWS]
    double shift[ROWS]


cdef inline void held_dots(
    const lanes* x, Py_ssize_t x_stride, const lanes* dy, Py_ssize_t dy_stride, const lanes* weight, bint weighted,
    Py_ssize_t count, Py_ssize_t n, const double* mean, double* products, double* sums
) noexcept nogil:
    """`line_dots` of up to ROWS lines of one run each; the folding of one hides behind the reading of the next."""
    cdef double held_s[ROWS * 8]    # vectors of 64 bytes whose lanes are still to be added
    cdef double held_p[ROWS * 8]
    cdef double folded_s[ROWS]
    cdef double folded_p[ROWS]
    cdef double found[2]
    cdef Py_ssize_t j, k, strange = 0, step = lane_count(x), whole = n - n % step
    cdef lanes s, p, g, middle
    cdef const lanes* row
    cdef const lanes* upstream
    if count < ROWS:
        # What is not held is folded too: by chance that could be subnormals, which are slow.
        memset(held_s, 0, sizeof(held_s))
        memset(held_p, 0, sizeof(held_p))
    for k in range(count):
        row, upstream = at(x, k * x_stride), at(dy, k * dy_stride)
        middle = splat(x, rounded(x, mean[k]))
        s, p = splat(x, 0.0), splat(x, 0.0)
        for j from 0 <= j < whole by step:
            prefetch(row, j + READ_AHEAD * step)
            prefetch(upstream, j + READ_AHEAD * step)
            g = load(upstream, j)
            if weighted:
                g = multiply(g, load(weight, j))
            s = add(s, g)
            p = fused(g, subtract(load(row, j), middle), p)
        if whole < n:  # lanes without an element hold dy = 0
            g = load_partial(upstream, whole, n - whole, 0.0)
            if weighted:
                g = multiply(g, load_partial(weight, whole, n - whole, 0.0))
            s = add(s, g)
            p = fused(g, subtract(load_partial(row, whole, n - whole, rounded(x, mean[k])), middle), p)
        hold(<lanes*> held_s, k, s)
        hold(<lanes*> held_p, k, p)
    totals(<const lanes*> held_s, count, folded_s)
    totals(<const lanes*> held_p, count, folded_p)
    for k in range(count):
        sums[k] = 0.0 + folded_s[k]
        products[k] = 0.0 + folded_p[k] - (mean[k] - rounded(x, mean[k])) * sums[k]
        strange += not is_finite(sums[k] - products[k])
    for k in range(count if strange else 0):
        if not is_finite(sums[k]) or not is_finite(products[k]):
            wide_dots(at(x, k * x_stride), at(dy, k * dy_stride), weight if weighted else NULL, n, mean[k], found)
            sums[k], products[k] = found[0], found[1]


cdef void dots_short_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`dots_rows` of the lines `start` to `stop`, each of a single chunk."""
    cdef Py_ssize_t o = start, count
    while o < stop:
        count = min(ROWS, min(stop - o, w.lines - o % w.lines))
        held_dots(
            at(x, o * w.x.outer_stride), w.x.outer_stride, at(<const lanes*> w.dy.data, o * w.dy.outer_stride),
            w.dy.outer_stride, x, False, count, w.x.n, w.mean + o % w.lines, w.products + o, w.sums + o
        )
        o += count


cdef inline void read_statistics(
    const double* numbers, Py_ssize_t first, Py_ssize_t count, double* read
) noexcept nogil:
    """Those of the rows in flight, 0 if they are missing; of constant size if there are ROWS, since others are slow."""
    if numbers and count == ROWS:
        memcpy(read, numbers + first, ROWS * sizeof(double))
    elif numbers:
        memcpy(read, numbers + first, count * sizeof(double))
    else:
        memset(read, 0, ROWS * sizeof(double))


cdef inline void flight_statistics(
    const lanes* x, const Work* w, Py_ssize_t first, Py_ssize_t count, GradientFlight* f
) noexcept nogil:
    """The statistics of the rows in flight, number `first` and on, given or made."""
    cdef Py_ssize_t k
    cdef double lo[ROWS]
    cdef double m2[ROWS]
    if w.rstd:
        read_statistics(w.mean, first, count, f.mean)
        read_statistics(w.rstd, first, count, f.rstd)
    else:
        moments_short_rows(at(x, first * w.x.outer_stride), w.x, w.rule.measure, f.mean, lo, m2, 0, count)
        for k in range(count):
            f.mean[k] += lo[k]
        inverses(&w.rule, m2, f.rstd, count)


cdef inline void flight_sums(
    const lanes* x, const lanes* dy, const Work* w, Py_ssize_t count, GradientFlight* f
) noexcept nogil:
    """The sums of the rows in flight, the first of which is at x and dy, weighted where positions have a weight."""
    cdef const lanes* weight = <const lanes*> w.weight if w.per_position else NULL
    cdef Py_ssize_t k, strange = 0
    cdef double found[2]
    if weight:
        held_dots(x, w.x.outer_stride, dy, w.dy.outer_stride, weight, True, count, w.x.n, f.mean, f.products, f.sums)
    else:
        held_dots(x, w.x.outer_stride, dy, w.dy.outer_stride, x, False, count, w.x.n, f.mean, f.products, f.sums)
    for k in range(count):
        strange += not has_range(x, f.rstd[k])
    for k in range(count if strange else 0):
        if not has_range(x, f.rstd[k]):
            wide_dots(at(x, k * w.x.outer_stride), at(dy, k * w.dy.outer_stride), weight, w.x.n, f.mean[k], found)
            f.sums[k], f.products[k] = found[0], found[1]
    for k in range(count):
        f.products[k] = f.products[k] * f.rstd[k]


cdef inline bint flight_slopes(
    const lanes* like, double n, bint per_position, const Rule* rule, Py_ssize_t count, GradientFlight* f
) noexcept nogil:
    """From sums the coefficients of dx, as `line_slope` and `slope_of` do; a row's own weight goes into its scale.

    Return whether the storage type can hold those of every row.
    """
    cdef Py_ssize_t k, strange = 0
    cdef double b, rstd
    for k in range(count):
        rstd = f.rstd[k]
        b = (f.products[k] if per_position else 0.0 + f.factor[k] * f.products[k]) / rule.divisor
        f.wide_slope[k] = -rstd * rstd * b
        f.wide_shift[k] = -rstd * ((f.sums[k] if per_position else 0.0 + f.factor[k] * f.sums[k]) / n)
        f.wide_scale[k] = rstd if per_position else rstd * f.factor[k]
    for k in range(count if rule.floor else 0):
        if f.rstd[k] >= 1.0 / rule.eps:  # divided by eps: a constant
            f.wide_slope[k] = -f.rstd[k] * f.rstd[k] * 0.0
    for k in range(count if rule.measure != VARIANCE else 0):
        f.wide_shift[k] = 0.0
    for k in range(count):
        b = rounded(like, f.mean[k])
        set_element(<lanes*> f.centre, k, b)
        set_element(<lanes*> f.scale, k, f.wide_scale[k])
        set_element(<lanes*> f.slope, k, f.wide_slope[k])
        set_element(<lanes*> f.shift, k, f.wide_shift[k] - f.wide_slope[k] * (f.mean[k] - b))
        strange += not is_sloped(like, f.wide_scale[k], f.wide_slope[k])
    return strange == 0


cdef void normalize_grad_short_rows(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """As normalize_grad_rows with one segment."""
    cdef Py_ssize_t n = w.x.n, o = start * w.rows, last = min(stop * w.rows, w.x.outer), j, k, unit, count
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* run_weight = weight if w.per_position else NULL
    cdef const lanes* source
    cdef const lanes* upstream
    cdef lanes* target
    cdef bint in_range, ordinary, far = w.x.outer * n >= FAR
    cdef Slope c
    cdef GradientFlight f
    while o < last:
        unit, count = o // w.rows, min(ROWS, last - o)
        source, upstream = at(x, o * w.x.outer_stride), at(<const lanes*> w.dy.data, o * w.dy.outer_stride)
        if w.per_position and w.sums:
            count = min(count, (unit + 1) * w.rows - o)
        flight_statistics(x, w, o, count, &f)
        if not w.per_position:
            read_cycle(weight, w.parameters, o, count, f.factor)
        flight_sums(source, upstream, w, count, &f)
        ordinary = flight_slopes(x, n, w.per_position, &w.rule, count, &f)
        for k in range(count):
            for j from 0 <= j < (n if far else 0) by lane_count(x):  # the row that comes in this one's place
                prefetch(source, (count + k) * w.x.outer_stride + j)
                prefetch(upstream, (count + k) * w.dy.outer_stride + j)
            in_range = ordinary or is_sloped(x, f.wide_scale[k], f.wide_slope[k])
            if in_range:
                c = Slope(
                    element(<const lanes*> f.centre, k), element(<const lanes*> f.scale, k),
                    element(<const lanes*> f.slope, k), element(<const lanes*> f.shift, k)
                )
            else:
                c = Slope(f.mean[k], f.wide_scale[k], f.wide_slope[k], f.wide_shift[k])
            target = at(<const lanes*> w.y.data, (o + k) * w.y.outer_stride)
            apply_slope(
                at(source, k * w.x.outer_stride), at(upstream, k * w.dy.outer_stride), target, run_weight, n, c,
                in_range, w.y.streamed
            )
            if w.sums and not w.per_position:
                w.sums[o + k], w.products[o + k] = f.sums[k], f.products[k]
        if w.per_position and w.sums:
            position_sums(
                source, w.x.outer_stride, upstream, w.dy.outer_stride, count, n, f.mean, f.rstd, w.products + unit * n,
                w.sums + unit * n
            )
        o += count
