# A call: what is to be done (`Work`), how it is cut into units, which threads share, and what a unit is in the form and
# the type of x.

cdef extern from "pool.h" nogil:
    bint pool_moves
    void pool_run(void (*task)(void*, Py_ssize_t, Py_ssize_t) noexcept nogil, void* work, Py_ssize_t units, int threads)

pool_moves = _tuning.MOVE_THREADS

cdef enum:
    RELEASE_GIL = 16384     # elements: below, a call is over sooner than the GIL could be given and taken back
    LEAST_STREAMED = 1048576    # elements: below, the threshold need not be looked up


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
    double* coefficients[4]     # hi, lo, scale, shift; backward: mean, scale, slope, shift; clipping: low, high
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
    elif w.primitive == INFER_GRAD:
        infer_rows_backward(x, dy, y, w, start, stop)
    elif w.primitive == CLIP:
        clip_pieces(x, y, w.x.n, w.coefficients[0][0], w.coefficients[1][0], w.y.streamed, start, stop)
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


cdef void clip_pieces(
    const lanes* x, lanes* y, Py_ssize_t n, double low, double high, bint streamed, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """Limit the pieces `start` to `stop` of n elements to low..high; NaN stays, and so does a zero of either sign."""
    cdef Py_ssize_t i = start * CHUNK, end = min(stop * CHUNK, n), step = lane_count(x)
    cdef lanes least = splat(x, low), most = splat(x, high)
    streamed = streamed and before_aligned(y) == 0
    for i from i <= i <= end - step by step:
        put(y, i, minimum(maximum(load(x, i), least), most), streamed)
    if i < end:
        store_partial(y, i, end - i, minimum(maximum(load_partial(x, i, end - i, 0.0), least), most))


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


cdef inline Py_ssize_t chunk_of(const View* view) noexcept:
    return CHUNK if view.inner == 1 else CHUNK_COLUMNS


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
        w.piece = min(max(parts(units * w.x.n, 4 * <Py_ssize_t> threads), LEAST_PIECE), CHUNK_COLUMNS)
        units *= parts(w.x.n, w.piece)
    elif w.primitive != NORMALIZE and w.primitive != INFER_GRAD:
        units *= parts(w.x.n, chunk_of(&w.x))
    if w.primitive not in (AFFINE, AFFINE_GRAD, INFER) and w.x.inner > 1:
        units *= parts(w.x.inner, tile)
    if (w.primitive == DOTS or w.primitive == MOMENTS or w.primitive == EXTREMA) and w.x.inner > 1:
        w.tile = ROW_TILES * tile  # rows had better be read as a whole
        tiled = units // parts(w.x.inner, tile) * parts(w.x.inner, w.tile)
        if tiled >= 2 * <Py_ssize_t> threads and (w.storage == SINGLE or w.storage == DOUBLE):
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
