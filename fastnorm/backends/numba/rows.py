"""The row form: a line is contiguous, its statistics are folded over the lanes of a bundle.

The Numba side of ``src_pyx/rows/rows.pxi``, operation for operation, over a range of work units.
"""

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    READ_AHEAD,
    WRITE_AHEAD,
    at,
    element,
    fused,
    lane_count,
    largest,
    least,
    load,
    load_partial,
    maximum,
    minimum,
    pointer,
    prefetch,
    rounded,
    set_element,
    splat,
    store,
    store_partial,
    total,
)
from fastnorm.backends.numba.moments import (
    VARIANCE,
    absorb,
    add_to,
    applied,
    apply,
    coefficients,
    deviation,
    inverse,
    is_far,
    is_wide,
    out_of_range,
    unscaled,
)
from fastnorm.plan import CHUNK_ROWS
from fastnorm.ranges import RESCALE, SMALLEST_SQUARES

RUN = 8
CHUNK = CHUNK_ROWS
BLOCK = CHUNK // 16


@helper
def deviation_sums(x, n, measure, shift, rescaled, before, after):
    """(sum of d, sum of d * d) for d = x - shift; or (sum of d, sum of |d|)."""
    step = lane_count(x)
    whole = n - n % step
    lanes_before, lanes_after = splat(x, before), splat(x, after)
    centre = splat(x, shift * before)
    sum_e, sum_q = splat(x, 0.0), splat(x, 0.0)
    for i in range(0, whole, RUN * step):
        e, q = splat(x, 0.0), splat(x, 0.0)
        for j in range(i, min(i + RUN * step, whole), step):
            prefetch(x, j + READ_AHEAD * step)
            d = deviation(load(x, j), centre, lanes_before, lanes_after, rescaled)
            e = e + d
            q = add_to(q, d, measure)
        sum_e, sum_q = sum_e + e, sum_q + q
    if whole < n:
        # Lanes without an element hold the shift: their deviation is 0 and changes no sum.
        d = deviation(load_partial(x, whole, n - whole, shift), centre, lanes_before, lanes_after, rescaled)
        sum_e, sum_q = sum_e + d, add_to(sum_q, d, measure)
    return total(sum_e) / (before * after), unscaled(total(sum_q), measure, before * after)


@helper
def head_mean(x, n, measure, rescaled, before):
    """The mean of the first two bundles, in the storage type; 0 where no mean is wanted."""
    if measure != VARIANCE:
        return 0.0
    return rounded(x, total(head(x, n, rescaled, before)) / min(n, 2 * lane_count(x))) / before


@helper
def head(x, n, rescaled, before):
    """The sum of the first two bundles, each element times `before` if rescaled."""
    step = lane_count(x)
    first = min(n, 2 * step)
    if first < 2 * step:
        a, b = load_partial(x, 0, first, 0.0), load_partial(x, step, first - step, 0.0)
    else:
        a, b = load(x, 0), load(x, step)
    if rescaled:
        a, b = a * splat(x, before), b * splat(x, before)
    return a + b


@helper
def shifted_sums(x, n, measure, shift, rescaled, before, after):
    """(shift, sum of d, sum of d * d) from a shift near the mean, corrected if need be; see src_pyx/rows/rows.pxi."""
    e, q = deviation_sums(x, n, measure, shift, rescaled, before, after)
    if measure == VARIANCE and is_far(e, q, n):
        shift = rounded(x, shift + e / n)
        e, q = deviation_sums(x, n, measure, shift, rescaled, before, after)
    return shift, e, q


@helper
def absorb_block(line, x, n, measure):
    shift, e, q = shifted_sums(x, n, measure, head_mean(x, n, measure, False, 1.0), False, 1.0, 1.0)
    if out_of_range(x, q, measure):
        if q < SMALLEST_SQUARES:
            shift, e, q = shifted_sums(x, n, measure, shift, True, 1.0, RESCALE)
        else:
            shift = head_mean(x, n, measure, True, 1.0 / RESCALE)
            shift, e, q = shifted_sums(x, n, measure, shift, True, 1.0 / RESCALE, 1.0)
    if measure == VARIANCE:
        return absorb(line, float(n), shift, e / n, q - e * (e / n))
    return absorb(line, float(n), 0.0, 0.0, q)


@helper
def chunk_moments(x, n, measure):
    chunk = (0.0, 0.0, 0.0, 0.0)
    for i in range(0, n, BLOCK):
        chunk = absorb_block(chunk, at(x, i), min(n - i, BLOCK), measure)
    return chunk


@helper
def line_moments(x, n, measure):
    line = (0.0, 0.0, 0.0, 0.0)
    for i in range(0, n, CHUNK):
        chunk = chunk_moments(at(x, i), min(n - i, CHUNK), measure)
        line = absorb(line, chunk[0], chunk[1], chunk[2], chunk[3])
    return line


@helper
def apply_scalar(x, y, n, hi, lo, scale, shift, wide):
    """y = (x - centre) * scale + shift with one scale and one shift for the whole run."""
    if wide:
        for i in range(n):
            set_element(y, i, applied(x, element(x, i), hi, lo, scale, shift, wide))
    else:
        apply_scalar_within(x, y, n, coefficients(x, hi, lo, scale, shift))


@helper
def apply_scalar_within(x, y, n, c):
    """The same in the storage type."""
    step = lane_count(x)
    whole = n - n % step
    centre, head, rest, addend = splat(x, c[0]), splat(x, c[1]), splat(x, c[2]), splat(x, c[3])
    for i in range(0, whole, step):
        prefetch(y, i + WRITE_AHEAD * step)
        store(y, i, apply(load(x, i), centre, head, rest, addend))
    if whole < n:
        v = load_partial(x, whole, n - whole, 0.0)
        store_partial(y, whole, n - whole, apply(v, centre, head, rest, addend))


@helper
def apply_positions(x, y, n, hi, lo, scale, shift, wide, weight, bias):
    """y = (x - centre) * scale * weight + bias with a weight and a bias for each position of the run."""
    if wide:
        for i in range(n):
            v = applied(x, element(x, i), hi, lo, scale, shift, wide)
            set_element(y, i, v * element(weight, i) + element(bias, i))
    else:
        apply_positions_within(x, y, n, coefficients(x, hi, lo, scale, shift), weight, bias)


@helper
def apply_positions_within(x, y, n, c, weight, bias):
    """The same in the storage type."""
    step = lane_count(x)
    whole = n - n % step
    left = n - whole
    centre, head, rest, addend = splat(x, c[0]), splat(x, c[1]), splat(x, c[2]), splat(x, c[3])
    for i in range(0, whole, step):
        prefetch(y, i + WRITE_AHEAD * step)
        v = apply(load(x, i), centre, head, rest, addend)
        store(y, i, fused(v, load(weight, i), load(bias, i)))
    if left > 0:
        v = apply(load_partial(x, whole, left, 0.0), centre, head, rest, addend)
        v = fused(v, load_partial(weight, whole, left, 0.0), load_partial(bias, whole, left, 0.0))
        store_partial(y, whole, left, v)


@kernel
def moments_rows(x, measure, hi, lo, m2, start, stop):
    """The moments of the chunks `start` to `stop`, counted over (outer, chunks)."""
    n, stride = x.shape[1], x.strides[0] // x.itemsize
    base = pointer(x)
    hi_out, lo_out, m2_out = pointer(hi), pointer(lo), pointer(m2)
    chunks = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i = k // chunks, k % chunks * CHUNK
        chunk = chunk_moments(at(base, o * stride + i), min(n - i, CHUNK), measure)
        set_element(hi_out, k, chunk[1])
        set_element(lo_out, k, chunk[2])
        set_element(m2_out, k, chunk[3])


@kernel
def normalize_rows(
    x, y, weight, bias, per_position, segments, measure, divisor, eps, floor, mean, m2, start, stop
):  # fmt: skip
    """Statistics and result of the lines `start` to `stop`, each while it is in cache."""
    n = x.shape[1]
    x_stride, y_stride = x.strides[0] // x.itemsize, y.strides[0] // y.itemsize
    length = n // segments
    parameters = weight.size
    x_base, y_base, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    mean_out, m2_out = pointer(mean), pointer(m2)
    for o in range(start, stop):
        source, target = at(x_base, o * x_stride), at(y_base, o * y_stride)
        line = line_moments(source, n, measure)
        rstd = inverse(line[3], measure, divisor, eps, floor)
        if per_position:
            wide = is_wide(x_base, rstd, rstd)
            apply_positions(source, target, n, line[1], line[2], rstd, 0.0, wide, w, b)
        else:
            for j in range(segments):
                p = (o * segments + j) % parameters
                i = j * length
                scale = rstd * element(w, p)
                wide = is_wide(x_base, rstd, scale)
                apply_scalar(at(source, i), at(target, i), length, line[1], line[2], scale, element(b, p), wide)
        if mean.size > 0:
            set_element(mean_out, o, line[1] + line[2])
            set_element(m2_out, o, line[3])


@kernel
def affine_rows(x, y, hi, lo, scale, shift, weight, bias, start, stop):
    """Y = (x - centre) * scale + shift for the pieces `start` to `stop`, counted over (outer, chunks)."""
    n = x.shape[1]
    x_stride, y_stride = x.strides[0] // x.itemsize, y.strides[0] // y.itemsize
    x_base, y_base, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    hi_in, lo_in, scale_in, shift_in = pointer(hi), pointer(lo), pointer(scale), pointer(shift)
    lines = hi.shape[0]
    pieces = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * CHUNK
        p = o % lines
        source, target = at(x_base, o * x_stride + i), at(y_base, o * y_stride + i)
        length = min(n - i, CHUNK)
        mean_hi, mean_lo = element(hi_in, p), element(lo_in, p)
        s, t = element(scale_in, p), element(shift_in, p) if weight.size == 0 else 0.0
        if weight.size > 0:
            apply_positions(source, target, length, mean_hi, mean_lo, s, t, False, at(w, i), at(b, i))
        else:
            apply_scalar(source, target, length, mean_hi, mean_lo, s, t, False)


@kernel
def extrema_rows(x, lows, highs, start, stop):
    """The least and the largest element of the chunks `start` to `stop`, counted over (outer, chunks)."""
    n, stride = x.shape[1], x.strides[0] // x.itemsize
    base, low_out, high_out = pointer(x), pointer(lows), pointer(highs)
    step = lane_count(base)
    chunks = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i = k // chunks, k % chunks * CHUNK
        source = at(base, o * stride + i)
        length = min(n - i, CHUNK)
        whole = length - length % step
        low = splat(base, element(source, 0))
        high = low
        for j in range(0, whole, step):
            prefetch(source, j + READ_AHEAD * step)
            v = load(source, j)
            low, high = minimum(low, v), maximum(high, v)
        if whole < length:
            v = load_partial(source, whole, length - whole, element(source, 0))
            low, high = minimum(low, v), maximum(high, v)
        set_element(low_out, k, least(low))
        set_element(high_out, k, largest(high))
