# A fast path for plain calls: exact C-contiguous arrays of one floating dtype (parameters of another are converted,
# rows may have gaps between them), settings that leave the choice to the library. What takes Python ten microseconds
# (checks, plan, output) takes a few tenths here. All else, errors included, is left to the general path: None is
# returned, nothing has changed that it reads. The bits are the general path's.

from cpython.contextvars cimport get_value
from cpython.float cimport PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc

import numpy as _numpy

from fastnorm import activations as _activations
from fastnorm import dtypes as _dtypes
from fastnorm import memory as _memory
from fastnorm import settings as _settings

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
cdef object INT8 = _numpy.dtype(_numpy.int8)
cdef Py_ssize_t SERIAL = _tuning.SERIAL_ELEMENTS
cdef Py_ssize_t RECYCLED = _tuning.POOL_SMALLEST_BYTES          # larger outputs come from recycled memory
cdef Py_ssize_t RECYCLED_SECOND = _tuning.POOL_SMALLEST_SECOND_BYTES    # and larger second ones


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


cdef inline bint are_enough(Py_ssize_t lines, int threads) noexcept:
    """Whether all threads get some of so many lines."""
    return threads <= 1 or lines >= threads * <double> _tuning.LINES_PER_THREAD


cdef int threads_for(Py_ssize_t size) except -1:
    """How many threads serve a call on so many elements; 0 if the settings force a backend, or they are too few."""
    cdef object settings = get_value(in_force)
    cdef int threads
    if settings.backend != "auto":
        return 0
    if size <= SERIAL:
        return 1
    threads = settings.num_threads
    if SERIAL and 2 * size // SERIAL < threads:     # as tuning.threads_for
        threads = 2 * size // SERIAL
    return threads if are_enough(size, threads) else 0


cdef inline cnp.ndarray recycled(cnp.PyArray_Descr* dtype, cnp.ndarray x, Py_ssize_t size):
    """An array of the shape of x, `size` bytes of recycled memory."""
    cdef object lease = _memory.lease(size)
    cdef uintptr_t address = lease.address
    cdef cnp.ndarray y = new_array(dtype, ndim_of(x), shape_of(x), <char*> address, cnp.NPY_ARRAY_CARRAY)
    cnp.set_array_base(y, lease)
    return y


cdef object output_like(cnp.ndarray x, object out, object weight, object bias):
    """Where the result goes: `out` if it is as plain as x, a new array without it; None where neither is right."""
    cdef bint bytes_in = type_of(x) == cnp.NPY_UINT8
    cdef cnp.npy_intp size = nbytes_of(x) * (4 if bytes_in else 1)
    cdef int kind = cnp.NPY_FLOAT32 if bytes_in else type_of(x)
    cdef cnp.PyArray_Descr* dtype = <cnp.PyArray_Descr*> FLOAT32 if bytes_in else dtype_of(x)
    cdef cnp.ndarray y, memory
    cdef char* data
    if out is None:
        if size < ALIGNED:
            return new_array(dtype, ndim_of(x), shape_of(x), NULL, 0)
        if size >= RECYCLED:
            return recycled(dtype, x, size)
        size += LINE_BYTES
        memory = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_UINT8)
        data = <char*> data_of(memory)
        data += (LINE_BYTES - <uintptr_t> data % LINE_BYTES) % LINE_BYTES
        y = new_array(dtype, ndim_of(x), shape_of(x), data, cnp.NPY_ARRAY_CARRAY)
        cnp.set_array_base(y, memory)
        return y
    if not is_served(out) or type_of(out) != kind:
        return None
    y = out
    if not is_writeable(y) or not same_shape(x, y) or overlaps(y, weight) or overlaps(y, bias):
        return None
    if overlaps(y, x) and (bytes_in or data_of(x) != data_of(y)):
        return None
    return y


cdef inline void take_parameters(Work* w, object weight, object bias, bint per_position) noexcept:
    """Have weight and bias go with the position or the line; without them a factor of 1 and zeros with every line."""
    w.weight, w.bias = (<void*> &one64 if w.storage == DOUBLE else <void*> &one32), <void*> zeros
    w.segments = w.parameters = 1
    if weight is not None:
        w.per_position, w.weight, w.parameters = per_position, data_of(weight), size_of(weight)
        if bias is not None:
            w.bias = data_of(bias)


cdef inline void take_coefficients(Work* w, double* numbers, Py_ssize_t lines) noexcept:
    """The four coefficients of so many lines, one kind after the other."""
    cdef int c
    for c in range(4):
        w.coefficients[c] = numbers + c * lines


cdef inline void write_moments_to(Work* w, double* numbers, Py_ssize_t count) noexcept:
    """Have the moments of so many chunks go there, hi, lo and m2 one after the other."""
    w.mean, w.lo, w.m2 = numbers, numbers + count, numbers + 2 * count


cdef inline double* room_for(Py_ssize_t count) except NULL:
    """Memory for so many numbers, which `PyMem_Free` gives back."""
    cdef double* numbers = <double*> PyMem_Malloc(count * sizeof(double))
    if not numbers:
        raise MemoryError
    return numbers


cdef inline double* zeros_for(Py_ssize_t count) except NULL:
    """The same, of zeros."""
    cdef double* numbers = <double*> PyMem_Calloc(count, sizeof(double))
    if not numbers:
        raise MemoryError
    return numbers


cdef inline bint residual_survives(object y, object residual) noexcept:
    """Whether each element of a residual, if any, is read before the result is written over it."""
    if residual is None or not overlaps(y, residual):
        return True
    return data_of(residual) == data_of(y)


cdef inline int axis_of(cnp.ndarray x, object axis, View* view) noexcept:
    """View an array as (outer, n, inner) along an axis, and return that, or all dimensions for None; -1: not here."""
    cdef int overflow = 0, number, i, ndim = ndim_of(x)
    cdef long index
    cdef Py_ssize_t outer = 1, inner = 1
    if size_of(x) == 0:
        return -1
    if axis is None:
        look(view, data_of(x), 1, size_of(x), 1)
        return ndim
    if not PyLong_CheckExact(axis):
        return -1
    index = PyLong_AsLongAndOverflow(axis, &overflow)
    if overflow or not -ndim <= index < ndim:
        return -1
    number = index + ndim if index < 0 else index
    for i in range(number):
        outer *= shape_of(x)[i]
    for i in range(number + 1, ndim):
        inner *= shape_of(x)[i]
    look(view, data_of(x), outer, shape_of(x)[number], inner)
    return number


cdef inline object normalized(
    cnp.ndarray x, object out, Py_ssize_t lines, Py_ssize_t n, object weight, object bias, bint per_position,
    Py_ssize_t segments, const Rule* rule, object residual=None, object activation=None, object total=None,
    cnp.ndarray mean=None, cnp.ndarray rstd=None, Py_ssize_t stride=0, cnp.ndarray quantized=None,
    cnp.ndarray scales=None
):
    """The result of NORMALIZE over the lines of x, (lines, n), `stride` apart if not 0; None for the general path.

    With a residual its sum with x, which is normalised, goes to `total`, or without that where the result will be.
    `mean` and `rstd`, and the result as int8 `quantized` with its `scales`, are filled if wanted.
    """
    cdef Work w
    cdef int threads = threads_for(lines * n)
    cdef bint few = not are_enough(lines, threads)
    cdef bint narrow = storage_of(x) == HALF or storage_of(x) == BFLOAT
    cdef bint fused = residual is not None or activation is not None or quantized is not None
    cdef object y
    if few and fused:
        return None
    if narrow and n * (1 if residual is None and quantized is None else 2) > DESK:
        return None
    if threads == 0 or (few and (narrow or not (per_position or weight is None))):
        return None
    y = output_like(x, out, weight, bias)
    if y is None:
        return None
    begin_work(&w, NORMALIZE, x, lines, n, 1)
    write_to(&w, y)
    if stride:
        w.x.outer_stride = stride
    w.rule.measure, w.rule.divisor, w.rule.eps, w.rule.floor = rule.measure, rule.divisor, rule.eps, rule.floor
    take_parameters(&w, weight, bias, per_position)
    w.segments = segments
    if bias is None and w.per_position:
        w.bias = NULL
    if residual is not None:
        if not residual_survives(y, residual):
            return None
        w.x.data = w.y.data if total is None else data_of(total)
    fuse(&w, x if residual is not None else None, residual, activation, quantized, scales)
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
    cdef Py_ssize_t chunks = parts(w.x.n, CHUNK), lines = w.x.outer, o
    cdef double* numbers = room_for((3 * chunks + 4) * lines)
    cdef Work pool = w[0]
    pool.primitive, pool.y.data = MOMENTS, NULL
    write_moments_to(&pool, numbers + 4 * lines, chunks * lines)
    run(&pool, threads)
    join_lines(&pool, numbers, numbers + lines, numbers + 2 * lines)
    for o in range(lines):
        if w.mean:
            w.mean[o], w.m2[o] = numbers[o] + numbers[lines + o], numbers[2 * lines + o]
        numbers[2 * lines + o], numbers[3 * lines + o] = inverse(&w.rule, numbers[2 * lines + o]), 0.0
        if not are_applied(w.storage != DOUBLE, numbers[2 * lines + o], numbers[2 * lines + o]):
            PyMem_Free(numbers)
            return False
    take_coefficients(w, numbers, lines)
    w.primitive, w.lines = AFFINE, lines
    if not w.per_position:
        w.weight = NULL
    run(w, threads)
    PyMem_Free(numbers)
    return True


cdef inline bint is_parameter(object a, cnp.ndarray x, int axes) noexcept:
    """Whether this is plain, in the dtype that x is computed with, of the shape of its last axes."""
    cdef int i, before = ndim_of(x) - axes
    if not is_plain(a) or type_of(a) != compute_type(x):
        return False
    if ndim_of(a) != axes:
        return False
    for i in range(axes):
        if shape_of(a)[i] != shape_of(x)[before + i]:
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
    if parameter is None or not is_narrow(parameter) or ndim_of(parameter) != 1:
        return parameter
    result = cnp.PyArray_SimpleNew(1, shape_of(parameter), cnp.NPY_FLOAT32)
    widen(storage_of(parameter), <const bits16*> data_of(parameter), <float*> data_of(result), size_of(result))
    return result


cdef object converted(object parameter, cnp.ndarray x):
    """A plain parameter in the dtype that x is computed with; anything else as it is."""
    cdef cnp.ndarray result
    cdef Py_ssize_t i
    parameter = widened(parameter)
    if parameter is None or not is_plain(parameter) or type_of(parameter) == compute_type(x):
        return parameter
    result = cnp.PyArray_SimpleNew(ndim_of(parameter), shape_of(parameter), compute_type(x))
    if compute_type(x) == cnp.NPY_FLOAT32:
        for i in range(size_of(result)):
            (<float*> data_of(result))[i] = (<double*> data_of(parameter))[i]
    else:
        for i in range(size_of(result)):
            (<double*> data_of(result))[i] = (<float*> data_of(parameter))[i]
    return result
