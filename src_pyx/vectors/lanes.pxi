# One name for both bundles of lanes.h: in a function that is fused over `lanes`, `const lanes* x` is memory of the
# storage type (float or double) and every index counts elements, not bundles. A scalar is always a double.

cdef extern from "vectors/lanes.h" nogil:
    ctypedef struct lanes32:
        pass
    ctypedef struct lanes64:
        pass
    lanes32 lanes32_load(const lanes32* base, Py_ssize_t i)
    lanes64 lanes64_load(const lanes64* base, Py_ssize_t i)
    lanes32 lanes32_load_partial(const lanes32* base, Py_ssize_t i, Py_ssize_t count, double fill)
    lanes64 lanes64_load_partial(const lanes64* base, Py_ssize_t i, Py_ssize_t count, double fill)
    void FENCE()
    Py_ssize_t lanes32_before_aligned(const lanes32* base)
    Py_ssize_t lanes64_before_aligned(const lanes64* base)
    void lanes32_stream(lanes32* base, Py_ssize_t i, lanes32 a)
    void lanes64_stream(lanes64* base, Py_ssize_t i, lanes64 a)
    void lanes32_store(lanes32* base, Py_ssize_t i, lanes32 a)
    void lanes64_store(lanes64* base, Py_ssize_t i, lanes64 a)
    void lanes32_store_partial(lanes32* base, Py_ssize_t i, Py_ssize_t count, lanes32 a)
    void lanes64_store_partial(lanes64* base, Py_ssize_t i, Py_ssize_t count, lanes64 a)
    lanes32 lanes32_splat(const lanes32* like, double value)
    lanes64 lanes64_splat(const lanes64* like, double value)
    lanes32 lanes32_add(lanes32 a, lanes32 b)
    lanes64 lanes64_add(lanes64 a, lanes64 b)
    lanes32 lanes32_subtract(lanes32 a, lanes32 b)
    lanes64 lanes64_subtract(lanes64 a, lanes64 b)
    lanes32 lanes32_multiply(lanes32 a, lanes32 b)
    lanes64 lanes64_multiply(lanes64 a, lanes64 b)
    lanes32 lanes32_magnitude(lanes32 a)
    lanes64 lanes64_magnitude(lanes64 a)
    lanes32 lanes32_fused(lanes32 a, lanes32 b, lanes32 c)
    lanes64 lanes64_fused(lanes64 a, lanes64 b, lanes64 c)
    double lanes32_fused_scalar(const lanes32* like, double a, double b, double c)
    double lanes64_fused_scalar(const lanes64* like, double a, double b, double c)
    lanes32 lanes32_minimum(lanes32 a, lanes32 b)
    lanes64 lanes64_minimum(lanes64 a, lanes64 b)
    lanes32 lanes32_maximum(lanes32 a, lanes32 b)
    lanes64 lanes64_maximum(lanes64 a, lanes64 b)
    double lanes32_total(lanes32 a)
    double lanes64_total(lanes64 a)
    void lanes32_hold(lanes32* base, Py_ssize_t i, lanes32 a)
    void lanes64_hold(lanes64* base, Py_ssize_t i, lanes64 a)
    void lanes32_totals(const lanes32* base, Py_ssize_t count, double* totals)
    void lanes64_totals(const lanes64* base, Py_ssize_t count, double* totals)
    double lanes32_least(lanes32 a)
    double lanes64_least(lanes64 a)
    double lanes32_largest(lanes32 a)
    double lanes64_largest(lanes64 a)
    lanes32* lanes32_at(const lanes32* base, Py_ssize_t i)
    lanes64* lanes64_at(const lanes64* base, Py_ssize_t i)
    void choose_prefetching(int choice)
    void prefetch_line(const void* address)
    void lanes32_prefetch(const lanes32* base, Py_ssize_t i)
    void lanes64_prefetch(const lanes64* base, Py_ssize_t i)
    double lanes32_element(const lanes32* base, Py_ssize_t i)
    double lanes64_element(const lanes64* base, Py_ssize_t i)
    void lanes32_set_element(lanes32* base, Py_ssize_t i, double value)
    void lanes64_set_element(lanes64* base, Py_ssize_t i, double value)
    double lanes32_rounded(const lanes32* like, double value)
    double lanes64_rounded(const lanes64* like, double value)

ctypedef fused lanes:
    lanes32
    lanes64

cdef enum:
    # How far ahead of a loop memory is asked for, in bundles: beyond L1 that saves up to a third of the time, since
    # hardware neither crosses pages nor hides the reading of lines that are to be written.
    READ_AHEAD = 20
    WRITE_AHEAD = 10


cdef inline Py_ssize_t lane_count(const lanes* like) noexcept nogil:
    if lanes is lanes32:
        return 32
    else:
        return 16


cdef inline lanes load(const lanes* base, Py_ssize_t i) noexcept nogil:
    if lanes is lanes32:
        return lanes32_load(base, i)
    else:
        return lanes64_load(base, i)


cdef inline lanes load_partial(const lanes* base, Py_ssize_t i, Py_ssize_t count, double fill) noexcept nogil:
    """Elements i to i + count; the other lanes are `fill`."""
    if lanes is lanes32:
        return lanes32_load_partial(base, i, count, fill)
    else:
        return lanes64_load_partial(base, i, count, fill)


cdef inline void store(lanes* base, Py_ssize_t i, lanes a) noexcept nogil:
    if lanes is lanes32:
        lanes32_store(base, i, a)
    else:
        lanes64_store(base, i, a)


cdef inline Py_ssize_t before_aligned(const lanes* base) noexcept nogil:
    """How many elements there are before the first that `stream` may begin at."""
    if lanes is lanes32:
        return lanes32_before_aligned(base)
    else:
        return lanes64_before_aligned(base)


cdef inline void stream(lanes* base, Py_ssize_t i, lanes a) noexcept nogil:
    """`store` past the caches: what is not read again soon need not be read before it is written."""
    if lanes is lanes32:
        lanes32_stream(base, i, a)
    else:
        lanes64_stream(base, i, a)


cdef inline void put(lanes* base, Py_ssize_t i, lanes a, bint streamed) noexcept nogil:
    """`stream`, or `store` with memory asked for ahead."""
    if streamed:
        stream(base, i, a)
    else:
        prefetch(base, i + WRITE_AHEAD * lane_count(base))
        store(base, i, a)


cdef inline void store_partial(lanes* base, Py_ssize_t i, Py_ssize_t count, lanes a) noexcept nogil:
    if lanes is lanes32:
        lanes32_store_partial(base, i, count, a)
    else:
        lanes64_store_partial(base, i, count, a)


cdef inline lanes splat(const lanes* like, double value) noexcept nogil:
    if lanes is lanes32:
        return lanes32_splat(like, value)
    else:
        return lanes64_splat(like, value)


cdef inline lanes add(lanes a, lanes b) noexcept nogil:
    if lanes is lanes32:
        return lanes32_add(a, b)
    else:
        return lanes64_add(a, b)


cdef inline lanes subtract(lanes a, lanes b) noexcept nogil:
    if lanes is lanes32:
        return lanes32_subtract(a, b)
    else:
        return lanes64_subtract(a, b)


cdef inline lanes multiply(lanes a, lanes b) noexcept nogil:
    if lanes is lanes32:
        return lanes32_multiply(a, b)
    else:
        return lanes64_multiply(a, b)


cdef inline lanes magnitude(lanes a) noexcept nogil:
    if lanes is lanes32:
        return lanes32_magnitude(a)
    else:
        return lanes64_magnitude(a)


cdef inline lanes fused(lanes a, lanes b, lanes c) noexcept nogil:
    """a * b + c, rounded once."""
    if lanes is lanes32:
        return lanes32_fused(a, b, c)
    else:
        return lanes64_fused(a, b, c)


cdef inline double fused_scalar(const lanes* like, double a, double b, double c) noexcept nogil:
    """a * b + c, rounded once to the storage type; so are a, b and c before."""
    if lanes is lanes32:
        return lanes32_fused_scalar(like, a, b, c)
    else:
        return lanes64_fused_scalar(like, a, b, c)


cdef inline lanes minimum(lanes a, lanes b) noexcept nogil:
    if lanes is lanes32:
        return lanes32_minimum(a, b)
    else:
        return lanes64_minimum(a, b)


cdef inline lanes maximum(lanes a, lanes b) noexcept nogil:
    if lanes is lanes32:
        return lanes32_maximum(a, b)
    else:
        return lanes64_maximum(a, b)


cdef inline double total(lanes a) noexcept nogil:
    """The sum of all lanes, folded by halves."""
    if lanes is lanes32:
        return lanes32_total(a)
    else:
        return lanes64_total(a)


cdef inline void hold(lanes* base, Py_ssize_t i, lanes a) noexcept nogil:
    """Keep what `total` needs of a bundle, at most 64 bytes, as number i of `base`."""
    if lanes is lanes32:
        lanes32_hold(base, i, a)
    else:
        lanes64_hold(base, i, a)


cdef inline void totals(const lanes* base, Py_ssize_t count, double* sums) noexcept nogil:
    """The `total` of each of the bundles that `base` holds."""
    if lanes is lanes32:
        lanes32_totals(base, count, sums)
    else:
        lanes64_totals(base, count, sums)


cdef inline double least(lanes a) noexcept nogil:
    if lanes is lanes32:
        return lanes32_least(a)
    else:
        return lanes64_least(a)


cdef inline double largest(lanes a) noexcept nogil:
    if lanes is lanes32:
        return lanes32_largest(a)
    else:
        return lanes64_largest(a)


cdef inline lanes* at(const lanes* base, Py_ssize_t i) noexcept nogil:
    """The address of element i."""
    if lanes is lanes32:
        return lanes32_at(base, i)
    else:
        return lanes64_at(base, i)


cdef inline void prefetch(const lanes* base, Py_ssize_t i) noexcept nogil:
    """A hint that the bundle at element i will be needed; any address will do."""
    if lanes is lanes32:
        lanes32_prefetch(base, i)
    else:
        lanes64_prefetch(base, i)


cdef inline double element(const lanes* base, Py_ssize_t i) noexcept nogil:
    if lanes is lanes32:
        return lanes32_element(base, i)
    else:
        return lanes64_element(base, i)


cdef inline void set_element(lanes* base, Py_ssize_t i, double value) noexcept nogil:
    """Rounds `value` to the storage type."""
    if lanes is lanes32:
        lanes32_set_element(base, i, value)
    else:
        lanes64_set_element(base, i, value)


cdef inline double rounded(const lanes* like, double value) noexcept nogil:
    """`value` rounded to the storage type."""
    if lanes is lanes32:
        return lanes32_rounded(like, value)
    else:
        return lanes64_rounded(like, value)
