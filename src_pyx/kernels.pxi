# The entry points of one variant. Arrays come as the canonical view (outer, reduce, inner), checked by the engine; they
# are read through their C struct: acquiring typed memoryviews would cost more than a small norm does.
include "vectors/lanes.pxi"
include "moments.pxi"
include "fused/fusion.pxi"
include "rows/rows.pxi"
include "rows/short_rows.pxi"
include "columns/statistics.pxi"
include "columns/extrema.pxi"
include "columns/columns.pxi"
include "gradients/gradients.pxi"
include "gradients/rows.pxi"
include "gradients/columns.pxi"
include "gradients/short_rows.pxi"

cimport numpy as cnp

from fastnorm import tuning as _tuning

cnp.import_array()
choose_prefetching(_tuning.PREFETCH)

cdef extern from "pool.h" nogil:
    bint pool_moves
    void pool_run(void (*task)(void*, Py_ssize_t, Py_ssize_t) noexcept nogil, void* work, Py_ssize_t units, int threads)

pool_moves = _tuning.MOVE_THREADS

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
    ACTIVATE


cdef enum Storage:
    DOUBLE
    SINGLE
    HALF                    # 16 bits: computed in float32, see narrow.pxi
    BFLOAT
    BYTE                    # of pixels


cdef inline Py_ssize_t storage_bytes(Storage storage) noexcept nogil:
    return 8 if storage == DOUBLE else 4 if storage == SINGLE else 1 if storage == BYTE else 2


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
    # One call: what to do, and all that any primitive needs for it.
    Primitive primitive
    Storage storage
    View x
    View y
    Rule rule
    double* mean            # or, for MOMENTS, hi
    double* lo
    double* m2
    void* lows
    void* highs
    void* weight
    void* bias
    Py_ssize_t parameters
    bint per_position
    Py_ssize_t segments
    double* coefficients[4]     # hi, lo, scale, shift; backward: mean, scale, slope, shift
    Py_ssize_t lines
    View dy                     # backward; dx is y
    double* rstd
    double* products            # sums of dy * (x - mean), or of dy * xhat
    double* sums                # of dy
    Py_ssize_t rows             # to a unit of work
    Py_ssize_t tile             # columns to a unit of work
    Py_ssize_t piece            # positions to a unit of what is done element by element down columns
    Fusion fusion
    Vector vectors[4]           # inference: mean, variance, weight and bias as they were given
    Channels channels           # training on (N, C, S), `lines` channels, `rows` to a unit of work
    bint given                  # backward: with statistics
    bint strange                # set where float32 cannot serve a channel


cdef inline void run_typed(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop` of a call, in the form and the type of x."""
    cdef lanes* y = <lanes*> w.y.data
    cdef const lanes* weight = <const lanes*> w.weight
    cdef const lanes* bias = <const lanes*> w.bias
    cdef const lanes* dy = <const lanes*> w.dy.data
    cdef const Fusion* fusion = &w.fusion if has_steps(&w.fusion) else NULL
    cdef bint rows = w.x.inner == 1
    if w.primitive == MOMENTS and rows and w.x.n <= SHORT * lane_count(x):
        moments_short_rows(x, w.x, w.rule.measure, w.mean, w.lo, w.m2, start, stop)
    elif w.primitive == MOMENTS and rows:
        moments_rows(x, w.x, w.rule.measure, w.mean, w.lo, w.m2, start, stop)
    elif w.primitive == MOMENTS:
        moments_columns(x, w.x, w.rule.measure, w.mean, w.lo, w.m2, w.tile, start, stop)
    elif w.primitive == EXTREMA and rows:
        extrema_rows(x, w.x, <lanes*> w.lows, <lanes*> w.highs, start, stop)
    elif w.primitive == EXTREMA:
        extrema_columns(x, w.x, <lanes*> w.lows, <lanes*> w.highs, w.tile, start, stop)
    elif w.primitive == NORMALIZE and rows and w.segments == 1 and w.x.n <= SHORT * lane_count(x) and stop - start > 1:
        normalize_short_rows(
            x, y, w.x, w.y, weight, bias, w.parameters, w.per_position, &w.rule, w.mean, w.m2, fusion, start, stop
        )
    elif w.primitive == NORMALIZE and rows:
        normalize_rows(
            x, y, w.x, w.y, weight, bias, w.parameters, w.per_position, w.segments, &w.rule, w.mean, w.m2, fusion,
            start, stop
        )
    elif w.primitive == NORMALIZE:
        normalize_columns(
            x, y, w.x, w.y, weight, bias, w.parameters, w.per_position, &w.rule, w.mean, w.m2, start, stop
        )
    elif w.primitive == DOTS and rows and w.x.n <= SHORT_GRADIENT * lane_count(x):
        dots_short_rows(x, dy, w.x, w.dy, w.mean, w.lines, w.products, w.sums, start, stop)
    elif w.primitive == DOTS and rows:
        dots_rows(x, dy, w.x, w.dy, w.mean, w.lines, w.products, w.sums, start, stop)
    elif w.primitive == DOTS:
        dots_columns(x, dy, w.x, w.dy, w.mean, w.lines, w.products, w.sums, w.tile, start, stop)
    elif w.primitive == AFFINE_GRAD and rows:
        affine_grad_rows(
            x, dy, y, w.x, w.dy, w.y, w.coefficients[0], w.coefficients[1], w.coefficients[2], w.coefficients[3],
            w.lines, start, stop
        )
    elif w.primitive == AFFINE_GRAD:
        affine_grad_columns(
            x, dy, y, w.x, w.dy, w.y, w.coefficients[0], w.coefficients[1], w.coefficients[2], w.coefficients[3],
            w.lines, w.piece, start, stop
        )
    elif w.primitive == NORMALIZE_GRAD and w.segments == 1 and w.x.n <= SHORT_GRADIENT * lane_count(x):
        normalize_grad_short_rows(
            x, dy, y, w.x, w.dy, w.y, weight, w.parameters, w.per_position, &w.rule, w.mean, w.rstd, w.products, w.sums,
            w.rows, start, stop
        )
    elif w.primitive == NORMALIZE_GRAD:
        normalize_grad_rows(
            x, dy, y, w.x, w.dy, w.y, weight, w.parameters, w.per_position, w.segments, &w.rule, w.mean, w.rstd,
            w.products, w.sums, w.rows, start, stop
        )
    elif w.primitive == TRAIN:
        train_channels(x, y, w, start, stop)
    elif w.primitive == TRAIN_GRAD:
        train_channels_backward(x, dy, y, w, start, stop)
    elif w.primitive == INFER:
        infer_columns(x, y, w, start, stop)
    elif rows:
        affine_rows(
            x, y, w.x, w.y, w.coefficients[0], w.coefficients[1], w.coefficients[2], w.coefficients[3], w.lines,
            weight, bias, start, stop
        )
    else:
        affine_columns(
            x, y, w.x, w.y, w.coefficients[0], w.coefficients[1], w.coefficients[2], w.coefficients[3], w.lines,
            weight, bias, w.piece, start, stop
        )


include "fused/pieces.pxi"
include "narrow/narrow.pxi"
include "batch/channels.pxi"
include "batch/inference.pxi"


cdef void run_units(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef Work* w = <Work*> work
    cdef bint in_pieces = w.primitive != NORMALIZE and has_steps(&w.fusion)
    if w.storage == DOUBLE and in_pieces:
        run_fused_pieces(<const lanes64*> w.x.data, w, start, stop)
    elif w.storage == DOUBLE:
        run_typed(<const lanes64*> w.x.data, w, start, stop)
    elif w.storage == SINGLE and in_pieces:
        run_fused_pieces(<const lanes32*> w.x.data, w, start, stop)
    elif w.storage == SINGLE:
        run_typed(<const lanes32*> w.x.data, w, start, stop)
    else:
        run_narrow(w, start, stop)
    if w.y.streamed:
        FENCE()


cdef inline bint may_stream(const Work* w) noexcept:
    """Whether y is written once, and by this primitive past the caches if it is large."""
    if w.storage == HALF or w.storage == BFLOAT or has_steps(&w.fusion):
        return False
    return w.primitive not in (MOMENTS, EXTREMA, DOTS, ACTIVATE)


include "columns/joined.pxi"


cdef void run(Work* w, int threads) noexcept:
    """All units of a call; with several threads, or much work, without the GIL."""
    cdef Py_ssize_t tile = TILE * (16 if w.storage == DOUBLE else 32)
    cdef Py_ssize_t units = w.x.outer, elements = w.x.outer * w.x.n * w.x.inner, tiled
    if (w.primitive == AFFINE or w.primitive == AFFINE_GRAD) and w.x.inner > 1 and run_joined(w, threads):
        return
    if w.primitive == NORMALIZE_GRAD:
        units = parts(units, w.rows)
    elif w.primitive == TRAIN or w.primitive == TRAIN_GRAD:
        units = parts(w.lines, w.rows)
    elif w.primitive == INFER:
        w.tile = min(parts(parts(w.x.inner, threads), tile // TILE) * (tile // TILE), WIDE * (tile // TILE))
        units = parts(w.x.inner, w.tile)
    elif w.x.inner > 1 and (w.primitive == AFFINE or w.primitive == AFFINE_GRAD):
        w.piece = min(max(parts(units * w.x.n, 4 * threads), LEAST_PIECE), CHUNK_COLUMNS)
        units *= parts(w.x.n, w.piece)
    elif w.primitive != NORMALIZE:
        units *= parts(w.x.n, CHUNK if w.x.inner == 1 else CHUNK_COLUMNS)
    if w.primitive not in (AFFINE, AFFINE_GRAD, INFER) and w.x.inner > 1:
        units *= parts(w.x.inner, tile)
    if (w.primitive == DOTS or w.primitive == MOMENTS or w.primitive == EXTREMA) and w.x.inner > 1:
        w.tile = ROW_TILES * tile  # rows had better be read as a whole
        tiled = units // parts(w.x.inner, tile) * parts(w.x.inner, w.tile)
        if tiled >= 2 * threads and (w.storage == SINGLE or w.storage == DOUBLE):
            units = tiled
        else:
            w.tile = tile
    if may_stream(w) and elements >= LEAST_STREAMED:
        w.y.streamed = elements * (8 if w.storage == DOUBLE else 4) >= <Py_ssize_t> _tuning.STREAM_BYTES
    if threads == 1 and elements < RELEASE_GIL:
        run_units(w, 0, units)
        return
    with nogil:
        pool_run(run_units, w, units, threads)


cdef enum:
    RELEASE_GIL = 16384     # elements: below, a call is over sooner than the GIL could be given and taken back
    LEAST_STREAMED = 1048576    # elements: below, the threshold need not be looked up


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return cnp.PyArray_DATA(a) if a is not None else NULL


cdef inline View view_of(cnp.ndarray a) noexcept:
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    return View(
        cnp.PyArray_DATA(a), cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(a, 2),
        cnp.PyArray_STRIDE(a, 0) // size, cnp.PyArray_STRIDE(a, 1) // size, False
    )


cdef inline Work work_on(Primitive primitive, cnp.ndarray x) noexcept:
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive = primitive
    w.storage = storage_of(x)
    w.x = view_of(x)
    return w


def moments(cnp.ndarray x, Measure measure, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray m2, int threads):
    """Write the moments of each chunk of each line, (outer, chunks, inner) float64."""
    cdef Work w = work_on(MOMENTS, x)
    w.rule.measure = measure
    w.mean, w.lo, w.m2 = <double*> data_of(hi), <double*> data_of(lo), <double*> data_of(m2)
    run(&w, threads)


def extrema(cnp.ndarray x, cnp.ndarray lows, cnp.ndarray highs, int threads):
    """Write the least and the largest element of each chunk of each line, (outer, chunks, inner)."""
    cdef Work w = work_on(EXTREMA, x)
    w.lows, w.highs = data_of(lows), data_of(highs)
    run(&w, threads)


def normalize(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray weight, cnp.ndarray bias, bint per_position, Py_ssize_t segments,
    Measure measure, double divisor, double eps, bint floor, cnp.ndarray mean, cnp.ndarray m2, cnp.ndarray addend,
    cnp.ndarray residual, object activation, cnp.ndarray lines,
    cnp.ndarray scales, int threads
):
    """Statistics and y = (x - mean) * rstd * weight + bias, line by line; mean and m2, (outer, inner), if not None.

    With a residual, x becomes addend + residual first; an activation is applied to y, and `lines` and `scales`, if not
    None, are y quantised.
    """
    cdef Work w = work_on(NORMALIZE, x)
    w.y = view_of(y)
    w.rule = Rule(measure, divisor, eps, floor)
    w.weight, w.bias, w.parameters = data_of(weight), data_of(bias), cnp.PyArray_SIZE(weight)
    w.per_position, w.segments = per_position, segments
    w.mean, w.m2 = <double*> data_of(mean), <double*> data_of(m2)
    fuse(&w, addend, residual, activation, lines, scales)
    run(&w, threads)


def affine(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray scale, cnp.ndarray shift,
    cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray addend, cnp.ndarray residual, object activation,
    cnp.ndarray lines, cnp.ndarray scales, int threads
):
    """y = (x - hi - lo) * scale + shift, coefficients (lines, inner) float64; or * scale * weight + bias, (reduce,).

    Without a weight, residual and activation as in `normalize`.
    """
    cdef Work w = work_on(AFFINE, x)
    w.y = view_of(y)
    w.coefficients[0], w.coefficients[1] = <double*> data_of(hi), <double*> data_of(lo)
    w.coefficients[2], w.coefficients[3] = <double*> data_of(scale), <double*> data_of(shift)
    w.lines, w.weight, w.bias = cnp.PyArray_DIM(hi, 0), data_of(weight), data_of(bias)
    fuse(&w, addend, residual, activation, lines, scales)
    run(&w, threads)


def activate(cnp.ndarray y, object activation, int threads):
    """Apply an activation, as in `normalize`, to y, (n,), in place."""
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive, w.storage = ACTIVATE, SINGLE if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT32 else DOUBLE
    w.x = View(cnp.PyArray_DATA(y), 1, cnp.PyArray_DIM(y, 0), 1, cnp.PyArray_DIM(y, 0), 1, False)
    w.y = w.x
    fuse(&w, None, None, activation, None, None)
    run(&w, threads)


def dots(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray mean, cnp.ndarray products, cnp.ndarray sums, int threads
):
    """Write the sums of dy * (x - mean) and of dy over each chunk of each line, (outer, chunks, inner) float64."""
    cdef Work w = work_on(DOTS, x)
    w.dy, w.mean, w.lines = view_of(dy), <double*> data_of(mean), cnp.PyArray_DIM(mean, 0)
    w.products, w.sums = <double*> data_of(products), <double*> data_of(sums)
    run(&w, threads)


def affine_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, cnp.ndarray mean, cnp.ndarray scale, cnp.ndarray slope,
    cnp.ndarray shift, int threads
):
    """dx = scale * dy + slope * (x - mean) + shift, coefficients (lines, inner) float64."""
    cdef Work w = work_on(AFFINE_GRAD, x)
    w.dy, w.y = view_of(dy), view_of(dx)
    w.coefficients[0], w.coefficients[1] = <double*> data_of(mean), <double*> data_of(scale)
    w.coefficients[2], w.coefficients[3] = <double*> data_of(slope), <double*> data_of(shift)
    w.lines = cnp.PyArray_DIM(mean, 0)
    run(&w, threads)


def normalize_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, cnp.ndarray weight, bint per_position, Py_ssize_t segments,
    Measure measure, double divisor, double eps, bint floor, cnp.ndarray mean, cnp.ndarray rstd,
    cnp.ndarray products, cnp.ndarray sums, Py_ssize_t rows, int threads
):
    """dx of rows; mean and rstd, (outer,), are made if None. Products and sums, if not None, are filled.

    Per position they are (units, reduce), zeros to begin with, a unit being `rows` rows; else (outer, segments).
    """
    cdef Work w = work_on(NORMALIZE_GRAD, x)
    w.dy, w.y = view_of(dy), view_of(dx)
    w.rule = Rule(measure, divisor, eps, floor)
    w.weight, w.parameters = data_of(weight), cnp.PyArray_SIZE(weight)
    w.per_position, w.segments, w.rows = per_position, segments, rows
    w.mean, w.rstd = <double*> data_of(mean), <double*> data_of(rstd)
    w.products, w.sums = <double*> data_of(products), <double*> data_of(sums)
    run(&w, threads)


def merge(
    const double[:, :, ::1] hi, const double[:, :, ::1] lo, const double[:, :, ::1] m2, double count, double last,
    double[:, ::1] merged_hi, double[:, ::1] merged_lo, double[:, ::1] merged_m2
):
    """Join parts along the middle axis, in order; each has `count` elements, the last one `last`."""
    cdef Py_ssize_t a, b, number = hi.shape[1], lines = hi.shape[2]
    for a in range(hi.shape[0] if lines else 0):
        for b in range(number):
            absorb_lines(
                count * b, last if b == number - 1 else count, &hi[a, b, 0], &lo[a, b, 0], &m2[a, b, 0],
                &merged_hi[a, 0], &merged_lo[a, 0], &merged_m2[a, 0], lines
            )


include "textbook.pxi"
include "fast_path/fast_path.pxi"
include "fast_path/lines.pxi"
include "fast_path/axes.pxi"
include "fast_path/batch.pxi"
include "fast_path/gradients.pxi"
include "images/images.pxi"

# What backends/cython.py must know of the kernels.
COUNTED_PIXELS = COUNTED        # of which the sums of an image's channels are made at a time
DESK_ELEMENTS = DESK            # of lines of 16-bit floats, or of a tile of columns, that are normalised in one go
IMAGE_COEFFICIENTS = REPEATED   # that an image's channels are repeated to fill
TILE_COLUMNS = MAX_LINES
