# Rows of 16-bit floats. Forward, those longer than what is in flight are widened while their sums are made, and rounded
# to where they belong while they are applied. Sums of gradients of long rows go from register to register. All others
# lie on the desk as float32, some at a time.


cdef inline Py_ssize_t first_parameter(Work* part, Py_ssize_t number, Py_ssize_t each) noexcept nogil:
    """Have weight and bias begin with that of run `number`; return for how many more lines of `each` runs they last."""
    cdef Py_ssize_t first
    if part.per_position or part.parameters == 1:  # backward, `parameters` of positions may be 0
        return PIECE
    first = number % part.parameters
    part.weight = <float*> part.weight + first
    if part.bias:
        part.bias = <float*> part.bias + first
    return (part.parameters - first) // each


cdef inline void widening_sums(
    Storage storage, const bits16* source, float* desk, Py_ssize_t n, Measure measure, double shift, double* sums
) noexcept nogil:
    """`deviation_sums` of an ordinary block, which is left on the desk."""
    cdef const lanes32* x = <const lanes32*> desk
    cdef Py_ssize_t i, j, whole = n - n % 32, group = RUN * 32
    cdef lanes32 centre = splat(x, shift)
    cdef lanes32 e, q, d, sum_e = splat(x, 0.0), sum_q = splat(x, 0.0)
    for i from 0 <= i < n by group:
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j from i <= j < min(i + group, whole) by 32:
            prefetch_line(source + j + READ_AHEAD * 32)
            d = wide_bundle(storage, source + j, 32)
            store(<lanes32*> desk, j, d)
            d = subtract(d, centre)
            if measure == VARIANCE:
                e = add(e, d)
            q = add(q, magnitude(d)) if measure == MAGNITUDES else fused(d, d, q)
        sum_e, sum_q = add(sum_e, e), add(sum_q, q)
    if whole < n:
        widen(storage, source + whole, desk + whole, n - whole)
        d = subtract(load_partial(x, whole, n - whole, shift), centre)
        if measure == VARIANCE:
            sum_e = add(sum_e, d)
        sum_q = add(sum_q, magnitude(d)) if measure == MAGNITUDES else fused(d, d, sum_q)
    sums[0], sums[1] = total(sum_e), total(sum_q)


cdef inline Moments widening_moments(
    Storage storage, const bits16* source, float* desk, Py_ssize_t n, Measure measure
) noexcept nogil:
    """`line_moments` of a row, which is left on the desk."""
    cdef Moments line = Moments(0.0, 0.0, 0.0, 0.0)
    cdef Moments chunk
    cdef Py_ssize_t first, i, length
    cdef double sums[2]
    cdef double shift
    cdef const lanes32* x
    for first from 0 <= first < n by CHUNK:
        chunk = Moments(0.0, 0.0, 0.0, 0.0)
        for i from first <= i < min(first + CHUNK, n) by BLOCK:
            x, length = <const lanes32*> (desk + i), min(min(first + CHUNK, n) - i, BLOCK)
            widen(storage, source + i, desk + i, min(length, 64))
            shift = head_mean(x, length, measure, False, 1.0)
            if measure == VARIANCE:  # once for each measure, so that the loop need not ask
                widening_sums(storage, source + i, desk + i, length, VARIANCE, shift, sums)
            elif measure == SQUARES:
                widening_sums(storage, source + i, desk + i, length, SQUARES, shift, sums)
            else:
                widening_sums(storage, source + i, desk + i, length, MAGNITUDES, shift, sums)
            absorb_sums(&chunk, x, length, measure, shift, sums)
        absorb(&line, chunk.count, chunk.hi, chunk.lo, chunk.m2)
    return line


cdef inline void apply_rounding(
    Storage storage, float* desk, bits16* y, Py_ssize_t n, const Exact* e, const float* weight, const float* bias
) noexcept nogil:
    """`apply_positions` of a run on the desk, or without a weight `apply_scalar`, rounded into y."""
    cdef lanes32* x = <lanes32*> desk
    cdef Coefficients c = coefficients(x, e.hi, e.lo, e.scale, e.shift)
    cdef lanes32 centre = splat(x, c.centre), scale = splat(x, c.scale)
    cdef lanes32 scale_rest = splat(x, c.scale_rest), shift = splat(x, c.shift), v, b = splat(x, 0.0)
    cdef Py_ssize_t i, whole = n - n % 32, rest = n - whole
    if e.wide:
        if weight:
            apply_positions(x, x, n, e, <const lanes32*> weight, <const lanes32*> bias, False)
        else:
            apply_scalar(x, x, n, e, False)
        narrow(storage, desk, y, n)
        return
    for i from 0 <= i < whole by 32:
        prefetch_line(y + i + WRITE_AHEAD * 32)
        v = apply(load(x, i), centre, scale, scale_rest, shift)
        if weight:
            v = fused(v, load(<const lanes32*> weight, i), load(<const lanes32*> bias, i) if bias else b)
        put_narrow(storage, y + i, 32, v)
    if rest:
        v = apply(load_partial(x, whole, rest, 0.0), centre, scale, scale_rest, shift)
        if weight:
            if bias:
                b = load_partial(<const lanes32*> bias, whole, rest, 0.0)
            v = fused(v, load_partial(<const lanes32*> weight, whole, rest, 0.0), b)
        put_narrow(storage, y + whole, rest, v)


cdef inline void finish_narrow_row(
    Storage storage, const Work* w, Py_ssize_t o, float* desk, const Moments* line, double rstd
) noexcept nogil:
    """The result of row o, which lies on the desk."""
    cdef const lanes32* x = <const lanes32*> desk
    cdef const float* weight = <const float*> w.weight
    cdef const float* bias = <const float*> w.bias
    cdef bits16* y = <bits16*> w.y.data + o * w.y.outer_stride
    cdef Py_ssize_t j, p, length = w.x.n // w.segments
    cdef Exact e = Exact(line.hi, line.lo, rstd, 0.0, is_wide(x, rstd, rstd))
    if w.per_position:
        apply_rounding(storage, desk, y, w.x.n, &e, weight, bias)
    else:
        for j in range(w.segments):
            p = (o * w.segments + j) % w.parameters
            e.scale, e.shift = rstd * weight[p], bias[p]
            e.wide = is_wide(x, rstd, e.scale)
            apply_rounding(storage, desk + j * length, y + j * length, length, &e, NULL, NULL)
    if w.mean:
        w.mean[o], w.m2[o] = line.hi + line.lo, line.m2


cdef inline void normalize_narrow_rows(
    Storage storage, const Work* w, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """`normalize_rows` of 16-bit floats; rows that are not long are summed up one row ahead of their results."""
    cdef float* desk = desk_of_thread()
    cdef Py_ssize_t n = w.x.n, o, row
    cdef bint lag = n <= LONGEST_LAGGED
    cdef double rstd, next_rstd = 0.0
    cdef Moments line, next_line = Moments(0.0, 0.0, 0.0, 0.0)
    for o in range(start, stop + lag):
        line, rstd, row = next_line, next_rstd, o - lag
        if o < stop:
            next_line = widening_moments(
                storage, <const bits16*> w.x.data + o * w.x.outer_stride, desk + o % (1 + lag) * n, n, w.rule.measure
            )
            next_rstd = inverse(&w.rule, next_line.m2)
        if not lag:
            line, rstd = next_line, next_rstd
        if row >= start:
            finish_narrow_row(storage, w, row, desk + row % (1 + lag) * n, &line, rstd)


cdef void narrow_lines(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """NORMALIZE of rows, with what stands next to it, and NORMALIZE_GRAD of units of rows: some rows at a time."""
    cdef float* desk = desk_of_thread()
    cdef float* second = NULL
    cdef float* result = desk
    cdef Work part
    cdef bint backward = w.primitive == NORMALIZE_GRAD
    cdef Py_ssize_t n = w.x.n, arrays = 3 if backward else 2 if w.fusion.residual else 1
    cdef Py_ssize_t most = max(DESK // (arrays * n), 1), first, count, last = stop, o
    if most > LEAST_ROWS and backward and w.per_position:
        most = max(PIECE // n // LEAST_ROWS, 1) * LEAST_ROWS  # sums of positions are made from so many rows together
    elif most > LEAST_ROWS:
        most = max(PIECE // n, LEAST_ROWS if n <= LONGEST_LAGGED else 1)  # rather a part of it, at home in L1
    if arrays > 1:
        second = desk + most * n
    if backward:
        start, last = start * w.rows, min(stop * w.rows, w.x.outer)
        result = second + most * n
    first = start
    while first < last:
        part = w[0]
        part.storage = SINGLE
        count = min(most, last - first, first_parameter(&part, first * w.segments, w.segments))
        if backward and w.per_position:
            count = min(count, w.rows - first % w.rows)  # of one unit
        part.x, part.y = on_desk(desk, count, n, False), on_desk(result, count, n, False)
        if w.mean:
            part.mean = w.mean + first
        if backward:
            gather(w.storage, &w.x, first * w.x.outer_stride, count, n, w.x.outer_stride, desk)
            gather(w.storage, &w.dy, first * w.dy.outer_stride, count, n, w.dy.outer_stride, second)
            part.dy, part.rows = on_desk(second, count, n, False), count
            o = first // w.rows * n if w.per_position else first * w.segments
            if w.rstd:
                part.rstd = w.rstd + first
            if w.sums:
                part.sums, part.products = w.sums + o, w.products + o
            run_typed(<const lanes32*> desk, &part, 0, 1)
        else:
            if w.mean:
                part.m2 = w.m2 + first
            if w.fusion.residual:
                widen(w.storage, <const bits16*> w.fusion.addend + first * n, desk, count * n)
                widen(w.storage, <const bits16*> w.fusion.residual + first * n, second, count * n)
                add_arrays(<const lanes32*> desk, <const lanes32*> second, <lanes32*> desk, count * n)
                if w.x.data != w.y.data:  # the sum is wanted
                    scatter(w.storage, desk, &w.x, first * n, count, n, n)
                part.fusion.residual = NULL
            else:
                gather(w.storage, &w.x, first * w.x.outer_stride, count, n, w.x.outer_stride, desk)
            if w.fusion.quantized:
                part.fusion.quantized, part.fusion.scales = w.fusion.quantized + first * n, w.fusion.scales + first
            run_typed(<const lanes32*> desk, &part, 0, count)
        scatter(w.storage, result, &w.y, first * w.y.outer_stride, count, n, w.y.outer_stride)
        first += count


cdef void narrow_short_rows(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The same over the rows `start` to `stop`, so short that several lie on the desk together."""
    cdef float* desk = desk_of_thread()
    cdef float* upstream = desk + PIECE
    cdef Work part
    cdef Py_ssize_t n = w.x.n, o = start, count
    while o < stop:
        part = w[0]
        part.storage = SINGLE
        count = min(PIECE // n, stop - o)
        part.x = on_desk(desk, count, n, False)
        gather(w.storage, &w.x, o * w.x.outer_stride, count, n, w.x.outer_stride, desk)
        if w.primitive == MOMENTS:
            part.mean, part.lo, part.m2 = w.mean + o, w.lo + o, w.m2 + o
        elif w.primitive == EXTREMA:
            part.lows, part.highs = <float*> w.lows + o, <float*> w.highs + o
        else:
            count = min(count, w.lines - o % w.lines)
            part.mean, part.sums, part.products = w.mean + o % w.lines, w.sums + o, w.products + o
            part.dy = on_desk(upstream, count, n, False)
            gather(w.storage, &w.dy, o * w.dy.outer_stride, count, n, w.dy.outer_stride, upstream)
        run_typed(<const lanes32*> desk, &part, 0, count)
        o += count


cdef inline void add_block_dots(
    Storage storage, const bits16* x, const bits16* dy, Py_ssize_t n, double centre, double* sums
) noexcept nogil:
    """`block_dots` without a weight, from register to register."""
    cdef const lanes32* like = NULL
    cdef Py_ssize_t i, j, whole = n - n % 32, group = RUN * 32
    cdef lanes32 middle = splat(like, centre)
    cdef lanes32 s, p, g, sum_s = splat(like, 0.0), sum_p = splat(like, 0.0)
    for i from 0 <= i < whole by group:
        s, p = splat(like, 0.0), splat(like, 0.0)
        for j from i <= j < min(i + group, whole) by 32:
            prefetch_line(x + j + READ_AHEAD * 32)
            prefetch_line(dy + j + READ_AHEAD * 32)
            g = wide_bundle(storage, dy + j, 32)
            s = add(s, g)
            p = fused(g, subtract(wide_bundle(storage, x + j, 32), middle), p)
        sum_s, sum_p = add(sum_s, s), add(sum_p, p)
    if whole < n:
        # Lanes without an element hold dy = 0 and x = 0.
        g = wide_bundle(storage, dy + whole, n - whole)
        sum_s = add(sum_s, g)
        sum_p = fused(g, subtract(wide_bundle(storage, x + whole, n - whole), middle), sum_p)
    sums[0] += total(sum_s)
    sums[1] += total(sum_p)


cdef inline void narrow_block_dots(
    Storage storage, const bits16* x, const bits16* dy, Py_ssize_t n, double centre, double* sums
) noexcept nogil:
    """Once for each type: the loop need not ask."""
    if storage == HALF:
        add_block_dots(HALF, x, dy, n, centre, sums)
    else:
        add_block_dots(BFLOAT, x, dy, n, centre, sums)


cdef void narrow_row_chunks(const Work* w, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """MOMENTS, EXTREMA and DOTS over the chunks `start` to `stop` of rows, counted over (outer, chunks)."""
    cdef float* desk = desk_of_thread()
    cdef const lanes32* x = <const lanes32*> desk
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), k, o, p = 0, i, first, last, length, source
    cdef double found[2]
    cdef Moments chunk
    for k in range(start, stop):
        o, first = k // chunks, k % chunks * CHUNK
        last = min(first + CHUNK, w.x.n)
        if w.lines:
            p = o % w.lines
        chunk = Moments(0.0, 0.0, 0.0, 0.0)
        found[0] = found[1] = 0.0
        for i from first <= i < last by BLOCK:
            length, source = min(BLOCK, last - i), o * w.x.outer_stride + i
            if w.primitive == DOTS:
                narrow_block_dots(
                    w.storage, <const bits16*> w.x.data + source, <const bits16*> w.dy.data + o * w.dy.outer_stride + i,
                    length, rounded(x, w.mean[p]), found
                )
                continue
            gather(w.storage, &w.x, source, 1, length, length, desk)
            if w.primitive == MOMENTS:
                absorb_block(&chunk, x, length, w.rule.measure)
            else:
                extrema_block(x, on_desk(desk, 1, length, False), i == first, <float*> w.lows + k, <float*> w.highs + k)
        if w.primitive == MOMENTS:
            w.mean[k], w.lo[k], w.m2[k] = chunk.hi, chunk.lo, chunk.m2
        elif w.primitive == DOTS:
            found[1] -= (w.mean[p] - rounded(x, w.mean[p])) * found[0]
            if not is_finite(found[0]) or not is_finite(found[1]):
                narrow_wide_dots(w, o, first, last, w.mean[p], found)
            w.sums[k], w.products[k] = found[0], found[1]


cdef void narrow_wide_dots(
    const Work* w, Py_ssize_t o, Py_ssize_t first, Py_ssize_t last, double mean, double* sums
) noexcept nogil:
    """`wide_dots` of a chunk."""
    cdef float x[1]
    cdef float dy[1]
    cdef Py_ssize_t i
    sums[0] = sums[1] = 0.0
    for i in range(first, last):
        gather(w.storage, &w.x, o * w.x.outer_stride + i, 1, 1, 1, x)
        gather(w.storage, &w.dy, o * w.dy.outer_stride + i, 1, 1, 1, dy)
        sums[0] += dy[0]
        sums[1] += dy[0] * (x[0] - mean)
