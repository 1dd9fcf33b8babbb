# Local response normalization: x is (items, channels, positions), and a unit of work is some positions of an item, few
# enough for the numbers of all their channels to stay in cache.

cdef extern from "local_response/local_response.h" nogil:
    enum:
        POWERS                  # that are made at a time
    ctypedef struct Neighbourhood:
        Py_ssize_t before
        Py_ssize_t after
        double slope
        double beta
        double k
    ctypedef struct Positions:
        Py_ssize_t channels
        Py_ssize_t positions
        Py_ssize_t first
        Py_ssize_t width
    void lanes32_local_response(
        const lanes32* x, lanes32* y, double* rstd, const Positions* p, const Neighbourhood* near, double* desk
    )
    void lanes64_local_response(
        const lanes64* x, lanes64* y, double* rstd, const Positions* p, const Neighbourhood* near, double* desk
    )
    void lanes32_local_response_grad(
        const lanes32* x, const lanes32* dy, lanes32* dx, const double* rstd, const Positions* p,
        const Neighbourhood* near, double* desk
    )
    void lanes64_local_response_grad(
        const lanes64* x, const lanes64* dy, lanes64* dx, const double* rstd, const Positions* p,
        const Neighbourhood* near, double* desk
    )

cdef enum:
    RESPONSE_NUMBERS = 8192     # on a desk, or a number of each channel if that is more: 64 KiB, in L2


cdef struct Response:
    Storage storage
    Py_ssize_t items
    Py_ssize_t channels
    Py_ssize_t positions
    Py_ssize_t width            # positions to a unit
    const char* x
    const char* dy              # NULL: forward
    char* y                     # or dx
    double* rstd                # or NULL
    Neighbourhood near
    bint failed                 # where there was no memory


cdef inline void run_response_typed(
    const lanes* like, Response* w, double* desk, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The units `start` to `stop`, counted over (items, pieces of positions)."""
    cdef Py_ssize_t pieces = parts(w.positions, w.width), unit, item
    cdef Positions p
    cdef const lanes* x
    cdef const lanes* dy
    cdef lanes* y
    cdef double* rstd
    for unit in range(start, stop):
        p.channels, p.positions, p.first = w.channels, w.positions, unit % pieces * w.width
        p.width = min(w.width, w.positions - p.first)
        item = unit // pieces * w.channels * w.positions
        x, y = at(<const lanes*> w.x, item), at(<const lanes*> w.y, item)
        dy = at(<const lanes*> w.dy, item)
        rstd = w.rstd + item if w.rstd else NULL
        if lanes is lanes32:
            if w.dy:
                lanes32_local_response_grad(x, dy, y, rstd, &p, &w.near, desk)
            else:
                lanes32_local_response(x, y, rstd, &p, &w.near, desk)
        else:
            if w.dy:
                lanes64_local_response_grad(x, dy, y, rstd, &p, &w.near, desk)
            else:
                lanes64_local_response(x, y, rstd, &p, &w.near, desk)


cdef void run_response(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef Response* w = <Response*> work
    cdef double* desk = <double*> malloc((2 if w.dy else 1) * w.channels * w.width * sizeof(double))
    if not desk:
        w.failed = True
    elif w.storage == DOUBLE:
        run_response_typed(<const lanes64*> w.x, w, desk, start, stop)
    else:
        run_response_typed(<const lanes32*> w.x, w, desk, start, stop)
    free(desk)


cdef int respond(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray y, cnp.ndarray rstd, object neighbourhood, int threads
) except -1:
    cdef Response w
    memset(&w, 0, sizeof(Response))
    w.storage = storage_of(x)
    w.items, w.channels, w.positions = shape_of(x)[0], shape_of(x)[1], shape_of(x)[2]
    w.width = max(RESPONSE_NUMBERS // w.channels, 1)
    if w.width > POWERS:
        w.width -= w.width % POWERS
    w.width = min(w.width, w.positions)
    w.x, w.dy, w.y = <const char*> data_of(x), <const char*> data_of(dy), <char*> data_of(y)
    w.rstd = <double*> data_of(rstd)
    w.near.before, w.near.after, w.near.slope, w.near.beta, w.near.k = neighbourhood
    with nogil:
        pool_run(run_response, &w, w.items * parts(w.positions, w.width), threads)
    if w.failed:
        raise MemoryError
    return 0


def local_response(cnp.ndarray x, cnp.ndarray y, object neighbourhood, cnp.ndarray rstd, int threads):
    """y = x * (k + slope * sums of squares)^-beta, (items, channels, positions); the factors, float64, if not None.

    The neighbourhood is (channels before, channels after, slope, beta, k).
    """
    respond(x, None, y, rstd, neighbourhood, threads)


def local_response_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, object neighbourhood, cnp.ndarray rstd, int threads
):
    """The gradient of x in `local_response`; `rstd`, if not None, are its factors."""
    respond(x, dy, dx, rstd, neighbourhood, threads)
