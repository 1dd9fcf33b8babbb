# Columns of 16-bit floats: tiles of them lie on the desk as float32.


cdef void narrow_column_lines(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of the tiles `start` to `stop`, counted over (outer, tiles), each of them on the desk."""
    cdef float* desk = desk_of_thread()
    cdef float weight[MAX_LINES]
    cdef float bias[MAX_LINES]
    cdef Py_ssize_t tiles = parts(w.x.inner, MAX_LINES), k, o, c, j, p, width
    cdef Work tile = w[0]
    if not w.per_position:
        tile.weight, tile.bias = weight, bias
    for k in range(start, stop):
        o, c = k // tiles, k % tiles * MAX_LINES
        p, width = o * w.x.inner + c, min(w.x.inner - c, MAX_LINES)
        if not w.per_position:
            for j in range(width):
                weight[j] = (<const float*> w.weight)[(p + j) % w.parameters]
                bias[j] = (<const float*> w.bias)[(p + j) % w.parameters]
        tile.x = tile.y = on_desk(desk, w.x.n, width, True)
        tile.parameters = width
        if w.mean:
            tile.mean, tile.m2 = w.mean + p, w.m2 + p
        gather(w.storage, &w.x, o * w.x.outer_stride + c, w.x.n, width, w.x.stride, desk)
        # Not by way of `run_typed`: a tile of one column would pass for a row there, whose sums have another order.
        normalize_columns(<const lanes32*> desk, &tile, 0, 1)
        scatter(w.storage, desk, &w.y, o * w.y.outer_stride + c, w.x.n, width, w.y.stride)


cdef void narrow_column_chunks(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """MOMENTS, EXTREMA and DOTS over the tiles `start` to `stop` of columns, counted over (outer, chunks, tiles)."""
    cdef float* desk = desk_of_thread()
    cdef float* upstream = desk + BLOCK_COLUMNS * MAX_LINES
    cdef const lanes32* x = <const lanes32*> desk
    cdef Py_ssize_t tiles = parts(w.x.inner, MAX_LINES), chunks = parts(w.x.n, CHUNK_COLUMNS)
    cdef Py_ssize_t k, o, c, i, j, p, q, first, last, rows, width, most
    cdef Columns chunk
    for k in range(start, stop):
        o, first, c = k // tiles // chunks, k // tiles % chunks * CHUNK_COLUMNS, k % tiles * MAX_LINES
        p, width, last = k // tiles * w.x.inner + c, min(w.x.inner - c, MAX_LINES), min(first + CHUNK_COLUMNS, w.x.n)
        q = o % w.lines * w.x.inner + c if w.primitive == DOTS else 0
        chunk.count = 0.0
        if w.primitive == DOTS:
            for j in range(p, p + width):
                w.sums[j] = w.products[j] = 0.0
        most = BLOCK_COLUMNS
        if w.primitive != DOTS:
            most *= MAX_LINES // width  # blocks of few columns lie side by side
        for i from first <= i < last by most:
            rows = min(most, last - i)
            gather(w.storage, &w.x, o * w.x.outer_stride + i * w.x.stride + c, rows, width, w.x.stride, desk)
            if w.primitive == MOMENTS:
                absorb_column_blocks(&chunk, x, width, rows, width, w.rule.measure, 0)
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
