"""Backward passes in the row form: the sums of a line, dx from them, and the sums for weights and biases.

The Numba side of ``src_pyx/gradients/rows.pxi`` and ``gradients.pxi``, operation for operation, over a range of work
units. With d = x - mean and g = weight * dy, dx = scale * g + slope * d + shift.
"""

from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    READ_AHEAD,
    WRITE_AHEAD,
    at,
    element,
    elements,
    fused,
    fused_scalar,
    lane_count,
    load,
    load_partial,
    pointer,
    prefetch,
    rounded,
    set_element,
    splat,
    stack,
    store,
    store_partial,
    total,
)
from fastnorm.backends.numba.moments import VARIANCE, inverse
from fastnorm.backends.numba.rows import BLOCK, CHUNK, RUN, line_moments
from fastnorm.ranges import LARGEST_SLOPED, SMALLEST_SLOPED

# Rows that are added at a time to sums that wait in memory.
GRADIENT_ROWS = 4
# Elements: x and dy of the rows that are read again for the sums of positions, in L2.
GRADIENT_CACHE = 32768
# Rows whose statistics are kept for that, and the bundles that so many float64 take.
TOGETHER = 256
STATISTICS = TOGETHER // 16


@helper
def is_finite(value):
    return value - value == 0.0


@helper
def has_range(like, rstd):
    """Whether the storage type can hold products of a gradient and deviations."""
    return lane_count(like) == 16 or SMALLEST_SLOPED <= rstd <= LARGEST_SLOPED


@helper
def is_sloped(like, scale, slope):
    """Whether the storage type can hold the gradient's coefficients, with room for their products."""
    return lane_count(like) == 16 or (is_coefficient(scale) and is_coefficient(slope))


@helper
def is_coefficient(value):
    size = abs(value)
    return size == 0.0 or SMALLEST_SLOPED * SMALLEST_SLOPED <= size <= LARGEST_SLOPED * LARGEST_SLOPED


@helper
def block_dots(x, dy, weight, weighted, n, centre):
    """The sums of g and of g * (x - centre) over a block, for a centre in the storage type."""
    step = lane_count(x)
    whole = n - n % step
    middle = splat(x, centre)
    sum_s, sum_p = splat(x, 0.0), splat(x, 0.0)
    for i in range(0, whole, RUN * step):
        s, p = splat(x, 0.0), splat(x, 0.0)
        for j in range(i, min(i + RUN * step, whole), step):
            prefetch(x, j + READ_AHEAD * step)
            prefetch(dy, j + READ_AHEAD * step)
            g = load(dy, j)
            if weighted:
                g = g * load(weight, j)
            s = s + g
            p = fused(g, load(x, j) - middle, p)
        sum_s, sum_p = sum_s + s, sum_p + p
    if whole < n:
        # Lanes without an element hold dy = 0.
        g = load_partial(dy, whole, n - whole, 0.0)
        if weighted:
            g = g * load_partial(weight, whole, n - whole, 0.0)
        sum_s = sum_s + g
        sum_p = fused(g, load_partial(x, whole, n - whole, centre) - middle, sum_p)
    return total(sum_s), total(sum_p)


@helper
def wide_dots(x, dy, weight, weighted, n, mean):
    """The same in float64, element by element."""
    s, p = 0.0, 0.0
    for i in range(n):
        g = element(dy, i)
        if weighted:
            g = g * element(weight, i)
        s += g
        p += g * (element(x, i) - mean)
    return s, p


@helper
def line_dots(x, dy, weight, weighted, n, mean, in_range):
    """The sums of g and of g * (x - mean) over a line, or a part of it; not weighted, for a weight of 1."""
    s, p = 0.0, 0.0
    if in_range:
        centre = rounded(x, mean)
        for i in range(0, n, BLOCK):
            block_s, block_p = block_dots(at(x, i), at(dy, i), at(weight, i), weighted, min(n - i, BLOCK), centre)
            s, p = s + block_s, p + block_p
        p -= (mean - centre) * s
    if not in_range or not is_finite(s) or not is_finite(p):
        s, p = wide_dots(x, dy, weight, weighted, n, mean)
    return s, p


@helper
def apply_slope(x, dy, dx, weight, weighted, n, mean, scale, slope, shift, in_range):
    """dx = scale * g + slope * (x - mean) + shift; not weighted, for a weight of 1."""
    if in_range:
        centre = rounded(x, mean)
        slope_run(x, dy, dx, weight, weighted, n, centre, scale, slope, shift - slope * (mean - centre))
        return
    for i in range(n):
        g = scale * element(dy, i)
        if weighted:
            g = g * element(weight, i)
        set_element(dx, i, g + (slope * (element(x, i) - mean) + shift))


@helper
def slope_run(x, dy, dx, weight, weighted, n, centre, scale, slope, shift):
    """The same in the storage type."""
    step = lane_count(x)
    whole = n - n % step
    rest = n - whole
    middle, a, b, c = splat(x, centre), splat(x, scale), splat(x, slope), splat(x, shift)
    for i in range(0, whole, step):
        g = load(dy, i)
        if weighted:
            g = g * load(weight, i)
        prefetch(dx, i + WRITE_AHEAD * step)
        store(dx, i, fused(g, a, fused(load(x, i) - middle, b, c)))
    if rest > 0:
        g = load_partial(dy, whole, rest, 0.0)
        if weighted:
            g = g * load_partial(weight, whole, rest, 0.0)
        store_partial(dx, whole, rest, fused(g, a, fused(load_partial(x, whole, rest, 0.0) - middle, b, c)))


@helper
def position_sums(x, x_stride, dy, dy_stride, rows, n, mean, rstd, products, sums):
    """Rows, each with its statistics: sums += dy, products += dy * xhat, for the parameters of positions."""
    step = lane_count(sums)
    whole = n - n % step
    for first in range(0, rows, GRADIENT_ROWS):
        last = min(first + GRADIENT_ROWS, rows)
        for k in range(0, whole, step):
            s, p = load(sums, k), load(products, k)
            for r in range(first, last):
                g, v = elements(dy, r * dy_stride + k), elements(x, r * x_stride + k)
                s = s + g
                p = fused(g * splat(sums, element(rstd, r)), v - splat(sums, element(mean, r)), p)
            store(sums, k, s)
            store(products, k, p)
        for k in range(whole, n):
            for r in range(first, last):
                g, d = element(dy, r * dy_stride + k), element(x, r * x_stride + k)
                set_element(sums, k, element(sums, k) + g)
                d = d - element(mean, r)
                set_element(products, k, fused_scalar(products, g * element(rstd, r), d, element(products, k)))


@helper
def line_slope(sum_g, sum_gx, n, rstd, measure, divisor, eps, floor):
    """Slope and shift of a line from its sums of g and of g * xhat."""
    b = sum_gx / divisor
    if floor and rstd >= 1.0 / eps:  # divided by eps: a constant
        b = 0.0
    return -rstd * rstd * b, -rstd * (sum_g / n) if measure == VARIANCE else 0.0


@helper
def position_row(x, dy, dx, weight, n, mean, rstd, measure, divisor, eps, floor):
    """dx of a row with a weight for each position."""
    in_range = has_range(x, rstd)
    s, p = line_dots(x, dy, weight, True, n, mean, in_range)
    slope, shift = line_slope(s, p * rstd, n, rstd, measure, divisor, eps, floor)
    apply_slope(x, dy, dx, weight, True, n, mean, rstd, slope, shift, is_sloped(x, rstd, slope))


@helper
def segmented_row(
    x, dy, dx, weight, number, parameters, segments, n, mean, rstd, measure, divisor, eps, floor, products, sums, wanted
):  # fmt: skip
    """dx of a row whose run j has the weight (number + j) % parameters, and the run's sums as number + j if wanted."""
    length = n // segments
    in_range = has_range(x, rstd)
    sum_g, sum_gx = 0.0, 0.0
    for j in range(segments):
        i = j * length
        s, p = line_dots(at(x, i), at(dy, i), weight, False, length, mean, in_range)
        p = p * rstd
        scale = element(weight, (number + j) % parameters)
        sum_g += scale * s
        sum_gx += scale * p
        if wanted:
            set_element(sums, number + j, s)
            set_element(products, number + j, p)
    slope, shift = line_slope(sum_g, sum_gx, n, rstd, measure, divisor, eps, floor)
    for j in range(segments):
        i = j * length
        scale = rstd * element(weight, (number + j) % parameters)
        in_range = is_sloped(x, scale, slope)
        apply_slope(at(x, i), at(dy, i), at(dx, i), weight, False, length, mean, scale, slope, shift, in_range)


@kernel
def dots_rows(x, dy, mean, products, sums, start, stop):
    """The sums of dy and of dy * (x - mean) over the chunks `start` to `stop`, counted over (outer, chunks)."""
    n, lines = x.shape[1], mean.shape[0]
    x_stride, dy_stride = x.strides[0] // x.itemsize, dy.strides[0] // dy.itemsize
    x_base, dy_base, mean_in = pointer(x), pointer(dy), pointer(mean)
    products_out, sums_out = pointer(products), pointer(sums)
    chunks = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i = k // chunks, k % chunks * CHUNK
        source, upstream = at(x_base, o * x_stride + i), at(dy_base, o * dy_stride + i)
        s, p = line_dots(source, upstream, x_base, False, min(n - i, CHUNK), element(mean_in, o % lines), True)
        set_element(sums_out, k, s)
        set_element(products_out, k, p)


@kernel
def affine_grad_rows(x, dy, dx, mean, scale, slope, shift, start, stop):
    """dx = scale * dy + slope * (x - mean) + shift for the pieces `start` to `stop`, counted over (outer, chunks)."""
    n, lines = x.shape[1], mean.shape[0]
    x_stride, dy_stride = x.strides[0] // x.itemsize, dy.strides[0] // dy.itemsize
    dx_stride = dx.strides[0] // dx.itemsize
    x_base, dy_base, dx_base = pointer(x), pointer(dy), pointer(dx)
    mean_in, scale_in, slope_in, shift_in = pointer(mean), pointer(scale), pointer(slope), pointer(shift)
    pieces = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * CHUNK
        p = o % lines
        apply_slope(
            at(x_base, o * x_stride + i), at(dy_base, o * dy_stride + i), at(dx_base, o * dx_stride + i), x_base, False,
            min(n - i, CHUNK), element(mean_in, p), element(scale_in, p), element(slope_in, p), element(shift_in, p),
            True,
        )  # fmt: skip


@kernel
def normalize_grad_rows(
    x, dy, dx, weight, per_position, segments, measure, divisor, eps, floor, mean, rstd, products, sums, rows,
    start, stop,
):  # fmt: skip
    """dx of rows and the sums for their parameters, in units of `rows` rows, each row while it is in cache.

    Statistics that are not given are made on the way. Sums of positions are one row of n for each unit.
    """
    outer, n = x.shape[0], x.shape[1]
    x_stride, dy_stride = x.strides[0] // x.itemsize, dy.strides[0] // dy.itemsize
    dx_stride = dx.strides[0] // dx.itemsize
    x_base, dy_base, dx_base, w = pointer(x), pointer(dy), pointer(dx), pointer(weight)
    mean_in, rstd_in, products_out, sums_out = pointer(mean), pointer(rstd), pointer(products), pointer(sums)
    row_mean, row_rstd = stack(sums_out, STATISTICS), stack(sums_out, STATISTICS)
    wanted = sums.size > 0
    together = min(max(1, min(rows, GRADIENT_CACHE // n)), TOGETHER)
    for unit in range(start, stop):
        end = min((unit + 1) * rows, outer)
        for first in range(unit * rows, end, together):
            count = min(together, end - first)
            for r in range(count):
                o = first + r
                source, upstream = at(x_base, o * x_stride), at(dy_base, o * dy_stride)
                target = at(dx_base, o * dx_stride)
                if mean.size > 0:
                    m, q = element(mean_in, o), element(rstd_in, o)
                else:
                    line = line_moments(source, n, measure)
                    m, q = line[1] + line[2], inverse(line[3], measure, divisor, eps, floor)
                set_element(row_mean, r, m)
                set_element(row_rstd, r, q)
                if per_position:
                    position_row(source, upstream, target, w, n, m, q, measure, divisor, eps, floor)
                else:
                    segmented_row(
                        source, upstream, target, w, o * segments, weight.size, segments, n, m, q, measure, divisor,
                        eps, floor, products_out, sums_out, wanted,
                    )  # fmt: skip
            if per_position and wanted:
                position_sums(
                    at(x_base, first * x_stride), x_stride, at(dy_base, first * dy_stride), dy_stride, count, n,
                    row_mean, row_rstd, at(products_out, unit * n), at(sums_out, unit * n),
                )  # fmt: skip
