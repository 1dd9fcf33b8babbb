# Element by element down a few columns: several positions are one that fills the bundles, with coefficients that are
# repeated for it.

from libc.stdlib cimport free, malloc

cdef Py_ssize_t FEW = _tuning.FEW_COLUMNS
cdef Py_ssize_t PACKED = _tuning.PACKED_COLUMNS


cdef enum:
    JOINED_AT_ONCE = 8192       # coefficients of a kind, 64 KiB, that are repeated at a time


cdef inline bint is_joined(const View* v) noexcept nogil:
    """Whether positions of few columns lie close together, and there are enough of them."""
    cdef Py_ssize_t times
    if not 1 < v.inner <= FEW or v.stride != v.inner:
        return False
    times = joined_rows(PACKED, v.inner)
    return times > 1 and v.n >= LEAST_JOINED * times


cdef bint run_joined(Work* w, int threads) noexcept:
    """`run` of AFFINE or AFFINE_GRAD where that pays; False, with nothing done, where it does not."""
    cdef Py_ssize_t lines = w.lines, width, first
    cdef double* repeated
    cdef Work part
    if w.weight or has_steps(&w.fusion) or not is_joined(&w.x) or w.y.stride != w.x.stride:
        return False
    if w.primitive == AFFINE_GRAD and w.dy.stride != w.x.stride:
        return False
    width = joined_rows(PACKED, w.x.inner) * w.x.inner
    if lines == w.x.outer:
        lines = min(lines, JOINED_AT_ONCE // width)
    repeated = <double*> malloc(4 * lines * width * sizeof(double))
    if not repeated:
        return False
    for first from 0 <= first < w.lines by lines:
        part = w[0]
        if lines < w.lines:
            part.lines = min(lines, w.lines - first)
            skip(&part.x, first * part.x.outer_stride, part.storage)
            skip(&part.dy, first * part.dy.outer_stride, part.storage)
            skip(&part.y, first * part.y.outer_stride, written(part.storage))
            part.x.outer = part.y.outer = part.dy.outer = part.lines
        run_positions_joined(&part, w.coefficients, first, repeated, threads)
    free(repeated)
    return True


cdef void run_positions_joined(
    Work* w, double** coefficients, Py_ssize_t first, double* repeated, int threads
) noexcept:
    """The same with the coefficients of `w.lines` lines, from number `first` on."""
    cdef Py_ssize_t columns = w.x.inner, times = joined_rows(PACKED, columns), width = times * columns
    cdef Py_ssize_t whole = w.x.n // times, c, o, k
    cdef Work part = w[0]
    for c in range(4):
        w.coefficients[c] = coefficients[c] + first * columns
        part.coefficients[c] = repeated + c * w.lines * width
        for o in range(w.lines):
            for k in range(times):
                memcpy(
                    part.coefficients[c] + o * width + k * columns, w.coefficients[c] + o * columns,
                    columns * sizeof(double)
                )
    join_positions(&part.x, whole, times)
    join_positions(&part.y, whole, times)
    join_positions(&part.dy, whole, times)
    run(&part, threads)
    if whole * times < w.x.n:
        skip(&w.x, whole * times * columns, w.storage)
        skip(&w.dy, whole * times * columns, w.storage)
        skip(&w.y, whole * times * columns, written(w.storage))
        w.x.n = w.y.n = w.dy.n = w.x.n - whole * times
        run(w, threads)


cdef inline Storage written(Storage storage) noexcept nogil:
    """How a result is stored."""
    return SINGLE if storage == BYTE else storage


cdef inline void join_positions(View* v, Py_ssize_t whole, Py_ssize_t times) noexcept:
    v.n, v.inner = whole, v.inner * times
    v.stride = v.inner


cdef inline void skip(View* v, Py_ssize_t elements, Storage storage) noexcept nogil:
    """Have a view, if there is one, begin later."""
    if v.data:
        v.data = <char*> v.data + elements * storage_bytes(storage)
