# The entry points of one variant. Arrays come as the canonical view (outer, reduce, inner), checked by the engine; they
# are read through their C struct: acquiring typed memoryviews would cost more than a small norm does.
include "vectors/lanes.pxi"
include "moments.pxi"
include "fused/fusion.pxi"
include "work.pxi"
include "rows/rows.pxi"
include "rows/short_rows.pxi"
include "columns/statistics.pxi"
include "columns/extrema.pxi"
include "columns/columns.pxi"
include "gradients/gradients.pxi"
include "gradients/rows.pxi"
include "gradients/columns.pxi"
include "gradients/short_rows.pxi"

cimport numpy as cnp

from fastnorm import tuning as _tuning

cnp.import_array()
choose_prefetching(_tuning.PREFETCH)

include "run.pxi"


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return cnp.PyArray_DATA(a) if a is not None else NULL


cdef inline View view_of(cnp.ndarray a) noexcept:
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    return View(
        cnp.PyArray_DATA(a), cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(a, 2),
        cnp.PyArray_STRIDE(a, 0) // size, cnp.PyArray_STRIDE(a, 1) // size, False
    )


cdef inline Work work_on(Primitive primitive, cnp.ndarray x) noexcept:
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive = primitive
    w.storage = storage_of(x)
    w.x = view_of(x)
    return w


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
    w.weight, w.bias, w.parameters = data_of(weight), data_of(bias), cnp.PyArray_SIZE(weight)
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
    w.lines, w.weight, w.bias = cnp.PyArray_DIM(hi, 0), data_of(weight), data_of(bias)
    fuse(&w, addend, residual, activation, lines, scales)
    run(&w, threads)


def clip(cnp.ndarray x, cnp.ndarray y, double low, double high, int threads):
    """y = x within low..high, (n,)."""
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive, w.storage = CLIP, storage_of(x)
    w.x = View(cnp.PyArray_DATA(x), 1, cnp.PyArray_DIM(x, 0), 1, cnp.PyArray_DIM(x, 0), 1, False)
    w.y = w.x
    w.y.data = cnp.PyArray_DATA(y)
    w.coefficients[0], w.coefficients[1] = &low, &high
    run(&w, threads)


def activate(cnp.ndarray y, object activation, int threads):
    """Apply an activation, as in `normalize`, to y, (n,), in place."""
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive, w.storage = ACTIVATE, SINGLE if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT32 else DOUBLE
    w.x = View(cnp.PyArray_DATA(y), 1, cnp.PyArray_DIM(y, 0), 1, cnp.PyArray_DIM(y, 0), 1, False)
    w.y = w.x
    fuse(&w, None, None, activation, None, None)
    run(&w, threads)


def dots(cnp.ndarray x, cnp.ndarray dy, cnp.ndarray mean, cnp.ndarray products, cnp.ndarray sums, int threads):
    """Write the sums of dy * (x - mean) and of dy over each chunk of each line, (outer, chunks, inner) float64."""
    cdef Work w = work_on(DOTS, x)
    w.dy, w.mean, w.lines = view_of(dy), <double*> data_of(mean), cnp.PyArray_DIM(mean, 0)
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
    w.lines = cnp.PyArray_DIM(mean, 0)
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
    w.weight, w.parameters = data_of(weight), cnp.PyArray_SIZE(weight)
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
include "images/images.pxi"

# What backends/cython.py must know of the kernels.
COUNTED_PIXELS = COUNTED        # of which the sums of an image's channels are made at a time
DESK_ELEMENTS = DESK            # of lines of 16-bit floats, or of a tile of columns, that are normalised in one go
IMAGE_COEFFICIENTS = REPEATED   # that an image's channels are repeated to fill
TILE_COLUMNS = MAX_LINES
