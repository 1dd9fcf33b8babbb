# Backward passes of short rows, made as short_rows.pxi makes their forward passes: several in flight, stage by stage.
# Bit for bit what gradients.pxi makes of the same rows one by one.

cdef enum:
    SHORT_GRADIENT = 4          # bundles: with longer rows, x, dy and dx of those in flight leave L1


cdef struct GradientFlight:
    # What is known of the rows in flight.
    double mean[ROWS]
    double rstd[ROWS]
    double sums[ROWS]           # of g
    double products[ROWS]       # of g * (x - mean), then of g * xhat
    Slope slopes[ROWS]
    bint ordinary[ROWS]         # within the range of the storage type


cdef inline void held_dots(
    const lanes* x, Py_ssize_t x_stride, const lanes* dy, Py_ssize_t dy_stride, const lanes* weight, bint weighted,
    Py_ssize_t count, Py_ssize_t n, const double* mean, double* products, double* sums
) noexcept nogil:
    """`line_dots` of ROWS lines at the most; the folding of one hides behind the reading of the next."""
    cdef double held_s[ROWS * 8]    # vectors of 64 bytes whose lanes are still to be added
    cdef double held_p[ROWS * 8]
    cdef double folded_s[ROWS]
    cdef double folded_p[ROWS]
    cdef double found[2]
    cdef Py_ssize_t k
    cdef lanes s, p
    if count < ROWS:
        # What is not held is folded too: by chance that could be subnormals, which are slow.
        memset(held_s, 0, sizeof(held_s))
        memset(held_p, 0, sizeof(held_p))
    for k in range(count):
        lane_dots(
            <const lanes*> at(x, k * x_stride), <const lanes*> at(dy, k * dy_stride), weight, weighted, n,
            rounded(x, mean[k]), &s, &p
        )
        hold(<lanes*> held_s, k, s)
        hold(<lanes*> held_p, k, p)
    totals(<const lanes*> held_s, count, folded_s)
    totals(<const lanes*> held_p, count, folded_p)
    for k in range(count):
        sums[k] = 0.0 + folded_s[k]
        products[k] = 0.0 + folded_p[k] - (mean[k] - rounded(x, mean[k])) * sums[k]
    for k in range(count):
        if not is_finite(sums[k]) or not is_finite(products[k]):
            wide_dots(
                <const lanes*> at(x, k * x_stride), <const lanes*> at(dy, k * dy_stride), weight if weighted else NULL,
                n, mean[k], found
            )
            sums[k], products[k] = found[0], found[1]


cdef void dots_short_rows(
    const lanes* x, const lanes* dy, View v, View w, const double* mean, Py_ssize_t lines, double* products,
    double* sums, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """`dots_rows` of the lines `start` to `stop`, each of a single chunk."""
    cdef Py_ssize_t o = start, count
    while o < stop:
        count = min(ROWS, min(stop - o, lines - o % lines))
        held_dots(
            <const lanes*> at(x, o * v.outer_stride), v.outer_stride, <const lanes*> at(dy, o * w.outer_stride),
            w.outer_stride, x, False, count, v.n, mean + o % lines, products + o, sums + o
        )
        o += count


cdef inline void flight_statistics(
    const lanes* x, View v, const Rule* rule, const double* mean, const double* rstd, Py_ssize_t first,
    Py_ssize_t count, GradientFlight* f
) noexcept nogil:
    """The statistics of the rows in flight, number `first` and on, given or made."""
    cdef Py_ssize_t k
    cdef double lo[ROWS]
    cdef double m2[ROWS]
    if rstd:
        for k in range(count):
            f.mean[k], f.rstd[k] = mean[first + k] if mean else 0.0, rstd[first + k]
    else:
        moments_short_rows(x, v, rule.measure, f.mean, lo, m2, 0, count)
        for k in range(count):
            f.mean[k] += lo[k]
        inverses(rule, m2, f.rstd, count)


cdef inline void flight_slopes(
    const lanes* x, const lanes* dy, View v, View w, const lanes* weight, Py_ssize_t parameters, bint per_position,
    const Rule* rule, Py_ssize_t first, Py_ssize_t count, GradientFlight* f
) noexcept nogil:
    """The sums of the rows in flight, and what their gradients are made of; a row's own weight goes into its scale."""
    cdef Py_ssize_t k
    cdef double found[2]
    cdef double factor = 1.0, slope, shift
    if per_position and weight:
        held_dots(x, v.outer_stride, dy, w.outer_stride, weight, True, count, v.n, f.mean, f.products, f.sums)
    else:
        held_dots(x, v.outer_stride, dy, w.outer_stride, x, False, count, v.n, f.mean, f.products, f.sums)
    for k in range(count):
        f.ordinary[k] = has_range(x, f.rstd[k], f.rstd[k])
        if not f.ordinary[k]:
            wide_dots(
                <const lanes*> at(x, k * v.outer_stride), <const lanes*> at(dy, k * w.outer_stride),
                weight if per_position else NULL, v.n, f.mean[k], found
            )
            f.sums[k], f.products[k] = found[0], found[1]
        f.products[k] = f.products[k] * f.rstd[k]
        if per_position:
            line_terms(rule, f.sums[k], f.products[k], v.n, f.rstd[k], &slope, &shift)
        else:
            factor = element(weight, (first + k) % parameters)
            f.ordinary[k] = has_range(x, f.rstd[k], f.rstd[k] * factor)
            line_terms(
                rule, 0.0 + factor * f.sums[k], 0.0 + factor * f.products[k], v.n, f.rstd[k], &slope, &shift
            )
        f.slopes[k] = slope_of(x, f.mean[k], f.rstd[k] * factor, slope, shift, f.ordinary[k])


cdef void normalize_grad_short_rows(
    const lanes* x, const lanes* dy, lanes* dx, View v, View w, View u, const lanes* weight, Py_ssize_t parameters,
    bint per_position, const Rule* rule, const double* mean, const double* rstd, double* products, double* sums,
    Py_ssize_t rows, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """As normalize_grad_rows with one segment."""
    cdef Py_ssize_t o = start * rows, last = min(stop * rows, v.outer), k, unit, count
    cdef const lanes* source
    cdef const lanes* upstream
    cdef lanes* target
    cdef GradientFlight f
    while o < last:
        unit, count = o // rows, min(ROWS, last - o)
        source, upstream = <const lanes*> at(x, o * v.outer_stride), <const lanes*> at(dy, o * w.outer_stride)
        target = at(dx, o * u.outer_stride)
        if per_position and sums:
            count = min(count, (unit + 1) * rows - o)
        flight_statistics(source, v, rule, mean, rstd, o, count, &f)
        flight_slopes(source, upstream, v, w, weight, parameters, per_position, rule, o, count, &f)
        for k in range(count):
            apply_slope(
                <const lanes*> at(source, k * v.outer_stride), <const lanes*> at(upstream, k * w.outer_stride),
                at(target, k * u.outer_stride), weight if per_position else NULL, v.n, f.slopes[k], f.ordinary[k],
                u.streamed
            )
            if sums and not per_position:
                sums[o + k], products[o + k] = f.sums[k], f.products[k]
        if per_position and sums:
            position_sums(
                source, v.outer_stride, upstream, w.outer_stride, count, v.n, f.mean, f.rstd, products + unit * v.n,
                sums + unit * v.n
            )
        o += count
