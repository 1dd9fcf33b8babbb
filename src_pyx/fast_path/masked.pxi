# The fast path of batch, instance and group norms by the statistics of elements that a mask leaves, forward and
# backward: the steps of norms/masked.py in their order, on what counted/ adds up. Weights go the general way.

cdef double ROUNDING = _ranges.ROUNDING
cdef Py_ssize_t LONG_ITEM = _plan.LONG_ITEM


cdef struct Masked:
    Counting passes         # over x, by parts: items, or all of them as one
    Channels n              # the numbers of each line
    double* totals          # and how many elements its statistics are of
    double* counts          # of each channel of each part
    double* memory          # for all of that
    Py_ssize_t lines        # channels of each item that has statistics of its own, or of the batch
    Py_ssize_t per_group    # lines that share statistics
    Py_ssize_t members      # lines of parts that are joined for them,
    Py_ssize_t apart        # and how far one is from the next
    int threads
    bint single


cdef inline bint is_mask(object where, cnp.ndarray x, int axis) noexcept:
    """Whether this is plain, of bool, and of the shape of x, of whose channels it may have one for all."""
    cdef int i
    if not is_array(where) or not is_contiguous(where) or type_of(where) != cnp.NPY_BOOL:
        return False
    if ndim_of(where) != ndim_of(x):
        return False
    for i in range(ndim_of(x)):
        if shape_of(where)[i] != shape_of(x)[i] and not (i == axis and shape_of(where)[i] == 1):
            return False
    return True


cdef int view_parts(Counting* passes, cnp.ndarray x, object channel_axis, bint pooled) noexcept:
    """View x as parts, the channels second or last; with `pooled` items share statistics. The channel axis, or 0.

    The sums of a single channel's parts are left to NumPy, which adds them in pairs.
    """
    cdef View view
    cdef int axis = 0 if channel_axis is None else axis_of(x, channel_axis, &view)
    if axis < 1 or view.n == 1 or not (view.inner == 1 or view.outer == shape_of(x)[0]):
        return 0
    memset(passes, 0, sizeof(Counting))
    passes.storage, passes.last, passes.x = storage_of(x), view.inner == 1, <const char*> data_of(x)
    passes.items, passes.channels = shape_of(x)[0], view.n
    passes.spatial, passes.numbered = size_of(x) // (passes.items * passes.channels), passes.items
    if pooled:
        passes.numbered = 1
    if passes.numbered == 1 and passes.last and passes.spatial < LONG_ITEM:
        passes.items, passes.spatial = 1, passes.items * passes.spatial
    return axis


cdef inline void lay_out_weights(Counting* passes, Py_ssize_t mask_channels) noexcept:
    """Weights lie as x does, with all channels or with one for all."""
    passes.item_stride = passes.spatial * mask_channels
    passes.position_stride = mask_channels if passes.last else 1
    if mask_channels > 1:
        passes.channel_stride = 1 if passes.last else passes.spatial


cdef void count_mask(
    const Counting* passes, const unsigned char* mask, Py_ssize_t mask_channels, double* weights, double* counts
) noexcept nogil:
    """Write what each element counts, from a mask with one channel or all, and the sum of each channel of each part."""
    cdef Py_ssize_t part, k, j, total
    memset(counts, 0, passes.items * passes.channels * sizeof(double))
    for j in range(passes.items * passes.spatial * mask_channels):
        weights[j] = 1.0 if mask[j] else 0.0
    for part in range(passes.items):
        for k in range(passes.spatial if passes.last else mask_channels):
            if passes.last:
                for j in range(mask_channels):
                    counts[j] += weights[j]
                weights += mask_channels
            else:
                total = 0
                for j in range(passes.spatial):
                    total += mask[j] != 0
                counts[k] = total
                mask += passes.spatial
        for k in range(mask_channels, passes.channels):
            counts[k] = counts[0]
        counts += passes.channels


cdef int begin_masked(
    Masked* m, object x, object where, object num_groups, object channel_axis, bint pooled
) except -1:
    """View x, take the mask and count; the channel axis, or 0 where the general path must look.

    The caller frees `m.memory`.
    """
    cdef Counting* passes = &m.passes
    cdef Py_ssize_t groups, of_parts, mask_channels
    cdef const unsigned char* mask
    cdef int axis, i
    m.memory = NULL
    if not is_plain(x):
        return 0
    axis = view_parts(passes, x, channel_axis, pooled)
    if axis == 0 or not is_mask(where, x, axis):
        return 0
    groups, m.threads = groups_in(passes.channels, num_groups), threads_for(size_of(x))
    if groups == 0 or m.threads == 0:
        return 0
    m.single, of_parts = passes.storage == SINGLE, passes.items * passes.channels
    m.lines, m.per_group = passes.numbered * passes.channels, passes.channels // groups
    m.members, m.apart = passes.items // passes.numbered, passes.channels
    if m.per_group > 1:
        m.members, m.apart = m.per_group, 1
    m.memory = room_for(size_of(where) + 4 * of_parts + (CHANNEL_NUMBERS + 1) * m.lines)
    passes.weights, m.counts = m.memory, m.memory + size_of(where)
    for i in range(3):
        passes.made[i] = m.counts + (i + 1) * of_parts
    m.totals = m.counts + 4 * of_parts
    m.n = channels_of(m.totals + m.lines, m.lines)
    mask, mask_channels = <const unsigned char*> data_of(where), shape_of(where)[axis]
    lay_out_weights(passes, mask_channels)
    if size_of(where) < RELEASE_GIL:
        count_mask(passes, mask, mask_channels, m.memory, m.counts)
    else:
        with nogil:
            count_mask(passes, mask, mask_channels, m.memory, m.counts)
    total_counts(m)
    return axis


cdef void total_counts(Masked* m) noexcept:
    """How many elements the statistics of each line are of."""
    cdef Py_ssize_t line, k
    cdef double total
    for line from 0 <= line < m.lines by m.per_group:
        total = 0.0
        for k in range(m.members):
            total += m.counts[line + k * m.apart]
        for k in range(m.per_group):
            m.totals[line + k] = total


cdef inline Moments joined(const Masked* m, Py_ssize_t first, double total) noexcept:
    """The moments of lines of parts, about the mean of all."""
    cdef const double* counts = m.counts + first
    cdef const double* hi = m.passes.made[0] + first
    cdef const double* lo = m.passes.made[1] + first
    cdef const double* m2 = m.passes.made[2] + first
    cdef double deviation
    cdef Py_ssize_t k
    cdef Moments all = Moments(total, 0.0, 0.0, 0.0)
    if m.members == 1:
        return Moments(total, hi[0], lo[0], m2[0])
    for k from 0 <= k < m.members * m.apart by m.apart:
        all.hi += counts[k] * hi[k]
    all.hi = all.hi / total
    for k from 0 <= k < m.members * m.apart by m.apart:
        deviation = (hi[k] - all.hi) + lo[k] if counts[k] != 0.0 else 0.0
        all.lo += counts[k] * deviation
    all.lo = all.lo / total
    for k from 0 <= k < m.members * m.apart by m.apart:
        deviation = ((hi[k] - all.hi) + lo[k] if counts[k] != 0.0 else 0.0) - all.lo
        all.m2 += m2[k] + counts[k] * deviation * deviation
    return all


cdef bint masked_statistics(Masked* m, double eps):
    """Moments and rstd of each line; False where one may be constant: the general path looks at x again."""
    cdef Py_ssize_t line, c
    cdef double total, rstd
    cdef Moments found
    cdef Rule rule = Rule(VARIANCE, 1.0, eps, False)
    m.passes.step = COUNTED_MOMENTS
    count(&m.passes, m.threads)
    for line from 0 <= line < m.lines by m.per_group:
        total = m.totals[line] if m.totals[line] != 0.0 else 1.0
        found = joined(m, line, total)
        if 0.0 < found.m2 <= m.totals[line] * (ROUNDING * found.hi * (ROUNDING * found.hi)):
            return False
        rstd = inverse(&rule, found.m2 / total) if m.totals[line] != 0.0 else 0.0
        for c in range(line, line + m.per_group):
            m.n.mean[c], m.n.lo[c], m.n.m2[c], m.n.rstd[c] = found.hi, found.lo, found.m2, rstd
    return True


cdef inline void read_parameter(Masked* m, object parameter, double value, double* numbers) noexcept:
    """A vector of the channels, for each line."""
    cdef Py_ssize_t line
    for line from 0 <= line < m.lines by m.passes.channels:
        read_numbers(parameter, value, numbers + line, m.passes.channels)


cdef bint fold_masked(Masked* m, object weight, object bias) noexcept:
    """Coefficients from moments; return whether the kernels can apply them."""
    cdef Py_ssize_t c
    cdef double rstd
    read_parameter(m, weight, 1.0, m.n.scale)
    read_parameter(m, bias, 0.0, m.n.shift)
    for c in range(m.lines):
        m.n.scale[c] = m.n.rstd[c] * m.n.scale[c]
        m.n.shift[c] += 0.0     # -0 becomes 0, as in recipe.fold, which adds the bias to zeros
        rstd = m.n.rstd[c] if m.totals[c] != 0.0 else 1.0   # where nothing counts, all is the bias
        if not are_applied(m.single, rstd, m.n.scale[c]) or (m.single and fabs(m.n.mean[c]) > LARGEST_CENTRE):
            return False
    return True


cdef object apply_masked(Masked* m, object x, object weight, object bias, double eps, object out):
    """The result, by statistics that are then in place; or None."""
    cdef Work w
    cdef object y
    cdef Py_ssize_t channels = m.passes.channels, items = m.lines // channels, c
    weight, bias = widened(weight), widened(bias)
    if not is_missing_or_vector(weight, channels) or not is_missing_or_vector(bias, channels):
        return None
    if not masked_statistics(m, eps) or not fold_masked(m, weight, bias):
        return None
    y = output_like(x, out, None, None)     # weight and bias have been read
    if y is None:
        return None
    if m.passes.last:
        begin_work(&w, AFFINE, x, items, size_of(x) // m.lines, channels)
        w.lines = items
    else:
        begin_work(&w, AFFINE, x, size_of(x) // m.passes.spatial, m.passes.spatial, 1)
        w.lines = m.lines
    write_to(&w, y)
    w.coefficients[0], w.coefficients[1] = m.n.mean, m.n.lo
    w.coefficients[2], w.coefficients[3] = m.n.scale, m.n.shift
    run(&w, m.threads)
    for c in range(m.lines):
        m.n.mean[c] += m.n.lo[c]
    return y


cdef bint count_enough(const Masked* m, bint unbiased) noexcept:
    """Whether each channel has a value, and if variances are unbiased two."""
    cdef Py_ssize_t c
    for c in range(m.lines):
        if m.totals[c] < 1 + unbiased:
            return False
    return True


def masked_train(
    object x, object running_mean, object running_var, object weight, object bias, object channel_axis, object eps,
    double old, bint unbiased, object stats_class, object where, object out
):
    """`train` by a mask, or None."""
    cdef Masked m
    cdef Py_ssize_t c
    cdef int axis
    cdef object y
    if not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    axis = begin_masked(&m, x, where, None, channel_axis, True)
    try:
        if axis == 0 or not count_enough(&m, unbiased):
            return None
        if not is_running(running_mean, m.lines, x, out) or not is_running(running_var, m.lines, x, out):
            return None
        y = apply_masked(&m, x, weight, bias, eps, out)
        if y is None:
            return None
        for c in range(m.lines):
            m.n.m2[c] /= m.totals[c] - unbiased
        update(running_mean, old, m.n.mean, 1.0, m.lines)
        update(running_var, old, m.n.m2, 1.0, m.lines)
        return with_class(y, m.n, stats_class, x, axis_bit(axis))
    finally:
        PyMem_Free(m.memory)


def masked_groups(
    object x, object num_groups, bint grouped, object weight, object bias, object channel_axis, object eps,
    object return_stats, object stats_class, object where, object out
):
    """group_norm by a mask, or without `grouped` instance_norm, whose num_groups is None; or None."""
    cdef Masked m
    cdef int axis
    cdef object y
    if where is None or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    if grouped and not PyLong_CheckExact(num_groups):
        return None
    if return_stats is not True and return_stats is not False:
        return None
    axis = begin_masked(&m, x, where, num_groups, channel_axis, False)
    try:
        y = None if axis == 0 else apply_masked(&m, x, weight, bias, eps, out)
        if y is None:
            return None
        return with_class(y, m.n, stats_class if return_stats else None, x, axis_bit(0) | axis_bit(axis))
    finally:
        PyMem_Free(m.memory)


cdef void masked_slopes(Masked* m) noexcept:
    """From the sums of parts and weights those of lines, and in `shift` and `slope` what norms/masked.py calls A and B.

    Products become those of dy * xhat.
    """
    cdef Channels n = m.n
    cdef Py_ssize_t line, c, k, size = m.passes.items * m.passes.channels
    cdef double a, b, total
    for c in range(m.lines):
        n.sums[c] = n.products[c] = 0.0
        for k from c <= k < size by m.lines:
            n.sums[c] += m.passes.made[0][k]
            n.products[c] += m.passes.made[1][k]
        # Where nothing counts, x may be NaN.
        n.products[c] = n.products[c] * n.rstd[c] if m.totals[c] != 0.0 else 0.0 * n.rstd[c]
    for line from 0 <= line < m.lines by m.per_group:
        a = b = 0.0
        total = m.totals[line] if m.totals[line] != 0.0 else 1.0
        for c in range(line, line + m.per_group):
            a += n.sums[c] * n.scale[c]
            b += n.products[c] * n.scale[c]
        for c in range(line, line + m.per_group):
            n.shift[c], n.slope[c] = a / total, b / total


cdef object masked_gradients(
    Masked* m, object dy, object x, object weight, object mean, object rstd, double eps, unsigned long long kept,
    object result_class, object out
):
    """The gradients, in their class, of statistics over the axes of `kept`; or None."""
    cdef Counting* passes = &m.passes
    cdef Channels n = m.n
    cdef Py_ssize_t c, channels = passes.channels
    cdef object dx, like = x if weight is None else weight
    weight = widened(weight)
    if not is_missing_or_vector(weight, channels):
        return None
    if not statistics_fit(mean, rstd, x, kept, True):
        return None
    if rstd is None:
        if not masked_statistics(m, eps):
            return None
        for c in range(m.lines):
            n.mean[c] += n.lo[c]
    else:
        for c in range(m.lines):
            n.mean[c] = (<double*> data_of(mean))[c - c % m.per_group]
            n.rstd[c] = (<double*> data_of(rstd))[c - c % m.per_group]
    read_parameter(m, weight, 1.0, n.scale)
    dx = output_like(x, out, None, None)
    if dx is None:
        return None
    passes.dy, passes.dx, passes.made[2] = <const char*> data_of(dy), <char*> data_of(dx), NULL
    passes.step, passes.given[0] = COUNTED_DOTS, n.mean
    count(passes, m.threads)
    masked_slopes(m)
    passes.step, passes.made[0], passes.made[1] = COUNTED_GRAD, NULL, NULL
    passes.given[1], passes.given[2], passes.given[3], passes.given[4] = n.rstd, n.scale, n.shift, n.slope
    count(passes, m.threads)
    add_rows(n.sums, m.lines // channels, channels)
    add_rows(n.products, m.lines // channels, channels)
    return result_class(
        dx, parameter_gradient(like, n.products, channels), parameter_gradient(like, n.sums, channels)
    )


def masked_batch_backward(
    object dy, object x, object weight, object mean, object rstd, object channel_axis, object eps, bint unbiased,
    object result_class, object where, object out
):
    """`batch_backward` in training, by a mask; or None."""
    cdef Masked m
    cdef int axis
    if not gradients_fit(dy, x, out, weight) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    axis = begin_masked(&m, x, where, None, channel_axis, True)
    try:
        if axis == 0 or not count_enough(&m, unbiased):
            return None
        return masked_gradients(&m, dy, x, weight, mean, rstd, eps, axis_bit(axis), result_class, out)
    finally:
        PyMem_Free(m.memory)


def masked_groups_backward(
    object dy, object x, object num_groups, bint grouped, object weight, object mean, object rstd,
    object channel_axis, object eps, object result_class, object where, object out
):
    """The backward pass of `masked_groups`, or None."""
    cdef Masked m
    cdef int axis
    cdef unsigned long long kept
    if where is None or (grouped and not PyLong_CheckExact(num_groups)):
        return None
    if not gradients_fit(dy, x, out, weight) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    axis = begin_masked(&m, x, where, num_groups, channel_axis, False)
    try:
        if axis == 0:
            return None
        kept = axis_bit(0) | axis_bit(axis)
        return masked_gradients(&m, dy, x, weight, mean, rstd, eps, kept, result_class, out)
    finally:
        PyMem_Free(m.memory)
