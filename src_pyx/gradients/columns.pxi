# Backward passes down columns: the sums of lines side by side, and dx from them.

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
