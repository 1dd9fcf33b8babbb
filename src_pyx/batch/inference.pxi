# batch_norm with given statistics: from mean, variance, weight and bias to coefficients, for all channels at once or,
# where the channels are last and have few rows, by the thread that applies them.

cdef enum:
    INFER_ROWS = 128        # positions: with more, coefficients that are made once are a small part of the work

cdef double LARGEST_CENTRE = _ranges.LARGEST_CENTRE


cdef inline void read_vector(
    const Vector* a, Py_ssize_t first, double value, double* numbers, Py_ssize_t length
) noexcept nogil:
    """The elements from number `first` on as float64; `value` everywhere if the vector is missing."""
    cdef Py_ssize_t c
    cdef const float* singles = <const float*> a.data + first
    if a.data == NULL:
        for c in range(length):
            numbers[c] = value
    elif a.single:
        for c in range(length):
            numbers[c] = singles[c]
    else:
        memcpy(numbers, <const double*> a.data + first, length * sizeof(double))


cdef inline bint fold(
    const Vector* vectors, Py_ssize_t first, Py_ssize_t channels, bint single, double eps, double* hi, double* lo,
    double* scale, double* shift
) noexcept nogil:
    """Write the coefficients of some channels; return whether the kernels, in float32 or float64, can apply them."""
    cdef double factor, rstd
    cdef Py_ssize_t c, strange = 0
    read_vector(&vectors[0], first, 0.0, hi, channels)
    memset(lo, 0, channels * sizeof(double))
    read_vector(&vectors[1], first, 0.0, scale, channels)
    read_vector(&vectors[2], first, 1.0, shift, channels)
    for c in range(channels):
        rstd = 1.0 / sqrt(scale[c] + eps)
        factor = rstd * shift[c]
        strange += not are_applied(single, rstd, factor) or (single and fabs(hi[c]) > LARGEST_CENTRE)
        scale[c] = factor
    read_vector(&vectors[3], first, 0.0, shift, channels)
    return strange == 0


cdef void infer_columns(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The result of the pieces `start` to `stop`, some rows each; `strange` where the kernels cannot apply a channel.

    Each piece has all coefficients made anew, tile by tile. Were channels shared instead, each thread would fetch the
    other's parts of rows too, since processors read ahead.
    """
    cdef double hi[32 * WIDE]
    cdef double lo[32 * WIDE]
    cdef double scale[32 * WIDE]
    cdef double shift[32 * WIDE]
    cdef lanes tile[4 * WIDE]
    cdef Py_ssize_t first = start * w.piece, rows = min(stop * w.piece, w.x.n) - first, c, width
    cdef Py_ssize_t most = WIDE * lane_count(x)
    cdef lanes* y = at(<const lanes*> w.y.data, first * w.y.stride)
    x = at(x, first * w.x.stride)
    for c from 0 <= c < w.x.inner by most:
        width = min(w.x.inner - c, most)
        if not fold(w.vectors, c, width, lanes is lanes32, w.rule.eps, hi, lo, scale, shift):
            w.strange = True
            continue
        set_lines(&tile[0], &tile[WIDE], &tile[2 * WIDE], &tile[3 * WIDE], width, hi, lo, scale, shift)
        apply_columns_inline(
            at(x, c), at(y, c), rows, width, w.x.stride, w.y.stride, &tile[0], &tile[WIDE],
            &tile[2 * WIDE], &tile[3 * WIDE], <const lanes*> NULL, <const lanes*> NULL, w.y.streamed
        )


cdef void infer_rows_backward(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The sums of the rows `start` to `stop` and dx = scale * dy, which is still in L1."""
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), o, last
    cdef bint short = w.x.n <= SHORT_GRADIENT * lane_count(x)
    cdef Py_ssize_t together = ROWS if short else 1
    cdef Work gradient = w[0]
    gradient.x = w.dy  # dx is AFFINE of dy
    for o from start <= o < stop by together:
        last = min(o + together, stop)
        if short:
            dots_short_rows(x, w, o, last)
        else:
            dots_rows(x, w, o * chunks, last * chunks)
        affine_rows(<const lanes*> w.dy.data, &gradient, o * chunks, last * chunks)
