# The fast path of batch_norm, with given statistics and in training; what it stands on is in arrays.pxi and
# fast_path.pxi.

cdef inline Vector vector_of(object a) noexcept:
    """A plain vector, or None, as kernels read it."""
    if a is None:
        return Vector(NULL, False)
    return Vector(data_of(a), type_of(a) == cnp.NPY_FLOAT32)


cdef inline bint is_missing_or_vector(object a, Py_ssize_t length) noexcept:
    """Whether this is None, or a plain vector of either dtype."""
    return a is None or is_vector(a, -1, length)


cdef inline void read_numbers(object a, double value, double* numbers, Py_ssize_t length) noexcept:
    """The elements of a vector as float64; `value` everywhere if it is None."""
    cdef Vector vector = vector_of(a)
    read_vector(&vector, 0, value, numbers, length)


cdef object from_list(object numbers):
    """A list or a tuple of Python's numbers as float64; anything else, and other lists, as they are."""
    if type(numbers) is not list and type(numbers) is not tuple:
        return numbers
    for number in numbers:
        if not isinstance(number, (float, int)):
            return numbers
    try:
        return _numpy.array(numbers, _numpy.float64)
    except OverflowError:  # an int beyond it
        return numbers


cdef inline bint overlaps_any(object out, object a, object b, object c) noexcept:
    """Whether `out` shares memory with any of three arrays, which are read when parts of it have been written."""
    if out is None or not is_array(out):
        return False
    return overlaps(out, a) or overlaps(out, b) or overlaps(out, c)


cdef inline int channels_of_batch(cnp.ndarray x, object channel_axis, View* view) noexcept:
    """View an array as (outer, channels, inner), of which all but the channels share statistics; -1: not here."""
    cdef int axis = -1 if channel_axis is None else axis_of(x, channel_axis, view)
    return axis if axis > 0 else -1


cdef object by_given(
    object x, object mean, object var, object weight, object bias, object channel_axis, object eps, object out,
    object residual, object activation, object total
):
    """The result by given statistics, with a residual and an activation, if any; or None."""
    cdef Py_ssize_t channels, size
    cdef int threads
    cdef bint last, known, fused = residual is not None or activation is not None
    cdef object y, given_mean, given_var, given_weight, given_bias
    cdef View view
    cdef double* coefficients
    cdef Work w
    if not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    if channels_of_batch(x, channel_axis, &view) < 0:
        return None
    size, channels, last = size_of(x), view.n, view.inner == 1
    given_mean, given_var, given_weight, given_bias = from_list(mean), from_list(var), weight, bias
    mean, var, weight, bias = widened(given_mean), widened(given_var), widened(weight), widened(bias)
    # Of a vector that was widened it is not known whether `out` holds it.
    known = mean is given_mean and var is given_var and weight is given_weight and bias is given_bias
    if not is_vector(mean, -1, channels) or not is_vector(var, -1, channels):
        return None
    if not is_missing_or_vector(weight, channels) or not is_missing_or_vector(bias, channels):
        return None
    if last:
        if fused and channels <= FEW:
            return None
        begin_work(&w, AFFINE, x, 1, size // channels, channels)
        if w.storage == BYTE and channels > PIECE:
            return None
    else:
        begin_work(&w, AFFINE, x, view.outer * channels, view.inner, 1)
    threads = threads_for(size)
    if threads == 0:
        return None
    w.rule.eps = eps
    w.vectors[0], w.vectors[1] = vector_of(mean), vector_of(var)
    w.vectors[2], w.vectors[3] = vector_of(weight), vector_of(bias)
    if (
        last and channels > FEW and w.x.n <= INFER_ROWS and not fused and (known or out is None)
        and (w.storage == SINGLE or w.storage == DOUBLE) and not overlaps_any(out, x, mean, var)
    ):
        w.primitive = INFER
        y = output_like(x, out, weight, bias)
        if y is None:
            return None
        write_to(&w, y)
        run(&w, threads)
        return None if w.strange else y
    coefficients = room_for(4 * channels)
    try:
        take_coefficients(&w, coefficients, channels)
        if not fold(
            w.vectors, 0, channels, w.storage != DOUBLE, eps, w.coefficients[0], w.coefficients[1], w.coefficients[2],
            w.coefficients[3]
        ):
            return None
        y = output_like(x, out, weight, bias)
        if y is None or not residual_survives(y, residual):
            return None
        write_to(&w, y)
        w.lines = channels if w.x.inner == 1 else 1
        if residual is not None:
            w.x.data = w.y.data if total is None else data_of(total)
        if fused:
            fuse(&w, x if residual is not None else None, residual, activation, None, None)
        run(&w, threads)
    finally:
        PyMem_Free(coefficients)
    return y


def given(object x, object mean, object var, object weight, object bias, object channel_axis, object eps, object out):
    """batch_norm in inference, `normalize`: with given statistics; or None."""
    if not (is_served(x) or is_bytes(x)):
        return None
    return by_given(x, mean, var, weight, bias, channel_axis, eps, out, None, None, None)


def fused_given(
    object x, object residual, object mean, object var, object weight, object bias, object channel_axis, object eps,
    object activation, bint keep, object out
):
    """`given` with a residual and an activation, as `lines_with_options`, without statistics."""
    cdef object y, total
    if not is_plain(x) or not residual_fits(x, residual, keep):
        return None
    total = total_like(x, keep)
    y = by_given(x, mean, var, weight, bias, channel_axis, eps, out, residual, activation, total)
    return (y, total) if keep and y is not None else y


cdef inline bint is_running(object a, Py_ssize_t length, cnp.ndarray x, object out) noexcept:
    """Whether a running statistic is missing, or can be updated in place while x is read and `out` written."""
    if a is None:
        return True
    if not is_vector(a, -1, length) or not is_writeable(a) or overlaps(x, a):
        return False
    return out is None or (is_array(out) and not overlaps(out, a))


cdef inline void update(
    object running, double old, const double* numbers, double divisor, Py_ssize_t channels
) noexcept:
    """Move a running statistic, if there is one, towards numbers / divisor, in float64."""
    cdef float* singles = <float*> data_of(running)
    cdef double* doubles = <double*> data_of(running)
    cdef Py_ssize_t c
    if running is None:
        return
    for c in range(channels):
        if type_of(running) == cnp.NPY_FLOAT32:
            singles[c] = <float> (singles[c] * old + numbers[c] / divisor * (1.0 - old))
        else:
            doubles[c] = doubles[c] * old + numbers[c] / divisor * (1.0 - old)


cdef void pooled_moments(Work w, int threads, Py_ssize_t items, Py_ssize_t channels) noexcept:
    """The moments of all channels of a work, one pass over x."""
    cdef Channels n = w.channels
    w.primitive = MOMENTS
    run(&w, threads)
    if w.x.inner > 1:
        join_lines(&w, n.mean, n.lo, n.m2)
    else:
        pool_channels(&w, items, channels, n, 0, channels)


cdef inline bint is_composed(
    cnp.ndarray x, Py_ssize_t items, Py_ssize_t channels, bint last, int threads
) noexcept:
    """Whether all channels' statistics are made before any result; else each line is done in one go."""
    cdef Py_ssize_t units = parts(channels * itemsize_of(x), TILE * BUNDLE_BYTES) if last else channels
    if not is_plain(x) or not are_enough(units, threads):   # threads share chunks of channels that are too few
        return True
    if last and channels > 1:   # read row by row twice, rather than column by column from beyond the cache
        return nbytes_of(x) >= ONE_PASS_BYTES
    return items > 1


def train(
    object x, object running_mean, object running_var, object weight, object bias, object channel_axis, object eps,
    double old, bint unbiased, object stats_class, object out
):
    """batch_norm in training: `old` is the weight of the old running statistics; or None.

    With a class of statistics those of the batch are returned too.
    """
    cdef Py_ssize_t items, channels, size, count, spatial, c, chunks
    cdef int channel, threads
    cdef View view
    cdef bint last, composed, narrow, known
    cdef object y = None, given_weight, given_bias
    cdef double* numbers
    cdef Channels n
    cdef Rule rule
    cdef Work w
    if not is_served(x) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    if out is not None and not is_served(out):
        return None
    narrow = not is_plain(x)
    given_weight, given_bias = weight, bias
    weight, bias = converted(weight, x), converted(bias, x)
    # Of a vector that was converted it is not known whether `out` holds it.
    known = weight is given_weight and bias is given_bias
    channel = channels_of_batch(x, channel_axis, &view)
    if channel < 0:
        return None
    items, channels, spatial, count = view.outer, view.n, view.inner, view.outer * view.inner
    size = channels * count
    if count < 2 or not parameters_fit(x, weight, bias, channels):
        return None
    if not is_running(running_mean, channels, x, out) or not is_running(running_var, channels, x, out):
        return None
    rule = Rule(VARIANCE, count, eps, False)
    last = spatial == 1 or channels == 1  # a single channel is one line, of all items
    threads = threads_for(size)
    if threads == 0:
        return None
    composed = is_composed(x, items, channels, last, threads)
    if last:
        items = 1
        begin_work(&w, AFFINE if composed else NORMALIZE, x, 1, count, channels)
    else:
        begin_work(&w, AFFINE if composed else NORMALIZE, x, items * channels, spatial, 1)
    chunks = chunks_in(&w.x) if composed else 0
    numbers = room_for(3 * chunks + CHANNEL_NUMBERS * channels)
    n = w.channels = channels_of(numbers + 3 * chunks, channels)
    try:
        w.lines = 1 if last else channels
        if composed:
            write_moments_to(&w, numbers, chunks)
            w.rule = rule
            read_numbers(weight, 1.0, n.scale, channels)
            read_numbers(bias, 0.0, n.shift, channels)
            # Where a channel cannot be served, the general path needs everything as it was.
            if not last and not narrow and (out is None or (known and not overlaps(x, out))):
                w.rows = channels_together(spatial * itemsize_of(x), items, 1, channels, threads)
            if w.rows == 0:
                pooled_moments(w, threads, items, channels)
                if not fold_channels(&rule, w.storage != DOUBLE, n, 0, channels):
                    return None
        y = output_like(x, out, weight, bias)
        if y is None:
            return None
        write_to(&w, y)
        if w.rows:
            w.primitive = TRAIN
        elif composed:
            w.coefficients[0], w.coefficients[1] = n.mean, n.lo
            w.coefficients[2], w.coefficients[3] = n.scale, n.shift
        else:
            take_parameters(&w, weight, bias, False)
            w.rule, w.mean, w.m2 = rule, n.mean, n.m2
        run(&w, threads)
        if w.strange:
            return None
        for c in range(channels if composed else 0):
            n.mean[c] += n.lo[c]
        update(running_mean, old, n.mean, 1.0, channels)
        update(running_var, old, n.m2, count - unbiased, channels)
        if stats_class is not None:
            inverses(&rule, n.m2, n.rstd, channels)
        return with_class(y, n, stats_class, x, axis_bit(channel))
    finally:
        PyMem_Free(numbers)


cdef object with_class(object y, Channels n, object stats_class, cnp.ndarray x, unsigned long long kept):
    """The result, and with a class the mean and rstd of the channels in it."""
    return y if stats_class is None else (y, stats_class(copied(n.mean, x, kept), copied(n.rstd, x, kept)))


cdef inline cnp.ndarray copied(const double* numbers, cnp.ndarray x, unsigned long long kept):
    """Numbers of lines, shaped to broadcast against x, of whose axes those are kept that are bits of `kept`."""
    cdef cnp.ndarray result = statistic_like(x, kept)
    memcpy(data_of(result), numbers, size_of(result) * sizeof(double))
    return result
