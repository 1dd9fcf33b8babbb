# The fast path of clipping: by value, and by norm, one array along any one axis or several together. Bits as in
# norms/clip.py.

cdef double SMALLEST_SUM = _ranges.SMALLEST_SUM
cdef double LARGEST_SUM = _ranges.LARGEST_SUM
cdef double SMALLEST_FACTOR = _ranges.SMALLEST_FACTOR
cdef double HIDING_SUM = 2.0 ** -800    # beside a smaller sum, squares that were lost below SMALLEST_SUM might show


def clipped_by_value(object x, object low, object high, object out):
    """clip_by_value, or None."""
    cdef Work w
    cdef double ends[2]
    cdef Py_ssize_t size
    cdef int threads
    cdef object y
    if not is_plain(x) or not is_number(low, &ends[0]) or not is_number(high, &ends[1]) or ends[0] > ends[1]:
        return None
    size = size_of(x)
    threads = threads_for(size)
    if threads == 0 or size == 0:
        return None
    y = output_like(x, out, None, None)
    if y is None:
        return None
    begin_work(&w, CLIP, x, 1, size, 1)
    write_to(&w, y)
    w.coefficients[0], w.coefficients[1] = &ends[0], &ends[1]
    run(&w, threads)
    return y


cdef bint square_sums(Work* w, int threads, double* sums) except -1:
    """MOMENTS for the sum of squares of each line."""
    cdef Py_ssize_t chunks = parts(w.x.n, chunk_of(&w.x)), inner = w.x.inner, lines = w.x.outer * inner, a, b, i
    cdef double* numbers = room_for(3 * chunks * lines)
    w.rule.measure = SQUARES
    write_moments_to(w, numbers, chunks * lines)
    run(w, threads)
    for a in range(w.x.outer):
        memcpy(sums + a * inner, w.m2 + a * chunks * inner, inner * sizeof(double))
        for b in range(1, chunks):
            for i in range(inner):
                sums[a * inner + i] += w.m2[(a * chunks + b) * inner + i]
    PyMem_Free(numbers)
    return True


cdef inline bint scale_down(double norm, double limit, bint single, double* scale) noexcept nogil:
    """What brings a norm to the limit; return whether kernels apply it as it is."""
    scale[0] = 1.0 if norm <= limit else limit / norm
    if single:
        return SMALLEST_RSTD <= scale[0] <= 1.0
    return not (scale[0] < SMALLEST_FACTOR and limit > 0.0)


cdef inline void scale_lines(Work* w, int threads, cnp.ndarray y, double* coefficients) noexcept:
    """y = x * scale, coefficients (4, lines) of which the scales are there; nothing is done where nothing changes."""
    cdef Py_ssize_t lines = w.x.outer * w.x.inner, i
    cdef bint changed = w.x.data != data_of(y)
    for i in range(lines):
        changed |= coefficients[2 * lines + i] != 1.0
        coefficients[i], coefficients[lines + i] = 0.0, 0.0
        coefficients[3 * lines + i] = -0.0      # so that zeros keep their sign
    if not changed:
        return
    write_to(w, y)
    take_coefficients(w, coefficients, lines)
    w.primitive, w.lines = AFFINE, w.x.outer
    run(w, threads)


def clipped(object x, object max_norm, object axis, object out):
    """clip_by_norm, or None."""
    cdef Work w
    cdef View view
    cdef double limit
    cdef double* numbers
    cdef double* scales
    cdef object y = None
    cdef Py_ssize_t lines, i
    cdef bint ordinary = True, single
    cdef int threads
    if not is_served(x) or not is_number(max_norm, &limit) or not limit >= 0.0 or axis_of(x, axis, &view) < 0:
        return None
    threads = threads_for(size_of(x))
    if threads == 0:
        return None
    lines = view.outer * view.inner
    numbers = room_for(4 * lines)
    try:
        begin_work(&w, MOMENTS, x, view.outer, view.n, view.inner)
        scales, single = numbers + 2 * lines, w.storage != DOUBLE
        square_sums(&w, threads, scales)
        for i in range(lines):
            ordinary &= single or SMALLEST_SUM <= scales[i] <= LARGEST_SUM
            ordinary &= scale_down(sqrt(scales[i]), limit, single, scales + i)
        if ordinary:
            y = output_like(x, out, None, None)
        if y is not None:
            scale_lines(&w, threads, y, numbers)
    finally:
        PyMem_Free(numbers)
    return y


cdef inline void extent(object a, uintptr_t* ends) noexcept:
    """Where a contiguous array begins and ends."""
    ends[0] = <uintptr_t> data_of(a)
    ends[1] = ends[0] + nbytes_of(a)


cdef bint are_apart(tuple arrays, tuple out) except -1:
    """Whether each result would be written over none of the arrays but its own, and over no other result."""
    cdef Py_ssize_t i, j, count = len(arrays)
    cdef bint apart = True
    cdef uintptr_t* taken
    cdef uintptr_t* given
    for result in out:
        if not is_served(result):
            return False
    taken = <uintptr_t*> PyMem_Malloc(4 * count * sizeof(uintptr_t))
    if not taken:
        raise MemoryError
    given = taken + 2 * count
    for i in range(count):
        extent(arrays[i], taken + 2 * i)
        extent(out[i], given + 2 * i)
    for i in range(count):
        for j in range(count):
            if i != j and given[2 * i] < given[2 * j + 1] and given[2 * j] < given[2 * i + 1]:
                apart = False
            if i != j and given[2 * i] < taken[2 * j + 1] and taken[2 * j] < given[2 * i + 1]:
                apart = False
    PyMem_Free(taken)
    return apart


def clipped_together(object arrays, object max_norm, object error_if_nonfinite, object out, object result_class):
    """clip_by_global_norm in its class, or None."""
    cdef Work w
    cdef double limit, squares, norm, total = 0.0, larger, rest = 0.0, scale
    cdef double numbers[4]
    cdef bint tiny = False, single = False
    cdef Py_ssize_t size
    cdef int threads
    cdef list results
    if type(arrays) is not list and type(arrays) is not tuple:
        return None
    if out is not None and type(out) is not list and type(out) is not tuple:
        return None
    if not is_number(max_norm, &limit) or not limit >= 0.0 or type(error_if_nonfinite) is not bool or not arrays:
        return None
    # Lists may change while threads work: what is checked here is what is read and written.
    arrays, out = tuple(arrays), None if out is None else tuple(out)
    if out is not None and len(<tuple> out) != len(<tuple> arrays):
        return None
    for x in arrays:
        if not is_served(x) or size_of(x) == 0:
            return None
    if out is not None and not are_apart(arrays, out):
        return None
    for x in arrays:
        size = size_of(x)
        threads = threads_for(size)
        if threads == 0:
            return None
        begin_work(&w, MOMENTS, x, 1, size, 1)
        square_sums(&w, threads, &squares)
        single = single or w.storage != DOUBLE
        tiny = tiny or (w.storage == DOUBLE and squares < SMALLEST_SUM)
        squares = sqrt(squares) * sqrt(squares)     # the norm's, as the general path takes it
        larger = total + squares
        rest += (total - larger) + squares if total >= squares else (squares - larger) + total
        total = larger
    norm = sqrt(total + rest)
    # What is not ordinary has been found before anything is written.
    if not total <= LARGEST_SUM or (tiny and total < HIDING_SUM) or not scale_down(norm, limit, single, &scale):
        return None
    results = [output_like(x, out[i] if out is not None else None, None, None) for i, x in enumerate(arrays)]
    for y in results:
        if y is None:
            return None
    for x, y in zip(arrays, results):
        size = size_of(x)
        begin_work(&w, AFFINE, x, 1, size, 1)
        numbers[2] = scale
        scale_lines(&w, threads_for(size), y, numbers)
    return result_class(results, norm)
