# A call: what is to be done (`Work`), and where in its arrays a loop over its units is.

cdef enum Primitive:
    MOMENTS
    EXTREMA
    NORMALIZE
    AFFINE
    DOTS
    AFFINE_GRAD
    NORMALIZE_GRAD
    TRAIN
    TRAIN_GRAD
    INFER
    INFER_GRAD
    ACTIVATE
    CLIP


cdef enum Storage:
    DOUBLE
    SINGLE
    HALF                    # 16 bits: computed in float32, see narrow/narrow.pxi
    BFLOAT
    BYTE                    # of pixels


cdef inline Py_ssize_t storage_bytes(Storage storage) noexcept nogil:
    return 8 if storage == DOUBLE else 4 if storage == SINGLE else 1 if storage == BYTE else 2


cdef struct View:
    # A canonical view, (outer, n, inner); strides in elements.
    void* data
    Py_ssize_t outer
    Py_ssize_t n
    Py_ssize_t inner
    Py_ssize_t outer_stride
    Py_ssize_t stride
    bint streamed           # written past the caches


cdef struct Channels:
    # Numbers of each channel, float64, rows of one block.
    double* mean            # hi + lo; backward: all of it
    double* lo
    double* scale           # weight, until it is known
    double* shift           # bias, until then; backward: unused until then
    double* m2
    double* rstd
    double* sums            # backward: of dy
    double* products        # of dy * xhat
    double* slope


cdef struct Vector:
    void* data              # NULL if it is missing
    bint single             # float32; otherwise float64


cdef struct Work:
    # One call: what to do, and all that any primitive needs for it. Kernels take x beside it: its type chooses lanes32
    # or lanes64, and it is where their units begin, which need not be x.data. y and dy are read from here.
    Primitive primitive
    Storage storage
    View x
    View y
    View dy                     # backward; dx is y
    Rule rule
    # Of each position of a line, or, `per_position` being False, of its runs: run j of line o has number
    # (o * segments + j) % parameters. NORMALIZE reads both, but that NULL is a bias of 0 for positions of rows; AFFINE
    # goes by positions where there is a weight.
    void* weight
    void* bias
    Py_ssize_t parameters
    bint per_position
    Py_ssize_t segments         # runs of n // segments elements that a line is made of
    double* mean                # of each line, or, for MOMENTS, hi of each chunk; NULL where it is not wanted or given
    double* lo
    double* m2
    double* rstd
    void* lows                  # of each chunk, in the type of x
    void* highs
    double* products            # sums of dy * (x - mean), or of dy * xhat
    double* sums                # of dy
    double* coefficients[4]     # hi, lo, scale, shift; backward: mean, scale, slope, shift; clipping: low, high
    Py_ssize_t lines            # of coefficients, which begin anew after so many lines of x
    Py_ssize_t rows             # to a unit of work
    Py_ssize_t columns          # to a unit of work
    Py_ssize_t piece            # positions to a unit of what is done element by element down columns
    Fusion fusion
    Vector vectors[4]           # inference: mean, variance, weight and bias as they were given
    Channels channels           # training on (N, C, S), `lines` channels, `rows` to a unit of work
    bint large                  # y is so large that it is written past the caches if that can be
    bint given                  # backward: with statistics
    bint strange                # set where float32 cannot serve a channel


cdef inline const Fusion* steps_of(const Work* w) noexcept nogil:
    """What is fused; NULL if nothing is."""
    return &w.fusion if has_steps(&w.fusion) else NULL


cdef inline void sum_apart(
    const lanes* x, const Work* w, lanes* near, Py_ssize_t offset, Py_ssize_t n
) noexcept nogil:
    """The n elements from `offset` on of x, a sum, to `near`, and past the caches if anybody asks for them."""
    add_beside(
        at(<const lanes*> w.fusion.addend, offset), at(<const lanes*> w.fusion.residual, offset), near,
        NULL if w.x.data == w.y.data else at(x, offset), n
    )


cdef inline Py_ssize_t parts(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many parts of at most `size` make n."""
    return (n + size - 1) // size


cdef struct Place:
    # Where a loop over the pieces of lines is, kept by counting: three divisions cost as much as a row of 49 elements.
    Py_ssize_t line
    Py_ssize_t piece
    Py_ssize_t number       # of the line's coefficients, which begin anew after `lines`


cdef inline Place place_of(Py_ssize_t k, Py_ssize_t pieces, Py_ssize_t lines) noexcept nogil:
    """The place of unit k, counted over (outer, pieces)."""
    return Place(k // pieces, k % pieces, k // pieces % lines)


cdef inline void advance(Place* place, Py_ssize_t pieces, Py_ssize_t lines) noexcept nogil:
    """Go on to the next unit."""
    place.piece += 1
    if place.piece == pieces:
        place.piece = 0
        place.line += 1
        place.number = following(place.number, lines)


cdef inline Py_ssize_t following(Py_ssize_t number, Py_ssize_t count) noexcept nogil:
    """The number after this one, of 0 to count - 1 in a circle."""
    return number + 1 if number + 1 < count else 0


cdef inline void read_cycle(
    const lanes* numbers, Py_ssize_t length, Py_ssize_t first, Py_ssize_t count, double* read
) noexcept nogil:
    """`count` elements from number `first` on of a vector that begins anew at its end; no division for each."""
    cdef Py_ssize_t done = 0, p = first % length, i, run
    if length == 1:
        for i in range(count):
            read[i] = element(numbers, 0)
        return
    while done < count:
        run = min(count - done, length - p)
        for i in range(run):
            read[done + i] = element(numbers, p + i)
        done += run
        p = 0
