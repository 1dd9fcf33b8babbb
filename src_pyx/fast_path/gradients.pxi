# The fast path of backward passes; what it stands on is in arrays.pxi, and in fast_path.pxi and batch.pxi beside it. A
# parameter's gradient is a sum of float64 parts, added in their order from the first, as NumPy adds rows. (Rows of one
# element it adds in pairs: they are left to the general path.)

from fastnorm import plan as _plan

cdef enum:
    IN_ORDER = 8            # fewer numbers than that NumPy adds in order, more in pairs

cdef inline bint gradients_fit(object dy, object x, object out, object weight) except -1:
    """Whether dy is as plain as x, and dx would be written over none of the arrays (`output_like` need not look)."""
    if not is_served(x) or not is_served(dy):
        return False
    if type_of(dy) != type_of(x):
        return False
    if size_of(x) == 0 or not same_shape(x, dy):
        return False
    return out is None or (
        is_served(out) and not overlaps(out, x) and not overlaps(out, dy)
        and not (is_array(weight) and overlaps(out, weight))
    )


cdef inline bint is_statistic(object a, cnp.ndarray x, unsigned long long kept) noexcept:
    """Whether this is plain float64 with the lengths of x in the axes that are bits of `kept` and 1 elsewhere."""
    cdef int i
    if not is_plain(a) or type_of(a) != cnp.NPY_FLOAT64:
        return False
    if ndim_of(a) != ndim_of(x):
        return False
    for i in range(ndim_of(x)):
        if shape_of(a)[i] != (shape_of(x)[i] if kept >> i & 1 else 1):
            return False
    return True


cdef inline bint statistics_fit(
    object mean, object rstd, cnp.ndarray x, unsigned long long kept, bint centred
) noexcept:
    """Whether the statistics of the forward pass are as it returned them, or missing."""
    if rstd is None:
        return mean is None
    return is_statistic(rstd, x, kept) and (not centred or is_statistic(mean, x, kept))


cdef void add_rows(double* rows, Py_ssize_t count, Py_ssize_t length) noexcept nogil:
    """Add rows (count, length) to the first of them, in order."""
    cdef Py_ssize_t i, k
    for i in range(1, count):
        for k in range(length):
            rows[k] += rows[i * length + k]


cdef object parameter_gradient(cnp.ndarray like, const double* values, Py_ssize_t length):
    """Numbers as an array (length,) of the dtype of another, rounded once."""
    cdef cnp.npy_intp size = length
    return gradient_like(like, values, 1, &size)


cdef object gradient_like(cnp.ndarray like, const double* values, int ndim, cnp.npy_intp* dims):
    """The same for any shape."""
    cdef bint single = type_of(like) == cnp.NPY_FLOAT32
    cdef cnp.ndarray result = cnp.PyArray_SimpleNew(ndim, dims, cnp.NPY_FLOAT32 if single else cnp.NPY_FLOAT64)
    cdef Py_ssize_t length = size_of(result)
    cdef float* singles = <float*> data_of(result)
    cdef Py_ssize_t i
    cdef double* doubles = <double*> data_of(result)
    for i in range(length):  # + 0.0: NumPy's sums have no -0
        if single:
            singles[i] = <float> (values[i] + 0.0)
        else:
            doubles[i] = values[i] + 0.0
    if single:
        return result
    if type_of(like) == cnp.NPY_FLOAT64:
        return result
    with _numpy.errstate(all="ignore"):
        return (<object> result).astype((<object> like).dtype)


cdef inline void take_gradient(Work* w, cnp.ndarray dy, object dx) noexcept:
    """Have a work on x read dy and write dx."""
    look(&w.dy, data_of(dy), w.x.outer, w.x.n, w.x.inner)
    write_to(w, dx)


def lines_backward(
    object dy, object x, object weight, object mean, object rstd, object axis, object eps, Measure measure, bint floor,
    bint summed, int parameters, object result_class, object out
):
    """The backward passes of `lines`: dx, or with a weight (`parameters` 1) and a bias (2) a class of all; or None."""
    cdef Py_ssize_t n, outer, units
    cdef int threads, axes, ndim, number
    cdef View view
    cdef Rule rule
    cdef object dx, like = x if weight is None else weight
    cdef cnp.npy_intp* dims
    cdef double* sums = NULL
    cdef Work w
    if not gradients_fit(dy, x, out, weight) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    ndim = ndim_of(x)
    axes = trailing(axis, ndim)
    if axes == 0:
        number = axis_of(x, axis, &view)
        if number < 0 or parameters or view.inner == 1:
            return None
        rule = Rule(measure, 1.0 if summed else view.n, eps, floor)
        return column_gradients(dy, x, &view, &rule, 1, None, mean, rstd, ~axis_bit(number), None, out)
    n = last_elements(x, axes)
    outer, weight = size_of(x) // n, converted(weight, x)
    if n == 1 or (3 * n > DESK and not is_plain(x)) or not weights_fit(x, weight, None, axes):
        return None
    if not statistics_fit(mean, rstd, x, axis_bit(ndim - axes) - 1, measure == VARIANCE):
        return None
    if out is not None:  # statistics are read where they are, row after row
        if overlaps(out, rstd) or (measure == VARIANCE and overlaps(out, mean)):
            return None
    threads = threads_for(outer * n)
    if threads == 0:
        return None
    dx = output_like(x, out, None, None)
    if dx is None:
        return None
    begin_work(&w, NORMALIZE_GRAD, x, outer, n, 1)
    take_gradient(&w, dy, dx)
    w.rule = Rule(measure, 1.0 if summed else n, eps, floor)
    w.per_position, w.segments, w.rows = True, 1, _plan.rows_of_unit(outer, n) if parameters else 1
    if weight is not None:
        w.weight = data_of(weight)
    if rstd is not None:
        w.rstd = <double*> data_of(rstd)
        if measure == VARIANCE:
            w.mean = <double*> data_of(mean)
    if not parameters:
        run(&w, threads)
        return dx
    units = parts(outer, w.rows)
    sums = zeros_for(2 * units * n)
    try:
        w.sums, w.products = sums, sums + units * n
        run(&w, threads)
        add_rows(w.sums, units, n)
        add_rows(w.products, units, n)
        dims = shape_of(x) + ndim - axes
        return result_class(
            dx, gradient_like(like, w.products, axes, dims),
            gradient_like(like, w.sums, axes, dims) if parameters > 1 else None
        )
    finally:
        PyMem_Free(sums)


def pixels_backward(object dy, object x, object mean, object rstd, object channel_axis, object eps, object out):
    """The backward pass of `pixels`, or None."""
    if not PyLong_CheckExact(channel_axis):
        return None
    return lines_backward(dy, x, None, mean, rstd, channel_axis, eps, SQUARES, False, False, 0, None, out)


def groups_backward(
    object dy, object x, object num_groups, object weight, object mean, object rstd, object channel_axis, object eps,
    object result_class, object out
):
    """The backward pass of `groups`, or None."""
    if not PyLong_CheckExact(num_groups):
        return None
    return group_gradients(dy, x, num_groups, weight, mean, rstd, channel_axis, eps, result_class, out)


def instances_backward(
    object dy, object x, object weight, object mean, object rstd, object channel_axis, object eps, object result_class,
    object out
):
    """The backward pass of `instances`, or None."""
    return group_gradients(dy, x, None, weight, mean, rstd, channel_axis, eps, result_class, out)


cdef object group_gradients(
    object dy, object x, object num_groups, object weight, object mean, object rstd, object channel_axis, object eps,
    object result_class, object out
):
    """Gradients where each statistic belongs to an item's group of channels, or to one without `num_groups`."""
    cdef Py_ssize_t items, channels, size, count
    cdef int ndim
    cdef bint last
    cdef object like
    cdef View view
    cdef Rule rule
    if not gradients_fit(dy, x, out, weight) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    ndim, size = ndim_of(x), size_of(x)
    last = is_int(channel_axis, -1) or is_int(channel_axis, ndim - 1)
    if ndim < 3 or not (last or is_int(channel_axis, 1)):
        return None
    items, channels = shape_of(x)[0], shape_of(x)[ndim - 1 if last else 1]
    count = groups_in(channels, num_groups)
    if channels == 1 or size == items * channels or count == 0:
        return None
    if last:
        look(&view, NULL, items, size // (items * channels), channels)
        rule = Rule(VARIANCE, size // (items * count), eps, False)
        return column_gradients(
            dy, x, &view, &rule, channels // count, weight, mean, rstd, axis_bit(0) | axis_bit(ndim - 1), result_class,
            out
        )
    like, weight = x if weight is None else weight, converted(weight, x)
    if not vectors_fit(x, weight, None, channels):
        return None
    if not statistics_fit(mean, rstd, x, axis_bit(0) | axis_bit(1), True):
        return None
    return row_gradients(dy, x, items, channels, count, weight, like, mean, rstd, eps, result_class, out)


cdef object row_gradients(
    cnp.ndarray dy, cnp.ndarray x, Py_ssize_t items, Py_ssize_t channels, Py_ssize_t count, object weight,
    cnp.ndarray like, object mean, object rstd, double eps, object result_class, object out
):
    """Gradients of `count` groups an item, whose channels are second; mean and rstd are given for each channel.

    The weight is as kernels take it, its gradient and the bias's of the dtype of `like`.
    """
    cdef Py_ssize_t size = size_of(x), per_group = channels // count, lines = items * count, i
    cdef Py_ssize_t rows = items * channels
    cdef int threads = threads_for(size)
    cdef object dx
    cdef double* numbers
    cdef Work w
    if threads == 0 or (3 * (size // lines) > DESK and not is_plain(x)):
        return None
    dx = output_like(x, out, None, None)
    if dx is None:
        return None
    begin_work(&w, NORMALIZE_GRAD, x, lines, size // lines, 1)
    take_gradient(&w, dy, dx)
    w.rule = Rule(VARIANCE, size // lines, eps, False)
    take_parameters(&w, weight, None, False)
    w.segments, w.rows = per_group, 1
    numbers = room_for(2 * (rows + lines))
    w.sums, w.products = numbers, numbers + rows
    if rstd is not None:
        w.mean, w.rstd = numbers + 2 * rows, numbers + 2 * rows + lines
        for i in range(lines):
            w.mean[i] = (<double*> data_of(mean))[i * per_group]
            w.rstd[i] = (<double*> data_of(rstd))[i * per_group]
    run(&w, threads)
    try:
        add_rows(w.sums, items, channels)
        add_rows(w.products, items, channels)
        return result_class(
            dx, parameter_gradient(like, w.products, channels), parameter_gradient(like, w.sums, channels)
        )
    finally:
        PyMem_Free(numbers)


cdef object column_gradients(
    cnp.ndarray dy, cnp.ndarray x, const View* view, const Rule* rule, Py_ssize_t per_group, object weight, object mean,
    object rstd, unsigned long long kept, object result_class, object out
):
    """Gradients of lines side by side, of which `per_group` share statistics; mean and rstd are given for each line.

    Weight and bias, if any, go with the line, as channels that are last; with a class dx and their gradients are
    returned in it.
    """
    cdef Py_ssize_t lines = view.outer * view.inner, chunks = parts(view.n, CHUNK_COLUMNS), c
    cdef int threads = threads_for(size_of(x))
    cdef object dx, like = x if weight is None else weight
    cdef double* numbers
    cdef Channels n
    cdef Work w
    weight = widened(weight)
    if threads == 0 or (weight is not None and not is_vector(weight, -1, view.inner)):
        return None
    if not statistics_fit(mean, rstd, x, kept, rule.measure == VARIANCE):
        return None
    numbers = zeros_for((3 * chunks + CHANNEL_NUMBERS) * lines)
    try:
        begin_work(&w, AFFINE_GRAD, x, view.outer, view.n, view.inner)
        n = w.channels = channels_of(numbers + 3 * chunks * lines, lines)
        write_moments_to(&w, numbers, chunks * lines)
        w.sums, w.products = w.mean, w.lo  # the moments of chunks are not needed any more by then
        w.rule, w.given, w.lines = rule[0], rstd is not None, view.outer
        for c in range(lines if w.given else 0):
            n.rstd[c] = (<double*> data_of(rstd))[c - c % per_group]
            if rule.measure == VARIANCE:
                n.mean[c] = (<double*> data_of(mean))[c - c % per_group]
        for c from 0 <= c < lines by view.inner:
            read_numbers(weight, 1.0, n.scale + c, view.inner)
        dx = output_like(x, out, None, None)
        if dx is None:
            return None
        take_gradient(&w, dy, dx)
        if not gradients_pass_by_pass(&w, threads, view.outer, lines, per_group):
            return None
        if result_class is None:
            return dx
        add_rows(n.sums, view.outer, view.inner)
        add_rows(n.products, view.outer, view.inner)
        return result_class(
            dx, parameter_gradient(like, n.products, view.inner), parameter_gradient(like, n.sums, view.inner)
        )
    finally:
        PyMem_Free(numbers)


def batch_backward(
    object dy, object x, object weight, object mean, object rstd, object running_mean, object running_var,
    object channel_axis, object eps, bint training, object result_class, object out
):
    """The backward pass of batch_norm, or None."""
    cdef Py_ssize_t items, channels, size, count, spatial, chunks, c
    cdef int channel, threads
    cdef bint last
    cdef object dx, like = x if weight is None else weight
    cdef View view
    cdef double* numbers
    cdef Channels n
    cdef Work w
    if not gradients_fit(dy, x, out, weight) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    channel = channels_of_batch(x, channel_axis, &view)
    if channel < 0:
        return None
    size, items, channels, spatial = size_of(x), view.outer, view.n, view.inner
    count, last, weight = items * spatial, spatial == 1, widened(weight)
    if channels == 1 or count < 2 or (weight is not None and not is_vector(weight, -1, channels)):
        return None
    if not statistics_fit(mean, rstd, x, axis_bit(channel), True) or overlaps_any(out, mean, rstd, None):
        return None
    if not training and rstd is None:
        running_mean, running_var = widened(from_list(running_mean)), widened(from_list(running_var))
        if not is_vector(running_mean, -1, channels) or not is_vector(running_var, -1, channels):
            return None
    if training and items == 1 and not last:
        weight = converted(weight, x)
        return row_gradients(dy, x, 1, channels, channels, weight, like, mean, rstd, eps, result_class, out)
    if last:
        begin_work(&w, TRAIN_GRAD, x, 1, count, channels)
    else:
        begin_work(&w, TRAIN_GRAD, x, items * channels, spatial, 1)
    threads = threads_for(size)
    if threads == 0 or (not last and parts(spatial, CHUNK) >= IN_ORDER):
        return None
    chunks = chunks_in(&w.x)
    numbers = room_for(3 * chunks + CHANNEL_NUMBERS * channels)
    try:
        n = w.channels = channels_of(numbers + 3 * chunks, channels)
        write_moments_to(&w, numbers, chunks)
        w.sums, w.products = w.mean, w.lo  # the moments of chunks are not needed any more by then
        w.rule, w.given, w.lines = Rule(VARIANCE, count, eps, False), rstd is not None, 1 if last else channels
        if w.given:
            memcpy(n.mean, data_of(mean), channels * sizeof(double))
            memcpy(n.rstd, data_of(rstd), channels * sizeof(double))
        elif not training:
            read_numbers(running_mean, 0.0, n.mean, channels)
            read_numbers(running_var, 1.0, n.rstd, channels)
            for c in range(channels):
                n.rstd[c] = 1.0 / sqrt(n.rstd[c] + <double> eps)
        read_numbers(weight, 1.0, n.scale, channels)
        if training and not last and is_plain(x):
            w.rows = channels_together(spatial * itemsize_of(x), items, 2, channels, threads)
        dx = output_like(x, out, None, None)
        if dx is None:
            return None
        take_gradient(&w, dy, dx)
        if not training:
            if not inference_backward(&w, threads, items, channels):
                return None
        elif w.rows:
            run(&w, threads)
            if w.strange:
                return None
        elif not gradients_pass_by_pass(&w, threads, items, channels, 1):
            return None
        return result_class(
            dx, parameter_gradient(like, n.products, channels), parameter_gradient(like, n.sums, channels)
        )
    finally:
        PyMem_Free(numbers)


cdef void join_sums(Work* w, Py_ssize_t items, Py_ssize_t channels) noexcept:
    """The sums of channels from those of the chunks of their lines, as NumPy adds them."""
    cdef Channels n = w.channels
    cdef Py_ssize_t inner = w.x.inner, chunks = parts(w.x.n, CHUNK_COLUMNS), o
    for o in range(w.x.outer if inner > 1 else 0):
        add_rows(w.sums + o * chunks * inner, chunks, inner)
        add_rows(w.products + o * chunks * inner, chunks, inner)
        memcpy(n.sums + o * inner, w.sums + o * chunks * inner, inner * sizeof(double))
        memcpy(n.products + o * inner, w.products + o * chunks * inner, inner * sizeof(double))
    if inner == 1:
        join_dots(w, items, channels, n, 0, channels)


cdef bint inference_backward(Work* w, int threads, Py_ssize_t items, Py_ssize_t channels) noexcept:
    """dx = scale * dy and the sums of channels, whose statistics are constants; False where float32 cannot serve."""
    cdef Channels n = w.channels
    cdef Py_ssize_t c
    if not roots_fit(w.storage != DOUBLE, n, 0, channels):
        return False
    for c in range(channels):
        n.scale[c] = n.rstd[c] * n.scale[c]
        n.lo[c] = n.shift[c] = 0.0
        if not are_applied(w.storage != DOUBLE, n.rstd[c], n.scale[c]):
            return False
    w.mean = n.mean
    w.coefficients[0], w.coefficients[1] = n.lo, n.lo
    w.coefficients[2], w.coefficients[3] = n.scale, n.shift
    if w.x.inner == 1 and (w.storage == SINGLE or w.storage == DOUBLE) and are_enough(w.x.outer, threads):
        w.primitive = INFER_GRAD    # both at once
        run(w, threads)
    else:
        w.primitive = DOTS
        run(w, threads)
        w.primitive, w.x = AFFINE, w.dy
        run(w, threads)
    join_sums(w, items, channels)
    for c in range(channels):
        n.products[c] *= n.rstd[c]
    return True


cdef bint gradients_pass_by_pass(
    Work* w, int threads, Py_ssize_t items, Py_ssize_t channels, Py_ssize_t per_group
) noexcept:
    """The gradients of all channels, of which `per_group` share statistics, one pass over x and dy after the other.

    False where float32 cannot serve one.
    """
    cdef Channels n = w.channels
    cdef bint single = w.storage != DOUBLE
    if not w.given:
        pooled_moments(w[0], threads, items, channels)
        share_moments(channels, per_group, w.x.n, n.mean, n.lo, n.m2)
        centre_channels(&w.rule, n, 0, channels)
    if not roots_fit(single, n, 0, channels):
        return False
    w.primitive, w.mean = DOTS, n.mean
    run(w, threads)
    join_sums(w, items, channels)
    if not slope_channels(single, &w.rule, per_group, n, 0, channels):
        return False
    w.primitive = AFFINE_GRAD
    w.coefficients[0], w.coefficients[1] = n.mean, n.scale
    w.coefficients[2], w.coefficients[3] = n.slope, n.shift
    run(w, threads)
    return True
