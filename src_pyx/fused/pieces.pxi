# AFFINE and ACTIVATE with what stands next to them, block by block. (NORMALIZE does it row by row.)

cdef enum:
    FUSED_BLOCK = 2048      # elements: x, residual, sum and result of a block are in L1 together
    FUSED_BUNDLES = 128     # of float64 that hold a block
    LEAST_ADDRESS = 4096    # of a function; below are numbers of the table


cdef void run_fused_pieces(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop`, pieces of lines."""
    cdef Py_ssize_t i, k, first, length, count, offset, line = w.x.n * w.x.inner
    cdef Py_ssize_t piece = CHUNK if w.x.inner == 1 else w.piece, pieces = parts(w.x.n, piece)
    cdef Py_ssize_t most = max(1, FUSED_BLOCK // w.x.inner)
    cdef const lanes* y = <const lanes*> w.y.data
    cdef bint past
    most -= most % 16 if most > 16 else 0   # so that most blocks begin at a line of cache
    past = go_past(x, w, most * w.x.inner, piece * w.x.inner, line)
    for k in range(start, stop):
        first = k % pieces * piece
        length = min(piece, w.x.n - first)
        for i from first <= i < first + length by most:
            offset = k // pieces * line + i * w.x.inner
            count = min(most, first + length - i)
            if past:
                run_block_apart(x, w, k // pieces % w.lines, offset, count)
                continue
            before_part(x, &w.fusion, offset, count * w.x.inner)
            if w.primitive == AFFINE:
                apply_block(at(x, offset), at(y, offset), w, k // pieces % w.lines, count)
            after_part(y, &w.fusion, offset, count * w.x.inner)


cdef inline bint go_past(
    const lanes* x, const Work* w, Py_ssize_t block, Py_ssize_t piece, Py_ssize_t line
) noexcept nogil:
    """Whether blocks go past the caches: the result and, if it is wanted, the sum with a residual."""
    cdef const lanes* y = <const lanes*> w.y.data
    if not w.large or w.primitive != AFFINE or block > FUSED_BLOCK:
        return False
    if not aligned_rows(y, block) or not aligned_rows(y, piece) or not aligned_rows(y, line):
        return False
    return not w.fusion.residual or before_aligned(x) == 0


cdef void run_block_apart(
    const lanes* x, const Work* w, Py_ssize_t number, Py_ssize_t offset, Py_ssize_t count
) noexcept nogil:
    """A block whose sum and result are made apart, and need not be read where they go."""
    cdef lanes near_x[FUSED_BUNDLES]
    cdef lanes near_y[FUSED_BUNDLES]
    cdef Py_ssize_t n = count * w.x.inner
    cdef const lanes* source = at(x, offset)
    if w.fusion.residual:
        sum_apart(x, w, &near_x[0], offset, n)
        source = &near_x[0]
    apply_block(source, &near_y[0], w, number, count)
    after_near(&near_y[0], at(<const lanes*> w.y.data, offset), &w.fusion, 0, n)


cdef inline void apply_block(
    const lanes* x, lanes* y, const Work* w, Py_ssize_t number, Py_ssize_t n
) noexcept nogil:
    """AFFINE of n positions with the coefficients of one number."""
    cdef Work block = w[0]
    cdef Py_ssize_t i
    block.x.data, block.y.data = <lanes*> x, y
    block.x.outer = block.y.outer = block.lines = 1
    block.x.n = block.y.n = block.piece = n
    for i in range(4):
        block.coefficients[i] = w.coefficients[i] + number * w.x.inner
    run_typed(x, &block, 0, 1)


cdef inline void fuse(
    Work* w, cnp.ndarray addend, cnp.ndarray residual, object activation, cnp.ndarray lines, cnp.ndarray scales
):
    """Have x be addend + residual, and y go through an activation: a number of the table, or a function's address."""
    w.fusion.addend, w.fusion.residual = data_of(addend), data_of(residual)
    w.fusion.quantized, w.fusion.scales = <signed char*> data_of(lines), <float*> data_of(scales)
    if activation is None:
        return
    cdef Py_ssize_t number = activation
    if number >= LEAST_ADDRESS:
        w.fusion.activate = <Activation> <void*> <uintptr_t> number
    elif w.storage == DOUBLE:
        w.fusion.activate = activations_double[number]
    else:
        w.fusion.activate = activations_float[number]
