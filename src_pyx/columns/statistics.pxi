# The column form: neighbours in memory belong to different lines (inner > 1), and each lane of a bundle is a line.
#
# A line is cut into chunks of CHUNK_COLUMNS positions, these into blocks of BLOCK_COLUMNS. In a block, GROUP rows are
# added as a tree and the groups in order: first for the means, then for the deviations from them. Work is tiled, TILE
# bundles of lines at a time, so that a block of a tile stays in L1 for its second pass.

cdef enum:
    GROUP = 8                       # rows that are added as a tree, read as 8 streams
    BLOCK_COLUMNS = 8 * GROUP       # rows summed in the storage type: 8 additions in a chain
    CHUNK_COLUMNS = 16 * BLOCK_COLUMNS
    TILE = 4                        # bundles: 128 float32 or 64 float64 lines
    MAX_LINES = 32 * TILE
    ROW_TILES = 8                   # tiles that are read together where there is work enough


cdef extern from *:
    bint likely(bint condition) noexcept nogil  # so that registers are those of the whole bundles


cdef extern from "columns/sums.h" nogil:
    enum:
        BUNDLE_BYTES
    lanes32 lanes32_sum_of_rows(const lanes32* base, Py_ssize_t stride, Py_ssize_t count)
    lanes64 lanes64_sum_of_rows(const lanes64* base, Py_ssize_t stride, Py_ssize_t count)
    void lanes32_add_deviations(
        const lanes32* base, Py_ssize_t stride, Py_ssize_t count, const lanes32* shift, bint magnitudes, lanes32* sums,
        lanes32* powers
    )
    void lanes64_add_deviations(
        const lanes64* base, Py_ssize_t stride, Py_ssize_t count, const lanes64* shift, bint magnitudes, lanes64* sums,
        lanes64* powers
    )


cdef struct Columns:
    # The moments of the lines of a tile.
    double count
    double hi[MAX_LINES]
    double lo[MAX_LINES]
    double m2[MAX_LINES]


cdef inline lanes load_columns(const lanes* x, Py_ssize_t i, Py_ssize_t width, double fill) noexcept nogil:
    """A bundle of lines, of which `width` exist."""
    if likely(width >= lane_count(x)):
        return load(x, i)
    return load_partial(x, i, width, fill)


cdef inline void store_columns(lanes* y, Py_ssize_t i, Py_ssize_t width, lanes value) noexcept nogil:
    if likely(width >= lane_count(y)):
        store(y, i, value)
    else:
        store_partial(y, i, width, value)


cdef inline lanes tree(lanes* d) noexcept nogil:
    return add(add(add(d[0], d[1]), add(d[2], d[3])), add(add(d[4], d[5]), add(d[6], d[7])))


cdef inline lanes group_sum(const lanes* x, Py_ssize_t stride, Py_ssize_t width) noexcept nogil:
    """`tree` of GROUP rows."""
    if lanes is lanes32:
        return lanes32_sum_of_rows(x, stride, width)
    else:
        return lanes64_sum_of_rows(x, stride, width)


cdef inline void add_group(
    const lanes* x, Py_ssize_t stride, Py_ssize_t width, Measure measure, const lanes* shift, lanes* e, lanes* q
) noexcept nogil:
    """Add the deviations of GROUP rows, and what q adds up, each as a `tree`."""
    if lanes is lanes32:
        lanes32_add_deviations(x, stride, width, shift, measure == MAGNITUDES, e, q)
    else:
        lanes64_add_deviations(x, stride, width, shift, measure == MAGNITUDES, e, q)


cdef inline void column_means(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, bint rescaled, double before, lanes* means
) noexcept nogil:
    """The means down the bundles that hold `width` columns, times `before` if rescaled."""
    cdef Py_ssize_t i, r, k, c, step = lane_count(x), whole = 0 if rescaled else n - n % GROUP
    cdef lanes b = splat(x, before), share = splat(x, 1.0 / n)
    cdef lanes d[GROUP]
    cdef const lanes* row
    for k in range(parts(width, step)):
        means[k] = splat(x, 0.0)
    for i from 0 <= i < whole by GROUP:
        k = 0
        for c from 0 <= c < width by step:
            row = at(x, i * stride + c)
            if width - c >= step:  # a constant there: whole bundles are then read without a mask
                means[k] = add(means[k], group_sum(row, stride, step))
            else:
                means[k] = add(means[k], group_sum(row, stride, width - c))
            k += 1
    for i from whole <= i < n by GROUP:
        k = 0
        for c from 0 <= c < width by step:
            for r in range(GROUP):
                d[r] = splat(x, 0.0)
                if i + r < n:
                    d[r] = load_columns(x, (i + r) * stride + c, width - c, 0.0)
                if rescaled:
                    d[r] = multiply(d[r], b)
            means[k] = add(means[k], tree(d))
            k += 1
    for k in range(parts(width, step)):
        means[k] = multiply(means[k], share)


cdef inline void column_sums(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Measure measure, const lanes* shift,
    bint rescaled, double before, double after, Py_ssize_t next, lanes* e, lanes* q
) noexcept nogil:
    """e = sum of d, q = sum of d * d (or of |d|), for d = x - shift, down the bundles that hold `width` columns.

    `next` is how many elements further the block begins that will be read from memory after this one, which is in L1.
    """
    cdef Py_ssize_t i, r, k, c, step = lane_count(x)
    cdef lanes b = splat(x, before), a = splat(x, after)
    cdef lanes d[GROUP]
    cdef const lanes* row
    for k in range(0, (width + step - 1) // step):
        e[k] = splat(x, 0.0)
        q[k] = splat(x, 0.0)
    for i from 0 <= i < n - n % GROUP by GROUP:
        k = 0
        for c from 0 <= c < width by step:
            row = at(x, i * stride + c)
            for r in range(GROUP):
                prefetch(x, next + (i + r) * stride + c)
            if not rescaled and width - c >= step:
                add_group(row, stride, step, measure, &shift[k], &e[k], &q[k])
            elif not rescaled:
                add_group(row, stride, width - c, measure, &shift[k], &e[k], &q[k])
            else:
                for r in range(GROUP):
                    d[r] = deviation(load_columns(row, r * stride, width - c, 0.0), shift[k], b, a, True)
                e[k] = add(e[k], tree(d))
                for r in range(GROUP):
                    d[r] = power(d[r], measure)
                q[k] = add(q[k], tree(d))
            k += 1
    for i in range(n - n % GROUP, n):
        k = 0
        for c from 0 <= c < width by step:
            d[0] = deviation(load_columns(x, i * stride + c, width - c, 0.0), shift[k], b, a, rescaled)
            e[k] = add(e[k], d[0])
            if measure == MAGNITUDES:
                q[k] = add(q[k], magnitude(d[0]))
            else:
                q[k] = fused(d[0], d[0], q[k])
            k += 1


cdef inline bint is_always(const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t j, double value) noexcept nogil:
    """Whether line j has this value alone."""
    cdef Py_ssize_t i
    for i in range(n):
        if element(x, i * stride + j) != value:
            return False
    return True


cdef void line_sums(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Py_ssize_t j, Measure measure,
    const lanes* shift, bint rescaled, double before, double after, double* e, double* q
) noexcept nogil:
    """The sums of line j of a bundle."""
    cdef lanes sums_e, sums_q
    column_sums(x, stride, n, width, measure, shift, rescaled, before, after, 0, &sums_e, &sums_q)
    e[0] = element(&sums_e, j) / (before * after)
    q[0] = unscaled(element(&sums_q, j), measure, before * after)


cdef inline void recentre(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Py_ssize_t j, Measure measure, bint rescaled,
    double before, double after, double* shift, double* e, double* q
) noexcept nogil:
    """The sums once more, about the mean, if the shift was far from it."""
    cdef lanes mean
    if measure == VARIANCE and is_far(e[0], q[0], n):
        shift[0] = rounded(x, shift[0] + e[0] / n)
        mean = splat(x, shift[0] * before)
        line_sums(x, stride, n, width, j, measure, &mean, rescaled, before, after, e, q)


cdef void mend_column(
    const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Py_ssize_t j, Measure measure,
    double* shift, double* e, double* q
) noexcept nogil:
    """Line j of a bundle again, from a better shift or with rescaled squares. Seldom needed, so a bundle for a line."""
    cdef double before = 1.0, after = 1.0
    cdef lanes origin
    if q[0] == 0.0 and is_always(x, stride, n, j, element(x, j) if measure == VARIANCE else 0.0):
        shift[0], e[0] = element(x, j), 0.0
        return
    width = min(width, lane_count(x))
    recentre(x, stride, n, width, j, measure, False, before, after, shift, e, q)
    if not out_of_range(x, q[0], measure):
        return
    origin = splat(x, shift[0])
    if q[0] < SMALLEST_SQUARES:
        after = RESCALE
    else:
        before, origin = 1.0 / RESCALE, splat(x, 0.0)
        if measure == VARIANCE:
            column_means(x, stride, n, width, True, before, &origin)
    line_sums(x, stride, n, width, j, measure, &origin, True, before, after, e, q)
    shift[0] = element(&origin, j) / before
    recentre(x, stride, n, width, j, measure, True, before, after, shift, e, q)


cdef inline void absorb_columns(
    Columns* a, Py_ssize_t width, double count, const double* hi, const double* lo, const double* m2
) noexcept nogil:
    """`absorb` for the lines of a tile, which all have the same count."""
    absorb_lines(a.count, count, hi, lo, m2, a.hi, a.lo, a.m2, width)
    a.count += count


cdef inline void read_block(
    Columns* block, const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Measure measure, Py_ssize_t next
) noexcept nogil:
    """The moments of the lines of a tile over n positions."""
    cdef Py_ssize_t k, j, c, step = lane_count(x)
    cdef lanes shift[TILE]
    cdef lanes sums_e[TILE]
    cdef lanes sums_q[TILE]
    cdef double s, e, q, count = n
    cdef Py_ssize_t strange = 0
    for k in range(TILE):
        shift[k] = splat(x, 0.0)
    if measure == VARIANCE:
        column_means(x, stride, n, width, False, 1.0, shift)
    column_sums(x, stride, n, width, measure, shift, False, 1.0, 1.0, next, sums_e, sums_q)
    for j in range(width):
        e = element(sums_e, j) if measure == VARIANCE else 0.0
        q = element(sums_q, j)
        block.hi[j], block.lo[j], block.m2[j] = element(shift, j), e / count, q - e * (e / count)
    for j in range(width):
        e, q = element(sums_e, j), element(sums_q, j)
        strange += ((measure == VARIANCE) & is_far(e, q, count)) | out_of_range(x, q, measure)
    if strange:
        for j in range(width):
            s, e, q = element(shift, j), element(sums_e, j), element(sums_q, j)
            if (measure == VARIANCE and is_far(e, q, count)) or out_of_range(x, q, measure):
                c = j - j % step
                mend_column(at(x, c), stride, n, width - c, j - c, measure, &s, &e, &q)
                if measure != VARIANCE:
                    e = 0.0
                block.hi[j], block.lo[j], block.m2[j] = s, e / count, q - e * (e / count)


cdef inline void absorb_column_block(
    Columns* lines, const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Measure measure, Py_ssize_t next
) noexcept nogil:
    cdef Columns block
    read_block(&block, x, stride, n, width, measure, next)
    absorb_columns(lines, width, n, block.hi, block.lo, block.m2)


include "columns/abreast.pxi"


cdef void absorb_blocks_abreast(
    Columns* lines, const lanes* x, Py_ssize_t stride, Py_ssize_t blocks, Py_ssize_t width, Measure measure
) noexcept nogil:
    """`absorb_column_block` of several blocks of few columns."""
    cdef lanes desk[BLOCK_COLUMNS * ABREAST]
    cdef Columns block
    cdef Py_ssize_t b
    lay_blocks_abreast(x, stride, blocks, width, desk)
    read_block(&block, desk, blocks * width, BLOCK_COLUMNS, blocks * width, measure, 0)
    for b in range(blocks):
        absorb_columns(lines, width, BLOCK_COLUMNS, &block.hi[b * width], &block.lo[b * width], &block.m2[b * width])


cdef void absorb_column_blocks(
    Columns* lines, const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Measure measure, Py_ssize_t next
) noexcept nogil:
    """The moments of n positions join those of a tile; `next` is how many elements further those begin that follow."""
    cdef Py_ssize_t i = 0, blocks = blocks_abreast(x, n, width, MOMENTS_ABREAST)
    while blocks:
        absorb_blocks_abreast(lines, at(x, i * stride), stride, blocks, width, measure)
        i += blocks * BLOCK_COLUMNS
        blocks = blocks_abreast(x, n - i, width, MOMENTS_ABREAST)
    for i from i <= i < n by BLOCK_COLUMNS:
        absorb_column_block(
            lines, at(x, i * stride), stride, min(n - i, BLOCK_COLUMNS), width, measure,
            BLOCK_COLUMNS * stride if i + BLOCK_COLUMNS < n else next - i * stride
        )


cdef inline void column_chunk(
    Columns* chunk, const lanes* x, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t width, Measure measure, Py_ssize_t next
) noexcept nogil:
    """The moments of a chunk, from nothing."""
    chunk.count = 0.0
    absorb_column_blocks(chunk, x, stride, n, width, measure, next)


cdef void moments_columns(const lanes* x, const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The moments of the units `start` to `stop`, counted over (outer, chunks, parts of `columns` lines).

    Rows are read as a whole, so the tiles of a unit take turns, block by block.
    """
    cdef Py_ssize_t o, i, b, c, k, p, t, n, rows, width, all_lines, next, tile = TILE * lane_count(x)
    cdef Py_ssize_t units = parts(w.x.inner, w.columns), chunks = parts(w.x.n, CHUNK_COLUMNS), tiles
    cdef Columns chunk[ROW_TILES]
    cdef const lanes* source
    for k in range(start, stop):
        o, i, c = k // units // chunks, k // units % chunks * CHUNK_COLUMNS, k % units * w.columns
        source = at(x, o * w.x.outer_stride + i * w.x.stride + c)
        p, all_lines, n = k // units * w.x.inner + c, min(w.x.inner - c, w.columns), min(w.x.n - i, CHUNK_COLUMNS)
        tiles = parts(all_lines, tile)
        for t in range(tiles):
            chunk[t].count = 0.0
        rows = n if tiles == 1 else BLOCK_COLUMNS
        for b from 0 <= b < n by rows:
            for t in range(tiles):
                next = tile if t + 1 < tiles else rows * w.x.stride - t * tile
                absorb_column_blocks(
                    &chunk[t], at(source, b * w.x.stride + t * tile), w.x.stride, min(n - b, rows),
                    min(all_lines - t * tile, tile), w.rule.measure, next
                )
        for t in range(tiles):
            width = min(all_lines - t * tile, tile)
            memcpy(w.mean + p + t * tile, chunk[t].hi, width * sizeof(double))
            memcpy(w.lo + p + t * tile, chunk[t].lo, width * sizeof(double))
            memcpy(w.m2 + p + t * tile, chunk[t].m2, width * sizeof(double))
