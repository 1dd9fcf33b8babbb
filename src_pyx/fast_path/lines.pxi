# The fast path's norms with lines of their own: the last axes or any one, or groups of channels, plain or with options.

cdef object along(
    cnp.ndarray x, object out, const View* view, const Rule* rule, object weight=None, object bias=None,
    bint per_position=True
):
    """The result of NORMALIZE over the lines of a view of x, or None; a weight belongs to a position or to a line."""
    cdef Work w
    cdef int threads
    cdef object y
    if view.inner == 1:
        return normalized(x, out, view.outer, view.n, weight, bias, per_position, 1, rule)
    if weight is not None and bias is None and size_of(weight) > ZEROS:
        return None
    threads = threads_for(size_of(x))
    if not are_enough(view.outer * parts(view.inner * itemsize_of(x), TILE * BUNDLE_BYTES), threads):
        threads = 0
    if view.n >= TALL and (threads == 0 or not is_plain(x) or is_long(x, view)):
        return pass_by_pass(x, out, view, rule, weight, bias, per_position, 1)
    if threads == 0 or not is_plain(x):
        return None
    y = output_like(x, out, weight, bias)
    if y is None:
        return None
    begin_work(&w, NORMALIZE, x, view.outer, view.n, view.inner)
    write_to(&w, y)
    w.rule = rule[0]
    take_parameters(&w, weight, bias, per_position)
    run(&w, threads)
    return y


cdef object pass_by_pass(
    cnp.ndarray x, object out, const View* view, const Rule* rule, object weight, object bias, bint per_position,
    Py_ssize_t per_group
):
    """`along` for lines side by side, of which `per_group` share statistics: all statistics first, then the result."""
    cdef Py_ssize_t lines = view.outer * view.inner, chunks = parts(view.n, CHUNK_COLUMNS)
    cdef int threads = threads_for(size_of(x))
    cdef bint of_lines = not per_position
    cdef object y = None
    cdef double* numbers
    cdef Work w
    if threads == 0:
        return None
    numbers = room_for((5 + 3 * chunks) * lines)
    try:
        begin_work(&w, MOMENTS, x, view.outer, view.n, view.inner)
        w.rule = rule[0]
        write_moments_to(&w, numbers + 5 * lines, chunks * lines)
        run(&w, threads)
        if fold_lines(&w, per_group, weight if of_lines else None, bias if of_lines else None, numbers):
            y = output_like(x, out, weight, bias)
        if y is not None:
            write_to(&w, y)
            w.primitive, w.lines = AFFINE, view.outer
            take_coefficients(&w, numbers, lines)
            if per_position and weight is not None:
                w.weight = data_of(weight)
                w.bias = data_of(bias) if bias is not None else <void*> zeros
            run(&w, threads)
    finally:
        PyMem_Free(numbers)
    return y


cdef void join_lines(Work* w, double* hi, double* lo, double* m2) noexcept:
    """The moments of lines from those of their chunks."""
    cdef Py_ssize_t inner = w.x.inner, chunk = chunk_of(&w.x), chunks = parts(w.x.n, chunk), o, k, first, place
    for o in range(w.x.outer):
        place = o * inner
        for k in range(chunks):
            first = (o * chunks + k) * inner
            absorb_lines(
                k * chunk, min(w.x.n - k * chunk, chunk), w.mean + first, w.lo + first, w.m2 + first, hi + place,
                lo + place, m2 + place, inner
            )


cdef void share_moments(
    Py_ssize_t lines, Py_ssize_t per_group, double count, double* hi, double* lo, double* m2
) noexcept:
    """Give lines of `count` elements, `per_group` at a time, the moments of all of them."""
    cdef Py_ssize_t first, c
    cdef Moments group
    for first from 0 <= first < (lines if per_group > 1 else 0) by per_group:
        group = Moments(0.0, 0.0, 0.0, 0.0)
        for c in range(first, first + per_group):
            absorb(&group, count, hi[c], lo[c], m2[c])
        for c in range(first, first + per_group):
            hi[c], lo[c], m2[c] = group.hi, group.lo, group.m2


cdef bint fold_lines(Work* w, Py_ssize_t per_group, object weight, object bias, double* numbers) noexcept:
    """From moments of chunks hi, lo, scale and shift of each line; return whether the kernels can apply them.

    Weight and bias, if any, go with the line, as channels that are last.
    """
    cdef Py_ssize_t channels = w.x.inner, lines = w.x.outer * channels, o
    cdef Channels n
    n.mean, n.lo, n.scale, n.shift = numbers, numbers + lines, numbers + 2 * lines, numbers + 3 * lines
    n.m2 = n.rstd = numbers + 4 * lines
    join_lines(w, n.mean, n.lo, n.m2)
    share_moments(lines, per_group, w.x.n, n.mean, n.lo, n.m2)
    for o from 0 <= o < lines by channels:
        read_numbers(weight, 1.0, n.scale + o, channels)
        read_numbers(bias, 0.0, n.shift + o, channels)
    return fold_channels(&w.rule, w.storage != DOUBLE, n, 0, lines)


def lines(
    object x, object weight, object bias, object axis, object eps, Measure measure, bint floor, bint summed, object out
):
    """layer_norm and its like over the last axes or any one, or None."""
    cdef Py_ssize_t n, size, stride = 0
    cdef int axes
    cdef View view
    cdef Rule rule
    if not is_array(x) or not PyFloat_CheckExact(eps) or ndim_of(x) == 0:
        return None
    axes, size = trailing(axis, ndim_of(x)), size_of(x)
    if not is_served(x):
        stride = row_stride(x, axes) if axes and out is None else 0
        if stride == 0:
            return None
    weight, bias = converted(weight, x), converted(bias, x)
    if axes == 0:
        if axis_of(x, axis, &view) < 0 or not vectors_fit(x, weight, bias, view.n):
            return None
        rule = Rule(measure, 1.0 if summed else view.n, eps, floor)
        return along(x, out, &view, &rule, weight, bias) if rule.eps >= 0.0 else None
    n = last_elements(x, axes)
    rule = Rule(measure, 1.0 if summed else n, eps, floor)
    if not rule.eps >= 0.0 or size == 0 or not weights_fit(x, weight, bias, axes):
        return None
    return normalized(x, out, size // n, n, weight, bias, True, 1, &rule, None, None, None, None, None, stride)


def slices(object v, object g, object axis, object out):
    """weight_norm of slices along the first axis, or None."""
    cdef Py_ssize_t count, length
    cdef Rule rule = Rule(SQUARES, 1.0, 0.0, False)
    cdef int i, long_axes = 0
    if not is_served(v) or not is_int(axis, 0) or ndim_of(v) == 0:
        return None
    count, g = shape_of(v)[0], converted(g, v)
    if not is_plain(g) or size_of(g) != count or count > ZEROS:
        return None
    for i in range(ndim_of(g)):
        long_axes += shape_of(g)[i] != 1
    length = size_of(v) // max(count, 1)
    if long_axes > 1 or length == 0 or type_of(g) != compute_type(v):
        return None
    return normalized(v, out, count, length, g, None, False, 1, &rule)


cdef inline bint residual_fits(object x, object residual, bint keep) except -1:
    """Whether a residual is missing, and its sum with x not wanted, or as plain as x."""
    if residual is None:
        return not keep
    return is_served(residual) and same_shape(x, residual) and type_of(residual) == type_of(x)


cdef inline object total_like(object x, bint wanted):
    """Where the sum with a residual goes, if it is wanted."""
    if not wanted:
        return None
    if nbytes_of(x) < RECYCLED_SECOND:
        return new_array(dtype_of(x), ndim_of(x), shape_of(x), NULL, 0)
    return recycled(dtype_of(x), x, nbytes_of(x))


cdef inline object int8_like(cnp.ndarray x):
    if size_of(x) < RECYCLED:
        return new_array(<cnp.PyArray_Descr*> INT8, ndim_of(x), shape_of(x), NULL, 0)
    return recycled(<cnp.PyArray_Descr*> INT8, x, size_of(x))


cdef inline object code_of_activation(object activation, object code_of, object x):
    """What `fuse` knows an activation by; None stays None."""
    cdef object code = None
    if activation is None:
        return None
    if isinstance(activation, str):
        code = (<dict> _activations.CODES).get(activation)
    return code_of(activation, x) if code is None else code


cdef inline bint are_options(
    object residual, object activation, object return_residual, object return_stats, object quantize
) noexcept:
    """Whether there is an option, and what is asked for is True or False."""
    if (return_residual is not True and return_residual is not False) or (
        return_stats is not True and return_stats is not False
    ):
        return False
    return residual is not None or activation is not None or return_stats is True or quantize is not None


cdef inline unsigned long long axis_bit(int axis) noexcept:
    return <unsigned long long> 1 << axis


cdef inline cnp.ndarray statistic_like(cnp.ndarray x, unsigned long long kept, int kind=cnp.NPY_FLOAT64):
    """Room for numbers shaped to broadcast against x, of whose axes those are kept that are bits of `kept`."""
    cdef cnp.npy_intp shape[cnp.NPY_MAXDIMS]
    cdef int i, ndim = ndim_of(x)
    for i in range(ndim):
        shape[i] = shape_of(x)[i] if kept >> i & 1 else 1
    return cnp.PyArray_SimpleNew(ndim, shape, kind)


cdef inline object with_options(object y, object stats_class, object mean, object rstd, object total):
    """What a call returns: the result, then the statistics and the sum with a residual, if they are wanted."""
    if y is None or (rstd is None and total is None):
        return y
    if rstd is None:
        return y, total
    return (y, stats_class(mean, rstd)) if total is None else (y, stats_class(mean, rstd), total)


def lines_with_options(
    object x, object residual, object weight, object bias, object axis, object eps, Measure measure,
    object activation, object code_of, object return_residual, object return_stats, object stats_class, object quantize,
    object out
):
    """`lines` of x + residual, through an activation; with the sum, and with the statistics in their class, if wanted.

    `code_of` tells by what number the kernels know an activation that is no name, and refuses wrong ones. With
    `quantize` int8 lines and a scale for each take the place of the result.
    """
    cdef Py_ssize_t n
    cdef int axes
    cdef Rule rule
    cdef object y, total
    cdef unsigned long long kept
    cdef cnp.ndarray mean = None, rstd = None, quantized = None, scales = None
    if not are_options(residual, activation, return_residual, return_stats, quantize):
        return None
    if quantize is not None and (type(quantize) is not str or quantize != "int8" or out is not None):
        return None
    if not is_served(x) or not PyFloat_CheckExact(eps) or ndim_of(x) == 0:
        return None
    axes = trailing(axis, ndim_of(x))
    if axes == 0 or size_of(x) == 0:
        return None
    n = last_elements(x, axes)
    rule = Rule(measure, n, eps, False)
    weight, bias = converted(weight, x), converted(bias, x)
    if not rule.eps >= 0.0 or not weights_fit(x, weight, bias, axes):
        return None
    if not residual_fits(x, residual, return_residual is True):
        return None
    activation = code_of_activation(activation, code_of, x)
    total = total_like(x, return_residual is True)
    kept = axis_bit(ndim_of(x) - axes) - 1
    if return_stats is True:
        mean, rstd = statistic_like(x, kept), statistic_like(x, kept)
    if quantize is not None:
        quantized = int8_like(x)
        scales = statistic_like(x, kept, cnp.NPY_FLOAT32)
    y = normalized(
        x, out, size_of(x) // n, n, weight, bias, True, 1, &rule, residual, activation, total, mean, rstd, 0, quantized,
        scales
    )
    if y is None or quantize is None:
        return with_options(y, stats_class, mean, rstd, total)
    y = with_options((quantized, scales), stats_class, mean, rstd, total)
    return y if rstd is None and total is None else (*y[0], *y[1:])


cdef inline void spread(cnp.ndarray statistic, Py_ssize_t groups, Py_ssize_t per_group) noexcept:
    """Give each of the channels of a group the group's number, from the last on: all groups come first."""
    cdef double* numbers = <double*> data_of(statistic)
    cdef Py_ssize_t g, c
    for g in range(groups - 1, -1, -1):
        for c in range(per_group - 1, -1, -1):
            numbers[g * per_group + c] = numbers[g]


cdef object group_rows(
    cnp.ndarray x, object out, Py_ssize_t items, Py_ssize_t channels, const Rule* rule, object weight, object bias,
    cnp.ndarray mean, cnp.ndarray rstd
):
    """Groups of single values, which are rows; then weight and bias, which go with the channel."""
    cdef Py_ssize_t n = <Py_ssize_t> rule.divisor, c
    cdef double* numbers
    cdef object y
    cdef Work w
    if weight is None:
        return normalized(x, out, items * channels // n, n, None, None, False, 1, rule, None, None, None, mean, rstd)
    if out is not None and (not is_plain(out) or overlaps(out, weight) or overlaps(out, bias)):
        return None
    numbers = zeros_for(3 * channels)
    try:
        read_numbers(weight, 1.0, numbers + channels, channels)
        read_numbers(bias, 0.0, numbers + 2 * channels, channels)
        for c in range(channels):
            if not are_applied(type_of(x) == cnp.NPY_FLOAT32, 1.0, numbers[channels + c]):
                return None
        y = normalized(x, out, items * channels // n, n, None, None, False, 1, rule, None, None, None, mean, rstd)
        if y is not None:
            begin_work(&w, AFFINE, y, 1, items, channels)
            w.y, w.lines = w.x, 1
            w.coefficients[0] = w.coefficients[1] = numbers
            w.coefficients[2], w.coefficients[3] = numbers + channels, numbers + 2 * channels
            run(&w, threads_for(items * channels))
        return y
    finally:
        PyMem_Free(numbers)


cdef inline Py_ssize_t groups_in(Py_ssize_t channels, object num_groups) noexcept:
    """How many groups channels make, one each for None; 0 if they cannot."""
    cdef int overflow = 0
    cdef Py_ssize_t groups = channels if num_groups is None else PyLong_AsLongAndOverflow(num_groups, &overflow)
    return groups if not overflow and groups > 0 and channels % groups == 0 else 0


cdef object normalized_groups(
    object x, object num_groups, object weight, object bias, object channel_axis, object eps, object out,
    object residual, object activation, object total, cnp.ndarray mean, cnp.ndarray rstd
):
    """group_norm or, without num_groups, instance_norm, with options; mean and rstd, if wanted, are filled. Or None."""
    cdef Py_ssize_t channels, count, items, size
    cdef int ndim = ndim_of(x)
    cdef bint last = is_int(channel_axis, -1) or is_int(channel_axis, ndim - 1)
    cdef View view
    cdef Rule rule
    cdef object y
    if not PyFloat_CheckExact(eps) or ndim < 2 or not (last or is_int(channel_axis, 1)):
        return None
    if last and ndim > 2 and (residual is not None or activation is not None or rstd is not None):
        return None
    items, channels = shape_of(x)[0], shape_of(x)[ndim - 1 if last else 1]
    size = size_of(x)
    count = groups_in(channels, num_groups)
    if size == 0 or count == 0:
        return None
    rule = Rule(VARIANCE, size // (items * count), eps, False)
    weight, bias = converted(weight, x), converted(bias, x)
    if not rule.eps >= 0.0 or not parameters_fit(x, weight, bias, channels):
        return None
    if size == items * channels:
        if residual is not None or activation is not None or count == channels or not is_plain(x):
            return None
        y = group_rows(x, out, items, channels, &rule, weight, bias, mean, rstd)
    elif last and channels == 1:
        return None
    elif last:
        look(&view, NULL, items, size // (items * channels), channels)
        if count == channels:
            return along(x, out, &view, &rule, weight, bias, False)
        return pass_by_pass(x, out, &view, &rule, weight, bias, False, channels // count)
    else:
        # Without weights a whole group is one run.
        y = normalized(
            x, out, items * count, size // (items * count), weight, bias, False,
            channels // count if weight is not None else 1, &rule, residual, activation, total, mean, rstd
        )
    if y is not None and rstd is not None and count < channels:
        spread(mean, items * count, channels // count)
        spread(rstd, items * count, channels // count)
    return y


def groups(object x, object num_groups, object weight, object bias, object channel_axis, object eps, object out):
    """group_norm of (N, C, ...), or None."""
    if not is_served(x) or not PyLong_CheckExact(num_groups):
        return None
    return normalized_groups(x, num_groups, weight, bias, channel_axis, eps, out, None, None, None, None, None)


def instances(object x, object weight, object bias, object channel_axis, object eps, object out):
    """instance_norm of (N, C, ...), or None."""
    if not is_served(x):
        return None
    return normalized_groups(x, None, weight, bias, channel_axis, eps, out, None, None, None, None, None)


cdef object channels_with_options(
    object x, object residual, object num_groups, object weight, object bias, object channel_axis, object eps,
    object activation, object code_of, object return_residual, object return_stats, object stats_class, object out
):
    """`normalized_groups` with options; num_groups may be None, for each channel."""
    cdef object y, total
    cdef cnp.ndarray mean = None, rstd = None
    if not are_options(residual, activation, return_residual, return_stats, None) or not is_served(x):
        return None
    if ndim_of(x) < 2 or not residual_fits(x, residual, return_residual is True):
        return None
    activation = code_of_activation(activation, code_of, x)
    total = total_like(x, return_residual is True)
    if return_stats is True:
        mean = statistic_like(x, axis_bit(0) | axis_bit(1))
        rstd = statistic_like(x, axis_bit(0) | axis_bit(1))
    y = normalized_groups(x, num_groups, weight, bias, channel_axis, eps, out, residual, activation, total, mean, rstd)
    return with_options(y, stats_class, mean, rstd, total)


def groups_with_options(
    object x, object residual, object num_groups, object weight, object bias, object channel_axis, object eps,
    object activation, object code_of, object return_residual, object return_stats, object stats_class, object out
):
    """`groups`, as `lines_with_options`."""
    if not PyLong_CheckExact(num_groups):
        return None
    return channels_with_options(
        x, residual, num_groups, weight, bias, channel_axis, eps, activation, code_of, return_residual, return_stats,
        stats_class, out
    )


def instances_with_statistics(
    object x, object weight, object bias, object channel_axis, object eps, object return_stats, object stats_class,
    object out
):
    """`instances`, and the statistics in their class."""
    return channels_with_options(
        x, None, None, weight, bias, channel_axis, eps, None, None, False, return_stats, stats_class, out
    )
