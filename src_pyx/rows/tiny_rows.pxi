# Rows shorter than a bundle: those in flight are transposed, a row to a lane, so that what is done once a row is done
# for all of them in vectors, none of them half empty. Lanes are added as a row's own lanes are folded: the same bits.

cdef extern from "vectors/tiles.h" nogil:
    void lanes32_transpose(
        const lanes32* x, Py_ssize_t x_stride, Py_ssize_t rows, Py_ssize_t n, lanes32* y, Py_ssize_t y_stride
    )
    void lanes64_transpose(
        const lanes64* x, Py_ssize_t x_stride, Py_ssize_t rows, Py_ssize_t n, lanes64* y, Py_ssize_t y_stride
    )

cdef enum:
    TILE_ROOM = 32              # bundles: a transposed row has at most the elements of a bundle of float32


cdef inline void transpose(
    const lanes* x, Py_ssize_t x_stride, Py_ssize_t rows, Py_ssize_t n, lanes* y, Py_ssize_t y_stride
) noexcept nogil:
    """y[j, k] = x[k, j], for `rows` of n elements; strides are those of rows."""
    if lanes is lanes32:
        lanes32_transpose(x, x_stride, rows, n, y, y_stride)
    else:
        lanes64_transpose(x, x_stride, rows, n, y, y_stride)


cdef inline lanes folded(lanes* tile, Py_ssize_t half) noexcept nogil:
    """The sums of the rows of a tile of `half` bundles, by halves, as in `total`, in place."""
    cdef Py_ssize_t j
    while half > 1:
        half = half // 2
        for j in range(half):
            tile[j] = add(tile[j], tile[j + half])
    return add(tile[0], splat(tile, 0.0))  # lanes that hold no element make +0 of -0


cdef inline void widen_sums(const lanes* sums, double* read) noexcept nogil:
    """The lanes of a bundle as float64."""
    cdef Py_ssize_t k
    for k in range(lane_count(sums)):
        read[k] = element(sums, k)


cdef inline void stage_tile(const lanes* tile, Py_ssize_t n, Measure measure, Flight* f) noexcept nogil:
    """`stage_sums` of the rows of a tile."""
    cdef Py_ssize_t j, k, half = 1
    cdef lanes e[TILE_ROOM]
    cdef lanes q[TILE_ROOM]
    cdef lanes centre = splat(tile, 0.0), sums, c, d
    while 2 * half < n:
        half *= 2
    if measure == VARIANCE:
        for j in range(half):
            e[j] = tile[j]
            if j + half < n:
                e[j] = add(tile[j], tile[j + half])
        sums = folded(e, half)
        widen_sums(&sums, f.e)
        for k in range(lane_count(tile)):
            set_element(<lanes*> f.origin, k, f.e[k] / n)
        centre = load(<const lanes*> f.origin, 0)
    for j in range(half):
        c = subtract(tile[j], centre)
        if j + half < n:
            d = subtract(tile[j + half], centre)
            e[j], q[j] = add(c, d), add(power(c, measure), power(d, measure))
        else:
            e[j], q[j] = c, power(c, measure)
    if measure == VARIANCE:
        sums = folded(e, half)
        widen_sums(&sums, f.e)
    sums = folded(q, half)
    widen_sums(&sums, f.q)


cdef inline void apply_tile(
    lanes* tile, Py_ssize_t n, const lanes* weight, const lanes* bias, const Flight* f
) noexcept nogil:
    """The results in place, of rows that are ordinary; with a weight for each position if it is not NULL."""
    cdef lanes centre = load(<const lanes*> f.centre, 0), scale = load(<const lanes*> f.scale, 0)
    cdef lanes rest = load(<const lanes*> f.scale_rest, 0), addend = load(<const lanes*> f.addend, 0)
    cdef Py_ssize_t j
    for j in range(n):
        tile[j] = apply(tile[j], centre, scale, rest, addend)
        if weight:
            tile[j] = fused(tile[j], splat(tile, element(weight, j)), splat(tile, element(bias, j) if bias else 0.0))
