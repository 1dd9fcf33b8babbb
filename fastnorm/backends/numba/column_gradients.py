"""Backward passes in the column form: the sums of lines side by side, and dx from them.

The Numba side of ``src_pyx/gradients/columns.pxi`` and ``gradients.h``, operation for operation, over a range of work
units.
"""

from fastnorm.backends.numba.column_statistics import CHUNK, TILE, load_columns, store_columns
from fastnorm.backends.numba.columns import COEFFICIENTS, clear
from fastnorm.backends.numba.jit import helper, kernel
from fastnorm.backends.numba.lanes import (
    at,
    element,
    elements,
    fused,
    fused_scalar,
    lane_count,
    load,
    pointer,
    rounded,
    set_element,
    stack,
    store,
)
from fastnorm.backends.numba.row_gradients import GRADIENT_ROWS


@helper
def column_dots(x, x_stride, dy, dy_stride, rows, n, mean, products, sums):
    """Columns, each with its mean: sums += dy, products += dy * (x - mean)."""
    step = lane_count(sums)
    whole = n - n % step
    for first in range(0, rows, GRADIENT_ROWS):
        last = min(first + GRADIENT_ROWS, rows)
        for k in range(0, whole, step):
            s, p, centre = load(sums, k), load(products, k), load(mean, k)
            for r in range(first, last):
                g = elements(dy, r * dy_stride + k)
                s = s + g
                p = fused(g, elements(x, r * x_stride + k) - centre, p)
            store(sums, k, s)
            store(products, k, p)
        for k in range(whole, n):
            for r in range(first, last):
                g, d = element(dy, r * dy_stride + k), element(x, r * x_stride + k) - element(mean, k)
                set_element(sums, k, element(sums, k) + g)
                set_element(products, k, fused_scalar(products, g, d, element(products, k)))


@kernel
def dots_columns(x, dy, mean, products, sums, start, stop):
    """The sums of dy and of dy * (x - mean) over the tiles `start` to `stop`, counted over (outer, chunks, tiles)."""
    n, inner, lines = x.shape[1], x.shape[2], mean.shape[0]
    x_outer, x_stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    dy_outer, dy_stride = dy.strides[0] // dy.itemsize, dy.strides[1] // dy.itemsize
    x_base, dy_base, mean_in = pointer(x), pointer(dy), pointer(mean)
    products_out, sums_out = pointer(products), pointer(sums)
    tile = TILE * lane_count(x_base)
    tiles, chunks = (inner + tile - 1) // tile, (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, i, c = k // tiles // chunks, k // tiles % chunks * CHUNK, k % tiles * tile
        p, width = k // tiles * inner + c, min(inner - c, tile)
        for j in range(p, p + width):
            set_element(sums_out, j, 0.0)
            set_element(products_out, j, 0.0)
        column_dots(
            at(x_base, o * x_outer + i * x_stride + c), x_stride, at(dy_base, o * dy_outer + i * dy_stride + c),
            dy_stride, min(n - i, CHUNK), width, at(mean_in, o % lines * inner + c), at(products_out, p),
            at(sums_out, p),
        )  # fmt: skip


@kernel
def affine_grad_columns(x, dy, dx, mean, scale, slope, shift, start, stop):
    """`affine_grad_rows` for lines side by side; the units are counted over (outer, pieces of CHUNK rows)."""
    n, inner, lines = x.shape[1], x.shape[2], mean.shape[0]
    x_outer, x_stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    dy_outer, dy_stride = dy.strides[0] // dy.itemsize, dy.strides[1] // dy.itemsize
    dx_outer, dx_stride = dx.strides[0] // dx.itemsize, dx.strides[1] // dx.itemsize
    x_base, dy_base, dx_base = pointer(x), pointer(dy), pointer(dx)
    mean_in, scale_in, slope_in, shift_in = pointer(mean), pointer(scale), pointer(slope), pointer(shift)
    step = lane_count(x_base)
    tile = TILE * step
    middles = stack(x_base, COEFFICIENTS)
    clear(middles, COEFFICIENTS)
    scales, slopes, shifts = at(middles, tile), at(middles, 2 * tile), at(middles, 3 * tile)
    pieces = (n + CHUNK - 1) // CHUNK
    for k in range(start, stop):
        o, first = k // pieces, k % pieces * CHUNK
        last = min(first + CHUNK, n)
        for c in range(0, inner, tile):
            width = min(tile, inner - c)
            for j in range(width):
                p = o % lines * inner + c + j
                centre, b = rounded(x_base, element(mean_in, p)), element(slope_in, p)
                set_element(middles, j, centre)
                set_element(scales, j, element(scale_in, p))
                set_element(slopes, j, b)
                set_element(shifts, j, element(shift_in, p) - b * (element(mean_in, p) - centre))
            for i in range(first, last):
                source = at(x_base, o * x_outer + i * x_stride + c)
                upstream = at(dy_base, o * dy_outer + i * dy_stride + c)
                target = at(dx_base, o * dx_outer + i * dx_stride + c)
                for j in range(0, width, step):
                    d = load_columns(source, j, width - j, 0.0) - load(middles, j)
                    d = fused(d, load(slopes, j), load(shifts, j))
                    g = load_columns(upstream, j, width - j, 0.0)
                    store_columns(target, j, width - j, fused(g, load(scales, j), d))
