# Backward passes. With d = x - mean and g = weight * dy, a line needs the sums of g and of g * d; then its gradient is
#
#     dx = scale * g + slope * d + shift
#
# where scale = rstd * weight, slope = -rstd^2 * B and shift = -rstd * A (fastnorm/gradients.py says what A and B are).

cdef extern from "gradients.h" nogil:
    void lanes32_position_sums(
        const lanes32* x, Py_ssize_t x_stride, const lanes32* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, const double* rstd, double* products, double* sums
    )
    void lanes64_position_sums(
        const lanes64* x, Py_ssize_t x_stride, const lanes64* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, const double* rstd, double* products, double* sums
    )
    void lanes32_column_dots(
        const lanes32* x, Py_ssize_t x_stride, const lanes32* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, double* products, double* sums
    )
    void lanes64_column_dots(
        const lanes64* x, Py_ssize_t x_stride, const lanes64* dy, Py_ssize_t dy_stride, Py_ssize_t rows, Py_ssize_t n,
        const double* mean, double* products, double* sums
    )

cdef enum:
    GRADIENT_CACHE = 32768      # elements: x and dy of the rows that are read again for the sums of positions, in L2
    TOGETHER = 256              # rows whose statistics are kept for that

# Beyond these, float32 coefficients, which hold the square of rstd, or sums of products would leave their range.
cdef double SMALLEST_SLOPED = 2.0 ** -50
cdef double LARGEST_SLOPED = 2.0 ** 50


cdef struct Slope:
    # dx = scale * g + slope * (x - centre) + shift
    double centre
    double scale
    double slope
    double shift


cdef inline bint is_finite(double value) noexcept nogil:
    return value - value == 0.0


cdef inline bint has_range(const lanes* like, double rstd, double scale) noexcept nogil:
    """Whether the storage type can hold the gradient's coefficients and products."""
    if lanes is lanes32:
        return SMALLEST_SLOPED <= rstd <= LARGEST_SLOPED and -LARGEST_RSTD <= scale <= LARGEST_RSTD
    else:
        return True


cdef inline void lane_dots(
    const lanes* x, const lanes* dy, const lanes* weight, bint weighted, Py_ssize_t n, double centre, lanes* total_s,
    lanes* total_p
) noexcept nogil:
    """The sums of g and of g * (x - centre) over a block, lane by lane, for a centre in the storage type."""
    cdef Py_ssize_t i, j, step = lane_count(x), whole = n - n % step, group = RUN * step
    cdef lanes middle = splat(x, centre)
    cdef lanes s, p, g, sum_s = splat(x, 0.0), sum_p = splat(x, 0.0)
    for i from 0 <= i < whole by group:
        s, p = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by step:
            prefetch(x, j + READ_AHEAD * step)
            prefetch(dy, j + READ_AHEAD * step)
            g = load(dy, j)
            if weighted:
                g = multiply(g, load(weight, j))
            s = add(s, g)
            p = fused(g, subtract(load(x, j), middle), p)
        sum_s, sum_p = add(sum_s, s), add(sum_p, p)
    if whole < n:
        # Lanes without an element hold dy = 0.
        g = load_partial(dy, whole, n - whole, 0.0)
        if weighted:
            g = multiply(g, load_partial(weight, whole, n - whole, 0.0))
        sum_s = add(sum_s, g)
        sum_p = fused(g, subtract(load_partial(x, whole, n - whole, centre), middle), sum_p)
    total_s[0], total_p[0] = sum_s, sum_p


cdef inline void block_dots(
    const lanes* x, const lanes* dy, const lanes* weight, bint weighted, Py_ssize_t n, double centre, double* sums
) noexcept nogil:
    """Add the sums over a block."""
    cdef lanes s, p
    lane_dots(x, dy, weight, weighted, n, centre, &s, &p)
    sums[0] += total(s)
    sums[1] += total(p)


cdef void wide_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, double* sums
) noexcept nogil:
    """The same in float64, element by element."""
    cdef Py_ssize_t i
    cdef double g
    sums[0] = sums[1] = 0.0
    for i in range(n):
        g = element(dy, i) * (element(weight, i) if weight else 1.0)
        sums[0] += g
        sums[1] += g * (element(x, i) - mean)


cdef inline void line_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, bint narrow_range, double* sums
) noexcept nogil:
    """The sums of g and of g * (x - mean) over a line, or a part of it; NULL for a weight of 1."""
    cdef Py_ssize_t i
    cdef double centre = rounded(x, mean)
    sums[0] = sums[1] = 0.0
    if narrow_range:
        for i from 0 <= i < n by BLOCK:
            if weight:
                block_dots(
                    <const lanes*> at(x, i), <const lanes*> at(dy, i), <const lanes*> at(weight, i), True,
                    min(n - i, BLOCK), centre, sums
                )
            else:
                block_dots(<const lanes*> at(x, i), <const lanes*> at(dy, i), x, False, min(n - i, BLOCK), centre, sums)
        finish_dots(x, dy, weight, n, mean, sums)
    else:
        wide_dots(x, dy, weight, n, mean, sums)


cdef inline void finish_dots(
    const lanes* x, const lanes* dy, const lanes* weight, Py_ssize_t n, double mean, double* sums
) noexcept nogil:
    """From sums about the rounded mean to those about the mean; once more in float64 where they are not finite."""
    sums[1] -= (mean - rounded(x, mean)) * sums[0]
    if not is_finite(sums[0]) or not is_finite(sums[1]):
        wide_dots(x, dy, weight, n, mean, sums)


cdef inline void slope_run(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, bint weighted, Py_ssize_t n, Slope c,
    bint streamed
) noexcept nogil:
    """dx of a run whose coefficients the storage type can hold; without `weighted`, weight is not read."""
    cdef Py_ssize_t before
    if streams(dx, n, streamed):
        before = before_aligned(dx)
        slope_part(x, dy, dx, weight, weighted, before, c, False)
        slope_part(
            <const lanes*> at(x, before), <const lanes*> at(dy, before), at(dx, before),
            <const lanes*> at(weight, before), weighted, n - before, c, True
        )
    else:
        slope_part(x, dy, dx, weight, weighted, n, c, False)


cdef inline void slope_part(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, bint weighted, Py_ssize_t n, Slope c,
    bint streamed
) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(x), whole = n - n % step, rest = n - whole
    cdef lanes centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes slope = splat(x, c.slope), shift = splat(x, c.shift), g
    for i from 0 <= i < whole by step:
        g = load(dy, i)
        if weighted:
            g = multiply(g, load(weight, i))
        put(dx, i, fused(g, scale, fused(subtract(load(x, i), centre), slope, shift)), streamed)
    if rest:
        g = load_partial(dy, whole, rest, 0.0)
        if weighted:
            g = multiply(g, load_partial(weight, whole, rest, 0.0))
        centre = subtract(load_partial(x, whole, rest, 0.0), centre)
        store_partial(dx, whole, rest, fused(g, scale, fused(centre, slope, shift)))


cdef inline Slope slope_of(
    const lanes* like, double mean, double scale, double slope, double shift, bint narrow_range
) noexcept nogil:
    """dx = scale * g + slope * (x - mean) + shift, about a centre in the storage type if that has the range."""
    cdef double centre = rounded(like, mean)
    if not narrow_range:
        return Slope(mean, scale, slope, shift)
    return Slope(centre, scale, slope, shift - slope * (mean - centre))


cdef inline void apply_slope(
    const lanes* x, const lanes* dy, lanes* dx, const lanes* weight, Py_ssize_t n, Slope c, bint narrow_range,
    bint streamed
) noexcept nogil:
    """dx of a line, or a part of it; NULL for a weight of 1."""
    cdef Py_ssize_t i
    if not narrow_range:
        for i in range(n):
            set_element(
                dx, i, c.scale * element(dy, i) * (element(weight, i) if weight else 1.0)
                + (c.slope * (element(x, i) - c.centre) + c.shift)
            )
    elif weight:
        slope_run(x, dy, dx, weight, True, n, c, streamed)
    else:
        slope_run(x, dy, dx, x, False, n, c, streamed)


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


cdef void dots_columns(
    const lanes* x, const lanes* dy, View v, View w, const double* mean, Py_ssize_t lines, double* products,
    double* sums, Py_ssize_t tile, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The same down columns: the tiles `start` to `stop`, counted over (outer, chunks, tiles)."""
    cdef Py_ssize_t o, i, c, j, k, p, width, n
    cdef Py_ssize_t tiles = parts(v.inner, tile), chunks = parts(v.n, CHUNK_COLUMNS)
    cdef const lanes* source
    cdef const lanes* upstream
    for k in range(start, stop):
        o, i, c = k // tiles // chunks, k // tiles % chunks * CHUNK_COLUMNS, k % tiles * tile
        p, width, n = k // tiles * v.inner + c, min(v.inner - c, tile), min(v.n - i, CHUNK_COLUMNS)
        source = <const lanes*> at(x, o * v.outer_stride + i * v.stride + c)
        upstream = <const lanes*> at(dy, o * w.outer_stride + i * w.stride + c)
        for j in range(p, p + width):
            sums[j] = products[j] = 0.0
        c += o % lines * v.inner
        if lanes is lanes32:
            lanes32_column_dots(
                source, v.stride, upstream, w.stride, n, width, mean + c, products + p, sums + p
            )
        else:
            lanes64_column_dots(
                source, v.stride, upstream, w.stride, n, width, mean + c, products + p, sums + p
            )


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


cdef inline void set_slopes(
    lanes* tile, Py_ssize_t width, const double* mean, const double* scale, const double* slope, const double* shift
) noexcept nogil:
    """Write centre, scale, slope and shift of lines side by side, WIDE bundles each."""
    cdef Py_ssize_t j
    cdef double centre
    for j in range(4):
        clear_rest(&tile[j * WIDE], width)
    for j in range(width):
        centre = rounded(<const lanes*> tile, mean[j])
        set_element(&tile[0], j, centre)
        set_element(&tile[WIDE], j, scale[j])
        set_element(&tile[2 * WIDE], j, slope[j])
        set_element(&tile[3 * WIDE], j, shift[j] - slope[j] * (mean[j] - centre))


cdef inline void slope_columns(
    const lanes* x, const lanes* dy, lanes* dx, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t x_stride,
    Py_ssize_t dy_stride, Py_ssize_t dx_stride, const lanes* tile, bint streamed
) noexcept nogil:
    cdef Py_ssize_t i, j, q, step = lane_count(x)
    cdef Py_ssize_t ahead = parts(WRITE_AHEAD * step, width) * dx_stride
    cdef bint aligned = streamed and aligned_rows(dx, dx_stride)
    cdef lanes d, g
    for i in range(rows):
        q = 0
        for j from 0 <= j < width by step:
            if not aligned:
                prefetch(dx, i * dx_stride + j + ahead)
            d = load_columns(x, i * x_stride + j, width - j, 0.0)
            g = load_columns(dy, i * dy_stride + j, width - j, 0.0)
            d = fused(subtract(d, tile[q]), tile[2 * WIDE + q], tile[3 * WIDE + q])
            d = fused(g, tile[WIDE + q], d)
            if aligned and width - j >= step:
                stream(dx, i * dx_stride + j, d)
            else:
                store_columns(dx, i * dx_stride + j, width - j, d)
            q += 1


cdef void affine_grad_columns(
    const lanes* x, const lanes* dy, lanes* dx, View v, View w, View u, const double* mean, const double* scale,
    const double* slope, const double* shift, Py_ssize_t lines, Py_ssize_t piece,
    Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The same down columns: the pieces `start` to `stop`, counted over (outer, pieces)."""
    cdef Py_ssize_t o, i, c, k, p, width, wide = WIDE * lane_count(x), pieces = parts(v.n, piece)
    cdef lanes tile[4 * WIDE]
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * piece
        for c from 0 <= c < v.inner by wide:
            width, p = min(wide, v.inner - c), o % lines * v.inner + c
            set_slopes(tile, width, mean + p, scale + p, slope + p, shift + p)
            slope_columns(
                <const lanes*> at(x, o * v.outer_stride + i * v.stride + c),
                <const lanes*> at(dy, o * w.outer_stride + i * w.stride + c),
                at(dx, o * u.outer_stride + i * u.stride + c), min(v.n - i, piece), width, v.stride, w.stride,
                u.stride, tile, u.streamed
            )


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
    if rule.floor and rstd * rule.eps >= 1.0:  # divided by eps: a constant
        b = 0.0
    slope[0] = -rstd * rstd * b
    shift[0] = -rstd * (sum_g / n) if rule.measure == VARIANCE else 0.0


include "gradient_pairs.pxi"


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
    cdef bint narrow_range = has_range(x, rstd, rstd)
    line_dots(x, dy, weight, n, mean, narrow_range, found)
    line_terms(rule, found[0], found[1] * rstd, n, rstd, &slope, &shift)
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
    cdef bint narrow_range = has_range(x, rstd, rstd)
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
        narrow_range = has_range(x, rstd, scale)
        apply_slope(
            <const lanes*> at(x, i), <const lanes*> at(dy, i), at(dx, i), <const lanes*> NULL, length,
            slope_of(x, mean, scale, slope, shift, narrow_range), narrow_range, streamed
        )
