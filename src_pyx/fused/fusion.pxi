# What stands next to a norm, done while its rows, or its block of the array, are in cache: a residual is added first,
# an activation is applied last. Arrays are C-contiguous here: some lines, or positions, are a range of memory.

ctypedef void (*Activation)(void* y, Py_ssize_t n) noexcept nogil

cdef extern from "vectors/activations.h" nogil:
    const Activation* activations_float
    const Activation* activations_double
    void quantize_float(const float* y, signed char* target, Py_ssize_t n, float* scale)
    void quantize_double(const double* y, signed char* target, Py_ssize_t n, float* scale)


cdef struct Fusion:
    void* addend            # x becomes addend + residual
    void* residual
    Activation activate     # of y
    signed char* quantized  # int8 lines of y, and the scale of each
    float* scales


cdef inline bint has_steps(const Fusion* fusion) noexcept nogil:
    return fusion.residual or fusion.activate or fusion.quantized


cdef void add_arrays(const lanes* a, const lanes* b, lanes* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, step = lane_count(a), whole = n - n % step, rest = n - whole
    for i from 0 <= i < whole by step:
        prefetch(a, i + READ_AHEAD * step)
        prefetch(b, i + READ_AHEAD * step)
        put(target, i, add(load(a, i), load(b, i)), False)
    if rest:
        store_partial(target, whole, rest, add(load_partial(a, whole, rest, 0.0), load_partial(b, whole, rest, 0.0)))


cdef void add_beside(const lanes* a, const lanes* b, lanes* near, lanes* target, Py_ssize_t n) noexcept nogil:
    """`add_arrays` for a sum that is read from `near`; its own place, if there is one, is past the caches."""
    cdef Py_ssize_t i, step = lane_count(a), whole = n - n % step, rest = n - whole
    cdef lanes total
    for i from 0 <= i < whole by step:
        prefetch(a, i + READ_AHEAD * step)
        prefetch(b, i + READ_AHEAD * step)
        total = add(load(a, i), load(b, i))
        store(near, i, total)
        if target:
            stream(target, i, total)
    if rest:
        total = add(load_partial(a, whole, rest, 0.0), load_partial(b, whole, rest, 0.0))
        store_partial(near, whole, rest, total)
        if target:
            store_partial(target, whole, rest, total)


cdef void before_part(const lanes* x, const Fusion* fusion, Py_ssize_t offset, Py_ssize_t n) noexcept nogil:
    """The n elements of x from `offset` on, if they are a sum."""
    if fusion.residual:
        add_arrays(
            at(<const lanes*> fusion.addend, offset), at(<const lanes*> fusion.residual, offset), at(x, offset), n
        )


cdef inline void after_part(const lanes* y, const Fusion* fusion, Py_ssize_t offset, Py_ssize_t n) noexcept nogil:
    """The n elements of y from `offset` on through the activation, if there is one."""
    if fusion.activate:
        fusion.activate(at(y, offset), n)


cdef inline void quantize_line(const lanes* y, const Fusion* fusion, Py_ssize_t line, Py_ssize_t n) noexcept nogil:
    """A line as int8."""
    if lanes is lanes32:
        quantize_float(<const float*> y, fusion.quantized + line * n, n, fusion.scales + line)
    else:
        quantize_double(<const double*> y, fusion.quantized + line * n, n, fusion.scales + line)


cdef void after_lines(
    const lanes* y, const Fusion* fusion, Py_ssize_t first, Py_ssize_t count, Py_ssize_t n
) noexcept nogil:
    """The same for `count` lines of n elements, which may be wanted as int8 besides."""
    cdef Py_ssize_t o
    after_part(y, fusion, first * n, count * n)
    for o in range(first, first + count if fusion.quantized else first):
        quantize_line(at(y, o * n), fusion, o, n)


cdef void after_near(lanes* near, lanes* y, const Fusion* fusion, Py_ssize_t line, Py_ssize_t n) noexcept nogil:
    """The same for a line that was made apart from its own place, which is past the caches, or not read by anybody."""
    cdef Py_ssize_t i, step = lane_count(near), whole = n - n % step
    after_part(near, fusion, 0, n)
    if fusion.quantized:
        quantize_line(near, fusion, line, n)
        return
    for i from 0 <= i < whole by step:
        stream(y, i, load(near, i))
    if whole < n:
        store_partial(y, whole, n - whole, load_partial(near, whole, n - whole, 0.0))
