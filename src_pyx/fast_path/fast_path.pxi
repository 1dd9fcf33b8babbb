# A fast path for plain calls: exact C-contiguous arrays of one floating dtype (parameters of another are converted,
# rows may have others between them), settings that leave the choice to the library. What takes Python ten microseconds
# (checks, plan, output) takes a few tenths here. All else, errors included, is left to the general path: None is
# returned, nothing has been written. The bits are the general path's.

from cpython.contextvars cimport get_value
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport uintptr_t

import numpy as _numpy

from fastnorm import activations as _activations
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
    ZEROS = 16384           # channels or columns: more of them with a weight and no bias go the general way
    ALIGNED = 32768         # bytes: from here on an output begins at a cache line, since a store across two costs twice
    LINE_BYTES = 64
    TALL = 256              # positions: the moments of shorter columns are many beside their elements
    ONE_PASS_BYTES = 1048576    # what statistics and result of columns may fill to be one pass

cdef double zeros[ZEROS]    # static memory: zero
cdef double one64 = 1.0
cdef float one32 = 1.0

cdef object in_force = _settings._in_force
cdef object FLOAT32 = _dtypes.FLOAT32
cdef object FLOAT16 = _numpy.dtype(_numpy.float16)
cdef Py_ssize_t SERIAL = _tuning.SERIAL_ELEMENTS
cdef Py_ssize_t RECYCLED = _tuning.POOL_SMALLEST_BYTES          # larger outputs come from recycled memory
cdef Py_ssize_t RECYCLED_SECOND = _tuning.POOL_SMALLEST_SECOND_BYTES    # and larger second ones


cdef int bfloat16_type = -2     # ml_dtypes', once an array of it has been seen; -1 is that of many dtypes


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


cdef inline bint is_served(object a) except -1:
    """Whether the lanes take this as x: plain, or as plain of 16-bit floats."""
    return is_plain(a) or is_narrow(a)


cdef inline int compute_type(cnp.ndarray x) noexcept:
    """The number of the dtype in which x is computed with, and in which kernels take parameters."""
    return cnp.NPY_FLOAT64 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32


cdef inline bint is_vector(object a, int kind, Py_ssize_t length) noexcept:
    """Whether this is a plain array (length,) of a dtype; `kind` -1: of either."""
    return (
        is_plain(a) and cnp.PyArray_NDIM(<cnp.ndarray> a) == 1 and cnp.PyArray_DIM(<cnp.ndarray> a, 0) == length
        and (kind == -1 or cnp.PyArray_TYPE(<cnp.ndarray> a) == kind)
    )


cdef inline bint is_int(object a, long value) noexcept:
    cdef int overflow
    return PyLong_CheckExact(a) and PyLong_AsLongAndOverflow(a, &overflow) == value and not overflow


cdef inline int trailing(object axis, int ndim) noexcept:
    """How many axes a number, a tuple of them or None (all) names if they are the last ones; 0 if they are not."""
    cdef Py_ssize_t count
    cdef unsigned long long seen = 0
    cdef int overflow
    cdef long number
    if axis is None or ndim == 0:
        return ndim
    if type(axis) is not tuple:
        return 1 if is_int(axis, -1) or is_int(axis, ndim - 1) else 0
    count = len(<tuple> axis)
    if count > ndim or ndim > 64:
        return 0
    for one in <tuple> axis:
        if not PyLong_CheckExact(one):
            return 0
        number = PyLong_AsLongAndOverflow(one, &overflow)
        number += ndim if number < 0 else 0
        if overflow or not ndim - count <= number < ndim or seen >> number & 1:
            return 0
        seen |= <unsigned long long> 1 << number
    return <int> count


cdef inline Py_ssize_t last_elements(cnp.ndarray x, int axes) noexcept:
    """How many elements the last axes have together."""
    cdef Py_ssize_t n = 1
    cdef int i
    for i in range(cnp.PyArray_NDIM(x) - axes, cnp.PyArray_NDIM(x)):
        n *= cnp.PyArray_DIM(x, i)
    return n


cdef Py_ssize_t row_stride(object x, int axes) noexcept:
    """How many elements lie between rows, the last axes, of an array that is plain but for that; 0 if it is not."""
    cdef Py_ssize_t size, step, total
    cdef int i, ndim
    if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> x):
        return 0
    if cnp.PyArray_TYPE(<cnp.ndarray> x) != cnp.NPY_FLOAT32 and cnp.PyArray_TYPE(<cnp.ndarray> x) != cnp.NPY_FLOAT64:
        return 0
    size, ndim = cnp.PyArray_ITEMSIZE(<cnp.ndarray> x), cnp.PyArray_NDIM(<cnp.ndarray> x)
    step, total = size, -1
    for i in range(ndim - 1, -1, -1):
        if cnp.PyArray_DIM(<cnp.ndarray> x, i) == 1:
            continue
        if i < ndim - axes and total == -1:
            total = step = cnp.PyArray_STRIDE(<cnp.ndarray> x, i)   # any, of the innermost axis of rows
        if cnp.PyArray_STRIDE(<cnp.ndarray> x, i) != step:
            return 0
        step *= cnp.PyArray_DIM(<cnp.ndarray> x, i)
    return total // size if total % size == 0 and total // size >= last_elements(x, axes) else 0


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
    cdef object settings = get_value(in_force)
    cdef int threads
    if settings.backend != "auto":
        return 0
    if size <= SERIAL:
        return 1
    threads = settings.num_threads
    if SERIAL and 2 * size // SERIAL < threads:     # as tuning.threads_for
        threads = 2 * size // SERIAL
    return threads if threads == 1 or lines >= threads * _tuning.LINES_PER_THREAD else 0


cdef inline cnp.ndarray recycled(cnp.PyArray_Descr* dtype, cnp.ndarray x, Py_ssize_t size):
    """An array of the shape of x, `size` bytes of recycled memory."""
    cdef object lease = _memory.lease(size)
    cdef uintptr_t address = lease.address
    cdef cnp.ndarray y = new_array(
        dtype, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), <char*> address, cnp.NPY_ARRAY_CARRAY
    )
    cnp.set_array_base(y, lease)
    return y


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
        if size >= RECYCLED:
            return recycled(dtype, x, size)
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


# A struct that was written number by number and is then copied in vectors makes the copy wait: here, 10 to 20
# nanoseconds each. So these fill structs in place.
cdef inline void look(View* view, void* data, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner) noexcept:
    """View contiguous memory as (outer, n, inner)."""
    view.data, view.outer, view.n, view.inner = data, outer, n, inner
    view.outer_stride, view.stride, view.streamed = n * inner, inner, False


cdef Work no_work           # zeros: copied in half the time that so few take memset


cdef inline void begin_work(
    Work* w, Primitive primitive, cnp.ndarray x, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner
) noexcept:
    """Begin work on a contiguous array seen as (outer, n, inner)."""
    w[0] = no_work
    w.primitive, w.storage = primitive, storage_of(x)
    look(&w.x, cnp.PyArray_DATA(x), outer, n, inner)


cdef inline bint residual_survives(object y, object residual) noexcept:
    """Whether each element of a residual, if any, is read before the result is written over it."""
    if residual is None or not overlaps(<cnp.ndarray> y, residual):
        return True
    return cnp.PyArray_DATA(<cnp.ndarray> residual) == cnp.PyArray_DATA(<cnp.ndarray> y)


cdef inline int axis_of(cnp.ndarray x, object axis, View* view) noexcept:
    """View an array as (outer, n, inner) along an axis, and return that, or all dimensions for None; -1: not here."""
    cdef int overflow = 0, number, i, ndim = cnp.PyArray_NDIM(x)
    cdef long index
    cdef Py_ssize_t outer = 1, inner = 1
    if cnp.PyArray_SIZE(x) == 0:
        return -1
    if axis is None:
        look(view, cnp.PyArray_DATA(x), 1, cnp.PyArray_SIZE(x), 1)
        return ndim
    if not PyLong_CheckExact(axis):
        return -1
    index = PyLong_AsLongAndOverflow(axis, &overflow)
    if overflow or not -ndim <= index < ndim:
        return -1
    number = index + ndim if index < 0 else index
    for i in range(number):
        outer *= cnp.PyArray_DIM(x, i)
    for i in range(number + 1, ndim):
        inner *= cnp.PyArray_DIM(x, i)
    look(view, cnp.PyArray_DATA(x), outer, cnp.PyArray_DIM(x, number), inner)
    return number


cdef inline object normalized(
    cnp.ndarray x, object out, Py_ssize_t lines, Py_ssize_t n, object weight, object bias, bint per_position,
    Py_ssize_t segments, const Rule* rule, object residual=None, object activation=None, object total=None,
    cnp.ndarray mean=None, cnp.ndarray rstd=None, Py_ssize_t stride=0
):
    """The result of NORMALIZE over the lines of x, (lines, n), `stride` apart if not 0; None for the general path.

    With a residual its sum with x, which is normalised, goes to `total`, or without that where the result will be.
    `mean` and `rstd`, if wanted, are filled.
    """
    cdef Work w
    cdef int threads = threads_for(lines * n, lines * n)
    cdef bint few = threads > 1 and lines < threads * <double> _tuning.LINES_PER_THREAD
    cdef bint narrow = storage_of(x) == HALF or storage_of(x) == BFLOAT
    cdef object y
    if few and (residual is not None or activation is not None):
        return None
    if narrow and n * (1 if residual is None else 2) > DESK:
        return None
    if threads == 0 or (few and (narrow or not (per_position or weight is None))):
        return None
    y = output_like(x, out, weight, bias)
    if y is None:
        return None
    begin_work(&w, NORMALIZE, x, lines, n, 1)
    look(&w.y, cnp.PyArray_DATA(<cnp.ndarray> y), lines, n, 1)
    if stride:
        w.x.outer_stride = stride
    w.rule.measure, w.rule.divisor, w.rule.eps, w.rule.floor = rule.measure, rule.divisor, rule.eps, rule.floor
    w.segments, w.parameters = segments, 1
    w.weight, w.bias = (<void*> &one64 if w.storage == DOUBLE else <void*> &one32), <void*> zeros
    if weight is not None:
        w.per_position = per_position
        w.weight, w.parameters = cnp.PyArray_DATA(<cnp.ndarray> weight), cnp.PyArray_SIZE(<cnp.ndarray> weight)
        if bias is not None:
            w.bias = cnp.PyArray_DATA(<cnp.ndarray> bias)
        elif per_position:
            w.bias = NULL
    if residual is not None:
        if not residual_survives(y, residual):
            return None
        w.x.data = w.y.data if total is None else cnp.PyArray_DATA(<cnp.ndarray> total)
    fuse(&w, x if residual is not None else None, residual, activation, None, None)
    w.mean, w.m2 = <double*> data_of(mean), <double*> data_of(rstd)
    if not few:
        run(&w, threads)
    elif not few_lines(&w, threads):
        return None
    if rstd is not None:  # where m2 lies until now
        inverses(&w.rule, w.m2, w.m2, lines)
    return y


cdef bint few_lines(Work* w, int threads) except -1:
    """NORMALIZE of lines too few for the threads: these share the chunks of every line, first for its statistics.

    Return False, having written no result, where the kernels cannot apply them.
    """
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), lines = w.x.outer, k, o
    cdef double* numbers = <double*> PyMem_Malloc((3 * chunks + 4) * lines * sizeof(double))
    cdef double* part = numbers + 4 * lines
    cdef Work pool = w[0]
    if not numbers:
        raise MemoryError
    pool.primitive, pool.y.data = MOMENTS, NULL
    pool.mean, pool.lo, pool.m2 = part, part + chunks * lines, part + 2 * chunks * lines
    run(&pool, threads)
    join_lines(&pool, numbers, numbers + lines, numbers + 2 * lines)
    for o in range(lines):
        if w.mean:
            w.mean[o], w.m2[o] = numbers[o] + numbers[lines + o], numbers[2 * lines + o]
        numbers[2 * lines + o], numbers[3 * lines + o] = inverse(&w.rule, numbers[2 * lines + o]), 0.0
        if not are_applied(w.storage != DOUBLE, numbers[2 * lines + o], numbers[2 * lines + o]):
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


cdef inline bint is_parameter(object a, cnp.ndarray x, int axes) noexcept:
    """Whether this is plain, in the dtype that x is computed with, of the shape of its last axes."""
    cdef int i, before = cnp.PyArray_NDIM(x) - axes
    if not is_plain(a) or cnp.PyArray_TYPE(<cnp.ndarray> a) != compute_type(x):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray> a) != axes:
        return False
    for i in range(axes):
        if cnp.PyArray_DIM(<cnp.ndarray> a, i) != cnp.PyArray_DIM(x, before + i):
            return False
    return True


cdef inline bint weights_fit(cnp.ndarray x, object weight, object bias, int axes) noexcept:
    """Whether weight and bias are both missing, or as kernels take them for the last axes, the bias perhaps missing."""
    if weight is None:
        return bias is None
    return is_parameter(weight, x, axes) and (bias is None or is_parameter(bias, x, axes))


cdef inline bint vectors_fit(cnp.ndarray x, object weight, object bias, Py_ssize_t length) noexcept:
    """The same for vectors (length,)."""
    cdef int kind = compute_type(x)
    if weight is None:
        return bias is None
    return is_vector(weight, kind, length) and (bias is None or is_vector(bias, kind, length))


cdef inline bint parameters_fit(cnp.ndarray x, object weight, object bias, Py_ssize_t length) noexcept:
    """The same where zeros stand for a bias that is missing."""
    return vectors_fit(x, weight, bias, length) and (weight is None or bias is not None or length <= ZEROS)


cdef object widened(object parameter):
    """A vector of 16-bit floats as float32; anything else as it is."""
    cdef cnp.ndarray result
    if parameter is None or not is_narrow(parameter) or cnp.PyArray_NDIM(<cnp.ndarray> parameter) != 1:
        return parameter
    result = cnp.PyArray_SimpleNew(1, cnp.PyArray_DIMS(<cnp.ndarray> parameter), cnp.NPY_FLOAT32)
    widen(
        storage_of(<cnp.ndarray> parameter), <const bits16*> cnp.PyArray_DATA(<cnp.ndarray> parameter),
        <float*> cnp.PyArray_DATA(result), cnp.PyArray_SIZE(result)
    )
    return result


cdef object converted(object parameter, cnp.ndarray x):
    """A plain parameter in the dtype that x is computed with; anything else as it is."""
    cdef cnp.ndarray result
    cdef Py_ssize_t i
    parameter = widened(parameter)
    if parameter is None or not is_plain(parameter) or cnp.PyArray_TYPE(<cnp.ndarray> parameter) == compute_type(x):
        return parameter
    result = cnp.PyArray_SimpleNew(
        cnp.PyArray_NDIM(<cnp.ndarray> parameter), cnp.PyArray_DIMS(<cnp.ndarray> parameter), compute_type(x)
    )
    if compute_type(x) == cnp.NPY_FLOAT32:
        for i in range(cnp.PyArray_SIZE(result)):
            (<float*> cnp.PyArray_DATA(result))[i] = (<double*> cnp.PyArray_DATA(<cnp.ndarray> parameter))[i]
    else:
        for i in range(cnp.PyArray_SIZE(result)):
            (<double*> cnp.PyArray_DATA(result))[i] = (<float*> cnp.PyArray_DATA(<cnp.ndarray> parameter))[i]
    return result
