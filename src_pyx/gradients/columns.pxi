# Backward passes down columns: the sums of lines side by side, and dx from them.

cdef void dots_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`dots_rows` down columns: the tiles `start` to `stop`, counted over (outer, chunks, tiles)."""
    cdef Py_ssize_t o, i, c, j, k, p, width, n
    cdef Py_ssize_t tiles = parts(w.x.inner, w.columns), chunks = parts(w.x.n, CHUNK_COLUMNS)
    cdef const lanes* source
    cdef const lanes* upstream
    for k in range(start, stop):
        o, i, c = k // tiles // chunks, k // tiles % chunks * CHUNK_COLUMNS, k % tiles * w.columns
        p, width, n = k // tiles * w.x.inner + c, min(w.x.inner - c, w.columns), min(w.x.n - i, CHUNK_COLUMNS)
        source = at(x, o * w.x.outer_stride + i * w.x.stride + c)
        upstream = at(<const lanes*> w.dy.data, o * w.dy.outer_stride + i * w.dy.stride + c)
        for j in range(p, p + width):
            w.sums[j] = w.products[j] = 0.0
        c += o % w.lines * w.x.inner
        if lanes is lanes32:
            lanes32_column_dots(
                source, w.x.stride, upstream, w.dy.stride, n, width, w.mean + c, w.products + p, w.sums + p
            )
        else:
            lanes64_column_dots(
                source, w.x.stride, upstream, w.dy.stride, n, width, w.mean + c, w.products + p, w.sums + p
            )


cdef inline void set_slopes(
    lanes* tile, Py_ssize_t width, const double* mean, const double* scale, const double* slope, const double* shift
) noexcept nogil:
    """Write centre, scale, slope and shift of lines side by side, WIDE bundles each."""
    cdef Py_ssize_t j
    cdef double centre
    for j in range(4):
        clear_rest(&tile[j * WIDE], width)
    for j in range(width):
        centre = rounded(tile, mean[j])
        set_element(&tile[0], j, centre)
        set_element(&tile[WIDE], j, scale[j])
        set_element(&tile[2 * WIDE], j, slope[j])
        set_element(&tile[3 * WIDE], j, shift[j] - slope[j] * (mean[j] - centre))


cdef inline void slope_columns(
    const lanes* x, const lanes* dy, lanes* dx, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t x_stride,
    Py_ssize_t dy_stride, Py_ssize_t dx_stride, const lanes* tile, bint streamed
) noexcept nogil:
    cdef Py_ssize_t i, r, j, step = lane_count(x), whole = width - width % step
    cdef Py_ssize_t ahead = parts(WRITE_AHEAD * step, width) * dx_stride
    cdef bint aligned = streamed and aligned_rows(dx, dx_stride)
    cdef Py_ssize_t paired = 0 if aligned else rows - rows % 2
    for i from 0 <= i < paired by 2:
        for j from 0 <= j < whole by step:
            prefetch(dx, i * dx_stride + j + ahead)
            prefetch(dx, (i + 1) * dx_stride + j + ahead)
            slope_to_two(
                at(x, i * x_stride + j), x_stride, at(dy, i * dy_stride + j), dy_stride, at(dx, i * dx_stride + j),
                dx_stride, at(tile, j)
            )
        for r in range(i, i + 2):
            slope_row_of_columns(
                at(x, r * x_stride), at(dy, r * dy_stride), at(dx, r * dx_stride), whole, width, tile, False, ahead
            )
    for i in range(paired, rows):
        slope_row_of_columns(
            at(x, i * x_stride), at(dy, i * dy_stride), at(dx, i * dx_stride), 0, width, tile, aligned, ahead
        )


cdef inline void slope_to_two(
    const lanes* x, Py_ssize_t x_stride, const lanes* dy, Py_ssize_t dy_stride, lanes* dx, Py_ssize_t dx_stride,
    const lanes* tile
) noexcept nogil:
    """A bundle of columns of two rows, of whose four coefficients the first is at `tile`."""
    cdef Py_ssize_t wide = WIDE * lane_count(x)
    if lanes is lanes32:
        lanes32_slope_to_two(
            x, x_stride, dy, dy_stride, dx, dx_stride, tile, at(tile, wide), at(tile, 2 * wide), at(tile, 3 * wide)
        )
    else:
        lanes64_slope_to_two(
            x, x_stride, dy, dy_stride, dx, dx_stride, tile, at(tile, wide), at(tile, 2 * wide), at(tile, 3 * wide)
        )


cdef inline void slope_row_of_columns(
    const lanes* x, const lanes* dy, lanes* dx, Py_ssize_t first, Py_ssize_t width, const lanes* tile, bint aligned,
    Py_ssize_t ahead
) noexcept nogil:
    """The columns from `first` on of a row."""
    cdef Py_ssize_t j, step = lane_count(x), q = first // step
    cdef lanes d, g
    for j from first <= j < width by step:
        if not aligned:
            prefetch(dx, j + ahead)
        d = load_columns(x, j, width - j, 0.0)
        g = load_columns(dy, j, width - j, 0.0)
        d = fused(subtract(d, tile[q]), tile[2 * WIDE + q], tile[3 * WIDE + q])
        d = fused(g, tile[WIDE + q], d)
        if aligned and width - j >= step:
            stream(dx, j, d)
        else:
            store_columns(dx, j, width - j, d)
        q += 1


cdef void affine_grad_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """`affine_grad_rows` down columns: the pieces `start` to `stop`, counted over (outer, pieces)."""
    cdef Py_ssize_t o, i, c, k, p, width, wide = WIDE * lane_count(x), pieces = parts(w.x.n, w.piece)
    cdef lanes tile[4 * WIDE]
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * w.piece
        for c from 0 <= c < w.x.inner by wide:
            width, p = min(wide, w.x.inner - c), o % w.lines * w.x.inner + c
            set_slopes(
                tile, width, w.coefficients[0] + p, w.coefficients[1] + p, w.coefficients[2] + p, w.coefficients[3] + p
            )
            slope_columns(
                at(x, o * w.x.outer_stride + i * w.x.stride + c),
                at(<const lanes*> w.dy.data, o * w.dy.outer_stride + i * w.dy.stride + c),
                at(<const lanes*> w.y.data, o * w.y.outer_stride + i * w.y.stride + c), min(w.x.n - i, w.piece), width,
                w.x.stride, w.dy.stride, w.y.stride, tile, w.y.streamed
            )
