"""Results in the column form: statistics and result of lines side by side, or the result alone.

The Numba side of ``src_pyx/columns/columns.pxi``, operation for operation, over a range of work units.
"""

from fastnorm.backends.numba.column_statistics import (
    CHUNK,
    DOUBLES,
    SCRATCH,
    TILE,
    absorb_columns,
    column_chunk,
    load_columns,
    store_columns,
)
from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    WRITE_AHEAD,
    at,
    element,
    fused,
    fused_scalar,
    lane_count,
    load,
    pointer,
    prefetch,
    set_element,
    splat,
    stack,
    store,
)
from fastnorm.backends.numba.moments import applied, apply, coefficients, inverse, is_wide

COEFFICIENTS = 4 * TILE  # centre, scale, scale_rest, shift


@helper
def clear(tile, bundles):
    """Zeros to scratch memory: lanes that no line has are computed with too, slowly if they hold subnormal numbers."""
    for i in range(bundles):
        store(tile, i * lane_count(tile), splat(tile, 0.0))


@helper
def set_line(tile, j, hi, lo, scale, shift):
    """Write the coefficients of line j into a tile of 4 x TILE bundles: centre, scale, scale_rest, shift."""
    lines = TILE * lane_count(tile)
    centre, head, rest, addend = coefficients(tile, hi, lo, scale, shift)
    set_element(tile, j, centre)
    set_element(tile, lines + j, head)
    set_element(tile, 2 * lines + j, rest)
    set_element(tile, 3 * lines + j, addend)


@helper
def apply_tile(x, i, width, tile, c):
    """The columns from c on of one row of a tile."""
    lines = TILE * lane_count(x)
    v = load_columns(x, i, width, 0.0)
    return apply(v, load(tile, c), load(tile, lines + c), load(tile, 2 * lines + c), load(tile, 3 * lines + c))


@helper
def apply_columns(x, y, n, width, x_stride, y_stride, tile, per_position, weight, bias):
    """y = (x - centre) * scale + shift down a tile; per position, times the weight, plus the bias."""
    step = lane_count(x)
    ahead = (WRITE_AHEAD * step + width - 1) // width * y_stride
    for i in range(n):
        for c in range(0, width, step):
            prefetch(y, i * y_stride + c + ahead)
        if per_position:
            w, b = splat(x, element(weight, i)), splat(x, element(bias, i))
            for c in range(0, width, step):
                v = apply_tile(x, i * x_stride + c, width - c, tile, c)
                store_columns(y, i * y_stride + c, width - c, fused(v, w, b))
        else:
            for c in range(0, width, step):
                v = apply_tile(x, i * x_stride + c, width - c, tile, c)
                store_columns(y, i * y_stride + c, width - c, v)


@kernel
def normalize_columns(x, y, weight, bias, per_position, measure, divisor, eps, floor, mean, m2, start, stop):
    """Statistics and result of the tiles `start` to `stop`, counted over (outer, tiles), each while it is in cache."""
    n, inner = x.shape[1], x.shape[2]
    x_outer, x_stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    y_outer, y_stride = y.strides[0] // y.itemsize, y.strides[1] // y.itemsize
    x_base, y_base, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    mean_out, m2_out = pointer(mean), pointer(m2)
    parameters = weight.size
    step = lane_count(x_base)
    tile = TILE * step
    tiles = (inner + tile - 1) // tile
    coefficient_tile = stack(x_base, COEFFICIENTS)
    clear(coefficient_tile, COEFFICIENTS)
    scratch = stack(x_base, SCRATCH)
    line_hi, line_lo, line_m2 = stack(mean_out, DOUBLES), stack(mean_out, DOUBLES), stack(mean_out, DOUBLES)
    part_hi, part_lo, part_m2 = stack(mean_out, DOUBLES), stack(mean_out, DOUBLES), stack(mean_out, DOUBLES)
    block_hi, block_lo, block_m2 = stack(mean_out, DOUBLES), stack(mean_out, DOUBLES), stack(mean_out, DOUBLES)
    scale, shift, rstd = stack(mean_out, DOUBLES), stack(mean_out, DOUBLES), stack(mean_out, DOUBLES)
    for k in range(start, stop):
        o, c = k // tiles, k % tiles * tile
        width = min(inner - c, tile)
        source, target = at(x_base, o * x_outer + c), at(y_base, o * y_outer + c)
        done = 0.0
        for i in range(0, n, CHUNK):
            rows = min(n - i, CHUNK)
            column_chunk(
                at(source, i * x_stride), x_stride, rows, width, measure, part_hi, part_lo, part_m2, scratch,
                block_hi, block_lo, block_m2,
            )  # fmt: skip
            absorb_columns(done, width, line_hi, line_lo, line_m2, float(rows), part_hi, part_lo, part_m2)
            done += rows
        any_wide = False
        for j in range(width):
            line = o * inner + c + j
            p = line % parameters
            r = inverse(element(line_m2, j), measure, divisor, eps, floor)
            set_element(rstd, j, r)
            set_element(scale, j, r if per_position else r * element(w, p))
            set_element(shift, j, 0.0 if per_position else element(b, p))
            any_wide = any_wide or is_wide(x_base, r, element(scale, j))
            hi, lo = element(line_hi, j), element(line_lo, j)
            set_line(coefficient_tile, j, hi, lo, element(scale, j), element(shift, j))
            if mean.size > 0:
                set_element(mean_out, line, hi + lo)
                set_element(m2_out, line, element(line_m2, j))
        if not any_wide:
            apply_columns(source, target, n, width, x_stride, y_stride, coefficient_tile, per_position, w, b)
            continue
        for j in range(width):
            wide = is_wide(x_base, element(rstd, j), element(scale, j))
            for i in range(n):
                v = applied(
                    x_base, element(source, i * x_stride + j), element(line_hi, j), element(line_lo, j),
                    element(scale, j), element(shift, j), wide,
                )  # fmt: skip
                if per_position and wide:
                    v = v * element(w, i) + element(b, i)
                elif per_position:
                    v = fused_scalar(x_base, v, element(w, i), element(b, i))
                set_element(target, i * y_stride + j, v)


@kernel
def affine_columns(x, y, hi, lo, scale, shift, weight, bias, start, stop):
    """`affine_rows` for lines side by side; the units are counted over (outer, pieces of CHUNK rows)."""
    n, inner = x.shape[1], x.shape[2]
    x_outer, x_stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    y_outer, y_stride = y.strides[0] // y.itemsize, y.strides[1] // y.itemsize
    x_base, y_base, w, b = pointer(x), pointer(y), pointer(weight), pointer(bias)
    hi_in, lo_in, scale_in, shift_in = pointer(hi), pointer(lo), pointer(scale), pointer(shift)
    lines = hi.shape[0]
    tile = TILE * lane_count(x_base)
    pieces = (n + CHUNK - 1) // CHUNK
    coefficient_tile = stack(x_base, COEFFICIENTS)
    clear(coefficient_tile, COEFFICIENTS)
    for k in range(start, stop):
        o, i = k // pieces, k % pieces * CHUNK
        rows = min(n - i, CHUNK)
        for c in range(0, inner, tile):
            width = min(inner - c, tile)
            for j in range(width):
                p = o % lines * inner + c + j
                set_line(
                    coefficient_tile, j, element(hi_in, p), element(lo_in, p), element(scale_in, p),
                    element(shift_in, p) if weight.size == 0 else 0.0,
                )  # fmt: skip
            apply_columns(
                at(x_base, o * x_outer + i * x_stride + c), at(y_base, o * y_outer + i * y_stride + c), rows, width,
                x_stride, y_stride, coefficient_tile, weight.size > 0, at(w, i), at(b, i),
            )  # fmt: skip
