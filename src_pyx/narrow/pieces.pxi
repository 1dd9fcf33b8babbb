# Narrow types element by element, AFFINE and AFFINE_GRAD: from register to register, except for bytes.


cdef void run_bytes(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """AFFINE of contiguous bytes into contiguous float32: the pieces `start` to `stop`, as affine_rows or _columns.

    Down columns all have the same coefficients, those of line 0.
    """
    cdef float* desk = desk_of_thread()
    cdef const unsigned char* source = <const unsigned char*> w.x.data
    cdef float* target = <float*> w.y.data
    cdef Py_ssize_t i, k, p, length, place, n = w.x.n, inner = w.x.inner
    cdef Py_ssize_t most = CHUNK if inner == 1 else w.piece, pieces = parts(n, most)
    cdef Coefficients c
    cdef Work part = w[0]
    part.x.outer = part.lines = 1
    for k in range(start, stop):
        p, place = k // pieces % w.lines, k // pieces * w.x.outer_stride + k % pieces * most * inner
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
        for i from 0 <= i < length by PIECE // inner:
            part.x.n = part.piece = min(PIECE // inner, length - i)
            part.y.data = target + place + i * inner
            bytes_to_floats(source + place + i * inner, desk, part.x.n * inner)
            affine_columns(<const lanes32*> desk, &part, 0, 1)


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
