# Element by element down a few columns: several positions are one that fills the bundles, with coefficients that are
# repeated for it.

from libc.stdlib cimport free, malloc

cdef Py_ssize_t NARROW = _tuning.NARROW_COLUMNS
cdef Py_ssize_t PACKED = _tuning.PACKED_COLUMNS


cdef inline bint is_joined(const View* v) noexcept nogil:
    """Whether positions of few columns lie close together, and there are enough of them."""
    return 1 < v.inner <= NARROW and v.stride == v.inner and v.n >= LEAST_JOINED * together(PACKED, v.inner)


cdef bint run_joined(Work* w, int threads) noexcept:
    """`run` of AFFINE or AFFINE_GRAD where that pays; False, with nothing done, where it does not."""
    cdef Py_ssize_t columns = w.x.inner, times, width, whole, c, o, k
    cdef Work part
    cdef double* repeated
    if w.weight or has_steps(&w.fusion) or not is_joined(&w.x) or w.y.stride != columns:
        return False
    if w.primitive == AFFINE_GRAD and w.dy.stride != columns:
        return False
    times = together(PACKED, columns)
    width, whole = times * columns, w.x.n // times
    repeated = <double*> malloc(4 * w.lines * width * sizeof(double))
    if not repeated:
        return False
    part = w[0]
    for c in range(4):
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
    free(repeated)
    if whole * times < w.x.n:
        part = w[0]
        skip_positions(&part.x, whole * times, part.storage)
        skip_positions(&part.dy, whole * times, part.storage)
        skip_positions(&part.y, whole * times, SINGLE if part.storage == BYTE else part.storage)
        run(&part, threads)
    return True


cdef inline void join_positions(View* v, Py_ssize_t whole, Py_ssize_t times) noexcept:
    v.n, v.inner = whole, v.inner * times
    v.stride = v.inner


cdef inline void skip_positions(View* v, Py_ssize_t count, Storage storage) noexcept:
    if v.data:
        v.data = <char*> v.data + count * v.stride * storage_bytes(storage)
        v.n -= count
