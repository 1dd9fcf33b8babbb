# The fast path's statistics and scalers over any one axis, or the whole array.

cdef inline bint is_number(object a, double* value) noexcept:
    """Whether this is a float, or an int of a machine word; neither NaN nor a bool."""
    cdef int overflow = 0
    if PyFloat_CheckExact(a):
        value[0] = <double> a
    elif PyLong_CheckExact(a):
        value[0] = <double> PyLong_AsLongAndOverflow(a, &overflow)
    else:
        return False
    return not overflow and value[0] == value[0]


cdef inline cnp.ndarray without_axis(cnp.ndarray x, int axis, int kind):
    """A new array for a number of each line of `axis`; if that is all dimensions, one without any."""
    cdef cnp.npy_intp shape[cnp.NPY_MAXDIMS]
    cdef int i, kept = 0
    for i in range(ndim_of(x) if axis < ndim_of(x) else 0):
        if i != axis:
            shape[kept] = shape_of(x)[i]
            kept += 1
    return cnp.PyArray_SimpleNew(kept, shape, kind)


cdef inline object scalar_of(cnp.ndarray a):
    """An array, or its number if it has no dimension."""
    return a if ndim_of(a) else (<object> a)[()]


cdef inline bint is_long(cnp.ndarray x, const View* view) noexcept:
    """Whether all of x is lines side by side that had better be read row by row twice than tile by tile."""
    return view.outer == 1 and view.inner > 1 and nbytes_of(x) >= ONE_PASS_BYTES


def moments_along(object x, object axis, object ddof, object result_class):
    """The moments of every line in a class of `moments`; None also where they are not finite."""
    cdef Work w
    cdef View view
    cdef double divisor, zero = 0.0
    cdef double* numbers
    cdef cnp.ndarray mean, m2
    cdef Py_ssize_t chunks, lines, i
    cdef int number, threads
    if not is_served(x) or not is_number(ddof, &divisor):
        return None
    number = axis_of(x, axis, &view)
    threads = threads_for(size_of(x))
    if number < 0 or threads == 0:
        return None
    begin_work(&w, MOMENTS, x, view.outer, view.n, view.inner)
    w.rule.measure = VARIANCE
    chunks, lines = parts(view.n, chunk_of(&view)), view.outer * view.inner
    mean = without_axis(x, number, cnp.NPY_FLOAT64)
    m2 = without_axis(x, number, cnp.NPY_FLOAT64)
    numbers = room_for((3 * chunks + 1) * lines)
    w.mean, w.lo, w.m2 = <double*> data_of(mean), numbers, <double*> data_of(m2)
    if chunks > 1:
        write_moments_to(&w, numbers + lines, chunks * lines)
    run(&w, threads)
    if chunks > 1:
        join_lines(&w, <double*> data_of(mean), numbers, <double*> data_of(m2))
    for i in range(lines):
        (<double*> data_of(mean))[i] += numbers[i]
        zero += 0.0 * (<double*> data_of(mean))[i] + 0.0 * (<double*> data_of(m2))[i]
    PyMem_Free(numbers)
    if zero != 0.0:
        return None
    return result_class(
        scalar_of(mean), scalar_of(m2), view.n, divisor, view.n, "auto",
        2.0 ** -53 if w.storage == DOUBLE else 2.0 ** -24
    )


cdef bint find_extrema(Work* w, int threads, void** lows, void** highs) except -1:
    """The least and the largest element of each line of x, in memory to be freed by way of `lows`."""
    cdef Py_ssize_t chunks = parts(w.x.n, chunk_of(&w.x)), lines = w.x.outer * w.x.inner
    cdef Py_ssize_t bytes = chunks * lines * (8 if w.storage == DOUBLE else 4)
    lows[0] = PyMem_Malloc(2 * bytes)
    if not lows[0]:
        raise MemoryError
    highs[0] = <char*> lows[0] + bytes
    w.lows, w.highs = lows[0], highs[0]
    run(w, threads)
    if chunks > 1 and w.storage == DOUBLE:
        join_extrema(<lanes64*> lows[0], <lanes64*> highs[0], w.x.outer, chunks, w.x.inner)
    elif chunks > 1:
        join_extrema(<lanes32*> lows[0], <lanes32*> highs[0], w.x.outer, chunks, w.x.inner)
    return True


cdef inline void join_extrema(
    lanes* lows, lanes* highs, Py_ssize_t outer, Py_ssize_t chunks, Py_ssize_t inner
) noexcept nogil:
    """The extrema of lines, in front, from those of their chunks: NaN, once met, stays."""
    cdef Py_ssize_t a, b, j, line, place
    cdef double low, high
    for a in range(outer):
        for j in range(inner):
            line, place = a * inner + j, a * chunks * inner + j
            low, high = element(lows, place), element(highs, place)
            for b in range(1, chunks):
                place += inner
                if element(lows, place) < low or element(lows, place) != element(lows, place):
                    low = element(lows, place)
                if element(highs, place) > high or element(highs, place) != element(highs, place):
                    high = element(highs, place)
            set_element(lows, line, low)
            set_element(highs, line, high)


def extrema_along(object x, object axis, object result_class):
    """The extrema of every line in a class of `extrema`, or None."""
    cdef Work w
    cdef View view
    cdef void* lows
    cdef void* highs
    cdef cnp.ndarray least, largest
    cdef int number, threads
    if not is_plain(x):
        return None
    number = axis_of(x, axis, &view)
    threads = threads_for(size_of(x))
    if number < 0 or threads == 0:
        return None
    begin_work(&w, EXTREMA, x, view.outer, view.n, view.inner)
    least = without_axis(x, number, type_of(x))
    largest = without_axis(x, number, type_of(x))
    find_extrema(&w, threads, &lows, &highs)
    memcpy(data_of(least), lows, nbytes_of(least))
    memcpy(data_of(largest), highs, nbytes_of(largest))
    PyMem_Free(lows)
    return result_class(scalar_of(least), scalar_of(largest))


def standardized(object x, object axis, object ddof, object out):
    """standardize, or None."""
    cdef View view
    cdef Rule rule
    cdef double degrees
    if not is_served(x) or not PyLong_CheckExact(ddof) or not is_number(ddof, &degrees) or degrees < 0.0:
        return None
    if axis_of(x, axis, &view) < 0 or degrees >= view.n:
        return None
    rule = Rule(VARIANCE, view.n - degrees, 0.0, False)
    return along(x, out, &view, &rule)


def pixels(object x, object channel_axis, object eps, object out):
    """pixel_norm, or None."""
    cdef View view
    cdef Rule rule
    if not is_served(x) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0 or channel_axis is None:
        return None
    if axis_of(x, channel_axis, &view) < 0:
        return None
    rule = Rule(SQUARES, view.n, eps, False)
    return along(x, out, &view, &rule)


def scaled(object x, object axis, object feature_range, bint magnitudes, object out):
    """min_max_scale, or by the largest of the magnitudes max_abs_scale; None where a line is not ordinary."""
    cdef Work w
    cdef View view
    cdef double low, high
    cdef object y = None
    cdef double* numbers
    cdef void* lows
    cdef void* highs
    cdef Py_ssize_t lines
    cdef int threads
    cdef bint ordinary
    if type(feature_range) is not tuple or len(<tuple> feature_range) != 2:
        return None
    if not is_number(feature_range[0], &low) or not is_number(feature_range[1], &high):
        return None
    if not (low < high and fabs(low) <= LARGEST_RSTD and fabs(high) <= LARGEST_RSTD):
        return None
    if not is_served(x) or axis_of(x, axis, &view) < 0:
        return None
    threads = threads_for(size_of(x))
    if threads == 0:
        return None
    lines = view.outer * view.inner
    numbers = room_for(4 * lines)
    try:
        begin_work(&w, EXTREMA, x, view.outer, view.n, view.inner)
        find_extrema(&w, threads, &lows, &highs)
        if w.storage == DOUBLE:
            ordinary = range_coefficients(
                <const lanes64*> lows, <const lanes64*> highs, lines, magnitudes, low, high, numbers
            )
        else:
            ordinary = range_coefficients(
                <const lanes32*> lows, <const lanes32*> highs, lines, magnitudes, low, high, numbers
            )
        PyMem_Free(lows)
        if ordinary:
            y = output_like(x, out, None, None)
        if y is None:
            return None
        begin_work(&w, AFFINE, x, view.outer, view.n, view.inner)
        write_to(&w, y)
        w.lines = view.outer
        take_coefficients(&w, numbers, lines)
        run(&w, threads)
    finally:
        PyMem_Free(numbers)
    return y


cdef inline bint range_coefficients(
    const lanes* lows, const lanes* highs, Py_ssize_t lines, bint magnitudes, double low, double high, double* numbers
) noexcept nogil:
    """Write hi, lo, scale and shift of each line; return whether all of them are far from the ends of the ranges."""
    cdef Py_ssize_t i, strange = 0
    cdef double least, largest, span, scale
    for i in range(lines):
        least, largest = element(lows, i), element(highs, i)
        if magnitudes:
            largest = max(fabs(least), fabs(largest))
            least = least - least  # 0, and NaN of what is no number
        span = largest - least
        scale = (high - low) / (span if span != 0.0 else 1.0)
        numbers[i], numbers[lines + i] = least, 0.0
        numbers[2 * lines + i], numbers[3 * lines + i] = scale, low
        strange += not ((span <= LARGEST_RSTD) & (scale >= SMALLEST_RSTD) & (scale <= LARGEST_RSTD))
    return strange == 0
