# Narrow types: elements are converted to float32 as they are read, or a few thousand at a time onto a desk in L1 or L2.
# 16-bit floats are rounded once on their way out, bytes become float32. Blocks and bits are those of float32.

cdef extern from "vectors/half.h" nogil:
    ctypedef unsigned short bits16 "uint16_t"
    void half_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_half(const float* source, bits16* target, Py_ssize_t n)
    void bfloat_to_floats(const bits16* source, float* target, Py_ssize_t n)
    void floats_to_bfloat(const float* source, bits16* target, Py_ssize_t n)
    lanes32 lanes32_from_half(const bits16* source, Py_ssize_t count)
    lanes32 lanes32_from_bfloat(const bits16* source, Py_ssize_t count)
    void lanes32_to_half(bits16* target, Py_ssize_t count, lanes32 a)
    void lanes32_to_bfloat(bits16* target, Py_ssize_t count, lanes32 a)
    void bytes_to_floats(const unsigned char* source, float* target, Py_ssize_t n)
    enum:
        DESK                # elements, at home in L2; longer lines are not normalised in one go
    float* desk_of_thread()

cdef enum:
    PIECE = 4096            # elements: 16 KiB, at home in L1
    LEAST_ROWS = 4          # rows together on the desk: with fewer the pass over several at a time is lost,
    LONGEST_LAGGED = OVERLAPPED * 32    # which longer rows do not take


cdef inline void widen(Storage storage, const bits16* source, float* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        half_to_floats(source, target, n)
    else:
        bfloat_to_floats(source, target, n)


cdef inline void narrow(Storage storage, const float* source, bits16* target, Py_ssize_t n) noexcept nogil:
    if storage == HALF:
        floats_to_half(source, target, n)
    else:
        floats_to_bfloat(source, target, n)


cdef inline lanes32 wide_bundle(Storage storage, const bits16* source, Py_ssize_t count) noexcept nogil:
    """A bundle of which `count` elements exist; the others are 0."""
    return lanes32_from_half(source, count) if storage == HALF else lanes32_from_bfloat(source, count)


cdef inline void put_narrow(Storage storage, bits16* target, Py_ssize_t count, lanes32 a) noexcept nogil:
    if storage == HALF:
        lanes32_to_half(target, count, a)
    else:
        lanes32_to_bfloat(target, count, a)


cdef inline void gather(
    Storage storage, const View* v, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width, Py_ssize_t stride, float* desk
) noexcept nogil:
    """Lay `rows` runs of `width` elements on the desk, one after the other; the first begins at element `first`."""
    cdef Py_ssize_t r
    cdef const bits16* source = <const bits16*> v.data + first
    if width == stride:
        widen(storage, source, desk, rows * width)
        return
    for r in range(rows):
        widen(storage, source + r * stride, desk + r * width, width)


cdef inline void scatter(
    Storage storage, const float* desk, const View* v, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t stride
) noexcept nogil:
    """Round what lies on the desk to where it belongs."""
    cdef Py_ssize_t r
    cdef bits16* target = <bits16*> v.data + first
    if width == stride:
        narrow(storage, desk, target, rows * width)
        return
    for r in range(rows):
        narrow(storage, desk + r * width, target + r * stride, width)


cdef inline View on_desk(float* desk, Py_ssize_t rows, Py_ssize_t width, bint columns) noexcept nogil:
    """Rows on the desk, each a line, or with `columns` a position of each of `width` lines."""
    if columns:
        return View(desk, 1, rows, width, rows * width, width, False)
    return View(desk, rows, width, 1, width, 1, False)


cdef inline void extrema_block(const lanes32* x, View block, bint fresh, float* lows, float* highs) noexcept nogil:
    """The extremes of a block on the desk join those of its chunk, of each line: NaN, once met, stays."""
    cdef float least_of[MAX_LINES]
    cdef float largest_of[MAX_LINES]
    cdef Work part
    cdef Py_ssize_t j
    # What kernels of extrema read, and no more.
    part.x, part.lows, part.highs, part.columns = block, least_of, largest_of, MAX_LINES
    if block.inner == 1:
        extrema_rows(x, &part, 0, 1)
    else:
        extrema_columns(x, &part, 0, 1)
    for j in range(block.inner):
        if fresh or least_of[j] < lows[j] or least_of[j] != least_of[j]:
            lows[j] = least_of[j]
        if fresh or largest_of[j] > highs[j] or largest_of[j] != largest_of[j]:
            highs[j] = largest_of[j]


include "narrow/rows.pxi"
include "narrow/columns.pxi"
include "narrow/pieces.pxi"


cdef void run_narrow(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop` of a call on a narrow type."""
    cdef bint rows = w.x.inner == 1
    if w.storage == BYTE:
        run_bytes(w, start, stop)
    elif w.primitive == NORMALIZE and rows and w.x.n > SHORT * 32 and not has_steps(&w.fusion):
        if w.storage == HALF:  # once for each type: loops need not ask
            normalize_narrow_rows(HALF, w, start, stop)
        else:
            normalize_narrow_rows(BFLOAT, w, start, stop)
    elif w.primitive == NORMALIZE_GRAD or (w.primitive == NORMALIZE and rows):
        narrow_lines(w, start, stop)
    elif w.primitive == NORMALIZE:
        narrow_column_lines(w, start, stop)
    elif (w.primitive == AFFINE or w.primitive == AFFINE_GRAD) and w.storage == HALF:
        narrow_pieces(HALF, w, start, stop)
    elif w.primitive == AFFINE or w.primitive == AFFINE_GRAD:
        narrow_pieces(BFLOAT, w, start, stop)
    elif rows and w.x.n <= PIECE // LEAST_ROWS:
        narrow_short_rows(w, start, stop)
    elif rows:
        narrow_row_chunks(w, start, stop)
    else:
        narrow_column_chunks(w, start, stop)


cdef struct Conversion:
    Storage storage
    bint widened
    void* source
    void* target
    Py_ssize_t n


cdef void convert_pieces(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The pieces `start` to `stop` of an array."""
    cdef Conversion* c = <Conversion*> work
    cdef Py_ssize_t i = start * PIECE, n = min(stop * PIECE, c.n) - start * PIECE
    if c.widened:
        widen(c.storage, <const bits16*> c.source + i, <float*> c.target + i, n)
    else:
        narrow(c.storage, <const float*> c.source + i, <bits16*> c.target + i, n)


def convert(cnp.ndarray source, cnp.ndarray target, int threads):
    """Write `source` to `target`, both contiguous, (n,): 16-bit floats to float32 or, rounded, back."""
    cdef Conversion c
    c.widened = type_of(target) == cnp.NPY_FLOAT32
    c.storage = storage_of(source if c.widened else target)
    c.source, c.target, c.n = data_of(source), data_of(target), size_of(source)
    with nogil:
        pool_run(convert_pieces, &c, parts(c.n, PIECE), threads)
