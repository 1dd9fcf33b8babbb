# AFFINE and ACTIVATE with what stands next to them, block by block. (NORMALIZE does it row by row.)

cdef enum:
    FUSED_BLOCK = 2048      # elements: x, residual, sum and result of a block are in L1 together
    LEAST_ADDRESS = 4096    # of a function; below are numbers of the table


cdef void run_fused_pieces(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop`, pieces of lines."""
    cdef Py_ssize_t i, k, first, length, count, offset, line = w.x.n * w.x.inner
    cdef Py_ssize_t piece = CHUNK if w.x.inner == 1 else w.piece, pieces = parts(w.x.n, piece)
    cdef Py_ssize_t most = max(1, FUSED_BLOCK // w.x.inner)
    for k in range(start, stop):
        first = k % pieces * piece
        length = min(piece, w.x.n - first)
        for i from first <= i < first + length by most:
            offset = k // pieces * line + i * w.x.inner
            count = min(most, first + length - i)
            before_part(x, &w.fusion, offset, count * w.x.inner)
            if w.primitive == AFFINE:
                apply_block(x, w, k // pieces % w.lines, offset, count)
            after_part(<const lanes*> w.y.data, &w.fusion, offset, count * w.x.inner)


cdef inline void apply_block(
    const lanes* x, const Work* w, Py_ssize_t number, Py_ssize_t offset, Py_ssize_t n
) noexcept nogil:
    """AFFINE of n positions with the coefficients of one number."""
    cdef Work block = w[0]
    cdef Py_ssize_t i
    block.x.data, block.y.data = at(x, offset), at(<const lanes*> w.y.data, offset)
    block.x.outer = block.y.outer = block.lines = 1
    block.x.n = block.y.n = block.piece = n
    for i in range(4):
        block.coefficients[i] = w.coefficients[i] + number * w.x.inner
    run_typed(<const lanes*> block.x.data, &block, 0, 1)


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
