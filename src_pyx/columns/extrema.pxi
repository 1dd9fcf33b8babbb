# The least and the largest element of lines side by side.

cdef enum:
    EXTENDED = 16                   # rows that the extrema of a bundle take in before the next bundle has its turn


cdef inline void extend(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, lanes* low, lanes* high
) noexcept nogil:
    """The extrema of a bundle of columns, of which `width` exist, take in n positions."""
    cdef Py_ssize_t r
    cdef lanes values
    for r in range(n):
        prefetch(x, (EXTENDED + r) * stride)
        values = load_columns(x, r * stride, width, 0.0)
        low[0], high[0] = minimum(low[0], values), maximum(high[0], values)


cdef void extend_abreast(
    const lanes* x, Py_ssize_t stride, Py_ssize_t blocks, Py_ssize_t width, lanes* low, lanes* high
) noexcept nogil:
    """`extend` by several blocks of few columns; of two zeros the first stays, as if they came one by one."""
    cdef lanes desk[BLOCK_COLUMNS * ABREAST]
    cdef lanes lows[ABREAST]
    cdef lanes highs[ABREAST]
    cdef Py_ssize_t b, c, all_columns = blocks * width, step = lane_count(x)
    lay_blocks_abreast(x, stride, blocks, width, desk)
    for b in range(parts(all_columns, step)):
        c = b * step
        lows[b] = load_columns(desk, c, all_columns - c, 0.0)
        highs[b] = lows[b]
        extend(at(desk, c), all_columns, BLOCK_COLUMNS, all_columns - c, &lows[b], &highs[b])
    for b in range(blocks):
        low[0] = minimum(low[0], load_partial(lows, b * width, width, 0.0))
        high[0] = maximum(high[0], load_partial(<const lanes*> highs, b * width, width, 0.0))


cdef void extrema_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The least and the largest element of units as those of `moments_columns`."""
    cdef Py_ssize_t o, i, j, b, c, k, p, n, done, blocks, width, step = lane_count(x)
    cdef Py_ssize_t units = parts(w.x.inner, w.columns), chunks = parts(w.x.n, CHUNK_COLUMNS)
    cdef const lanes* source
    cdef lanes low[ROW_TILES * TILE]
    cdef lanes high[ROW_TILES * TILE]
    for k in range(start, stop):
        o, i, c = k // units // chunks, k // units % chunks * CHUNK_COLUMNS, k % units * w.columns
        source = at(x, o * w.x.outer_stride + i * w.x.stride + c)
        p, width, n = k // units * w.x.inner + c, min(w.x.inner - c, w.columns), min(w.x.n - i, CHUNK_COLUMNS)
        for b in range(parts(width, step)):
            low[b] = load_columns(source, b * step, width - b * step, 0.0)
            high[b] = low[b]
        done, blocks = 0, blocks_abreast(x, n, width, EXTREMA_ABREAST)
        while blocks:
            extend_abreast(at(source, done * w.x.stride), w.x.stride, blocks, width, &low[0], &high[0])
            done += blocks * BLOCK_COLUMNS
            blocks = blocks_abreast(x, n - done, width, EXTREMA_ABREAST)
        for i from done <= i < n by EXTENDED:
            for b in range(parts(width, step)):
                j = b * step
                extend(at(source, i * w.x.stride + j), w.x.stride, min(n - i, EXTENDED), width - j, &low[b], &high[b])
        for b in range(parts(width, step)):
            j = b * step
            store_columns(<lanes*> w.lows, p + j, width - j, low[b])
            store_columns(<lanes*> w.highs, p + j, width - j, high[b])
