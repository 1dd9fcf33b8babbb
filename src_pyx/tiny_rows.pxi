# Rows of a few elements: those in flight lie side by side, a row to a lane, so that what is done once a row is done for
# all of them in vectors. Lanes are added as a row's own lanes are folded, zeros and all: the bits are the same.

cdef enum:
    TINY = 8                    # elements of the longest such row, and bundles of a tile


cdef inline lanes folded(const lanes* tile) noexcept nogil:
    """The sums of the rows of a tile, by halves, as in `total`; that other lanes hold 0 shows in -0 alone."""
    cdef lanes zero = splat(tile, 0.0)
    cdef lanes even = add(add(add(tile[0], zero), tile[4]), add(add(tile[2], zero), tile[6]))
    cdef lanes odd = add(add(add(tile[1], zero), tile[5]), add(add(tile[3], zero), tile[7]))
    return add(even, odd)


cdef inline void read_folded(const lanes* tile, Py_ssize_t count, double* sums) noexcept nogil:
    """The same as float64."""
    cdef lanes sum_ = folded(tile)
    cdef Py_ssize_t k
    for k in range(count):
        sums[k] = element(&sum_, k)


cdef inline void stage_tile(
    const lanes* x, View v, Measure measure, Py_ssize_t start, Py_ssize_t count, Flight* f, lanes* tile
) noexcept nogil:
    """`stage_sums` of rows that are left on the tile, element j of row k in lane k of bundle j."""
    cdef Py_ssize_t j, k, step = lane_count(x)
    cdef const lanes* source
    cdef lanes deviations[TINY]
    cdef lanes squares[TINY]
    cdef lanes zero = splat(x, 0.0), centre = zero, d
    for k in range(count):
        source = <const lanes*> at(x, (start + k) * v.outer_stride)
        for j in range(v.n):
            set_element(tile, j * step + k, element(source, j))
    if measure == VARIANCE:
        read_folded(tile, count, f.e)
        for k in range(count):
            set_element(<lanes*> f.shift, k, f.e[k] / v.n)
        centre = load(<const lanes*> f.shift, 0)
    for j in range(TINY):
        d = subtract(tile[j], centre) if j < v.n else zero
        deviations[j] = d
        squares[j] = magnitude(d) if measure == MAGNITUDES else fused(d, d, zero)
    if measure == VARIANCE:
        read_folded(deviations, count, f.e)
    read_folded(squares, count, f.q)


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
            tile[j] = fused(
                tile[j], splat(tile, element(weight, j)), splat(tile, element(bias, j) if bias else 0.0)
            )
