# Statistics of elements that count unequally (a mask, or weights), and gradients through them. x is (items, C, S) or,
# with the channels last, (items, S, C); a line is a channel of an item. A row is read as columns, so many elements at a
# time, whose sums are folded by halves.

cdef extern from "counted/counted.h" nogil:
    void lanes32_counted_sums(
        const lanes32* x, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride, bint shared, Py_ssize_t rows,
        Py_ssize_t columns, const double* centre, double* totals, double* sums, double* squares
    )
    void lanes64_counted_sums(
        const lanes64* x, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride, bint shared, Py_ssize_t rows,
        Py_ssize_t columns, const double* centre, double* totals, double* sums, double* squares
    )
    void lanes32_counted_dots(
        const lanes32* x, const lanes32* dy, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride, bint shared,
        Py_ssize_t rows, Py_ssize_t columns, const double* mean, double* sums, double* products
    )
    void lanes64_counted_dots(
        const lanes64* x, const lanes64* dy, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride, bint shared,
        Py_ssize_t rows, Py_ssize_t columns, const double* mean, double* sums, double* products
    )
    void lanes32_counted_grad(
        const lanes32* x, const lanes32* dy, lanes32* dx, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride,
        bint shared, Py_ssize_t rows, Py_ssize_t columns, const double* mean, const double* rstd, const double* scale,
        const double* a, const double* b
    )
    void lanes64_counted_grad(
        const lanes64* x, const lanes64* dy, lanes64* dx, Py_ssize_t x_stride, const double* w, Py_ssize_t w_stride,
        bint shared, Py_ssize_t rows, Py_ssize_t columns, const double* mean, const double* rstd, const double* scale,
        const double* a, const double* b
    )

cdef enum:
    FOLDED = 16             # columns that a row is read as
    COUNTED_TILE = 64       # columns to a unit of work
    COUNTED_NUMBERS = 5     # of each line that dx needs
    COUNTED_ROWS = 1024     # that are one chain of additions


ctypedef enum CountedStep:
    COUNTED_MOMENTS
    COUNTED_DOTS
    COUNTED_GRAD


cdef struct Counting:
    CountedStep step
    Storage storage
    bint last               # channels
    Py_ssize_t items
    Py_ssize_t channels
    Py_ssize_t spatial
    const char* x
    const char* dy
    char* dx
    const double* weights   # of which an item, a channel and a position have these strides, the channel's perhaps 0
    Py_ssize_t item_stride
    Py_ssize_t channel_stride
    Py_ssize_t position_stride
    double* made[3]         # hi, lo, m2; or sums, products; (items, C)
    const double* given[COUNTED_NUMBERS]    # mean, or mean, rstd, scale, a, b; (numbered, C)
    Py_ssize_t numbered     # 1, or as many as there are items


cdef struct Strip:
    # Columns whose lines lie side by side, or a row that is read as columns.
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t rest         # elements of a row that fill no columns
    Py_ssize_t stride
    const double* weights
    Py_ssize_t weight_stride
    bint shared
    bint folded             # all columns are one line


cdef inline double added(double* numbers) noexcept nogil:
    """The sum of the columns of a row, by halves."""
    cdef Py_ssize_t half = FOLDED // 2, j
    while half > 0:
        for j in range(half):
            numbers[j] += numbers[j + half]
        half //= 2
    return numbers[0]


cdef inline Strip block_of(const Strip* s, Py_ssize_t first) noexcept nogil:
    """The rows of a block, from number `first` on, and what fills none behind the last."""
    cdef Py_ssize_t rows = min(s.rows - first, COUNTED_ROWS)
    return Strip(
        rows, s.columns, s.rest if first + rows == s.rows else 0, s.stride, s.weights + first * s.weight_stride,
        s.weight_stride, s.shared, s.folded
    )


cdef inline Strip rest_of(const Strip* s) noexcept nogil:
    """The elements of a row that fill no columns, as a row of fewer."""
    return Strip(1, s.rest, 0, 0, s.weights + s.rows * s.columns, 0, False, False)


cdef inline void add_counted(
    const lanes* x, const Strip* s, const double* centre, double* totals, double* sums, double* squares
) noexcept nogil:
    if lanes is lanes32:
        lanes32_counted_sums(
            x, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, centre, totals, sums, squares
        )
    else:
        lanes64_counted_sums(
            x, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, centre, totals, sums, squares
        )


cdef inline void block_sums(
    const lanes* x, const Strip* s, const double* centre, double* totals, double* sums, double* squares
) noexcept nogil:
    """Sums from 0 on, without squares also of what counts; of a folded strip the number of its line comes first."""
    cdef double* others = squares if squares else totals
    cdef Strip rest
    memset(sums, 0, s.columns * sizeof(double))
    memset(others, 0, s.columns * sizeof(double))
    add_counted(x, s, centre, totals, sums, squares)
    if s.folded:
        rest = rest_of(s)
        add_counted(at(x, s.rows * s.columns), &rest, centre, totals, sums, squares)
        added(sums)
        added(others)


cdef inline void strip_moments(const lanes* x, const Strip* s, double* hi, double* lo, double* m2) noexcept nogil:
    """Two passes over a block: the mean, then what it lacks and the squares about it; zeros where nothing counts."""
    cdef double centre[COUNTED_TILE]
    cdef double totals[COUNTED_TILE]
    cdef double sums[COUNTED_TILE]
    cdef double squares[COUNTED_TILE]
    cdef Moments found[COUNTED_TILE]
    cdef Py_ssize_t i, j, lines = 1 if s.folded else s.columns
    cdef Strip block
    memset(found, 0, sizeof(found))
    for i from 0 <= i < max(s.rows, 1) by COUNTED_ROWS:
        block = block_of(s, i)
        memset(centre, 0, sizeof(centre))
        block_sums(at(x, i * s.stride), &block, centre, totals, sums, NULL)
        for j in range(lines):
            centre[j] = sums[j] / totals[j] if totals[j] != 0.0 else 0.0
        for j in range(s.columns if s.folded else 0):
            centre[j] = centre[0]
        block_sums(at(x, i * s.stride), &block, centre, totals, sums, squares)
        for j in range(lines):
            if totals[j] != 0.0:
                absorb(&found[j], totals[j], centre[j], sums[j] / totals[j], squares[j] - sums[j] / totals[j] * sums[j])
    for j in range(lines):
        hi[j], lo[j], m2[j] = found[j].hi, found[j].lo, found[j].m2


cdef inline void add_counted_dots(
    const lanes* x, const lanes* dy, const Strip* s, const double* mean, double* sums, double* products
) noexcept nogil:
    if lanes is lanes32:
        lanes32_counted_dots(
            x, dy, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, mean, sums, products
        )
    else:
        lanes64_counted_dots(
            x, dy, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, mean, sums, products
        )


cdef inline void strip_dots(
    const lanes* x, const lanes* dy, const Strip* s, const double* mean, double* sums, double* products
) noexcept nogil:
    """Sums of dy and of dy * (x - mean) from 0 on."""
    cdef Py_ssize_t i, j, first
    cdef double part[2][COUNTED_TILE]
    cdef Strip block, rest
    memset(sums, 0, s.columns * sizeof(double))
    memset(products, 0, s.columns * sizeof(double))
    for i from 0 <= i < max(s.rows, 1) by COUNTED_ROWS:
        block, first = block_of(s, i), i * s.stride
        memset(part, 0, sizeof(part))
        add_counted_dots(at(x, first), at(dy, first), &block, mean, part[0], part[1])
        if s.folded:
            rest, first = rest_of(&block), first + block.rows * s.columns
            add_counted_dots(at(x, first), at(dy, first), &rest, mean, part[0], part[1])
        for j in range(s.columns):
            sums[j] += part[0][j]
            products[j] += part[1][j]
    if s.folded:
        added(sums)
        added(products)


cdef inline void counted_slope(
    const lanes* x, const lanes* dy, lanes* dx, const Strip* s, double given[COUNTED_NUMBERS][COUNTED_TILE]
) noexcept nogil:
    if lanes is lanes32:
        lanes32_counted_grad(
            x, dy, dx, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, given[0], given[1], given[2],
            given[3], given[4]
        )
    else:
        lanes64_counted_grad(
            x, dy, dx, s.stride, s.weights, s.weight_stride, s.shared, s.rows, s.columns, given[0], given[1], given[2],
            given[3], given[4]
        )


cdef inline void run_counted_typed(
    const lanes* like, const Counting* w, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The units `start` to `stop`, counted over (items, tiles of channels), or rows over (items, channels)."""
    cdef double made[3][COUNTED_TILE]
    cdef double given[COUNTED_NUMBERS][COUNTED_TILE]
    cdef Py_ssize_t k, item, channel, first, whole, line, j, n, lines
    cdef Py_ssize_t tiles = parts(w.channels, COUNTED_TILE)
    cdef Strip s
    cdef const lanes* x
    cdef const lanes* dy
    cdef lanes* dx
    for k in range(start, stop):
        if w.last:
            item, channel = k // tiles, k % tiles * COUNTED_TILE
            lines = min(w.channels - channel, COUNTED_TILE)
            first = item * w.spatial * w.channels + channel
            s = Strip(w.spatial, lines, 0, w.channels, NULL, w.position_stride, w.channel_stride == 0, False)
        else:
            item, channel, lines = k // w.channels, k % w.channels, 1
            first = k * w.spatial
            s = Strip(w.spatial // FOLDED, FOLDED, w.spatial % FOLDED, FOLDED, NULL, FOLDED, False, True)
        s.weights = w.weights + item * w.item_stride + channel * w.channel_stride
        x, dy = at(<const lanes*> w.x, first), at(<const lanes*> w.dy, first)
        dx = at(<const lanes*> w.dx, first)
        line = item * w.channels + channel
        for n in range(COUNTED_NUMBERS):
            if w.given[n]:
                for j in range(s.columns):
                    given[n][j] = w.given[n][item % w.numbered * w.channels + channel + (0 if s.folded else j)]
        if w.step == COUNTED_MOMENTS:
            strip_moments(x, &s, made[0], made[1], made[2])
        elif w.step == COUNTED_DOTS:
            strip_dots(x, dy, &s, given[0], made[0], made[1])
        else:
            counted_slope(x, dy, dx, &s, given)
            if s.folded:
                s = rest_of(&s)
                whole = w.spatial - s.columns
                counted_slope(at(x, whole), at(dy, whole), at(dx, whole), &s, given)
        for n in range(3):
            if w.made[n]:
                memcpy(w.made[n] + line, made[n], lines * sizeof(double))


cdef void run_counted(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef const Counting* w = <const Counting*> work
    if w.storage == DOUBLE:
        run_counted_typed(<const lanes64*> w.x, w, start, stop)
    else:
        run_counted_typed(<const lanes32*> w.x, w, start, stop)


cdef inline Counting counting_of(CountedStep step, cnp.ndarray x, cnp.ndarray weights, bint last) noexcept:
    cdef Counting w
    cdef int channel = 2 if last else 1
    memset(&w, 0, sizeof(Counting))
    w.step, w.storage, w.last, w.numbered = step, storage_of(x), last, 1
    w.items, w.channels, w.spatial = shape_of(x)[0], shape_of(x)[channel], shape_of(x)[3 - channel]
    w.x, w.weights = <const char*> data_of(x), <const double*> data_of(weights)
    w.item_stride = strides_of(weights)[0] // <Py_ssize_t> sizeof(double)
    w.position_stride = strides_of(weights)[3 - channel] // <Py_ssize_t> sizeof(double)
    if shape_of(weights)[channel] > 1:
        w.channel_stride = strides_of(weights)[channel] // <Py_ssize_t> sizeof(double)
    return w


cdef void count(Counting* w, int threads) noexcept:
    cdef Py_ssize_t units = w.items * (parts(w.channels, COUNTED_TILE) if w.last else w.channels)
    if threads == 1 and w.items * w.channels * w.spatial < RELEASE_GIL:
        run_counted(w, 0, units)
        return
    with nogil:
        pool_run(run_counted, w, units, threads)


def counted_moments(
    cnp.ndarray x, cnp.ndarray weights, bint last, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray m2, int threads
):
    """Write the moments of each channel of each item, (items, C) float64, of elements that count what weights say.

    Weights are float64, (items, C or 1, S), or with `last` (items, S, C or 1), contiguous.
    """
    cdef Counting w = counting_of(COUNTED_MOMENTS, x, weights, last)
    w.made[0], w.made[1], w.made[2] = <double*> data_of(hi), <double*> data_of(lo), <double*> data_of(m2)
    count(&w, threads)


def counted_dots(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray weights, bint last, cnp.ndarray mean, cnp.ndarray sums,
    cnp.ndarray products, int threads
):
    """Write the sums of dy and of dy * (x - mean), as `counted_moments`; mean, (items or 1, C) float64."""
    cdef Counting w = counting_of(COUNTED_DOTS, x, weights, last)
    w.dy, w.numbered = <const char*> data_of(dy), shape_of(mean)[0]
    w.given[0] = <const double*> data_of(mean)
    w.made[0], w.made[1] = <double*> data_of(sums), <double*> data_of(products)
    count(&w, threads)


def counted_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, cnp.ndarray weights, bint last, cnp.ndarray mean, cnp.ndarray rstd,
    cnp.ndarray scale, cnp.ndarray a, cnp.ndarray b, int threads
):
    """dx = rstd * (scale * dy - w * (a + (x - mean) * rstd * b)), coefficients (items or 1, C) float64."""
    cdef Counting w = counting_of(COUNTED_GRAD, x, weights, last)
    w.dy, w.dx, w.numbered = <const char*> data_of(dy), <char*> data_of(dx), shape_of(mean)[0]
    w.given[0], w.given[1] = <const double*> data_of(mean), <const double*> data_of(rstd)
    w.given[2] = <const double*> data_of(scale)
    w.given[3], w.given[4] = <const double*> data_of(a), <const double*> data_of(b)
    count(&w, threads)
