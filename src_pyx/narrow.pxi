# Narrow types: elements are converted to float32 a few thousand at a time, in L1 or L2, and computed with there; 16-bit
# floats are rounded once on their way out, bytes become float32. The blocks are those of float32, so are the bits.

cdef extern from "half.h" nogil:
    ctypedef unsigned short bits16 "uint16_t"
    void half_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_half(const float* source, bits16* target, Py_ssize_t n)
    void bfloat_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_bfloat(const float* source, bits16* target, Py_ssize_t n)
    lanes32 lanes32_from_half(const bits16* source, Py_ssize_t count)
    lanes32 lanes32_from_bfloat(const bits16* source, Py_ssize_t count)
    void lanes32_to_half(bits16* target, Py_ssize_t count, lanes32 a)
    void lanes32_to_bfloat(bits16* target, Py_ssize_t count, lanes32 a)
    void bytes_to_floats(const unsigned char* source, float* target, Py_ssize_t n)
    enum:
        DESK                # elements, at home in L2; longer lines are not normalised in one go (backends/cython.py)
    float* desk_of_thread()

cdef enum:
    PIECE = 4096            # elements: 16 KiB, at home in L1
    LEAST_ROWS = 4          # rows together on the desk: with fewer the pass over several at a time is lost,
    LONGEST_LAGGED = OVERLAPPED * 32    # which longer rows do not take


cdef inline void widen(Storage storage, const bits16* source, float* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        half_to_floats(source, target, n)
    else:
        bfloat_to_floats(source, target, n)


cdef inline void narrow(Storage storage, const float* source, bits16* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        floats_to_half(source, target, n)
    else:
        floats_to_bfloat(source, target, n)


cdef inline lanes32 wide_bundle(Storage storage, const bits16* source, Py_ssize_t count) noexcept nogil:
    """A bundle of which `count` elements exist; the others are 0."""
    return lanes32_from_half(source, count) if storage == HALF else lanes32_from_bfloat(source, count)


cdef inline void put_narrow(Storage storage, bits16* target, Py_ssize_t count, lanes32 a) noexcept nogil:
    if storage == HALF:
        lanes32_to_half(target, count, a)
    else:
        lanes32_to_bfloat(target, count, a)


cdef void run_bytes(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """AFFINE of contiguous bytes into contiguous float32: the pieces `start` to `stop`, as affine_rows or _columns."""
    cdef float* desk = desk_of_thread()
    cdef const unsigned char* source = <const unsigned char*> w.x.data
    cdef float* target = <float*> w.y.data
    cdef Py_ssize_t i, k, p, length, place, n = w.x.n, inner = w.x.inner
    cdef Py_ssize_t most = CHUNK if inner == 1 else w.piece, pieces = parts(n, most)
    cdef Coefficients c
    cdef View v = w.x, u
    for k in range(start, stop):
        p, place = k // pieces % w.lines, k // pieces * n * inner + k % pieces * most * inner
        length = min(n - k % pieces * most, most)
        if inner == 1:
            c = coefficients(
                <const lanes32*> desk, w.coefficients[0][p], w.coefficients[1][p], w.coefficients[2][p],
                w.coefficients[3][p]
            )
            for i from 0 <= i < length by PIECE:
                bytes_to_floats(source + place + i, desk, min(PIECE, length - i))
                apply_scalar_within(
                    <const lanes32*> desk, <lanes32*> (target + place + i), min(PIECE, length - i), c, w.y.streamed
                )
            continue
        v.outer = 1
        for i from 0 <= i < length by PIECE // inner:
            v.n = min(PIECE // inner, length - i)
            u = v
            u.streamed = w.y.streamed
            bytes_to_floats(source + place + i * inner, desk, v.n * inner)
            affine_columns(
                <const lanes32*> desk, <lanes32*> (target + place + i * inner), v, u, w.coefficients[0],
                w.coefficients[1], w.coefficients[2], w.coefficients[3], 1, <const lanes32*> NULL,
                <const lanes32*> NULL, v.n, 0, 1
            )


cdef inline void gather(
    Storage storage, const View* v, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, float* desk
) noexcept nogil:
    """Lay `rows` runs of `width` elements on the desk, one after the other; the first begins at element `first`."""
    cdef Py_ssize_t r
    cdef const bits16* source = <const bits16*> v.data + first
    if width == stride:
        widen(storage, source, desk, rows * width)
        return
    for r in range(rows):
        widen(storage, source + r * stride, desk + r * width, width)


cdef inline void scatter(
    Storage storage, const float* desk, const View* v, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t stride
) noexcept nogil:
    """Round what lies on the desk to where it belongs."""
    cdef Py_ssize_t r
    cdef bits16* target = <bits16*> v.data + first
    if width == stride:
        narrow(storage, desk, target, rows * width)
        return
    for r in range(rows):
        narrow(storage, desk + r * width, target + r * stride, width)


cdef inline View on_desk(float* desk, Py_ssize_t rows, Py_ssize_t width, bint columns) noexcept nogil:
    """Rows on the desk, each a line, or with `columns` a position of each of `width` lines."""
    if columns:
        return View(desk, 1, rows, width, rows * width, width, False)
    return View(desk, rows, width, 1, width, 1, False)


cdef inline Py_ssize_t first_parameter(Work* part, Py_ssize_t number, Py_ssize_t each) noexcept nogil:
    """Have weight and bias begin with that of run `number`; return for how many more lines of `each` runs they last."""
    cdef Py_ssize_t first
    if part.per_position or part.parameters == 1:  # backward, `parameters` of positions may be 0
        return PIECE
    first = number % part.parameters
    part.weight = <float*> part.weight + first
    if part.bias:
        part.bias = <float*> part.bias + first
    return (part.parameters - first) // each


cdef void narrow_lines(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of rows, with what stands next to it, and NORMALIZE_GRAD of units of rows: some rows at a time."""
    cdef float* desk = desk_of_thread()
    cdef float* second = NULL
    cdef float* result = desk
    cdef Work part
    cdef bint backward = w.primitive == NORMALIZE_GRAD
    cdef Py_ssize_t n = w.x.n, arrays = 3 if backward else 2 if w.residual else 1
    cdef Py_ssize_t most = max(DESK // (arrays * n), 1), first, count, last = stop, o
    if most > LEAST_ROWS:
        most = max(PIECE // n, LEAST_ROWS if n <= LONGEST_LAGGED else 1)  # rather a part of it, at home in L1
    if arrays > 1:
        second = desk + most * n
    if backward:
        start, last = start * w.rows, min(stop * w.rows, w.x.outer)
        result = second + most * n
    first = start
    while first < last:
        part = w[0]
        part.storage = SINGLE
        count = min(most, last - first, first_parameter(&part, first * w.segments, w.segments))
        if backward and w.per_position:
            count = min(count, w.rows - first % w.rows)  # of one unit
        part.x, part.y = on_desk(desk, count, n, False), on_desk(result, count, n, False)
        if w.mean:
            part.mean = w.mean + first
        if backward:
            gather(w.storage, &w.x, first * w.x.outer_stride, count, n, w.x.outer_stride, desk)
            gather(w.storage, &w.dy, first * w.dy.outer_stride, count, n, w.dy.outer_stride, second)
            part.dy, part.rows = on_desk(second, count, n, False), count
            o = first // w.rows * n if w.per_position else first * w.segments
            if w.rstd:
                part.rstd = w.rstd + first
            if w.sums:
                part.sums, part.products = w.sums + o, w.products + o
            run_typed(<const lanes32*> desk, &part, 0, 1)
        else:
            if w.mean:
                part.m2 = w.m2 + first
            if w.residual:
                widen(w.storage, <const bits16*> w.addend + first * n, desk, count * n)
                widen(w.storage, <const bits16*> w.residual + first * n, second, count * n)
                add_arrays(<const lanes32*> desk, <const lanes32*> second, <lanes32*> desk, count * n)
                if w.x.data != w.y.data:  # the sum is wanted
                    scatter(w.storage, desk, &w.x, first * n, count, n, n)
            else:
                gather(w.storage, &w.x, first * w.x.outer_stride, count, n, w.x.outer_stride, desk)
            run_typed(<const lanes32*> desk, &part, 0, count)
            if w.activate:
                w.activate(desk, count * n)
            if w.quantized:
                for o in range(count):
                    quantize_float(desk + o * n, w.quantized + (first + o) * n, n, w.scales + first + o)
        scatter(w.storage, result, &w.y, first * w.y.outer_stride, count, n, w.y.outer_stride)
        first += count


cdef void narrow_column_lines(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of the tiles `start` to `stop`, counted over (outer, tiles), each of them on the desk."""
    cdef float* desk = desk_of_thread()
    cdef float weight[MAX_LINES]
    cdef float bias[MAX_LINES]
    cdef const lanes32* factors = <const lanes32*> w.weight if w.per_position else <const lanes32*> weight
    cdef const lanes32* addends = <const lanes32*> w.bias if w.per_position else <const lanes32*> bias
    cdef Py_ssize_t tiles = parts(w.x.inner, MAX_LINES), k, o, c, j, p, width
    cdef View v
    for k in range(start, stop):
        o, c = k // tiles, k % tiles * MAX_LINES
        p, width = o * w.x.inner + c, min(w.x.inner - c, MAX_LINES)
        if not w.per_position:
            for j in range(width):
                weight[j] = (<const float*> w.weight)[(p + j) % w.parameters]
                bias[j] = (<const float*> w.bias)[(p + j) % w.parameters]
        v = on_desk(desk, w.x.n, width, True)
        gather(w.storage, &w.x, o * w.x.outer_stride + c, w.x.n, width, w.x.stride, desk)
        # Not by way of `run_typed`: a tile of one column would pass for a row there, whose sums have another order.
        normalize_columns(
            <const lanes32*> desk, <lanes32*> desk, v, v, factors, addends, width, w.per_position, &w.rule,
            w.mean + p if w.mean else NULL, w.m2 + p if w.mean else NULL, 0, 1
        )
        scatter(w.storage, desk, &w.y, o * w.y.outer_stride + c, w.x.n, width, w.y.stride)


cdef void narrow_short_rows(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The same over the rows `start` to `stop`, so short that several lie on the desk together."""
    cdef float* desk = desk_of_thread()
    cdef float* upstream = desk + PIECE
    cdef Work part
    cdef Py_ssize_t n = w.x.n, o = start, count
    while o < stop:
        part = w[0]
        part.storage = SINGLE
        count = min(PIECE // n, stop - o)
        part.x = on_desk(desk, count, n, False)
        gather(w.storage, &w.x, o * w.x.outer_stride, count, n, w.x.outer_stride, desk)
        if w.primitive == MOMENTS:
            part.mean, part.lo, part.m2 = w.mean + o, w.lo + o, w.m2 + o
        elif w.primitive == EXTREMA:
            part.lows, part.highs = <float*> w.lows + o, <float*> w.highs + o
        else:
            count = min(count, w.lines - o % w.lines)
            part.mean, part.sums, part.products = w.mean + o % w.lines, w.sums + o, w.products + o
            part.dy = on_desk(upstream, count, n, False)
            gather(w.storage, &w.dy, o * w.dy.outer_stride, count, n, w.dy.outer_stride, upstream)
        run_typed(<const lanes32*> desk, &part, 0, count)
        o += count


cdef void narrow_row_chunks(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """MOMENTS, EXTREMA and DOTS over the chunks `start` to `stop` of rows, counted over (outer, chunks)."""
    cdef float* desk = desk_of_thread()
    cdef float* upstream = desk + BLOCK
    cdef const lanes32* x = <const lanes32*> desk
    cdef const lanes32* dy = <const lanes32*> upstream
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), k, o, p = 0, i, first, last, length
    cdef double found[2]
    cdef double low, high
    cdef Moments chunk
    cdef View v
    for k in range(start, stop):
        o, first = k // chunks, k % chunks * CHUNK
        last = min(first + CHUNK, w.x.n)
        if w.lines:
            p = o % w.lines
        chunk = Moments(0.0, 0.0, 0.0, 0.0)
        found[0] = found[1] = 0.0
        for i from first <= i < last by BLOCK:
            length = min(BLOCK, last - i)
            v = on_desk(desk, 1, length, False)
            gather(w.storage, &w.x, o * w.x.outer_stride + i, 1, length, length, desk)
            if w.dy.data:
                gather(w.storage, &w.dy, o * w.dy.outer_stride + i, 1, length, length, upstream)
            if w.primitive == MOMENTS:
                absorb_block(&chunk, x, length, w.rule.measure)
            elif w.primitive == EXTREMA:
                extrema_block(x, v, i == first, <float*> w.lows + k, <float*> w.highs + k)
            else:
                block_dots(x, dy, x, False, length, rounded(x, w.mean[p]), found)
        if w.primitive == MOMENTS:
            w.mean[k], w.lo[k], w.m2[k] = chunk.hi, chunk.lo, chunk.m2
        elif w.primitive == DOTS:
            found[1] -= (w.mean[p] - rounded(x, w.mean[p])) * found[0]
            if not is_finite(found[0]) or not is_finite(found[1]):
                narrow_wide_dots(w, o, first, last, w.mean[p], found)
            w.sums[k], w.products[k] = found[0], found[1]


cdef void narrow_wide_dots(
    const Work* w, Py_ssize_t o, Py_ssize_t first, Py_ssize_t last, double mean, double* sums
) noexcept nogil:
    """`wide_dots` of a chunk."""
    cdef float x[1]
    cdef float dy[1]
    cdef Py_ssize_t i
    sums[0] = sums[1] = 0.0
    for i in range(first, last):
        gather(w.storage, &w.x, o * w.x.outer_stride + i, 1, 1, 1, x)
        gather(w.storage, &w.dy, o * w.dy.outer_stride + i, 1, 1, 1, dy)
        sums[0] += dy[0]
        sums[1] += dy[0] * (x[0] - mean)


cdef inline void extrema_block(const lanes32* x, View v, bint fresh, float* lows, float* highs) noexcept nogil:
    """The extremes of a block on the desk join those of its chunk, of each line: NaN, once met, stays."""
    cdef float least_of[MAX_LINES]
    cdef float largest_of[MAX_LINES]
    cdef Py_ssize_t j
    if v.inner == 1:
        extrema_rows(x, v, <lanes32*> least_of, <lanes32*> largest_of, 0, 1)
    else:
        extrema_columns(x, v, <lanes32*> least_of, <lanes32*> largest_of, 0, 1)
    for j in range(v.inner):
        if fresh or least_of[j] < lows[j] or least_of[j] != least_of[j]:
            lows[j] = least_of[j]
        if fresh or largest_of[j] > highs[j] or largest_of[j] != largest_of[j]:
            highs[j] = largest_of[j]


cdef void narrow_column_chunks(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """MOMENTS, EXTREMA and DOTS over the tiles `start` to `stop` of columns, counted over (outer, chunks, tiles)."""
    cdef float* desk = desk_of_thread()
    cdef float* upstream = desk + BLOCK_COLUMNS * MAX_LINES
    cdef const lanes32* x = <const lanes32*> desk
    cdef Py_ssize_t tiles = parts(w.x.inner, MAX_LINES), chunks = parts(w.x.n, CHUNK_COLUMNS)
    cdef Py_ssize_t k, o, c, i, j, p, q, first, last, rows, width
    cdef Columns chunk
    for k in range(start, stop):
        o, first, c = k // tiles // chunks, k // tiles % chunks * CHUNK_COLUMNS, k % tiles * MAX_LINES
        p, width, last = k // tiles * w.x.inner + c, min(w.x.inner - c, MAX_LINES), min(first + CHUNK_COLUMNS, w.x.n)
        q = o % w.lines * w.x.inner + c if w.primitive == DOTS else 0
        chunk.count = 0.0
        if w.primitive == DOTS:
            for j in range(p, p + width):
                w.sums[j] = w.products[j] = 0.0
        for i from first <= i < last by BLOCK_COLUMNS:
            rows = min(BLOCK_COLUMNS, last - i)
            gather(w.storage, &w.x, o * w.x.outer_stride + i * w.x.stride + c, rows, width, w.x.stride, desk)
            if w.primitive == MOMENTS:
                absorb_column_block(&chunk, x, width, rows, width, w.rule.measure, 0)
            elif w.primitive == EXTREMA:
                extrema_block(
                    x, on_desk(desk, rows, width, True), i == first, <float*> w.lows + p, <float*> w.highs + p
                )
            else:
                gather(
                    w.storage, &w.dy, o * w.dy.outer_stride + i * w.dy.stride + c, rows, width, w.dy.stride, upstream
                )
                lanes32_column_dots(
                    x, width, <const lanes32*> upstream, width, rows, width, w.mean + q, w.products + p, w.sums + p
                )
        if w.primitive == MOMENTS:
            for j in range(width):
                w.mean[p + j], w.lo[p + j], w.m2[p + j] = chunk.hi[j], chunk.lo[j], chunk.m2[j]


cdef inline void affine_run(
    Storage storage, const Work* w, const bits16* x, const bits16* dy, bits16* y, Py_ssize_t n, Py_ssize_t p,
    const float* weight, const float* bias
) noexcept nogil:
    """AFFINE or AFFINE_GRAD of a run with one set of coefficients, number p; each element is read and written once."""
    cdef const lanes32* like = NULL
    cdef Py_ssize_t i, count
    cdef double mean
    cdef Coefficients c
    cdef lanes32 centre, scale, rest, shift, v
    if w.primitive == AFFINE_GRAD:
        mean = w.coefficients[0][p]
        centre, scale = splat(like, rounded(like, mean)), splat(like, w.coefficients[1][p])
        rest = splat(like, w.coefficients[2][p])
        shift = splat(like, w.coefficients[3][p] - w.coefficients[2][p] * (mean - rounded(like, mean)))
    else:
        c = coefficients(
            like, w.coefficients[0][p], w.coefficients[1][p], w.coefficients[2][p],
            0.0 if weight else w.coefficients[3][p]
        )
        centre, scale = splat(like, c.centre), splat(like, c.scale)
        rest, shift = splat(like, c.scale_rest), splat(like, c.shift)
    for i from 0 <= i < n by 32:
        count = min(n - i, 32)
        prefetch_line(x + i + 32 * READ_AHEAD)
        prefetch_line(y + i + 32 * WRITE_AHEAD)
        v = wide_bundle(storage, x + i, count)
        if w.primitive == AFFINE_GRAD:
            prefetch_line(dy + i + 32 * READ_AHEAD)
            v = fused(wide_bundle(storage, dy + i, count), scale, fused(subtract(v, centre), rest, shift))
        else:
            v = apply(v, centre, scale, rest, shift)
            if weight:
                v = fused(
                    v, load_columns(<const lanes32*> weight, i, count, 0.0),
                    load_columns(<const lanes32*> bias, i, count, 0.0) if bias else splat(like, 0.0)
                )
        put_narrow(storage, y + i, count, v)


cdef inline void narrow_row_pieces(Storage storage, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """AFFINE and AFFINE_GRAD of rows: the chunks `start` to `stop`, counted over (outer, chunks)."""
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), k, o, i
    cdef const float* weight = <const float*> w.weight
    cdef const float* bias = <const float*> w.bias
    for k in range(start, stop):
        o, i = k // chunks, k % chunks * CHUNK
        affine_run(
            storage, w, <const bits16*> w.x.data + o * w.x.outer_stride + i,
            <const bits16*> w.dy.data + o * w.dy.outer_stride + i, <bits16*> w.y.data + o * w.y.outer_stride + i,
            min(w.x.n - i, CHUNK), o % w.lines, weight + i if weight else NULL, bias + i if weight and bias else NULL
        )


cdef inline void narrow_column_pieces(Storage storage, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The same of columns."""
    cdef lanes32 tile[4 * WIDE]     # centre, scale, its rest (or slope) and shift, WIDE bundles each
    cdef lanes32 v, g, factor, addend
    cdef const bits16* x
    cdef const bits16* dy = NULL
    cdef bits16* y
    cdef Py_ssize_t pieces = parts(w.x.n, w.piece), most = WIDE * 32, k, o, c, i, j, p, q, width, count, first
    cdef Py_ssize_t ahead_x, ahead_y
    cdef double nothing[32 * WIDE]
    cdef const double* addends
    memset(nothing, 0, sizeof(nothing))
    for k in range(start, stop):
        o, first = k // pieces, k % pieces * w.piece
        for c from 0 <= c < w.x.inner by most:
            width, p = min(w.x.inner - c, most), o % w.lines * w.x.inner + c
            ahead_x = parts(READ_AHEAD * 32, width) * w.x.stride
            ahead_y = parts(WRITE_AHEAD * 32, width) * w.y.stride
            addends = w.coefficients[3] + p
            if w.weight:
                addends = nothing
            if w.primitive == AFFINE_GRAD:
                set_slopes(tile, width, w.coefficients[0] + p, w.coefficients[1] + p, w.coefficients[2] + p, addends)
            else:
                set_lines(
                    &tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE], width, w.coefficients[0] + p,
                    w.coefficients[1] + p, w.coefficients[2] + p, addends
                )
            for i in range(first, min(first + w.piece, w.x.n)):
                x = <const bits16*> w.x.data + o * w.x.outer_stride + i * w.x.stride + c
                y = <bits16*> w.y.data + o * w.y.outer_stride + i * w.y.stride + c
                if w.weight:
                    factor = splat(tile, (<const float*> w.weight)[i])
                    addend = splat(tile, (<const float*> w.bias)[i])
                if w.primitive == AFFINE_GRAD:
                    dy = <const bits16*> w.dy.data + o * w.dy.outer_stride + i * w.dy.stride + c
                q = 0
                for j from 0 <= j < width by 32:
                    count = min(width - j, 32)
                    prefetch_line(x + j + ahead_x)
                    prefetch_line(y + j + ahead_y)
                    v = wide_bundle(storage, x + j, count)
                    if w.primitive == AFFINE_GRAD:
                        g = wide_bundle(storage, dy + j, count)
                        v = fused(subtract(v, tile[q]), tile[2 * WIDE + q], tile[3 * WIDE + q])
                        v = fused(g, tile[WIDE + q], v)
                    else:
                        v = apply(v, tile[q], tile[WIDE + q], tile[2 * WIDE + q], tile[3 * WIDE + q])
                        if w.weight:
                            v = fused(v, factor, addend)
                    put_narrow(storage, y + j, count, v)
                    q += 1


cdef inline void narrow_pieces(Storage storage, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    if w.x.inner == 1:
        narrow_row_pieces(storage, w, start, stop)
    else:
        narrow_column_pieces(storage, w, start, stop)


cdef void run_narrow(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop` of a call on a narrow type."""
    cdef bint rows = w.x.inner == 1
    if w.storage == BYTE:
        run_bytes(w, start, stop)
    elif w.primitive == NORMALIZE_GRAD or (w.primitive == NORMALIZE and rows):
        narrow_lines(w, start, stop)
    elif w.primitive == NORMALIZE:
        narrow_column_lines(w, start, stop)
    elif (w.primitive == AFFINE or w.primitive == AFFINE_GRAD) and w.storage == HALF:
        narrow_pieces(HALF, w, start, stop)     # once for each type: loops need not ask
    elif w.primitive == AFFINE or w.primitive == AFFINE_GRAD:
        narrow_pieces(BFLOAT, w, start, stop)
    elif rows and w.x.n <= PIECE // LEAST_ROWS:
        narrow_short_rows(w, start, stop)
    elif rows:
        narrow_row_chunks(w, start, stop)
    else:
        narrow_column_chunks(w, start, stop)


cdef struct Conversion:
    Storage storage
    bint widened
    void* source
    void* target
    Py_ssize_t n


cdef void convert_pieces(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The pieces `start` to `stop` of an array."""
    cdef Conversion* c = <Conversion*> work
    cdef Py_ssize_t i = start * PIECE, n = min(stop * PIECE, c.n) - start * PIECE
    if c.widened:
        widen(c.storage, <const bits16*> c.source + i, <float*> c.target + i, n)
    else:
        narrow(c.storage, <const float*> c.source + i, <bits16*> c.target + i, n)


def convert(cnp.ndarray source, cnp.ndarray target, int threads):
    """Write `source` to `target`, both contiguous, (n,): 16-bit floats to float32 or, rounded, back."""
    cdef Conversion c
    c.widened = cnp.PyArray_TYPE(target) == cnp.NPY_FLOAT32
    c.storage = storage_of(source if c.widened else target)
    c.source, c.target, c.n = data_of(source), data_of(target), cnp.PyArray_SIZE(source)
    with nogil:
        pool_run(convert_pieces, &c, parts(c.n, PIECE), threads)
