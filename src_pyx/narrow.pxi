# 16-bit floats: rows are converted to float32 a few at a time, normalised where they are, and rounded once on their way
# out; nothing but the 16 bits an element goes through memory.

cdef extern from "half.h" nogil:
    ctypedef unsigned short bits16 "uint16_t"
    void halves_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_halves(const float* source, bits16* target, Py_ssize_t n)
    void bfloats_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_bfloats(const float* source, bits16* target, Py_ssize_t n)

cdef enum:
    DESK = 16384            # elements: 64 KiB of float32, at home in L2; no row is longer


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


cdef void run_narrow(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of contiguous rows with a weight and a bias, float32, for each position."""
    cdef float desk[DESK]
    cdef Work part = w[0]
    cdef Py_ssize_t o, count, n = w.x.n, together = DESK // n
    part.storage = SINGLE
    part.x.data = part.y.data = desk
    if together > 4096 // n and together >= 4:
        together = max(4096 // n, 4)    # rather a quarter of it, at home in L1
    for o from start <= o < stop by together:
        count = min(together, stop - o)
        part.x.outer = part.y.outer = count
        widen(w.storage, <const bits16*> w.x.data + o * n, desk, count * n)
        run_typed(<const lanes32*> desk, &part, 0, count)
        narrow(w.storage, desk, <bits16*> w.y.data + o * n, count * n)
