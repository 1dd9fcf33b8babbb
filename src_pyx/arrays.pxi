# Arrays as the kernels and the fast path see them.

cimport numpy as cnp
from libc.stdint cimport uintptr_t

cnp.import_array()

cdef extern from "arrays.h":
    # All but the first and data_of want an array, and do not look.
    bint is_array(object a) noexcept                # any object; False for subclasses
    int ndim_of(object a) noexcept
    cnp.npy_intp* shape_of(object a) noexcept
    cnp.npy_intp* strides_of(object a) noexcept     # in bytes
    Py_ssize_t size_of(object a) noexcept
    Py_ssize_t nbytes_of(object a) noexcept
    Py_ssize_t itemsize_of(object a) noexcept
    int type_of(object a) noexcept                  # the number of its dtype
    cnp.PyArray_Descr* dtype_of(object a) noexcept
    bint is_behaved(object a) noexcept              # aligned, in native byte order
    bint is_contiguous(object a) noexcept           # and C-contiguous
    bint is_writeable(object a) noexcept
    void* data_of(object a) noexcept                # NULL of None
    object new_array(cnp.PyArray_Descr* dtype, int ndim, cnp.npy_intp* shape, void* data, int flags)

cdef extern from "numpy/ndarraytypes.h":
    enum:
        NPY_HALF
        NPY_USERDEF


cdef int bfloat16_type = -2     # ml_dtypes', once an array of it has been seen; -1 is that of many dtypes


cdef inline bint is_narrow(object a) except -1:
    """Whether this is an aligned, native, C-contiguous numpy.ndarray of float16 or bfloat16."""
    global bfloat16_type
    if not is_array(a) or not is_contiguous(a):
        return False
    cdef int kind = type_of(a)
    if bfloat16_type < 0 and kind >= NPY_USERDEF and a.dtype.name == "bfloat16":
        bfloat16_type = kind
    return kind == NPY_HALF or kind == bfloat16_type


cdef inline Storage storage_of(object a) noexcept:
    cdef int kind = type_of(a)
    if kind == cnp.NPY_FLOAT64:
        return DOUBLE
    if kind == cnp.NPY_FLOAT32:
        return SINGLE
    if kind == cnp.NPY_UINT8:
        return BYTE
    return HALF if kind == NPY_HALF else BFLOAT


cdef inline View view_of(object a) noexcept:
    cdef Py_ssize_t size = itemsize_of(a)
    return View(
        data_of(a), shape_of(a)[0], shape_of(a)[1], shape_of(a)[2],
        strides_of(a)[0] // size, strides_of(a)[1] // size, False
    )


cdef inline Work work_on(Primitive primitive, object x) noexcept:
    cdef Work w
    memset(&w, 0, sizeof(Work))
    w.primitive = primitive
    w.storage = storage_of(x)
    w.x = view_of(x)
    return w


# A struct that was written number by number and is then copied in vectors makes the copy wait: here, 10 to 20
# nanoseconds each. So these fill structs in place.
cdef inline void look(View* view, void* data, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner) noexcept:
    """View contiguous memory as (outer, n, inner)."""
    view.data, view.outer, view.n, view.inner = data, outer, n, inner
    view.outer_stride, view.stride, view.streamed = n * inner, inner, False


cdef Work no_work           # zeros: copied in half the time that so few take memset


cdef inline void begin_work(
    Work* w, Primitive primitive, object x, Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner
) noexcept:
    """Begin work on a contiguous array seen as (outer, n, inner)."""
    w[0] = no_work
    w.primitive, w.storage = primitive, storage_of(x)
    look(&w.x, data_of(x), outer, n, inner)


cdef inline void write_to(Work* w, object y) noexcept:
    """Have the result go to a contiguous array of the shape of x."""
    look(&w.y, data_of(y), w.x.outer, w.x.n, w.x.inner)


cdef inline bint is_plain(object a) noexcept:
    """Whether this is an aligned, native, C-contiguous numpy.ndarray of float32 or float64."""
    if not is_array(a):
        return False
    cdef int kind = type_of(a)
    return (kind == cnp.NPY_FLOAT32 or kind == cnp.NPY_FLOAT64) and is_contiguous(a)


cdef inline bint is_served(object a) except -1:
    """Whether the lanes take this as x: plain, or as plain of 16-bit floats."""
    return is_plain(a) or is_narrow(a)


cdef inline int compute_type(object x) noexcept:
    """The number of the dtype in which x is computed with, and in which kernels take parameters."""
    return cnp.NPY_FLOAT64 if type_of(x) == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32


cdef inline bint is_vector(object a, int kind, Py_ssize_t length) noexcept:
    """Whether this is a plain array (length,) of a dtype; `kind` -1: of either."""
    return is_plain(a) and ndim_of(a) == 1 and shape_of(a)[0] == length and (kind == -1 or type_of(a) == kind)


cdef inline bint is_bytes(object a) noexcept:
    return is_array(a) and type_of(a) == cnp.NPY_UINT8 and is_contiguous(a)


cdef inline bint overlaps(object a, object b) noexcept:
    """Whether two contiguous arrays share memory; None does not."""
    if b is None:
        return False
    cdef uintptr_t start = <uintptr_t> data_of(a), other = <uintptr_t> data_of(b)
    return start < other + nbytes_of(b) and other < start + nbytes_of(a)


cdef inline bint same_shape(object a, object b) noexcept:
    cdef int i
    if ndim_of(a) != ndim_of(b):
        return False
    for i in range(ndim_of(a)):
        if shape_of(a)[i] != shape_of(b)[i]:
            return False
    return True


cdef inline Py_ssize_t last_elements(object x, int axes) noexcept:
    """How many elements the last axes have together."""
    cdef Py_ssize_t n = 1
    cdef int i
    for i in range(ndim_of(x) - axes, ndim_of(x)):
        n *= shape_of(x)[i]
    return n


cdef Py_ssize_t row_stride(object x, int axes) noexcept:
    """How many elements lie between rows, the last axes, of an array that is plain but for that; 0 if it is not."""
    cdef Py_ssize_t size, step, between
    cdef int i, ndim
    if not is_array(x) or not is_behaved(x):
        return 0
    if type_of(x) != cnp.NPY_FLOAT32 and type_of(x) != cnp.NPY_FLOAT64:
        return 0
    size, ndim = itemsize_of(x), ndim_of(x)
    step, between = size, -1
    for i in range(ndim - 1, -1, -1):
        if shape_of(x)[i] == 1:
            continue
        if i < ndim - axes and between == -1:
            between = step = strides_of(x)[i]   # any, of the innermost axis of rows
        if strides_of(x)[i] != step:
            return 0
        step *= shape_of(x)[i]
    return between // size if between % size == 0 and between // size >= last_elements(x, axes) else 0
