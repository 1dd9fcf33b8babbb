# A lane of their own for plain calls: exact C-contiguous arrays of one floating dtype, settings that leave the choice
# to the library. What takes Python ten microseconds (checks, plan, output) takes a few tenths here. All else, errors
# included, is left to the general path: None is returned, nothing has been written. The bits are the general path's.

from cpython.contextvars cimport get_value
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uintptr_t

import numpy as _numpy

from fastnorm import dtypes as _dtypes
from fastnorm import memory as _memory
from fastnorm import settings as _settings

cdef extern from "numpy/ndarraytypes.h":
    enum:
        NPY_HALF
        NPY_USERDEF

cdef extern from *:
    """
    static PyObject *new_array(PyArray_Descr *descr, int ndim, npy_intp *dims, void *data, int flags)
    {
        Py_INCREF(descr);
        return PyArray_NewFromDescr(&PyArray_Type, descr, ndim, dims, NULL, data, flags, NULL);
    }
    """
    object new_array(cnp.PyArray_Descr* descr, int ndim, cnp.npy_intp* dims, void* data, int flags)

cdef enum:
    ZEROS = 16384           # elements: longer rows with a weight and no bias go the general way
    ALIGNED = 32768         # bytes: from here on an output begins at a cache line, since a store across two costs twice
    LINE_BYTES = 64
    FUSED = 1048576         # bytes: what statistics and result of columns may fill to be one pass

cdef double zeros[ZEROS]    # static memory: zero
cdef double one64 = 1.0
cdef float one32 = 1.0

cdef object _scoped = _settings._scoped
cdef object FLOAT32 = _dtypes.FLOAT32
cdef Py_ssize_t SERIAL = _tuning.SERIAL_ELEMENTS
cdef Py_ssize_t LARGEST = _tuning.POOL_SMALLEST_BYTES       # larger outputs come from recycled memory
cdef Py_ssize_t NARROW = _tuning.NARROW_COLUMNS
cdef Py_ssize_t PACKED = _tuning.PACKED_COLUMNS


cdef int bfloat16_type = -1     # ml_dtypes', once an array of it has been seen


cdef inline bint is_narrow(object a) except -1:
    """Whether this is an aligned, native, C-contiguous numpy.ndarray of float16 or bfloat16."""
    global bfloat16_type
    if not cnp.PyArray_CheckExact(a) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> a):
        return False
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray> a)
    if bfloat16_type < 0 and kind >= NPY_USERDEF and (<object> a).dtype.name == "bfloat16":
        bfloat16_type = kind
    return kind == NPY_HALF or kind == bfloat16_type


cdef inline Storage storage_of(cnp.ndarray a) noexcept:
    cdef int kind = cnp.PyArray_TYPE(a)
    if kind == cnp.NPY_FLOAT64:
        return DOUBLE
    if kind == cnp.NPY_FLOAT32:
        return SINGLE
    if kind == cnp.NPY_UINT8:
        return BYTE
    return HALF if kind == NPY_HALF else BFLOAT


cdef inline bint is_plain(object a) noexcept:
    """Whether this is an aligned, native, C-contiguous numpy.ndarray of float32 or float64."""
    if not cnp.PyArray_CheckExact(a):
        return False
    cdef int kind = cnp.PyArray_TYPE(<cnp.ndarray> a)
    return (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> a)


cdef inline bint is_vector(object a, int kind, Py_ssize_t length) noexcept:
    """Whether this is a plain array (length,) of a dtype; `kind` -1: of either."""
    return (
        is_plain(a) and cnp.PyArray_NDIM(<cnp.ndarray> a) == 1 and cnp.PyArray_DIM(<cnp.ndarray> a, 0) == length
        and (kind == -1 or cnp.PyArray_TYPE(<cnp.ndarray> a) == kind)
    )


cdef inline bint is_int(object a, long value) noexcept:
    cdef int overflow
    return PyLong_CheckExact(a) and PyLong_AsLongAndOverflow(a, &overflow) == value and not overflow


cdef inline bint overlaps(cnp.ndarray a, object b) noexcept:
    """Whether two contiguous arrays share memory; None does not."""
    if b is None:
        return False
    cdef uintptr_t start = <uintptr_t> cnp.PyArray_DATA(a), other = <uintptr_t> cnp.PyArray_DATA(<cnp.ndarray> b)
    return start < other + cnp.PyArray_NBYTES(<cnp.ndarray> b) and other < start + cnp.PyArray_NBYTES(a)


cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int i
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            return False
    return True


cdef int threads_for(Py_ssize_t size, Py_ssize_t lines) except -1:
    """How many threads serve the call; 0 if the settings force a backend, or lines are too few for the threads."""
    cdef object settings = get_value(_scoped, None)
    cdef int threads
    if settings is None:
        settings = _settings._process
    if settings.backend != "auto":
        return 0
    if size <= SERIAL:
        return 1
    threads = settings.num_threads
    return threads if threads == 1 or lines >= threads * _tuning.LINES_PER_THREAD else 0


cdef object output_like(cnp.ndarray x, object out, object weight, object bias):
    """Where the result goes: `out` if it is as plain as x, a new array without it; None where neither is right."""
    cdef bint bytes_in = cnp.PyArray_TYPE(x) == cnp.NPY_UINT8
    cdef cnp.npy_intp size = cnp.PyArray_NBYTES(x) * (4 if bytes_in else 1)
    cdef int kind = cnp.NPY_FLOAT32 if bytes_in else cnp.PyArray_TYPE(x)
    cdef cnp.PyArray_Descr* dtype = <cnp.PyArray_Descr*> FLOAT32 if bytes_in else cnp.PyArray_DESCR(x)
    cdef cnp.ndarray y, memory
    cdef char* data
    if out is None:
        if size < ALIGNED:
            return new_array(dtype, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), NULL, 0)
        if size >= LARGEST:
            return _memory.empty((<object> x).shape, <object> dtype)
        size += LINE_BYTES
        memory = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_UINT8)
        data = <char*> cnp.PyArray_DATA(memory)
        data += (LINE_BYTES - <uintptr_t> data % LINE_BYTES) % LINE_BYTES
        y = new_array(dtype, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), data, cnp.NPY_ARRAY_CARRAY)
        cnp.set_array_base(y, memory)
        return y
    if not (is_plain(out) or is_narrow(out)) or cnp.PyArray_TYPE(<cnp.ndarray> out) != kind:
        return None
    y = <cnp.ndarray> out
    if not cnp.PyArray_ISWRITEABLE(y) or not same_shape(x, y) or overlaps(y, weight) or overlaps(y, bias):
        return None
    if overlaps(y, x) and (bytes_in or cnp.PyArray_DATA(x) != cnp.PyArray_DATA(y)):
        return None
    return y


cdef inline Work work_with(
    Primitive primitive, cnp.ndarray x, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner
) noexcept:
    """Work on a contiguous array seen as (outer, n, inner)."""
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive = primitive
    w.storage = storage_of(x)
    w.x = View(cnp.PyArray_DATA(x), outer, n, inner, n * inner, inner, False)
    return w


cdef inline object normalized(
    cnp.ndarray x, object out, Py_ssize_t lines, Py_ssize_t n, object weight, object bias, bint per_position,
    Py_ssize_t segments, const Rule* rule, object residual=None, object activation=None, object total=None
):
    """The result of NORMALIZE over the lines of x, (lines, n); None for the general path.

    With a residual its sum with x, which is normalised, goes to `total`, or without that where the result will be.
    """
    cdef Work w = work_with(NORMALIZE, x, lines, n, 1)
    cdef int threads = threads_for(lines * n, lines * n)
    cdef bint few = threads > 1 and lines < threads * <double> _tuning.LINES_PER_THREAD
    cdef object y
    if few and (residual is not None or activation is not None):
        return None
    if threads == 0 or (few and (w.storage == HALF or w.storage == BFLOAT or not (per_position or weight is None))):
        return None
    y = output_like(x, out, weight, bias)
    if y is None:
        return None
    w.y = w.x
    w.y.data = cnp.PyArray_DATA(<cnp.ndarray> y)
    w.rule = rule[0]
    w.segments, w.parameters = segments, 1
    w.weight, w.bias = (<void*> &one64 if w.storage == DOUBLE else <void*> &one32), <void*> zeros
    if weight is not None:
        w.per_position = per_position
        w.weight, w.parameters = cnp.PyArray_DATA(<cnp.ndarray> weight), cnp.PyArray_DIM(<cnp.ndarray> weight, 0)
        if bias is not None:
            w.bias = cnp.PyArray_DATA(<cnp.ndarray> bias)
        elif per_position:
            w.bias = NULL
    if residual is not None:
        if overlaps(<cnp.ndarray> y, residual) and cnp.PyArray_DATA(<cnp.ndarray> residual) != w.y.data:
            return None
        w.x.data = w.y.data if total is None else cnp.PyArray_DATA(<cnp.ndarray> total)
    fuse(&w, x if residual is not None else None, residual, activation, None, None)
    if few:
        return y if few_lines(&w, threads) else None
    run(&w, threads)
    return y


cdef bint few_lines(Work* w, int threads) except -1:
    """NORMALIZE of lines too few for the threads: these share the chunks of every line, first for its statistics.

    Return False, having written nothing, where float32 cannot apply them.
    """
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), lines = w.x.outer, k, o
    cdef double* numbers = <double*> PyMem_Malloc((3 * chunks + 4) * lines * sizeof(double))
    cdef double* part = numbers + 4 * lines
    cdef Work pool = w[0]
    cdef Moments line
    if not numbers:
        raise MemoryError
    pool.primitive, pool.y.data = MOMENTS, NULL
    pool.mean, pool.lo, pool.m2 = part, part + chunks * lines, part + 2 * chunks * lines
    run(&pool, threads)
    for o in range(lines):
        line = Moments(0.0, 0.0, 0.0, 0.0)
        for k in range(o * chunks, (o + 1) * chunks):
            absorb(
                &line, min(w.x.n - k % chunks * CHUNK, CHUNK), pool.mean[k], pool.lo[k], pool.m2[k]
            )
        numbers[o], numbers[lines + o], numbers[3 * lines + o] = line.hi, line.lo, 0.0
        numbers[2 * lines + o] = inverse(&w.rule, line.m2)
        if w.storage == SINGLE and not SMALLEST_RSTD <= numbers[2 * lines + o] <= LARGEST_RSTD:
            PyMem_Free(numbers)
            return False
    for k in range(4):
        w.coefficients[k] = numbers + k * lines
    w.primitive, w.lines = AFFINE, lines
    if not w.per_position:
        w.weight = NULL
    run(w, threads)
    PyMem_Free(numbers)
    return True


cdef inline bint vectors_fit(cnp.ndarray x, object weight, object bias, Py_ssize_t length) noexcept:
    """Whether weight and bias are both missing, or plain and (length,), the bias perhaps missing."""
    cdef int kind = cnp.PyArray_TYPE(x)
    if weight is None:
        return bias is None
    return is_vector(weight, kind, length) and (bias is None or is_vector(bias, kind, length))


cdef inline bint parameters_fit(cnp.ndarray x, object weight, object bias, Py_ssize_t length) noexcept:
    """The same where zeros stand for a bias that is missing."""
    return vectors_fit(x, weight, bias, length) and (weight is None or bias is not None or length <= ZEROS)


cdef object widened(cnp.ndarray x, object parameter, Py_ssize_t length):
    """A weight or bias (length,) of x's 16-bit dtype, or of float32, as float32; False if it is neither."""
    cdef cnp.ndarray result
    cdef cnp.npy_intp size = length
    if parameter is None or is_vector(parameter, cnp.NPY_FLOAT32, length):
        return parameter
    if not is_narrow(parameter) or cnp.PyArray_TYPE(<cnp.ndarray> parameter) != cnp.PyArray_TYPE(x):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray> parameter) != 1 or cnp.PyArray_DIM(<cnp.ndarray> parameter, 0) != length:
        return False
    result = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_FLOAT32)
    widen(
        storage_of(x), <const bits16*> cnp.PyArray_DATA(<cnp.ndarray> parameter),
        <float*> cnp.PyArray_DATA(result), length
    )
    return result


def lines(
    object x, object weight, object bias, object axis, object eps, Measure measure, bint floor, bint summed, object out
):
    """layer_norm and its like over the last axis, or None."""
    cdef Py_ssize_t n
    cdef Rule rule
    cdef bint plain = is_plain(x)
    if not (plain or is_narrow(x)) or not PyFloat_CheckExact(eps) or not is_int(axis, -1):
        return None
    if cnp.PyArray_NDIM(<cnp.ndarray> x) == 0:
        return None
    n = cnp.PyArray_DIM(<cnp.ndarray> x, cnp.PyArray_NDIM(<cnp.ndarray> x) - 1)
    rule = Rule(measure, 1.0 if summed else n, eps, floor)
    if not rule.eps >= 0.0 or cnp.PyArray_SIZE(<cnp.ndarray> x) == 0:
        return None
    if not plain:
        if n > DESK:
            return None
        weight, bias = widened(x, weight, n), widened(x, bias, n)
        if weight is False or bias is False or (weight is None and bias is not None):
            return None
    elif not vectors_fit(x, weight, bias, n):
        return None
    return normalized(x, out, cnp.PyArray_SIZE(<cnp.ndarray> x) // n, n, weight, bias, True, 1, &rule)


def fused_lines(
    object x, object residual, object weight, object bias, object axis, object eps, Measure measure,
    object activation, bint keep, object out
):
    """`lines` of x + residual, through an activation (a code or None): the result, or with `keep` it and the sum."""
    cdef Py_ssize_t n
    cdef Rule rule
    cdef object y, total = None
    if not is_plain(x) or not PyFloat_CheckExact(eps) or not is_int(axis, -1) or cnp.PyArray_NDIM(<cnp.ndarray> x) == 0:
        return None
    n = cnp.PyArray_DIM(<cnp.ndarray> x, cnp.PyArray_NDIM(<cnp.ndarray> x) - 1)
    rule = Rule(measure, n, eps, False)
    if not rule.eps >= 0.0 or cnp.PyArray_SIZE(<cnp.ndarray> x) == 0 or not vectors_fit(x, weight, bias, n):
        return None
    if residual is None:
        if keep:
            return None
    elif (
        not is_plain(residual) or not same_shape(x, residual)
        or cnp.PyArray_TYPE(<cnp.ndarray> residual) != cnp.PyArray_TYPE(<cnp.ndarray> x)
    ):
        return None
    if keep:
        total = output_like(x, None, None, None)
    y = normalized(
        x, out, cnp.PyArray_SIZE(<cnp.ndarray> x) // n, n, weight, bias, True, 1, &rule, residual, activation, total
    )
    return (y, total) if keep and y is not None else y


def groups(
    object x, object num_groups, object weight, object bias, object channel_axis, object eps, object out
):
    """group_norm of (N, C, ...), or None; instance_norm if num_groups is None."""
    cdef Py_ssize_t channels, count, items, size
    cdef Rule rule
    if not is_plain(x) or not PyFloat_CheckExact(eps) or not is_int(channel_axis, 1):
        return None
    if cnp.PyArray_NDIM(<cnp.ndarray> x) < 3:
        return None
    items, channels = cnp.PyArray_DIM(<cnp.ndarray> x, 0), cnp.PyArray_DIM(<cnp.ndarray> x, 1)
    size = cnp.PyArray_SIZE(<cnp.ndarray> x)
    count = channels if num_groups is None else num_groups
    if size == 0 or size == items * channels or count < 1 or channels % count:
        return None
    rule = Rule(VARIANCE, size // (items * count), eps, False)
    if not rule.eps >= 0.0 or not parameters_fit(x, weight, bias, channels):
        return None
    # Without weights a whole group is one run.
    return normalized(
        x, out, items * count, size // (items * count), weight, bias, False,
        channels // count if weight is not None else 1, &rule
    )


cdef inline double number_at(cnp.ndarray a, Py_ssize_t i) noexcept:
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32:
        return (<float*> cnp.PyArray_DATA(a))[i]
    return (<double*> cnp.PyArray_DATA(a))[i]


cdef inline void read_numbers(object a, double value, double* numbers, Py_ssize_t length) noexcept:
    """The elements of a vector as float64; `value` everywhere if it is None."""
    cdef Py_ssize_t c
    cdef const float* singles
    if a is None:
        for c in range(length):
            numbers[c] = value
    elif cnp.PyArray_TYPE(<cnp.ndarray> a) == cnp.NPY_FLOAT32:
        singles = <const float*> cnp.PyArray_DATA(<cnp.ndarray> a)
        for c in range(length):
            numbers[c] = singles[c]
    else:
        memcpy(numbers, cnp.PyArray_DATA(<cnp.ndarray> a), length * sizeof(double))


cdef inline bint scale_by(
    double* rstd, double* shift, Py_ssize_t channels, bint single, object weight, object bias
) noexcept:
    """Turn rstd into the scale, rstd * weight, and write the shift; return whether float32 can apply them."""
    cdef double scale
    cdef Py_ssize_t c, strange = 0
    read_numbers(weight, 1.0, shift, channels)
    for c in range(channels):
        scale = rstd[c] * shift[c]
        strange += not (
            (rstd[c] >= SMALLEST_RSTD) & (rstd[c] <= LARGEST_RSTD) & (scale >= -LARGEST_RSTD) & (scale <= LARGEST_RSTD)
        )
        rstd[c] = scale
    read_numbers(bias, 0.0, shift, channels)
    return not single or strange == 0


cdef inline bint fold(
    double* coefficients, Py_ssize_t channels, bint single, double eps, object mean, object var, object weight,
    object bias
) noexcept:
    """Write hi, lo, scale and shift of each channel; return whether float32 can apply them."""
    cdef double* rstd = coefficients + 2 * channels
    cdef Py_ssize_t c
    read_numbers(mean, 0.0, coefficients, channels)
    read_numbers(None, 0.0, coefficients + channels, channels)
    read_numbers(var, 0.0, rstd, channels)
    for c in range(channels):
        rstd[c] = 1.0 / sqrt(rstd[c] + eps)
    return scale_by(rstd, rstd + channels, channels, single, weight, bias)


cdef object from_list(object numbers):
    """A list or a tuple of Python's numbers as float64; anything else, and other lists, as they are."""
    if type(numbers) is not list and type(numbers) is not tuple:
        return numbers
    for number in numbers:
        if not isinstance(number, (float, int)):
            return numbers
    return _numpy.array(numbers, _numpy.float64)


cdef inline bint is_bytes(object a) noexcept:
    return (
        cnp.PyArray_CheckExact(a) and cnp.PyArray_TYPE(<cnp.ndarray> a) == cnp.NPY_UINT8
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> a)
    )


cdef inline void repeat(double* numbers, Py_ssize_t length, Py_ssize_t times) noexcept:
    """Write numbers (length,) again and again behind themselves, `times` in all."""
    cdef Py_ssize_t i
    for i in range(1, times):
        memcpy(numbers + i * length, numbers, length * sizeof(double))


def given(
    object x, object mean, object var, object weight, object bias, object channel_axis, object eps, object out
):
    """batch_norm in inference, `normalize`: channels second or last, with given statistics; or None.

    Channels that are last and few are taken several pixels at a time, as one row of many channels.
    """
    cdef Py_ssize_t channels, size, c, together = 1, width, rest = 0
    cdef int ndim, threads
    cdef bint last
    cdef object y
    cdef double* coefficients
    cdef double* folded
    cdef Work w
    if not (is_plain(x) or is_bytes(x)) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    ndim, size = cnp.PyArray_NDIM(<cnp.ndarray> x), cnp.PyArray_SIZE(<cnp.ndarray> x)
    last = is_int(channel_axis, -1) or is_int(channel_axis, ndim - 1)
    if size == 0 or ndim < 2 or not (last or is_int(channel_axis, 1)):
        return None
    channels = cnp.PyArray_DIM(<cnp.ndarray> x, ndim - 1 if last else 1)
    mean, var = from_list(mean), from_list(var)
    for vector in (mean, var):
        if not is_vector(vector, -1, channels):
            return None
    for vector in (weight, bias):
        if vector is not None and not is_vector(vector, -1, channels):
            return None
    last = last or size == cnp.PyArray_DIM(<cnp.ndarray> x, 0) * channels
    if last:
        if channels <= NARROW:
            together = min(max(PACKED // channels, 1), size // channels)
        width = channels * together
        rest = size % width
        w = work_with(AFFINE, x, 1, size // width, width)
        if w.storage == BYTE and width > PIECE:
            return None
    else:
        c = cnp.PyArray_DIM(<cnp.ndarray> x, 0) * channels
        width = channels
        w = work_with(AFFINE, x, c, size // c, 1)
    threads = threads_for(size, size)
    if threads == 0:
        return None
    coefficients = <double*> PyMem_Malloc(4 * (channels + width) * sizeof(double))
    if not coefficients:
        raise MemoryError
    try:
        folded = coefficients + 4 * width
        if not fold(folded, channels, w.storage != DOUBLE, eps, mean, var, weight, bias):
            return None
        y = output_like(x, out, weight, bias)
        if y is None:
            return None
        for c in range(4):
            w.coefficients[c] = coefficients + c * width
            memcpy(w.coefficients[c], folded + c * channels, channels * sizeof(double))
            repeat(w.coefficients[c], channels, together)
        w.y = w.x
        w.y.data = cnp.PyArray_DATA(<cnp.ndarray> y)
        w.lines = channels if w.x.inner == 1 else 1
        run(&w, threads)
        if rest:  # the pixels that do not fill a row
            w.x.data = <char*> w.x.data + (size - rest) * cnp.PyArray_ITEMSIZE(<cnp.ndarray> x)
            w.y.data = <char*> w.y.data + (size - rest) * cnp.PyArray_ITEMSIZE(<cnp.ndarray> y)
            w.x.n = w.y.n = 1
            w.x.inner = w.y.inner = rest
            run(&w, 1)
    finally:
        PyMem_Free(coefficients)
    return y


cdef inline bint is_running(object a, Py_ssize_t length, cnp.ndarray x, object out) noexcept:
    """Whether a running statistic is missing, or can be updated in place while x is read and `out` written."""
    if a is None:
        return True
    if not is_vector(a, -1, length) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> a) or overlaps(x, a):
        return False
    return out is None or (cnp.PyArray_CheckExact(out) and not overlaps(<cnp.ndarray> out, a))


cdef inline void update(cnp.ndarray running, Py_ssize_t c, double old, double value) noexcept:
    """Move element c towards a new value, in float64."""
    cdef double result = number_at(running, c) * old + value * (1.0 - old)
    if cnp.PyArray_TYPE(running) == cnp.NPY_FLOAT32:
        (<float*> cnp.PyArray_DATA(running))[c] = <float> result
    else:
        (<double*> cnp.PyArray_DATA(running))[c] = result


cdef void pool_channels(
    Work* w, int threads, Py_ssize_t items, Py_ssize_t channels, double* parts_hi, double* sums
) noexcept:
    """The moments of each channel from those of the rows (item, channel): hi, lo and m2 into `sums`."""
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), total = items * channels * chunks, b, c, k, row
    cdef Moments line, all_items
    w.mean, w.lo, w.m2 = parts_hi, parts_hi + total, parts_hi + 2 * total
    run(w, threads)
    for c in range(channels):
        all_items = Moments(0.0, 0.0, 0.0, 0.0)
        for b in range(items):
            line = Moments(0.0, 0.0, 0.0, 0.0)
            for k in range(chunks):
                row = (b * channels + c) * chunks + k
                absorb(&line, min(w.x.n - k * CHUNK, CHUNK), w.mean[row], w.lo[row], w.m2[row])
            absorb(&all_items, w.x.n, line.hi, line.lo, line.m2)
        sums[c], sums[channels + c], sums[2 * channels + c] = all_items.hi, all_items.lo, all_items.m2


cdef void join_chunks(Work* w, int threads, double* chunks_hi, double* sums) noexcept:
    """The same where channels are last, (1, n, channels): from those of chunks down the columns."""
    cdef Py_ssize_t channels = w.x.inner, chunks = parts(w.x.n, CHUNK_COLUMNS), c, k, place
    cdef Moments line
    w.mean, w.lo, w.m2 = chunks_hi, chunks_hi + chunks * channels, chunks_hi + 2 * chunks * channels
    run(w, threads)
    for c in range(channels):
        line = Moments(0.0, 0.0, 0.0, 0.0)
        for k in range(chunks):
            place = k * channels + c
            absorb(
                &line, min(w.x.n - k * CHUNK_COLUMNS, CHUNK_COLUMNS), w.mean[place], w.lo[place], w.m2[place]
            )
        sums[c], sums[channels + c], sums[2 * channels + c] = line.hi, line.lo, line.m2


cdef inline bint fold_moments(
    double* sums, Py_ssize_t channels, bint single, const Rule* rule, object weight, object bias
) noexcept:
    """Turn hi, lo and m2 of each channel into the coefficients hi, lo, scale and shift; m2 moves to a fifth place."""
    cdef double* rstd = sums + 2 * channels
    memcpy(sums + 4 * channels, rstd, channels * sizeof(double))
    inverses(rule, sums + 4 * channels, rstd, channels)
    return scale_by(rstd, rstd + channels, channels, single, weight, bias)


def train(
    object x, object running_mean, object running_var, object weight, object bias, object channel_axis, object eps,
    double old, bint unbiased, object out
):
    """batch_norm in training, channels second or last: `old` is the weight of the old running statistics; or None."""
    cdef Py_ssize_t items, channels, size, count, spatial, c, i
    cdef int ndim, threads
    cdef bint last, composed
    cdef object y = None
    cdef double* numbers
    cdef Rule rule
    cdef Work w, pool
    if not is_plain(x) or not PyFloat_CheckExact(eps) or not <double> eps >= 0.0:
        return None
    ndim, size = cnp.PyArray_NDIM(<cnp.ndarray> x), cnp.PyArray_SIZE(<cnp.ndarray> x)
    last = is_int(channel_axis, -1) or is_int(channel_axis, ndim - 1)
    if size == 0 or ndim < 2 or not (last or is_int(channel_axis, 1)):
        return None
    items, channels = cnp.PyArray_DIM(<cnp.ndarray> x, 0), cnp.PyArray_DIM(<cnp.ndarray> x, ndim - 1 if last else 1)
    count, spatial = size // channels, size // (items * channels)
    if count < 2 or not parameters_fit(x, weight, bias, channels):
        return None
    if not is_running(running_mean, channels, x, out) or not is_running(running_var, channels, x, out):
        return None
    rule = Rule(VARIANCE, count, eps, False)
    last = last or spatial == 1
    # Channels that are last are read row by row twice, rather than column by column from beyond the cache.
    composed = items > 1 if not last else cnp.PyArray_NBYTES(<cnp.ndarray> x) >= FUSED
    if last:
        w = work_with(AFFINE if composed else NORMALIZE, x, 1, count, channels)
        c = parts(channels * cnp.PyArray_ITEMSIZE(<cnp.ndarray> x), 512)
    else:
        w = work_with(AFFINE if composed else NORMALIZE, x, items * channels, spatial, 1)
        c = channels
    threads = threads_for(size, size if composed else c)
    if threads == 0:
        return None
    c = 0
    if composed:
        c = 3 * channels * (parts(count, CHUNK_COLUMNS) if last else items * parts(spatial, CHUNK))
    numbers = <double*> PyMem_Malloc((c + 5 * channels) * sizeof(double))
    if not numbers:
        raise MemoryError
    try:
        if composed:
            pool = w
            pool.primitive, pool.rule = MOMENTS, rule
            if last:
                join_chunks(&pool, threads, numbers + 5 * channels, numbers)
            else:
                pool_channels(&pool, threads, items, channels, numbers + 5 * channels, numbers)
            if not fold_moments(numbers, channels, w.storage == SINGLE, &rule, weight, bias):
                return None
        y = output_like(x, out, weight, bias)
        if y is None:
            return None
        w.y = w.x
        w.y.data = cnp.PyArray_DATA(<cnp.ndarray> y)
        if composed:
            for i in range(4):
                w.coefficients[i] = numbers + i * channels
            w.lines = 1 if last else channels
        else:
            w.rule, w.segments, w.parameters = rule, 1, 1
            w.weight, w.bias = (<void*> &one64 if w.storage == DOUBLE else <void*> &one32), <void*> zeros
            if weight is not None:
                w.weight, w.parameters = cnp.PyArray_DATA(<cnp.ndarray> weight), channels
                if bias is not None:
                    w.bias = cnp.PyArray_DATA(<cnp.ndarray> bias)
            w.mean, w.m2 = numbers, numbers + 4 * channels
        run(&w, threads)
        for i in range(channels):
            if running_mean is not None:
                update(
                    <cnp.ndarray> running_mean, i, old,
                    numbers[i] + numbers[channels + i] if composed else numbers[i]
                )
            if running_var is not None:
                update(<cnp.ndarray> running_var, i, old, numbers[4 * channels + i] / (count - unbiased))
    finally:
        PyMem_Free(numbers)
    return y
