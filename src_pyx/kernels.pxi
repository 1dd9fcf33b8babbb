# The entry points of one variant. Arrays come as the canonical view (outer, reduce, inner), checked by the engine; they
# are read through their C struct: acquiring typed memoryviews would cost more than a small norm does.
include "vectors/lanes.pxi"
include "moments.pxi"
include "fused/fusion.pxi"
include "work.pxi"
include "arrays.pxi"
include "rows/rows.pxi"
include "rows/short_rows.pxi"
include "columns/statistics.pxi"
include "columns/extrema.pxi"
include "columns/columns.pxi"
include "gradients/gradients.pxi"
include "gradients/rows.pxi"
include "gradients/columns.pxi"
include "gradients/short_rows.pxi"

from fastnorm import tuning as _tuning

choose_prefetching(_tuning.PREFETCH)

include "run.pxi"


def moments(cnp.ndarray x, Measure measure, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray m2, int threads):
    """Write the moments of each chunk of each line, (outer, chunks, inner) float64."""
    cdef Work w = work_on(MOMENTS, x)
    w.rule.measure = measure
    w.mean, w.lo, w.m2 = <double*> data_of(hi), <double*> data_of(lo), <double*> data_of(m2)
    run(&w, threads)


def extrema(cnp.ndarray x, cnp.ndarray lows, cnp.ndarray highs, int threads):
    """Write the least and the largest element of each chunk of each line, (outer, chunks, inner)."""
    cdef Work w = work_on(EXTREMA, x)
    w.lows, w.highs = data_of(lows), data_of(highs)
    run(&w, threads)


def normalize(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray weight, cnp.ndarray bias, bint per_position, Py_ssize_t segments,
    Measure measure, double divisor, double eps, bint floor, cnp.ndarray mean, cnp.ndarray m2, cnp.ndarray addend,
    cnp.ndarray residual, object activation, cnp.ndarray lines,
    cnp.ndarray scales, int threads
):
    """Statistics and y = (x - mean) * rstd * weight + bias, line by line; mean and m2, (outer, inner), if not None.

    With a residual, x becomes addend + residual first; an activation is applied to y, and `lines` and `scales`, if not
    None, are y quantised.
    """
    cdef Work w = work_on(NORMALIZE, x)
    w.y = view_of(y)
    w.rule = Rule(measure, divisor, eps, floor)
    w.weight, w.bias, w.parameters = data_of(weight), data_of(bias), size_of(weight)
    w.per_position, w.segments = per_position, segments
    w.mean, w.m2 = <double*> data_of(mean), <double*> data_of(m2)
    fuse(&w, addend, residual, activation, lines, scales)
    run(&w, threads)


def affine(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray scale, cnp.ndarray shift,
    cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray addend, cnp.ndarray residual, object activation,
    cnp.ndarray lines, cnp.ndarray scales, int threads
):
    """y = (x - hi - lo) * scale + shift, coefficients (lines, inner) float64; or * scale * weight + bias, (reduce,).

    Without a weight, residual and activation as in `normalize`.
    """
    cdef Work w = work_on(AFFINE, x)
    w.y = view_of(y)
    w.coefficients[0], w.coefficients[1] = <double*> data_of(hi), <double*> data_of(lo)
    w.coefficients[2], w.coefficients[3] = <double*> data_of(scale), <double*> data_of(shift)
    w.lines, w.weight, w.bias = shape_of(hi)[0], data_of(weight), data_of(bias)
    fuse(&w, addend, residual, activation, lines, scales)
    run(&w, threads)


def clip(cnp.ndarray x, cnp.ndarray y, double low, double high, int threads):
    """y = x within low..high, (n,)."""
    cdef Work w
    begin_work(&w, CLIP, x, 1, size_of(x), 1)
    write_to(&w, y)
    w.coefficients[0], w.coefficients[1] = &low, &high
    run(&w, threads)


def activate(cnp.ndarray y, object activation, int threads):
    """Apply an activation, as in `normalize`, to y, (n,), in place."""
    cdef Work w
    begin_work(&w, ACTIVATE, y, 1, size_of(y), 1)
    write_to(&w, y)
    fuse(&w, None, None, activation, None, None)
    run(&w, threads)


def dots(cnp.ndarray x, cnp.ndarray dy, cnp.ndarray mean, cnp.ndarray products, cnp.ndarray sums, int threads):
    """Write the sums of dy * (x - mean) and of dy over each chunk of each line, (outer, chunks, inner) float64."""
    cdef Work w = work_on(DOTS, x)
    w.dy, w.mean, w.lines = view_of(dy), <double*> data_of(mean), shape_of(mean)[0]
    w.products, w.sums = <double*> data_of(products), <double*> data_of(sums)
    run(&w, threads)


def affine_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, cnp.ndarray mean, cnp.ndarray scale, cnp.ndarray slope,
    cnp.ndarray shift, int threads
):
    """dx = scale * dy + slope * (x - mean) + shift, coefficients (lines, inner) float64."""
    cdef Work w = work_on(AFFINE_GRAD, x)
    w.dy, w.y = view_of(dy), view_of(dx)
    w.coefficients[0], w.coefficients[1] = <double*> data_of(mean), <double*> data_of(scale)
    w.coefficients[2], w.coefficients[3] = <double*> data_of(slope), <double*> data_of(shift)
    w.lines = shape_of(mean)[0]
    run(&w, threads)


def normalize_grad(
    cnp.ndarray x, cnp.ndarray dy, cnp.ndarray dx, cnp.ndarray weight, bint per_position, Py_ssize_t segments,
    Measure measure, double divisor, double eps, bint floor, cnp.ndarray mean, cnp.ndarray rstd,
    cnp.ndarray products, cnp.ndarray sums, Py_ssize_t rows, int threads
):
    """dx of rows; mean and rstd, (outer,), are made if None. Products and sums, if not None, are filled.

    Per position they are (units, reduce), zeros to begin with, a unit being `rows` rows; else (outer, segments).
    """
    cdef Work w = work_on(NORMALIZE_GRAD, x)
    w.dy, w.y = view_of(dy), view_of(dx)
    w.rule = Rule(measure, divisor, eps, floor)
    w.weight, w.parameters = data_of(weight), size_of(weight)
    w.per_position, w.segments, w.rows = per_position, segments, rows
    w.mean, w.rstd = <double*> data_of(mean), <double*> data_of(rstd)
    w.products, w.sums = <double*> data_of(products), <double*> data_of(sums)
    run(&w, threads)


def merge(
    const double[:, :, ::1] hi, const double[:, :, ::1] lo, const double[:, :, ::1] m2, double count, double last,
    double[:, ::1] merged_hi, double[:, ::1] merged_lo, double[:, ::1] merged_m2
):
    """Join parts along the middle axis, in order; each has `count` elements, the last one `last`."""
    cdef Py_ssize_t a, b, number = hi.shape[1], lines = hi.shape[2]
    for a in range(hi.shape[0] if lines else 0):
        for b in range(number):
            absorb_lines(
                count * b, last if b == number - 1 else count, &hi[a, b, 0], &lo[a, b, 0], &m2[a, b, 0],
                &merged_hi[a, 0], &merged_lo[a, 0], &merged_m2[a, 0], lines
            )


include "copies.pxi"
include "counted/counted.pxi"
include "local_response/local_response.pxi"
include "textbook.pxi"
include "fast_path/fast_path.pxi"
include "fast_path/lines.pxi"
include "fast_path/axes.pxi"
include "fast_path/clip.pxi"
include "fast_path/batch.pxi"
include "fast_path/gradients.pxi"
include "fast_path/masked.pxi"
include "images/images.pxi"

# What backends/cython.py must know of the kernels.
COUNTED_PIXELS = COUNTED        # of which the sums of an image's channels are made at a time
DESK_ELEMENTS = DESK            # of lines of 16-bit floats, or of a tile of columns, that are normalised in one go
IMAGE_COEFFICIENTS = REPEATED   # that an image's channels are repeated to fill
TILE_COLUMNS = MAX_LINES
