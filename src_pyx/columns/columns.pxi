# The column form applied: results of lines side by side, from given coefficients or with their statistics.

cdef extern from "columns/two_rows.h" nogil:
    void lanes32_apply_to_two(
        const lanes32* x, Py_ssize_t x_stride, lanes32* y, Py_ssize_t y_stride, const lanes32* centre,
        const lanes32* scale, const lanes32* scale_rest, const lanes32* shift
    )
    void lanes64_apply_to_two(
        const lanes64* x, Py_ssize_t x_stride, lanes64* y, Py_ssize_t y_stride, const lanes64* centre,
        const lanes64* scale, const lanes64* scale_rest, const lanes64* shift
    )
    void lanes32_slope_to_two(
        const lanes32* x, Py_ssize_t x_stride, const lanes32* dy, Py_ssize_t dy_stride, lanes32* dx,
        Py_ssize_t dx_stride, const lanes32* centre, const lanes32* scale, const lanes32* slope, const lanes32* shift
    )
    void lanes64_slope_to_two(
        const lanes64* x, Py_ssize_t x_stride, const lanes64* dy, Py_ssize_t dy_stride, lanes64* dx,
        Py_ssize_t dx_stride, const lanes64* centre, const lanes64* scale, const lanes64* slope, const lanes64* shift
    )


cdef inline Py_ssize_t joined_rows(Py_ssize_t most, Py_ssize_t columns) noexcept nogil:
    """How many rows of few columns are joined into one of at most `most`."""
    cdef Py_ssize_t times = max(most // columns, 1)
    return times - times % 8 if times > 8 else times  # a multiple of any vector


cdef enum:
    LEAST_JOINED = 4                # rows of joined ones: with fewer, joining takes longer than it saves
    LEAST_PIECE = 64                # positions: with fewer, coefficients cost `affine` more than another thread saves
    WIDE = 16                       # bundles: what `affine` takes at a time; its coefficients, 8 KiB, stay in L1


cdef inline void clear_rest(lanes* tile, Py_ssize_t width) noexcept nogil:
    """Zeros to the lanes of the last bundle that no line has.

    What lies there otherwise may be a subnormal number, with which every operation costs a hundred cycles.
    """
    cdef Py_ssize_t whole = width - width % lane_count(tile)
    if whole < width:
        store(tile, whole, splat(tile, 0.0))


cdef inline void set_lines(
    lanes* centre, lanes* scale, lanes* scale_rest, lanes* addend, Py_ssize_t width, const double* hi,
    const double* lo, const double* factor, const double* shift
) noexcept nogil:
    """Write the coefficients of lines side by side, as `coefficients` computes them."""
    cdef Py_ssize_t j
    cdef Coefficients c
    clear_rest(centre, width)
    clear_rest(scale, width)
    clear_rest(scale_rest, width)
    clear_rest(addend, width)
    for j in range(width):
        c = coefficients(centre, hi[j], lo[j], factor[j], shift[j])
        set_element(centre, j, c.centre)
        set_element(scale, j, c.scale)
        set_element(scale_rest, j, c.scale_rest)
        set_element(addend, j, c.shift)


cdef inline bint aligned_rows(const lanes* y, Py_ssize_t stride) noexcept nogil:
    """Whether every row begins where `stream` may write."""
    return before_aligned(y) == 0 and before_aligned(at(y, stride)) == 0


cdef void apply_columns(
    const lanes* x, lanes* y, Py_ssize_t n, Py_ssize_t width, Py_ssize_t x_stride, Py_ssize_t y_stride,
    const lanes* centre, const lanes* scale, const lanes* scale_rest, const lanes* addend, const lanes* weight,
    const lanes* bias, bint streamed
) noexcept nogil:
    """y = (x - centre) * scale + shift down columns; with weight, times it, plus bias, which go with the position."""
    if weight:  # once for each, so that the loop need not ask
        apply_columns_inline(
            x, y, n, width, x_stride, y_stride, centre, scale, scale_rest, addend, weight, bias, streamed
        )
    else:
        apply_columns_inline(
            x, y, n, width, x_stride, y_stride, centre, scale, scale_rest, addend, NULL, NULL, streamed
        )


cdef inline void apply_columns_inline(
    const lanes* x, lanes* y, Py_ssize_t n, Py_ssize_t width, Py_ssize_t x_stride, Py_ssize_t y_stride,
    const lanes* centre, const lanes* scale, const lanes* scale_rest, const lanes* addend, const lanes* weight,
    const lanes* bias, bint streamed
) noexcept nogil:
    """`apply_columns` where it is called, for callers that know whether there is a weight."""
    cdef Py_ssize_t i, r, c, step = lane_count(x), paired = 0, whole = width - width % step
    cdef Py_ssize_t ahead = parts(WRITE_AHEAD * step, width) * y_stride
    cdef bint aligned = streamed and aligned_rows(y, y_stride)
    if not weight and not aligned:
        paired = n - n % 2
    for i from 0 <= i < paired by 2:
        for c from 0 <= c < whole by step:
            prefetch(y, i * y_stride + c + ahead)
            prefetch(y, (i + 1) * y_stride + c + ahead)
            apply_to_two(
                at(x, i * x_stride + c), x_stride, at(y, i * y_stride + c), y_stride, at(centre, c), at(scale, c),
                at(scale_rest, c), at(addend, c)
            )
        for r in range(i, i + 2):
            apply_row_of_columns(
                at(x, r * x_stride), at(y, r * y_stride), whole, width, centre, scale, scale_rest, addend, NULL, NULL,
                r, False, ahead
            )
    for i in range(paired, n):
        apply_row_of_columns(
            at(x, i * x_stride), at(y, i * y_stride), 0, width, centre, scale, scale_rest, addend, weight, bias, i,
            aligned, ahead
        )


cdef inline void apply_to_two(
    const lanes* x, Py_ssize_t x_stride, lanes* y, Py_ssize_t y_stride, const lanes* centre, const lanes* scale,
    const lanes* scale_rest, const lanes* addend
) noexcept nogil:
    """A bundle of columns of two rows."""
    if lanes is lanes32:
        lanes32_apply_to_two(x, x_stride, y, y_stride, centre, scale, scale_rest, addend)
    else:
        lanes64_apply_to_two(x, x_stride, y, y_stride, centre, scale, scale_rest, addend)


cdef inline void apply_row_of_columns(
    const lanes* x, lanes* y, Py_ssize_t first, Py_ssize_t width, const lanes* centre, const lanes* scale,
    const lanes* scale_rest, const lanes* addend, const lanes* weight, const lanes* bias, Py_ssize_t row, bint aligned,
    Py_ssize_t ahead
) noexcept nogil:
    """The columns from `first` on of a row, the number `row` of those that have a weight and a bias, if any have."""
    cdef Py_ssize_t c, k = first // lane_count(x), step = lane_count(x)
    cdef lanes v, w = splat(x, 0.0), b = splat(x, 0.0)
    if weight:
        w, b = splat(x, element(weight, row)), splat(x, element(bias, row))
    for c from first <= c < width by step:
        if not aligned:
            prefetch(y, c + ahead)
        v = load_columns(x, c, width - c, 0.0)
        v = apply(v, centre[k], scale[k], scale_rest[k], addend[k])
        if weight:
            v = fused(v, w, b)
        if aligned and width - c >= step:
            stream(y, c, v)
        else:
            store_columns(y, c, width - c, v)
        k += 1


cdef inline void repeat_lines(const lanes* numbers, Py_ssize_t width, Py_ssize_t times, lanes* repeated) noexcept nogil:
    """Write `width` numbers `times` times, one after the other."""
    cdef Py_ssize_t k, j
    clear_rest(repeated, times * width)
    for k in range(times):
        for j in range(width):
            set_element(repeated, k * width + j, element(numbers, j))


cdef void apply_few_columns(
    const lanes* x, lanes* y, Py_ssize_t n, Py_ssize_t width, const lanes* centre, const lanes* scale,
    const lanes* scale_rest, const lanes* addend, bint streamed
) noexcept nogil:
    """`apply_columns` to dense rows of few columns, several rows as one that fills the bundles."""
    cdef lanes tile[4 * TILE]
    cdef Py_ssize_t times = joined_rows(TILE * lane_count(x), width), joined = n // times, done = joined * times
    repeat_lines(centre, width, times, &tile[0])
    repeat_lines(scale, width, times, &tile[TILE])
    repeat_lines(scale_rest, width, times, &tile[2 * TILE])
    repeat_lines(addend, width, times, &tile[3 * TILE])
    apply_columns(
        x, y, joined, times * width, times * width, times * width, &tile[0], &tile[TILE], &tile[2 * TILE],
        &tile[3 * TILE], <const lanes*> NULL, <const lanes*> NULL, streamed
    )
    apply_columns(
        at(x, done * width), at(y, done * width), n - done, width, width, width, centre, scale,
        scale_rest, addend, <const lanes*> NULL, <const lanes*> NULL, False
    )


cdef inline void inverses(const Rule* rule, const double* m2, double* rstd, Py_ssize_t width) noexcept nogil:
    """`inverse` of lines side by side."""
    cdef Py_ssize_t j
    cdef double root
    if rule.floor:
        for j in range(width):
            rstd[j] = inverse(rule, m2[j])
        return
    for j in range(width):
        root = sqrt(m2[j] / rule.divisor + rule.eps)
        rstd[j] = 1.0 / (root if root != 0.0 else 1.0)


cdef void normalize_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Statistics and result of the tiles `start` to `stop`, counted over (outer, tiles), each while it is in cache.

    Where weight and bias go with the line, line (o, c) has number (o * inner + c) % parameters.
    """
    cdef Py_ssize_t o, i, c, j, k, p, width, joined, n = w.x.n, stride = w.x.stride
    cdef Py_ssize_t lines = TILE * lane_count(x), tiles = parts(w.x.inner, lines), strange
    cdef Columns all_chunks, chunk
    cdef double rstd[MAX_LINES]
    cdef double factor[MAX_LINES]
    cdef double shift[MAX_LINES]
    cdef lanes tile[4 * TILE]
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const lanes* source
    cdef lanes* target
    memset(shift, 0, sizeof(shift))
    for k in range(start, stop):
        o, c = k // tiles, k % tiles * lines
        p, width = o * w.x.inner + c, min(w.x.inner - c, lines)
        source, target = at(x, o * w.x.outer_stride + c), at(<const lanes*> w.y.data, o * w.y.outer_stride + c)
        all_chunks.count = 0.0
        for i from 0 <= i < n by CHUNK_COLUMNS:
            column_chunk(
                &chunk, at(source, i * stride), stride, min(n - i, CHUNK_COLUMNS), width, w.rule.measure,
                CHUNK_COLUMNS * stride if i + CHUNK_COLUMNS < n else lines - i * stride
            )
            absorb_columns(&all_chunks, width, chunk.count, chunk.hi, chunk.lo, chunk.m2)
        inverses(&w.rule, all_chunks.m2, rstd, width)
        memcpy(factor, rstd, width * sizeof(double))
        if not w.per_position:
            read_cycle(weight, w.parameters, p, width, factor)
            read_cycle(bias, w.parameters, p, width, shift)
            for j in range(width):
                factor[j] = rstd[j] * factor[j]
        strange = 0
        for j in range(width):
            strange += is_wide(x, rstd[j], factor[j])
        if w.mean:
            for j in range(width):
                w.mean[p + j], w.m2[p + j] = all_chunks.hi[j] + all_chunks.lo[j], all_chunks.m2[j]
        if strange:
            normalize_strange_columns(source, target, w, width, &all_chunks, rstd, factor, shift)
            continue
        set_lines(
            &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE], width, all_chunks.hi, all_chunks.lo, factor, shift
        )
        joined = n // joined_rows(lines, width)
        if not w.per_position and stride == width and w.y.stride == width and LEAST_JOINED <= joined < n:
            apply_few_columns(
                source, target, n, width, &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE], w.y.streamed
            )
            continue
        apply_columns(
            source, target, n, width, stride, w.y.stride, &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE],
            weight if w.per_position else NULL, bias, w.y.streamed
        )


cdef void normalize_strange_columns(
    const lanes* x, lanes* y, const Work* w, Py_ssize_t width, const Columns* lines, const double* rstd,
    const double* factor, const double* shift
) noexcept nogil:
    """The result of a tile in which the storage type would leave its range, element by element."""
    cdef const lanes* weight = <const lanes*> w.weight if w.per_position else NULL
    cdef const lanes* bias = <const lanes*> w.bias
    cdef Py_ssize_t i, j
    cdef double value
    cdef Exact e
    for j in range(width):
        e = Exact(lines.hi[j], lines.lo[j], factor[j], shift[j], is_wide(x, rstd[j], factor[j]))
        for i in range(w.x.n):
            value = applied(x, element(x, i * w.x.stride + j), &e)
            if weight and e.wide:
                value = value * element(weight, i) + element(bias, i)
            elif weight:
                value = fused_scalar(x, value, element(weight, i), element(bias, i))
            set_element(y, i * w.y.stride + j, value)


cdef void affine_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`affine_rows` for lines side by side: the pieces `start` to `stop`, counted over (outer, pieces).

    The coefficients are (lines, inner); block o of x has row o % lines.
    """
    cdef Py_ssize_t o, i, c, k, p, width, most = WIDE * lane_count(x), pieces = parts(w.x.n, w.piece)
    cdef double nothing[32 * WIDE]
    cdef lanes tile[4 * WIDE]
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const double* addends
    memset(nothing, 0, sizeof(nothing))
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * w.piece
        for c from 0 <= c < w.x.inner by most:
            width, p = min(w.x.inner - c, most), (o % w.lines) * w.x.inner + c
            addends = w.coefficients[3] + p
            if weight:
                addends = nothing
            set_lines(
                &tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE], width, w.coefficients[0] + p,
                w.coefficients[1] + p, w.coefficients[2] + p, addends
            )
            apply_columns(
                at(x, o * w.x.outer_stride + i * w.x.stride + c),
                at(<const lanes*> w.y.data, o * w.y.outer_stride + i * w.y.stride + c), min(w.x.n - i, w.piece), width,
                w.x.stride, w.y.stride, &tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE],
                at(weight, i) if weight else NULL, at(bias, i) if weight else NULL, w.y.streamed
            )
