"""Moments and extrema in the column form: neighbours in memory belong to different lines (inner > 1).

Each lane of a bundle is a line. The Numba side of ``src_pyx/columns/statistics.pxi`` and ``extrema.pxi``, operation for
operation, over a range of work units.
"""

import numba

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    at,
    element,
    lane_count,
    load,
    load_partial,
    magnitude,
    maximum,
    minimum,
    pointer,
    rounded,
    set_element,
    splat,
    stack,
    store,
    store_partial,
)
from fastnorm.backends.numba.moments import (
    MAGNITUDES,
    VARIANCE,
    add_to,
    deviation,
    is_far,
    out_of_range,
    unscaled,
)
from fastnorm.plan import CHUNK_COLUMNS
from fastnorm.ranges import RESCALE, SMALLEST_SQUARES

GROUP = 8
CHUNK = CHUNK_COLUMNS
BLOCK = CHUNK // 16
TILE = 4
# Scratch memory, in bundles: three sums of a tile and of one bundle; a float64 for each line of a tile.
SCRATCH = 3 * TILE + 3
DOUBLES = 2 * TILE


@helper
def load_columns(x, i, width, fill):
    """A bundle of lines, of which `width` exist."""
    if width >= lane_count(x):
        return load(x, i)
    return load_partial(x, i, width, fill)


@helper
def store_columns(y, i, width, value):
    if width >= lane_count(y):
        store(y, i, value)
    else:
        store_partial(y, i, width, value)


@helper
def tree(d0, d1, d2, d3, d4, d5, d6, d7):
    return ((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))


@helper
def row_or_zero(x, i, exists, width, rescaled, before):
    v = splat(x, 0.0)
    if exists:
        v = load_columns(x, i, width, 0.0)
    if rescaled:
        v = v * splat(x, before)
    return v


@helper
def column_means(x, stride, n, width, rescaled, before, means):
    """The means down the bundles that hold `width` columns, times `before` if rescaled."""
    step = lane_count(x)
    for c in range(0, width, step):
        store(means, c, splat(x, 0.0))
    for i in range(0, n, GROUP):
        for c in range(0, width, step):
            k, w, rows = i * stride + c, width - c, n - i
            v = tree(
                row_or_zero(x, k, True, w, rescaled, before),
                row_or_zero(x, k + stride, rows > 1, w, rescaled, before),
                row_or_zero(x, k + 2 * stride, rows > 2, w, rescaled, before),
                row_or_zero(x, k + 3 * stride, rows > 3, w, rescaled, before),
                row_or_zero(x, k + 4 * stride, rows > 4, w, rescaled, before),
                row_or_zero(x, k + 5 * stride, rows > 5, w, rescaled, before),
                row_or_zero(x, k + 6 * stride, rows > 6, w, rescaled, before),
                row_or_zero(x, k + 7 * stride, rows > 7, w, rescaled, before),
            )
            store(means, c, load(means, c) + v)
    for c in range(0, width, step):
        store(means, c, load(means, c) * splat(x, 1.0 / n))


@helper
def column_sums(x, stride, n, width, measure, shift, rescaled, before, after, e, q):
    """E = sum of d, q = sum of d * d, for d = x - shift, down the bundles that hold `width` columns."""
    step = lane_count(x)
    b, a = splat(x, before), splat(x, after)
    whole = n - n % GROUP
    for c in range(0, width, step):
        store(e, c, splat(x, 0.0))
        store(q, c, splat(x, 0.0))
    for i in range(0, whole, GROUP):
        for c in range(0, width, step):
            s, w, k = load(shift, c), width - c, i * stride + c
            d0 = deviation(load_columns(x, k, w, 0.0), s, b, a, rescaled)
            d1 = deviation(load_columns(x, k + stride, w, 0.0), s, b, a, rescaled)
            d2 = deviation(load_columns(x, k + 2 * stride, w, 0.0), s, b, a, rescaled)
            d3 = deviation(load_columns(x, k + 3 * stride, w, 0.0), s, b, a, rescaled)
            d4 = deviation(load_columns(x, k + 4 * stride, w, 0.0), s, b, a, rescaled)
            d5 = deviation(load_columns(x, k + 5 * stride, w, 0.0), s, b, a, rescaled)
            d6 = deviation(load_columns(x, k + 6 * stride, w, 0.0), s, b, a, rescaled)
            d7 = deviation(load_columns(x, k + 7 * stride, w, 0.0), s, b, a, rescaled)
            store(e, c, load(e, c) + tree(d0, d1, d2, d3, d4, d5, d6, d7))
            if measure == MAGNITUDES:
                v = tree(
                    magnitude(d0), magnitude(d1), magnitude(d2), magnitude(d3),
                    magnitude(d4), magnitude(d5), magnitude(d6), magnitude(d7),
                )  # fmt: skip
            else:
                v = tree(d0 * d0, d1 * d1, d2 * d2, d3 * d3, d4 * d4, d5 * d5, d6 * d6, d7 * d7)
            store(q, c, load(q, c) + v)
    for i in range(whole, n):
        for c in range(0, width, step):
            d = deviation(load_columns(x, i * stride + c, width - c, 0.0), load(shift, c), b, a, rescaled)
            store(e, c, load(e, c) + d)
            store(q, c, add_to(load(q, c), d, measure))


@helper
def is_always(x, stride, n, j, value):
    """Whether line j has this value alone."""
    for i in range(n):
        if element(x, i * stride + j) != value:
            return False
    return True


@numba.njit(error_model="numpy")
def mend_column(x, stride, n, width, j, measure, shift, e, q, scratch):
    """(shift, e, q) of line j again, from a better shift or with rescaled squares. Seldom needed: never inlined."""
    before, after = 1.0, 1.0
    step = lane_count(x)
    s, sums_e, sums_q = scratch, at(scratch, step), at(scratch, 2 * step)
    store(s, 0, splat(x, shift))
    width = min(width, step)
    if q == 0.0 and is_always(x, stride, n, j, element(x, j) if measure == VARIANCE else 0.0):
        return element(x, j), 0.0, q
    for attempt in range(2):
        rescaled = attempt == 1
        if rescaled:
            if not out_of_range(x, q, measure):
                return shift, e, q
            if q < SMALLEST_SQUARES:
                after = RESCALE
            else:
                before = 1.0 / RESCALE
                store(s, 0, splat(x, 0.0))
                if measure == VARIANCE:
                    column_means(x, stride, n, width, True, before, s)
            column_sums(x, stride, n, width, measure, s, True, before, after, sums_e, sums_q)
            shift = element(s, j) / before
            e = element(sums_e, j) / (before * after)
            q = unscaled(element(sums_q, j), measure, before * after)
        if measure == VARIANCE and is_far(e, q, n):
            shift = rounded(x, shift + e / n)
            store(s, 0, splat(x, shift * before))
            column_sums(x, stride, n, width, measure, s, rescaled, before, after, sums_e, sums_q)
            e = element(sums_e, j) / (before * after)
            q = unscaled(element(sums_q, j), measure, before * after)
    return shift, e, q


@helper
def absorb_columns(done, width, hi, lo, m2, count, part_hi, part_lo, part_m2):
    """`absorb` for the lines of a tile, of `done` elements each."""
    if done == 0.0:
        for j in range(width):
            set_element(hi, j, element(part_hi, j))
            set_element(lo, j, element(part_lo, j))
            set_element(m2, j, element(part_m2, j))
        return
    share, product = count / (done + count), done * count / (done + count)
    for j in range(width):
        delta = (element(part_hi, j) - element(hi, j)) + (element(part_lo, j) - element(lo, j))
        set_element(lo, j, element(lo, j) + delta * share)
        set_element(m2, j, element(m2, j) + (element(part_m2, j) + delta * delta * product))


@helper
def column_chunk(x, stride, n, width, measure, hi, lo, m2, scratch, block_hi, block_lo, block_m2):
    """The moments of one chunk of a tile of lines, written to hi, lo, m2."""
    step = lane_count(x)
    shift, sums_e, sums_q = scratch, at(scratch, TILE * step), at(scratch, 2 * TILE * step)
    done = 0.0
    for i in range(0, n, BLOCK):
        block, rows = at(x, i * stride), min(n - i, BLOCK)
        count = float(rows)
        for c in range(0, width, step):
            store(shift, c, splat(x, 0.0))
        if measure == VARIANCE:
            column_means(block, stride, rows, width, False, 1.0, shift)
        column_sums(block, stride, rows, width, measure, shift, False, 1.0, 1.0, sums_e, sums_q)
        bad = False
        for j in range(width):
            e = element(sums_e, j) if measure == VARIANCE else 0.0
            q = element(sums_q, j)
            set_element(block_hi, j, element(shift, j))
            set_element(block_lo, j, e / count)
            set_element(block_m2, j, q - e * (e / count))
            bad |= is_far(e, q, count) | out_of_range(x, q, measure)
        if bad:
            for j in range(width):
                s, e, q = element(shift, j), element(sums_e, j), element(sums_q, j)
                if (measure == VARIANCE and is_far(e, q, count)) or out_of_range(x, q, measure):
                    c = j - j % step
                    s, e, q = mend_column(
                        at(block, c), stride, rows, width - c, j - c, measure, s, e, q, at(scratch, 3 * TILE * step)
                    )
                    if measure != VARIANCE:
                        e = 0.0
                    set_element(block_hi, j, s)
                    set_element(block_lo, j, e / count)
                    set_element(block_m2, j, q - e * (e / count))
        absorb_columns(done, width, hi, lo, m2, count, block_hi, block_lo, block_m2)
        done += count


@kernel
def moments_columns(x, measure, hi, lo, m2, start, stop):
    """The moments of the tiles `start` to `stop`, counted over (outer, chunks, tiles)."""
    n, inner = x.shape[1], x.shape[2]
    outer_stride, stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    base = pointer(x)
    step = lane_count(base)
    tile = TILE * step
    tiles, chunks = (inner + tile - 1) // tile, (n + CHUNK - 1) // CHUNK
    scratch = stack(base, SCRATCH)
    block_hi, block_lo, block_m2 = stack(pointer(hi), DOUBLES), stack(pointer(hi), DOUBLES), stack(pointer(hi), DOUBLES)
    hi_out, lo_out, m2_out = pointer(hi), pointer(lo), pointer(m2)
    for k in range(start, stop):
        o, i, c = k // tiles // chunks, k // tiles % chunks * CHUNK, k % tiles * tile
        p = k // tiles * inner + c
        column_chunk(
            at(base, o * outer_stride + i * stride + c), stride, min(n - i, CHUNK), min(inner - c, tile), measure,
            at(hi_out, p), at(lo_out, p), at(m2_out, p), scratch, block_hi, block_lo, block_m2,
        )  # fmt: skip


@kernel
def extrema_columns(x, lows, highs, start, stop):
    """The least and the largest element of the tiles `start` to `stop`, counted over (outer, chunks, tiles)."""
    n, inner = x.shape[1], x.shape[2]
    outer_stride, stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    base, low_out, high_out = pointer(x), pointer(lows), pointer(highs)
    step = lane_count(base)
    tile = TILE * step
    tiles, chunks = (inner + tile - 1) // tile, (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i, c = k // tiles // chunks, k // tiles % chunks * CHUNK, k % tiles * tile
        source = at(base, o * outer_stride + i * stride + c)
        width, p = min(inner - c, tile), k // tiles * inner + c
        for j in range(0, width, step):
            first = load_columns(source, j, width - j, 0.0)
            low, high = first, first
            for r in range(1, min(n - i, CHUNK)):
                v = load_columns(source, r * stride + j, width - j, 0.0)
                low, high = minimum(low, v), maximum(high, v)
            store_columns(low_out, p + j, width - j, low)
            store_columns(high_out, p + j, width - j, high)
