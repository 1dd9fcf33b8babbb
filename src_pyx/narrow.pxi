# Narrow types: elements are converted to float32 a few thousand at a time, in L1 or L2, and normalised there. Rows of
# 16-bit floats are rounded once on their way out; bytes become float32.

cdef extern from "half.h" nogil:
    ctypedef unsigned short bits16 "uint16_t"
    void halves_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_halves(const float* source, bits16* target, Py_ssize_t n)
    void bfloats_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_bfloats(const float* source, bits16* target, Py_ssize_t n)
    void bytes_to_floats(const unsigned char* source, float* target, Py_ssize_t n)

cdef enum:
    DESK = 16384            # elements: 64 KiB of float32, at home in L2; no row of 16-bit floats is longer
    PIECE = 4096            # elements: 16 KiB, at home in L1


cdef inline void widen(Storage storage, const bits16* source, float* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        halves_to_floats(source, target, n)
    else:
        bfloats_to_floats(source, target, n)


cdef inline void narrow(Storage storage, const float* source, bits16* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        floats_to_halves(source, target, n)
    else:
        floats_to_bfloats(source, target, n)


cdef void run_bytes(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """AFFINE of contiguous bytes into contiguous float32: the pieces `start` to `stop`, as affine_rows or _columns."""
    cdef float desk[PIECE]
    cdef const unsigned char* source = <const unsigned char*> w.x.data
    cdef float* target = <float*> w.y.data
    cdef Py_ssize_t i, k, p, length, place, n = w.x.n, inner = w.x.inner
    cdef Py_ssize_t most = CHUNK if inner == 1 else CHUNK_COLUMNS, pieces = parts(n, most)
    cdef Coefficients c
    cdef View v = w.x, u
    for k in range(start, stop):
        p, place = k // pieces % w.lines, k // pieces * n * inner + k % pieces * most * inner
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
        v.outer = 1
        for i from 0 <= i < length by PIECE // inner:
            v.n = min(PIECE // inner, length - i)
            u = v
            u.streamed = w.y.streamed
            bytes_to_floats(source + place + i * inner, desk, v.n * inner)
            affine_columns(
                <const lanes32*> desk, <lanes32*> (target + place + i * inner), v, u, w.coefficients[0],
                w.coefficients[1], w.coefficients[2], w.coefficients[3], 1, <const lanes32*> NULL,
                <const lanes32*> NULL, 0, 1
            )


cdef void run_narrow(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of contiguous rows with a weight and a bias, float32, for each position; or what run_bytes does."""
    cdef float desk[DESK]
    cdef Work part = w[0]
    cdef Py_ssize_t o, count, n = w.x.n, together = max(DESK // n, 1)
    part.storage = SINGLE
    part.x.data = part.y.data = desk
    if w.storage == BYTE:
        run_bytes(w, start, stop)
        return
    if together > PIECE // n and together >= 4:
        together = max(PIECE // n, 4)   # rather a quarter of it, at home in L1
    for o from start <= o < stop by together:
        count = min(together, stop - o)
        part.x.outer = part.y.outer = count
        widen(w.storage, <const bits16*> w.x.data + o * n, desk, count * n)
        run_typed(<const lanes32*> desk, &part, 0, count)
        narrow(w.storage, desk, <bits16*> w.y.data + o * n, count * n)
