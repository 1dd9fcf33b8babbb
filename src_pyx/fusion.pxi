# What stands next to a norm, done while its block of the array is in cache: a residual is added first, an activation is
# applied last. Arrays are C-contiguous here, so that a range of units is a range of memory.

ctypedef void (*Activation)(void* y, Py_ssize_t n) noexcept nogil

cdef extern from "activations.h" nogil:
    const Activation* activations_float
    const Activation* activations_double
    void quantize_float(const float* y, signed char* target, Py_ssize_t n, float* scale)
    void quantize_double(const double* y, signed char* target, Py_ssize_t n, float* scale)

cdef enum:
    FUSED_BLOCK = 2048      # elements: x, residual, sum and result of a block are in L1 together
    LEAST_ADDRESS = 4096    # of a function; below are numbers of the table


cdef inline void add_arrays(const lanes* a, const lanes* b, lanes* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(a), whole = n - n % step, rest = n - whole
    for i from 0 <= i < whole by step:
        prefetch(a, i + READ_AHEAD * step)
        prefetch(b, i + READ_AHEAD * step)
        put(target, i, add(load(a, i), load(b, i)), False)
    if rest:
        store_partial(target, whole, rest, add(load_partial(a, whole, rest, 0.0), load_partial(b, whole, rest, 0.0)))


cdef void run_fused(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop` of NORMALIZE in rows, or of AFFINE or ACTIVATE, block by block."""
    cdef Py_ssize_t i, k, first, length, count, offset, line = w.x.n * w.x.inner
    cdef Py_ssize_t piece = CHUNK if w.x.inner == 1 else w.piece, pieces = parts(w.x.n, piece)
    cdef Py_ssize_t most = max(1, FUSED_BLOCK // w.x.inner)
    cdef lanes* y
    if w.primitive == NORMALIZE:
        count = max(1, FUSED_BLOCK // line)
        for k from start <= k < stop by count:
            before_block(x, w, k * line, min(count, stop - k) * line)
            run_typed(x, w, k, min(k + count, stop))
            after_block(x, w, k * line, min(count, stop - k) * line)
            if w.quantized:
                for i in range(k, min(k + count, stop)):
                    y = at(<const lanes*> w.y.data, i * line)
                    quantize_line(<const lanes*> y, w.quantized + i * line, line, w.scales + i)
        return
    for k in range(start, stop):
        first = k % pieces * piece
        length = min(piece, w.x.n - first)
        for i from first <= i < first + length by most:
            offset = k // pieces * line + i * w.x.inner
            count = min(most, first + length - i)
            before_block(x, w, offset, count * w.x.inner)
            if w.primitive == AFFINE:
                apply_block(x, w, k // pieces % w.lines, offset, count)
            after_block(x, w, offset, count * w.x.inner)


cdef inline void before_block(const lanes* x, const Work* w, Py_ssize_t offset, Py_ssize_t n) noexcept nogil:
    if w.residual:
        add_arrays(
            <const lanes*> at(<const lanes*> w.addend, offset), <const lanes*> at(<const lanes*> w.residual, offset),
            at(x, offset), n
        )


cdef inline void after_block(const lanes* x, const Work* w, Py_ssize_t offset, Py_ssize_t n) noexcept nogil:
    if w.activate:
        w.activate(at(<const lanes*> w.y.data, offset), n)


cdef inline void quantize_line(const lanes* y, signed char* target, Py_ssize_t n, float* scale) noexcept nogil:
    """A line as int8 and a scale."""
    if lanes is lanes32:
        quantize_float(<const float*> y, target, n, scale)
    else:
        quantize_double(<const double*> y, target, n, scale)


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
    w.addend, w.residual = data_of(addend), data_of(residual)
    w.quantized, w.scales = <signed char*> data_of(lines), <float*> data_of(scales)
    if activation is None:
        return
    cdef Py_ssize_t number = activation
    if number >= LEAST_ADDRESS:
        w.activate = <Activation> <void*> <uintptr_t> number
    elif w.storage == DOUBLE:
        w.activate = activations_double[number]
    else:
        w.activate = activations_float[number]
