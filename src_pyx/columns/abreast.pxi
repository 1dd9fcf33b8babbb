# Few columns are a small part of a bundle: the same columns of several blocks of rows lie side by side on a desk, so
# that they fill it. Each block is added up as it would be by itself.

cdef enum:
    ABREAST = 2                     # bundles that blocks of few columns fill side by side
    MOMENTS_ABREAST = 3             # such blocks: with fewer, copying takes longer than half empty bundles
    EXTREMA_ABREAST = 5


cdef inline void lay_abreast(
    const char* x, Py_ssize_t row_bytes, Py_ssize_t blocks, Py_ssize_t size, Py_ssize_t half, char* desk
) noexcept nogil:
    """Copy blocks so that row r of each lies in row r of `desk`; a row is copied as two halves, which may overlap."""
    cdef Py_ssize_t b, r
    cdef const char* source
    cdef char* target
    for b in range(blocks):
        for r in range(BLOCK_COLUMNS):
            source = x + (b * BLOCK_COLUMNS + r) * row_bytes
            target = desk + (r * blocks + b) * size
            memcpy(target, source, half)
            memcpy(target + size - half, source + size - half, half)


cdef inline void lay_blocks_abreast(
    const lanes* x, Py_ssize_t stride, Py_ssize_t blocks, Py_ssize_t width, lanes* desk
) noexcept nogil:
    """Copy blocks of few columns to lie side by side, so that they fill the bundles of a desk."""
    cdef Py_ssize_t i, bytes = BUNDLE_BYTES // lane_count(x), size = width * bytes
    cdef Py_ssize_t row_bytes = stride * bytes, all_bytes = blocks * BLOCK_COLUMNS * row_bytes
    cdef const char* source = <const char*> x
    for i from 0 <= i < all_bytes by max(row_bytes, 64):  # what is read next
        prefetch_line(source + all_bytes + i)
    # Sizes that are constants, so that no copy is a call.
    if size < 16:
        lay_abreast(source, row_bytes, blocks, size, 8, <char*> desk)
    elif size < 32:
        lay_abreast(source, row_bytes, blocks, size, 16, <char*> desk)
    elif size < 64:
        lay_abreast(source, row_bytes, blocks, size, 32, <char*> desk)
    else:
        lay_abreast(source, row_bytes, blocks, size, 64, <char*> desk)


cdef inline Py_ssize_t blocks_abreast(
    const lanes* like, Py_ssize_t n, Py_ssize_t width, Py_ssize_t least
) noexcept nogil:
    """How many blocks of n positions to lay side by side; 0 where `least` of them do not fit."""
    cdef Py_ssize_t blocks = min(ABREAST * lane_count(like) // width, n // BLOCK_COLUMNS)
    return blocks if width > 1 and blocks >= least else 0
