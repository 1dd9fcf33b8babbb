# Copies between arrays whose elements lie in different orders: a transposed view and its contiguous copy. They go tile
# by tile, so that neither side is read or written one element a cache line.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

ctypedef fused bits:
    uint16_t
    uint32_t
    uint64_t

cdef enum:
    NEAR_BYTES = 128        # of a tile along the near axis: two lines of the cache, of each of
    LAST_SIDE = 64          # elements along the last one: all of a tile's lines in both arrays stay in L1
    RUN_PIECE = 4096        # elements of a run in the same order in both arrays, as a unit of work


cdef struct Axis:
    Py_ssize_t length
    Py_ssize_t source_stride    # in elements
    Py_ssize_t target_stride


cdef struct Copy:
    const char* source
    char* target
    Py_ssize_t itemsize
    int ndim
    Axis around[cnp.NPY_MAXDIMS]    # the axes but for those of a tile
    Axis near               # along which the source's elements are nearest to one another; of length 1 if `last` is
    Axis last               # along which the target's are, or both
    Py_ssize_t side         # of a tile along the last axis


cdef inline void transpose_tile(
    const bits* x, Py_ssize_t x_stride, Py_ssize_t rows, Py_ssize_t n, bits* y, Py_ssize_t y_stride
) noexcept nogil:
    """y[j, k] = x[k, j], for `rows` of n elements; strides are those of rows."""
    cdef Py_ssize_t j, k
    if bits is uint32_t:
        lanes32_transpose(<const lanes32*> x, x_stride, rows, n, <lanes32*> y, y_stride)
    elif bits is uint64_t:
        lanes64_transpose(<const lanes64*> x, x_stride, rows, n, <lanes64*> y, y_stride)
    else:
        for j in range(n):
            for k in range(rows):
                y[j * y_stride + k] = x[k * x_stride + j]


cdef inline void copy_tile(
    const bits* x, bits* y, const Axis* near, const Axis* last, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """`rows` along the near axis and `columns` along the last one."""
    cdef Py_ssize_t i, j
    if last.source_stride == 1 and last.target_stride == 1:
        for i in range(rows):
            memcpy(y + i * near.target_stride, x + i * near.source_stride, columns * sizeof(bits))
    elif near.source_stride == 1 and last.target_stride == 1:
        transpose_tile(x, last.source_stride, columns, rows, y, near.target_stride)
    else:
        for i in range(rows):
            for j in range(columns):
                y[i * near.target_stride + j * last.target_stride] = (
                    x[i * near.source_stride + j * last.source_stride]
                )


cdef inline void copy_tiles_typed(
    const bits* x, bits* y, const Copy* w, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The tiles `start` to `stop`, counted over (axes around, near, last)."""
    # A constant of each type: known to the compiler, it makes tiles half as fast again.
    cdef Py_ssize_t near_side = NEAR_BYTES // <Py_ssize_t> sizeof(bits)
    cdef Py_ssize_t near_tiles = parts(w.near.length, near_side), last_tiles = parts(w.last.length, w.side)
    cdef Py_ssize_t k, rest, index, row, column, source, target
    cdef int a
    for k in range(start, stop):
        column, rest = k % last_tiles * w.side, k // last_tiles
        row, rest = rest % near_tiles * near_side, rest // near_tiles
        source = row * w.near.source_stride + column * w.last.source_stride
        target = row * w.near.target_stride + column * w.last.target_stride
        for a in range(w.ndim - 1, -1, -1):
            index, rest = rest % w.around[a].length, rest // w.around[a].length
            source += index * w.around[a].source_stride
            target += index * w.around[a].target_stride
        copy_tile(
            x + source, y + target, &w.near, &w.last, min(w.near.length - row, near_side),
            min(w.last.length - column, w.side)
        )


cdef void copy_tiles(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    cdef const Copy* w = <const Copy*> work
    if w.itemsize == 2:
        copy_tiles_typed(<const uint16_t*> w.source, <uint16_t*> w.target, w, start, stop)
    elif w.itemsize == 4:
        copy_tiles_typed(<const uint32_t*> w.source, <uint32_t*> w.target, w, start, stop)
    else:
        copy_tiles_typed(<const uint64_t*> w.source, <uint64_t*> w.target, w, start, stop)


cdef inline Py_ssize_t distance(Py_ssize_t stride) noexcept:
    return stride if stride >= 0 else -stride


cdef int sorted_axes(cnp.ndarray source, cnp.ndarray target, Axis* axes):
    """Write the axes by how near to one another their elements are in the target, those that are one joined."""
    cdef Py_ssize_t size = itemsize_of(source)
    cdef int a, b, count = 0
    cdef Axis axis
    for a in range(ndim_of(source)):
        axis = Axis(shape_of(source)[a], strides_of(source)[a] // size, strides_of(target)[a] // size)
        if axis.length == 1:
            continue
        b = count
        while b > 0 and distance(axes[b - 1].target_stride) < distance(axis.target_stride):
            axes[b] = axes[b - 1]
            b -= 1
        axes[b] = axis
        count += 1
    if count == 0:
        axes[0] = Axis(1, 1, 1)
        return 1
    b = 0
    for a in range(1, count):
        if (
            axes[b].source_stride == axes[a].length * axes[a].source_stride
            and axes[b].target_stride == axes[a].length * axes[a].target_stride
        ):
            axes[b] = Axis(axes[b].length * axes[a].length, axes[a].source_stride, axes[a].target_stride)
        else:
            b += 1
            axes[b] = axes[a]
    return b + 1


def copy(cnp.ndarray source, cnp.ndarray target, int threads):
    """target = source, which have one shape, one dtype of 2, 4 or 8 bytes, any strides and no memory in common."""
    cdef Copy w
    cdef Axis axes[cnp.NPY_MAXDIMS]
    cdef int a, ndim = sorted_axes(source, target, axes), near = ndim - 1
    cdef Py_ssize_t units
    for a in range(ndim - 1):
        if distance(axes[a].source_stride) < distance(axes[near].source_stride):
            near = a
    w.source, w.target = <const char*> data_of(source), <char*> data_of(target)
    w.itemsize, w.ndim = itemsize_of(source), 0
    w.last, w.near, w.side = axes[ndim - 1], Axis(1, 0, 0), RUN_PIECE
    if near != ndim - 1:
        w.near, w.side = axes[near], LAST_SIDE
    units = parts(w.near.length, NEAR_BYTES // w.itemsize) * parts(w.last.length, w.side)
    for a in range(ndim - 1):
        if a != near:
            w.around[w.ndim] = axes[a]
            units *= axes[a].length
            w.ndim += 1
    with nogil:
        pool_run(copy_tiles, &w, units, threads)
