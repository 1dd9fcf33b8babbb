# How a call is cut into units, which threads share, and which kernel serves a unit in the form and the type of x.

cdef extern from "pool.h" nogil:
    bint pool_moves
    void pool_run(void (*task)(void*, Py_ssize_t, Py_ssize_t) noexcept nogil, void* work, Py_ssize_t units, int threads)

pool_moves = _tuning.MOVE_THREADS

cdef enum:
    RELEASE_GIL = 16384     # elements: below, a call is over sooner than the GIL could be given and taken back
    LEAST_STREAMED = 1048576    # elements: below, the threshold need not be looked up


cdef inline void run_typed(const lanes* x, Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The units `start` to `stop` of a call, in the form and the type of x, which is w.x.data."""
    cdef bint rows = w.x.inner == 1
    cdef Py_ssize_t bundles = parts(w.x.n, lane_count(x))
    if w.primitive == MOMENTS and rows and bundles <= SHORT:
        moments_short_rows(x, w.x, w.rule.measure, w.mean, w.lo, w.m2, start, stop)
    elif w.primitive == MOMENTS and rows:
        moments_rows(x, w.x, w.rule.measure, w.mean, w.lo, w.m2, start, stop)
    elif w.primitive == MOMENTS:
        moments_columns(x, w, start, stop)
    elif w.primitive == EXTREMA and rows:
        extrema_rows(x, w, start, stop)
    elif w.primitive == EXTREMA:
        extrema_columns(x, w, start, stop)
    elif w.primitive == NORMALIZE and rows and w.segments == 1 and bundles <= SHORT and stop - start > 1:
        normalize_short_rows(x, w, start, stop)
    elif w.primitive == NORMALIZE and rows:
        normalize_rows(x, w, start, stop)
    elif w.primitive == NORMALIZE:
        normalize_columns(x, w, start, stop)
    elif w.primitive == AFFINE and rows:
        affine_rows(x, w, start, stop)
    elif w.primitive == AFFINE:
        affine_columns(x, w, start, stop)
    elif w.primitive == DOTS and rows and bundles <= SHORT_GRADIENT:
        dots_short_rows(x, w, start, stop)
    elif w.primitive == DOTS and rows:
        dots_rows(x, w, start, stop)
    elif w.primitive == DOTS:
        dots_columns(x, w, start, stop)
    elif w.primitive == AFFINE_GRAD and rows:
        affine_grad_rows(x, w, start, stop)
    elif w.primitive == AFFINE_GRAD:
        affine_grad_columns(x, w, start, stop)
    elif w.primitive == NORMALIZE_GRAD and w.segments == 1 and bundles <= SHORT_GRADIENT:
        normalize_grad_short_rows(x, w, start, stop)
    elif w.primitive == NORMALIZE_GRAD:
        normalize_grad_rows(x, w, start, stop)
    elif w.primitive == TRAIN:
        train_channels(x, w, start, stop)
    elif w.primitive == TRAIN_GRAD:
        train_channels_backward(x, w, start, stop)
    elif w.primitive == INFER:
        infer_columns(x, w, start, stop)
    elif w.primitive == INFER_GRAD:
        infer_rows_backward(x, w, start, stop)
    else:
        clip_pieces(x, w, start, stop)


include "fused/pieces.pxi"
include "narrow/narrow.pxi"
include "batch/channels.pxi"
include "batch/inference.pxi"


cdef void clip_pieces(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """CLIP of the pieces `start` to `stop`; NaN stays, and so does a zero of either sign."""
    cdef Py_ssize_t i = start * CHUNK, end = min(stop * CHUNK, w.x.n), step = lane_count(x)
    cdef lanes least = splat(x, w.coefficients[0][0]), most = splat(x, w.coefficients[1][0])
    cdef lanes* y = <lanes*> w.y.data
    cdef bint streamed = w.y.streamed and before_aligned(y) == 0
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
    if w.large:
        FENCE()


cdef inline bint may_stream(const Work* w) noexcept:
    """Whether y is written once, and by this primitive past the caches if it is large."""
    if w.fusion.activate or w.fusion.quantized:
        return False
    if w.fusion.residual and (w.primitive != NORMALIZE or w.x.data == w.y.data):
        return False    # blocks are few lines of cache, or the sum is where the result goes
    return w.primitive not in (MOMENTS, EXTREMA, DOTS)


include "columns/joined.pxi"


cdef inline Py_ssize_t chunk_of(const View* view) noexcept:
    return CHUNK if view.inner == 1 else CHUNK_COLUMNS


cdef inline Py_ssize_t chunks_in(const View* view) noexcept:
    """How many chunks the lines of a view have together."""
    return view.outer * view.inner * parts(view.n, chunk_of(view))


cdef inline Py_ssize_t cut(Work* w, int threads) noexcept:
    """Cut a call into units, writing down how large one is where that is a choice; return how many there are."""
    cdef Py_ssize_t bundle = 16 if w.storage == DOUBLE else 32, tile = TILE * bundle, chunks
    cdef bint narrow = w.storage != SINGLE and w.storage != DOUBLE
    if w.primitive == NORMALIZE:
        return w.x.outer * (parts(w.x.inner, tile) if w.x.inner > 1 else 1)
    if w.primitive == NORMALIZE_GRAD:
        return parts(w.x.outer, w.rows)
    if w.primitive == TRAIN or w.primitive == TRAIN_GRAD:
        return parts(w.lines, w.rows)
    if w.primitive == INFER_GRAD:
        return w.x.outer
    if w.primitive == INFER:
        w.piece = parts(w.x.n, threads)
        return parts(w.x.n, w.piece)
    if w.x.inner == 1:
        return w.x.outer * parts(w.x.n, CHUNK)
    if w.primitive == AFFINE or w.primitive == AFFINE_GRAD:
        w.piece = min(max(parts(w.x.outer * w.x.n, 4 * <Py_ssize_t> threads), LEAST_PIECE), CHUNK_COLUMNS)
        return w.x.outer * parts(w.x.n, w.piece)
    chunks, w.columns = w.x.outer * parts(w.x.n, CHUNK_COLUMNS), ROW_TILES * tile  # rows had better be read as a whole
    if narrow or chunks * parts(w.x.inner, w.columns) < 2 * <Py_ssize_t> threads:
        w.columns = tile
    return chunks * parts(w.x.inner, w.columns)


cdef void run(Work* w, int threads) noexcept:
    """All units of a call; with several threads, or much work, without the GIL."""
    cdef Py_ssize_t units, elements = w.x.outer * w.x.n * w.x.inner
    if (w.primitive == AFFINE or w.primitive == AFFINE_GRAD) and w.x.inner > 1 and run_joined(w, threads):
        return
    units = cut(w, threads)
    if elements >= LEAST_STREAMED and w.storage != HALF and w.storage != BFLOAT:
        w.large = elements * (8 if w.storage == DOUBLE else 4) >= <Py_ssize_t> _tuning.STREAM_BYTES
        w.y.streamed = w.large and may_stream(w)
    if threads == 1 and elements < RELEASE_GIL:
        run_units(w, 0, units)
        return
    with nogil:
        pool_run(run_units, w, units, threads)
