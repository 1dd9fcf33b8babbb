# Training on (N, C, S): the statistics of a channel are pooled over the items. A unit of work is some adjacent channels
# of all items: few enough for the pass for their result to find them in L2, unless their images are so short that an
# item's channels had better be read together. The steps and their order are those of all channels, pass after pass.

cdef enum:
    CHANNELS_BYTES = 524288     # of a unit: what the second pass finds in L2
    LARGEST_CHANNEL = 1048576   # bytes: a larger one does not stay there, so channels are not taken in units
    SHORT_IMAGE = 2048          # bytes of a row, at the most, whose units are at least
    ADJACENT_BYTES = 65536      # wide in each item, in cache or not: memory asked for beyond them is other units'
    CHANNEL_NUMBERS = 9         # in Channels


cdef inline Channels channels_of(double* numbers, Py_ssize_t channels) noexcept nogil:
    return Channels(
        numbers, numbers + channels, numbers + 2 * channels, numbers + 3 * channels, numbers + 4 * channels,
        numbers + 5 * channels, numbers + 6 * channels, numbers + 7 * channels, numbers + 8 * channels
    )


cdef inline Py_ssize_t channels_together(
    Py_ssize_t row_bytes, Py_ssize_t items, Py_ssize_t arrays, Py_ssize_t channels, int threads
) noexcept nogil:
    """How many channels make a unit of work, as many units to each thread; 0 if one alone would not stay in cache."""
    cdef Py_ssize_t channel_bytes = row_bytes * items * arrays, unit_bytes = CHANNELS_BYTES
    if channel_bytes > LARGEST_CHANNEL:
        return 0
    if row_bytes <= SHORT_IMAGE:
        unit_bytes = max(unit_bytes, items * arrays * ADJACENT_BYTES)
    return parts(channels, threads * parts(channels * channel_bytes, threads * unit_bytes))


cdef inline void pool_channels(
    Work* w, Py_ssize_t items, Py_ssize_t channels, Channels n, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The moments of some channels from those of the chunks of their rows, (item, channel)."""
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), b, c, k, row
    cdef Moments line
    for b in range(items):
        row = b * channels + start
        if chunks == 1:
            absorb_lines(
                w.x.n * b, w.x.n, w.mean + row, w.lo + row, w.m2 + row, n.mean + start, n.lo + start, n.m2 + start,
                stop - start
            )
            continue
        for c in range(start, stop):
            line = Moments(0.0, 0.0, 0.0, 0.0)
            for k in range((b * channels + c) * chunks, (b * channels + c + 1) * chunks):
                absorb(&line, min(w.x.n - k % chunks * CHUNK, CHUNK), w.mean[k], w.lo[k], w.m2[k])
            absorb_lines(w.x.n * b, w.x.n, &line.hi, &line.lo, &line.m2, n.mean + c, n.lo + c, n.m2 + c, 1)


cdef inline bint fold_channels(
    const Rule* rule, bint single, Channels n, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """From moments, weight and bias the coefficients of some channels; return whether the kernels can apply them."""
    cdef Py_ssize_t c, strange = 0
    inverses(rule, n.m2 + start, n.rstd + start, stop - start)
    for c in range(start, stop):
        n.scale[c] = n.rstd[c] * n.scale[c]
        strange += not are_applied(single, n.rstd[c], n.scale[c])
    return strange == 0


cdef inline void join_dots(
    Work* w, Py_ssize_t items, Py_ssize_t channels, Channels n, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The sums of some channels from those of the chunks of their rows, (item, channel), as NumPy adds them."""
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), b, c, k, row
    cdef double s, p
    for b in range(items):
        for c in range(start, stop):
            row = (b * channels + c) * chunks
            s, p = w.sums[row], w.products[row]
            for k in range(row + 1, row + chunks):
                s += w.sums[k]
                p += w.products[k]
            n.sums[c], n.products[c] = (n.sums[c] + s, n.products[c] + p) if b > 0 else (s, p)


cdef inline bint slope_channels(
    bint single, const Rule* rule, Py_ssize_t per_group, Channels n, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """From sums and weights the coefficients of dx, `per_group` channels at a time; products become those of dy * xhat.

    Return whether float32 can hold the coefficients.
    """
    cdef bint fits = True
    cdef double rstd, a, b
    cdef Py_ssize_t first, c
    for first from start <= first < stop by per_group:
        rstd, a, b = n.rstd[first], 0.0, 0.0
        for c in range(first, first + per_group):
            n.products[c] = n.products[c] * rstd
            a += n.sums[c] * n.scale[c]
            b += n.products[c] * n.scale[c]
        a = a / rule.divisor if rule.measure == VARIANCE else 0.0
        b = 0.0 if rule.floor and rstd >= 1.0 / rule.eps else b / rule.divisor
        for c in range(first, first + per_group):
            n.shift[c] = -rstd * a
            n.slope[c] = -rstd * rstd * b
            n.scale[c] = rstd * n.scale[c]
            fits = fits and (not single or (is_coefficient(n.scale[c]) and is_coefficient(n.slope[c])))
    return fits


cdef inline void centre_channels(const Rule* rule, Channels n, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """From moments the mean in one number, and rstd."""
    cdef Py_ssize_t c
    for c in range(start, stop):
        n.mean[c] += n.lo[c]
    inverses(rule, n.m2 + start, n.rstd + start, stop - start)


cdef inline bint roots_fit(bint single, Channels n, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Whether float32 can hold products of dy and deviations."""
    cdef Py_ssize_t c
    for c in range(start, stop):
        if single and not SMALLEST_SLOPED <= n.rstd[c] <= LARGEST_SLOPED:
            return False
    return True


cdef inline void unit_moments(
    const lanes* x, Work* w, Py_ssize_t items, Py_ssize_t start, Py_ssize_t count
) noexcept nogil:
    """The moments of the rows of `count` channels from `start` on."""
    cdef Py_ssize_t b, row, chunks = parts(w.x.n, CHUNK)
    cdef const lanes* source
    for b in range(items):
        row = b * w.lines + start
        source = at(x, row * w.x.n)
        row *= chunks
        if w.x.n <= SHORT * lane_count(x):
            moments_short_rows(source, w.x, VARIANCE, w.mean + row, w.lo + row, w.m2 + row, 0, count)
        else:
            moments_rows(source, w.x, VARIANCE, w.mean + row, w.lo + row, w.m2 + row, 0, count * chunks)


cdef inline void result_beside_unit(
    const lanes* x, lanes* y, Work* w, Py_ssize_t item, Py_ssize_t c, Py_ssize_t count, Py_ssize_t further
) noexcept nogil:
    """The result of `count` channels of an item, and the moments of those that are so much `further`, if they exist."""
    cdef Py_ssize_t j, place, n = w.x.n
    cdef Channels numbers = w.channels
    cdef Coefficients k
    cdef Moments line
    cdef double shift
    cdef double sums[2]
    cdef const lanes* row
    cdef const lanes* ahead
    cdef lanes* target
    for j in range(c, c + count):
        place = item * w.lines + j
        row, target = at(x, place * n), at(y, place * n)
        k = coefficients(x, numbers.mean[j], numbers.lo[j], numbers.scale[j], numbers.shift[j])
        if j + further < w.lines:
            ahead, line = at(row, further * n), Moments(0.0, 0.0, 0.0, 0.0)
            shift = head_mean(ahead, n, VARIANCE, False, 1.0)
            result_beside_next(
                row, target, n, &k, <const lanes*> NULL, <const lanes*> NULL, w.y.streamed, ahead, VARIANCE, shift, sums
            )
            absorb_sums(&line, ahead, n, VARIANCE, shift, sums)
            place += further
            w.mean[place], w.lo[place], w.m2[place] = line.hi, line.lo, line.m2
        else:
            apply_scalar_within(row, target, n, k, w.y.streamed)


cdef void train_channels(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Statistics and result of the units `start` to `stop`; `strange` where the kernels could not apply them."""
    cdef Py_ssize_t items = w.x.outer // w.lines, chunks = parts(w.x.n, CHUNK), unit, b, c, count, row
    cdef Channels n = w.channels
    cdef Work part = w[0]
    cdef lanes* y = <lanes*> w.y.data
    cdef bint paired = w.x.n > SHORT * lane_count(x) and are_paired(y, w.x.n, w.y, 1, VARIANCE), made = False
    for unit in range(start, stop):
        c = unit * w.rows
        count = min(w.rows, w.lines - c)
        if not made:
            unit_moments(x, w, items, c, count)
        pool_channels(w, items, w.lines, n, c, c + count)
        made = False
        if not fold_channels(&w.rule, w.storage != DOUBLE, n, c, c + count):
            w.strange = True
            continue
        made = paired and unit + 1 < stop
        part.lines = count
        part.coefficients = [n.mean + c, n.lo + c, n.scale + c, n.shift + c]
        for b in range(items):
            if made:
                result_beside_unit(x, y, w, b, c, count, w.rows)
                continue
            row = (b * w.lines + c) * w.x.n
            part.y.data = at(y, row)
            affine_rows(at(x, row), &part, 0, count * chunks)


cdef inline void slope_beside_unit(
    const lanes* x, const lanes* dy, lanes* dx, Work* w, Py_ssize_t item, Py_ssize_t c, Py_ssize_t count,
    Py_ssize_t further
) noexcept nogil:
    """dx of `count` channels of an item, and the sums of those that are so much `further`, if they exist."""
    cdef Py_ssize_t j, place, next, n = w.x.n
    cdef Channels numbers = w.channels
    cdef Slope k
    cdef double found[2]
    cdef const lanes* row
    cdef const lanes* upstream
    cdef const lanes* ahead
    cdef const lanes* ahead_dy
    for j in range(c, c + count):
        place, next = item * w.lines + j, item * w.lines + j + further
        row, upstream = at(x, place * n), at(dy, place * n)
        k = slope_of(x, numbers.mean[j], numbers.scale[j], numbers.slope[j], numbers.shift[j], True)
        if j + further < w.lines:
            ahead, ahead_dy = at(x, next * n), at(dy, next * n)
            slope_beside_dots_of(
                row, upstream, at(dx, place * n), n, &k, <const lanes*> NULL, w.y.streamed, ahead, ahead_dy,
                rounded(x, numbers.mean[j + further]), found
            )
            finish_dots(ahead, ahead_dy, <const lanes*> NULL, n, numbers.mean[j + further], found)
            w.sums[next], w.products[next] = found[0], found[1]
        else:
            slope_run(row, upstream, at(dx, place * n), x, False, n, k, w.y.streamed)


cdef void train_channels_backward(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Sums and dx of the units `start` to `stop`; `strange` where float32 could not hold the coefficients."""
    cdef Py_ssize_t items = w.x.outer // w.lines, chunks = parts(w.x.n, CHUNK), unit, b, c, count, row
    cdef Channels n = w.channels
    cdef Work part = w[0]
    cdef const lanes* dy = <const lanes*> w.dy.data
    cdef lanes* dx = <lanes*> w.y.data
    cdef bint short = w.x.n <= SHORT_GRADIENT * lane_count(x), made = False
    cdef bint paired = w.given and not short and are_paired(dx, w.x.n, w.y, 1, VARIANCE)
    for unit in range(start, stop):
        c = unit * w.rows
        count = min(w.rows, w.lines - c)
        if not w.given:
            unit_moments(x, w, items, c, count)
            pool_channels(w, items, w.lines, n, c, c + count)
            centre_channels(&w.rule, n, c, c + count)
        if not roots_fit(w.storage == SINGLE, n, c, c + count):
            w.strange, made = True, False
            continue
        part.lines, part.mean = count, n.mean + c
        for b in range(0 if made else items):
            row = b * w.lines + c
            part.dy.data = at(dy, row * w.x.n)
            part.sums, part.products = w.sums + row * chunks, w.products + row * chunks
            if short:
                dots_short_rows(at(x, row * w.x.n), &part, 0, count)
            else:
                dots_rows(at(x, row * w.x.n), &part, 0, count * chunks)
        join_dots(w, items, w.lines, n, c, c + count)
        made = False
        if not slope_channels(w.storage == SINGLE, &w.rule, 1, n, c, c + count):
            w.strange = True
            continue
        made = paired and unit + 1 < stop
        part.coefficients = [n.mean + c, n.scale + c, n.slope + c, n.shift + c]
        for b in range(items):
            if made:
                slope_beside_unit(x, dy, dx, w, b, c, count, w.rows)
                continue
            row = (b * w.lines + c) * w.x.n
            part.dy.data, part.y.data = at(dy, row), at(dx, row)
            affine_grad_rows(at(x, row), &part, 0, count * chunks)
