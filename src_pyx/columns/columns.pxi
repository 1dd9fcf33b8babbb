# The column form applied: results of lines side by side, from given coefficients or with their statistics.

cdef inline Py_ssize_t together(Py_ssize_t most, Py_ssize_t columns) noexcept nogil:
    """How many rows of few columns make one of at most so many."""
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
        c = coefficients(<const lanes*> centre, hi[j], lo[j], factor[j], shift[j])
        set_element(centre, j, c.centre)
        set_element(scale, j, c.scale)
        set_element(scale_rest, j, c.scale_rest)
        set_element(addend, j, c.shift)


cdef inline bint aligned_rows(const lanes* y, Py_ssize_t stride) noexcept nogil:
    """Whether every row begins where `stream` may write."""
    return before_aligned(y) == 0 and before_aligned(<const lanes*> at(y, stride)) == 0


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
    cdef Py_ssize_t i, c, k, step = lane_count(x)
    cdef Py_ssize_t ahead = parts(WRITE_AHEAD * step, width) * y_stride
    cdef bint aligned = streamed and aligned_rows(y, y_stride)
    cdef lanes v, w, b
    for i in range(n):
        k = 0
        if weight:
            w, b = splat(x, element(weight, i)), splat(x, element(bias, i))
        for c from 0 <= c < width by step:
            if not aligned:
                prefetch(y, i * y_stride + c + ahead)
            v = load_columns(x, i * x_stride + c, width - c, 0.0)
            v = apply(v, centre[k], scale[k], scale_rest[k], addend[k])
            if weight:
                v = fused(v, w, b)
            if aligned and width - c >= step:
                stream(y, i * y_stride + c, v)
            else:
                store_columns(y, i * y_stride + c, width - c, v)
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
    cdef Py_ssize_t times = together(TILE * lane_count(x), width), joined = n // times, done = joined * times
    repeat_lines(centre, width, times, &tile[0])
    repeat_lines(scale, width, times, &tile[TILE])
    repeat_lines(scale_rest, width, times, &tile[2 * TILE])
    repeat_lines(addend, width, times, &tile[3 * TILE])
    apply_columns(
        x, y, joined, times * width, times * width, times * width, &tile[0], &tile[TILE], &tile[2 * TILE],
        &tile[3 * TILE], <const lanes*> NULL, <const lanes*> NULL, streamed
    )
    apply_columns(
        <const lanes*> at(x, done * width), at(y, done * width), n - done, width, width, width, centre, scale,
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


cdef void normalize_columns(
    const lanes* x, lanes* y, View v, View u, const lanes* weight, const lanes* bias, Py_ssize_t parameters,
    bint per_position, const Rule* rule, double* mean, double* m2, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """Statistics and result of the tiles `start` to `stop`, counted over (outer, tiles), each while it is in cache.

    Weight and bias go with the position, or with the line: line (o, c) then has number (o * inner + c) % parameters.
    """
    cdef Py_ssize_t o, i, c, j, k, p, width, joined, lines = TILE * lane_count(x), tiles = parts(v.inner, lines)
    cdef Columns all_chunks, chunk
    cdef double rstd[MAX_LINES]
    cdef double factor[MAX_LINES]
    cdef double shift[MAX_LINES]
    cdef lanes tile[4 * TILE]
    cdef const lanes* source
    cdef lanes* target
    cdef Py_ssize_t strange
    for j in range(MAX_LINES):
        shift[j] = 0.0
    for k in range(start, stop):
        o, c = k // tiles, k % tiles * lines
        width = min(v.inner - c, lines)
        source = <const lanes*> at(x, o * v.outer_stride + c)
        target = at(y, o * u.outer_stride + c)
        all_chunks.count = 0.0
        for i from 0 <= i < v.n by CHUNK_COLUMNS:
            column_chunk(
                &chunk, <const lanes*> at(source, i * v.stride), v.stride, min(v.n - i, CHUNK_COLUMNS), width,
                rule.measure, CHUNK_COLUMNS * v.stride if i + CHUNK_COLUMNS < v.n else lines - i * v.stride
            )
            absorb_columns(&all_chunks, width, chunk.count, chunk.hi, chunk.lo, chunk.m2)
        inverses(rule, all_chunks.m2, rstd, width)
        memcpy(factor, rstd, width * sizeof(double))
        if not per_position:
            read_cycle(weight, parameters, o * v.inner + c, width, factor)
            read_cycle(bias, parameters, o * v.inner + c, width, shift)
            for j in range(width):
                factor[j] = rstd[j] * factor[j]
        strange = 0
        for j in range(width):
            strange += is_wide(x, rstd[j], factor[j])
        if mean:
            p = o * v.inner + c
            for j in range(width):
                mean[p + j], m2[p + j] = all_chunks.hi[j] + all_chunks.lo[j], all_chunks.m2[j]
        if strange:
            normalize_strange_columns(
                source, target, v, u, width, &all_chunks, rstd, factor, shift, weight if per_position else NULL, bias
            )
            continue
        set_lines(
            &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE], width, all_chunks.hi, all_chunks.lo, factor,
            shift
        )
        joined = v.n // together(lines, width)
        if not per_position and v.stride == width and u.stride == width and LEAST_JOINED <= joined < v.n:
            apply_few_columns(
                source, target, v.n, width, &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE], u.streamed
            )
            continue
        apply_columns(
            source, target, v.n, width, v.stride, u.stride, &tile[0], &tile[TILE], &tile[2 * TILE], &tile[3 * TILE],
            weight if per_position else NULL, bias, u.streamed
        )


cdef void normalize_strange_columns(
    const lanes* x, lanes* y, View v, View u, Py_ssize_t width, const Columns* lines, const double* rstd,
    const double* factor, const double* shift, const lanes* weight, const lanes* bias
) noexcept nogil:
    """The result of a tile in which the storage type would leave its range, element by element."""
    cdef Py_ssize_t i, j
    cdef double value
    cdef Exact e
    for j in range(width):
        e = Exact(lines.hi[j], lines.lo[j], factor[j], shift[j], is_wide(x, rstd[j], factor[j]))
        for i in range(v.n):
            value = applied(x, element(x, i * v.stride + j), &e)
            if weight and e.wide:
                value = value * element(weight, i) + element(bias, i)
            elif weight:
                value = fused_scalar(x, value, element(weight, i), element(bias, i))
            set_element(y, i * u.stride + j, value)


cdef void affine_columns(
    const lanes* x, lanes* y, View v, View u, const double* hi, const double* lo, const double* scale,
    const double* shift, Py_ssize_t lines, const lanes* weight, const lanes* bias, Py_ssize_t piece,
    Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """`affine_rows` for lines side by side: the pieces `start` to `stop`, counted over (outer, pieces).

    The coefficients are (lines, inner); block o of x has row o % lines.
    """
    cdef Py_ssize_t o, i, c, k, p, width, most = WIDE * lane_count(x), pieces = parts(v.n, piece)
    cdef double nothing[32 * WIDE]
    cdef lanes tile[4 * WIDE]
    cdef const double* addends
    memset(nothing, 0, sizeof(nothing))
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * piece
        for c from 0 <= c < v.inner by most:
            width, p = min(v.inner - c, most), (o % lines) * v.inner + c
            addends = shift + p
            if weight:
                addends = nothing
            set_lines(
                &tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE], width, hi + p, lo + p, scale + p, addends
            )
            apply_columns(
                <const lanes*> at(x, o * v.outer_stride + i * v.stride + c),
                at(y, o * u.outer_stride + i * u.stride + c), min(v.n - i, piece), width, v.stride, u.stride,
                &tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE],
                <const lanes*> at(weight, i) if weight else NULL, <const lanes*> at(bias, i) if weight else NULL,
                u.streamed
            )
