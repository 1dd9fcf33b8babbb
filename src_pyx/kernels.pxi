# The entry points of one variant. Arrays come as the canonical view (outer, reduce, inner), checked by the engine; they
# are read through their C struct, which costs a fifth of acquiring typed memoryviews.
include "lanes.pxi"
include "moments.pxi"
include "rows.pxi"
include "columns.pxi"

cimport numpy as cnp

cnp.import_array()

# Below this many elements a call is over sooner than the GIL could be released and taken again.
cdef enum:
    RELEASE_GIL = 16384


cdef inline Py_ssize_t stride_of(cnp.ndarray a, int axis) noexcept:
    return cnp.PyArray_STRIDE(a, axis) // cnp.PyArray_ITEMSIZE(a)


cdef inline void* data_of(cnp.ndarray a) noexcept:
    return cnp.PyArray_DATA(a) if a is not None else NULL


cdef struct View:
    void* data
    Py_ssize_t outer, n, inner, outer_stride, stride


cdef inline View view_of(cnp.ndarray a) noexcept:
    return View(
        cnp.PyArray_DATA(a), cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(a, 2),
        stride_of(a, 0), stride_of(a, 1)
    )


cdef void moments_of(const lanes* x, View v, bint centred, double* hi, double* lo, double* m2) noexcept nogil:
    if v.inner == 1:
        moments_rows(x, v.outer, v.n, v.outer_stride, centred, hi, lo, m2)
    else:
        moments_columns(x, v.outer, v.n, v.inner, v.outer_stride, v.stride, centred, hi, lo, m2)


def moments(cnp.ndarray x, bint centred, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray m2):
    """Write the moments of each chunk of each line, (outer, chunks, inner) float64."""
    cdef View v = view_of(x)
    cdef double* hi_data = <double*> data_of(hi)
    cdef double* lo_data = <double*> data_of(lo)
    cdef double* m2_data = <double*> data_of(m2)
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        with nogil:
            moments_of(<const lanes32*> v.data, v, centred, hi_data, lo_data, m2_data)
    else:
        with nogil:
            moments_of(<const lanes64*> v.data, v, centred, hi_data, lo_data, m2_data)


cdef void extrema_of(const lanes* x, View v, lanes* lows, lanes* highs) noexcept nogil:
    if v.inner == 1:
        extrema_rows(x, v.outer, v.n, v.outer_stride, lows, highs)
    else:
        extrema_columns(x, v.outer, v.n, v.inner, v.outer_stride, v.stride, lows, highs)


def extrema(cnp.ndarray x, cnp.ndarray lows, cnp.ndarray highs):
    """Write the least and the largest element of each chunk of each line, (outer, chunks, inner)."""
    cdef View v = view_of(x)
    cdef void* low = data_of(lows)
    cdef void* high = data_of(highs)
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        with nogil:
            extrema_of(<const lanes32*> v.data, v, <lanes32*> low, <lanes32*> high)
    else:
        with nogil:
            extrema_of(<const lanes64*> v.data, v, <lanes64*> low, <lanes64*> high)


def merge(
    const double[:, :, ::1] hi, const double[:, :, ::1] lo, const double[:, :, ::1] m2, double count, double last,
    double[:, ::1] merged_hi, double[:, ::1] merged_lo, double[:, ::1] merged_m2
):
    """Join parts along the middle axis, in order; each has `count` elements, the last one `last`."""
    cdef Py_ssize_t a, b, c, parts = hi.shape[1]
    cdef Moments line
    for a in range(hi.shape[0]):
        for c in range(hi.shape[2]):
            line = Moments(0.0, 0.0, 0.0, 0.0)
            for b in range(parts):
                absorb(&line, last if b == parts - 1 else count, hi[a, b, c], lo[a, b, c], m2[a, b, c])
            merged_hi[a, c], merged_lo[a, c], merged_m2[a, c] = line.hi, line.lo, line.m2


cdef void normalize_view(
    const lanes* x, lanes* y, View v, View u, const lanes* weight, const lanes* bias, Py_ssize_t parameters,
    bint per_position, Py_ssize_t segments, const Rule* rule, double* mean, double* m2
) noexcept nogil:
    if v.inner == 1:
        normalize_rows(
            x, y, v.outer, v.n, v.outer_stride, u.outer_stride, weight, bias, parameters, per_position, segments,
            rule, mean, m2
        )
    else:
        normalize_columns(
            x, y, v.outer, v.n, v.inner, v.outer_stride, v.stride, u.outer_stride, u.stride, weight, bias,
            parameters, per_position, rule, mean, m2
        )


def normalize(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray weight, cnp.ndarray bias, bint per_position, Py_ssize_t segments,
    bint centred, double divisor, double eps, bint floor, cnp.ndarray mean=None, cnp.ndarray m2=None
):
    """Statistics and y = (x - mean) * rstd * weight + bias, line by line; mean and m2, (outer, inner), if asked for."""
    cdef View v = view_of(x), u = view_of(y)
    cdef Rule rule = Rule(centred, divisor, eps, floor)
    cdef void* w = data_of(weight)
    cdef void* b = data_of(bias)
    cdef double* mean_data = <double*> data_of(mean)
    cdef double* m2_data = <double*> data_of(m2)
    cdef Py_ssize_t parameters = cnp.PyArray_SIZE(weight)
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        if cnp.PyArray_SIZE(x) < RELEASE_GIL:
            normalize_view(
                <const lanes32*> v.data, <lanes32*> u.data, v, u, <const lanes32*> w, <const lanes32*> b,
                parameters, per_position, segments, &rule, mean_data, m2_data
            )
            return
        with nogil:
            normalize_view(
                <const lanes32*> v.data, <lanes32*> u.data, v, u, <const lanes32*> w, <const lanes32*> b,
                parameters, per_position, segments, &rule, mean_data, m2_data
            )
    else:
        with nogil:
            normalize_view(
                <const lanes64*> v.data, <lanes64*> u.data, v, u, <const lanes64*> w, <const lanes64*> b,
                parameters, per_position, segments, &rule, mean_data, m2_data
            )


cdef void affine_view(
    const lanes* x, lanes* y, View v, View u, const lanes* hi, const lanes* lo, const lanes* scale,
    const lanes* shift, Py_ssize_t lines, const lanes* weight, const lanes* bias
) noexcept nogil:
    if v.inner == 1:
        affine_rows(x, y, v.outer, v.n, v.outer_stride, u.outer_stride, hi, lo, scale, shift, lines, weight, bias)
    else:
        affine_columns(
            x, y, v.outer, v.n, v.inner, v.outer_stride, v.stride, u.outer_stride, u.stride, hi, lo, scale, shift,
            lines, weight, bias
        )


def affine(
    cnp.ndarray x, cnp.ndarray y, cnp.ndarray hi, cnp.ndarray lo, cnp.ndarray scale, cnp.ndarray shift,
    cnp.ndarray weight=None, cnp.ndarray bias=None
):
    """y = (x - hi - lo) * scale + shift, coefficients (lines, inner); with weight, (reduce,): times it, plus bias."""
    cdef View v = view_of(x), u = view_of(y)
    cdef Py_ssize_t lines = cnp.PyArray_DIM(hi, 0)
    cdef void* a = data_of(hi)
    cdef void* b = data_of(lo)
    cdef void* c = data_of(scale)
    cdef void* d = data_of(shift)
    cdef void* e = data_of(weight)
    cdef void* f = data_of(bias)
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        with nogil:
            affine_view(
                <const lanes32*> v.data, <lanes32*> u.data, v, u, <const lanes32*> a, <const lanes32*> b,
                <const lanes32*> c, <const lanes32*> d, lines, <const lanes32*> e, <const lanes32*> f
            )
    else:
        with nogil:
            affine_view(
                <const lanes64*> v.data, <lanes64*> u.data, v, u, <const lanes64*> a, <const lanes64*> b,
                <const lanes64*> c, <const lanes64*> d, lines, <const lanes64*> e, <const lanes64*> f
            )
