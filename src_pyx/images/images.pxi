# Images of bytes to normalised floats in one pass: (images, pixels, channels) to planes, or interleaved as they come.

from libc.stdint cimport uint64_t

cdef extern from "images/images.h" nogil:
    void planes_of_1(
        const unsigned char* x, float* y, Py_ssize_t pixels, Py_ssize_t plane, const float* centre, const float* scale,
        const float* shift
    )
    void planes_of_3(
        const unsigned char* x, float* y, Py_ssize_t pixels, Py_ssize_t plane, const float* centre, const float* scale,
        const float* shift
    )
    void planes_of_4(
        const unsigned char* x, float* y, Py_ssize_t pixels, Py_ssize_t plane, const float* centre, const float* scale,
        const float* shift
    )
    void image_to_plane(
        const unsigned char* x, float* y, Py_ssize_t pixels, Py_ssize_t channels, float centre, float scale, float shift
    )
    void image_to_pixels(
        const unsigned char* x, float* y, Py_ssize_t n, Py_ssize_t repeated, const float* centre, const float* scale,
        const float* shift
    )
    void image_sums(const unsigned char* x, Py_ssize_t pixels, Py_ssize_t channels, uint64_t* sums, uint64_t* squares)

cdef double SMALLEST_MAX = _ranges.SMALLEST_MAX
cdef double LARGEST_MAX = _ranges.LARGEST_MAX

cdef enum:
    BAND = 4096             # pixels of a unit of work: with their floats at home in L2
    STRIP = 1024            # pixels converted at a time, if they become float16
    COUNTED = 65536         # pixels whose squares fit 32 bits


cdef struct Images:
    const unsigned char* x
    void* y
    Py_ssize_t pixels
    Py_ssize_t channels
    bint planar
    bint half
    const float* coefficients[3]    # centre, scale, shift: `repeated` numbers an image, or for all
    Py_ssize_t repeated
    Py_ssize_t stride               # from an image's coefficients to those of the next: 0 if all share them
    uint64_t* sums        # (images, pieces, channels)
    uint64_t* squares


cdef inline void put_floats(const Images* w, const float* source, Py_ssize_t place, Py_ssize_t n) noexcept nogil:
    """Round n numbers to float16, at element `place` of the output."""
    floats_to_half(source, <bits16*> w.y + place, n)


cdef void planar_strip(
    const Images* w, Py_ssize_t image, Py_ssize_t first, Py_ssize_t n, Py_ssize_t number
) noexcept nogil:
    """The pixels `first` to `first` + n of an image, into one plane a channel."""
    cdef float desk[4 * STRIP]
    cdef Py_ssize_t c, channels = w.channels, plane = STRIP if w.half else w.pixels
    cdef Py_ssize_t place = image * channels * w.pixels + first
    cdef const unsigned char* x = w.x + (image * w.pixels + first) * channels
    cdef float* y = <float*> desk if w.half else <float*> w.y + place
    cdef const float* centre = w.coefficients[0] + number
    cdef const float* scale = w.coefficients[1] + number
    cdef const float* shift = w.coefficients[2] + number
    if channels == 1:
        planes_of_1(x, y, n, plane, centre, scale, shift)
    elif channels == 3:
        planes_of_3(x, y, n, plane, centre, scale, shift)
    elif channels == 4:
        planes_of_4(x, y, n, plane, centre, scale, shift)
    else:
        for c in range(channels):
            y = <float*> desk if w.half else <float*> w.y + place + c * plane
            image_to_plane(x + c, y, n, channels, centre[c], scale[c], shift[c])
            if w.half:
                put_floats(w, desk, place + c * w.pixels, n)
        return
    if w.half:
        for c in range(channels):
            put_floats(w, desk + c * STRIP, place + c * w.pixels, n)


cdef void normalize_images(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The bands `start` to `stop`, counted over (images, bands)."""
    cdef Images* w = <Images*> work
    cdef float desk[4 * STRIP]
    cdef Py_ssize_t bands = parts(w.pixels, BAND), k, i, j, c, first, last, image, number, place, n, length
    for k in range(start, stop):
        image, first = k // bands, k % bands * BAND
        last, number = min(first + BAND, w.pixels), image * w.stride
        if w.planar:
            for i from first <= i < last by STRIP:
                planar_strip(w, image, i, min(STRIP, last - i), number)
            continue
        place, n = (image * w.pixels + first) * w.channels, (last - first) * w.channels
        if not w.half:
            image_to_pixels(
                w.x + place, <float*> w.y + place, n, w.repeated, w.coefficients[0] + number,
                w.coefficients[1] + number, w.coefficients[2] + number
            )
            continue
        for i from 0 <= i < n by w.repeated:
            last = min(i + w.repeated, n)
            for j from i <= j < last by 4 * STRIP:
                c, length = number + j - i, min(4 * STRIP, last - j)
                image_to_pixels(
                    w.x + place + j, desk, length, w.repeated, w.coefficients[0] + c, w.coefficients[1] + c,
                    w.coefficients[2] + c
                )
                put_floats(w, desk, place + j, length)


cdef void count_images(void* work, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The sums of the pieces `start` to `stop`, counted over (images, pieces)."""
    cdef Images* w = <Images*> work
    cdef Py_ssize_t pieces = parts(w.pixels, COUNTED), k, first
    for k in range(start, stop):
        first = k % pieces * COUNTED
        image_sums(
            w.x + (k // pieces * w.pixels + first) * w.channels, min(COUNTED, w.pixels - first), w.channels,
            w.sums + k * w.channels, w.squares + k * w.channels
        )


cdef inline Images images_of(cnp.ndarray x) noexcept:
    cdef Images w
    memset(&w, 0, sizeof(Images))
    w.x, w.pixels, w.channels = <const unsigned char*> data_of(x), shape_of(x)[1], shape_of(x)[2]
    return w


def image(
    cnp.ndarray x, cnp.ndarray y, bint planar, cnp.ndarray centre, cnp.ndarray scale, cnp.ndarray shift, int threads
):
    """y = (x - centre) * scale + shift for bytes (images, pixels, channels), coefficients (1 or images, repeated).

    y is float32 or float16; planar it is (images, channels, pixels). Coefficients are float32, `repeated` a multiple of
    the channels.
    """
    cdef Images w = images_of(x)
    w.y, w.planar, w.half = data_of(y), planar, type_of(y) == NPY_HALF
    w.coefficients[0], w.coefficients[1] = <const float*> data_of(centre), <const float*> data_of(scale)
    w.coefficients[2], w.repeated = <const float*> data_of(shift), shape_of(centre)[1]
    w.stride = w.repeated if shape_of(centre)[0] > 1 else 0
    cdef Py_ssize_t units = shape_of(x)[0] * parts(w.pixels, BAND)
    with nogil:
        pool_run(normalize_images, &w, units, threads)


cdef enum:
    REPEATED = 4096         # coefficients on the desk of pixels: a whole number of pixels, for whole vectors of them


cdef object image_output(cnp.ndarray x, bint planar, int kind, object out):
    """Where the result of an image (H, W, C), or of several, goes; None where `out` is not right for it."""
    cdef int ndim = ndim_of(x), first = ndim - 3, i
    cdef cnp.npy_intp shape[4]
    for i in range(ndim):
        shape[i] = shape_of(x)[i]
    if planar:
        shape[first], shape[first + 1], shape[first + 2] = shape[first + 2], shape[first], shape[first + 1]
    if out is None:
        return _memory.empty(tuple([shape[i] for i in range(ndim)]), FLOAT32 if kind == cnp.NPY_FLOAT32 else FLOAT16)
    if not is_array(out) or not is_contiguous(out) or not is_writeable(out) or overlaps(x, out):
        return None
    if ndim_of(out) != ndim or type_of(out) != kind:
        return None
    for i in range(ndim):
        if shape_of(out)[i] != shape[i]:
            return None
    return out


def normalize_image(object x, object mean, object std, object max_value, object layout, object out, object dtype):
    """`normalize_image` of given mean and std, or None."""
    cdef Py_ssize_t channels, size, repeated, c, k
    cdef double most, centre, scale
    cdef bint planar = layout == "NCHW"
    cdef int ndim, threads, kind = cnp.NPY_FLOAT32 if dtype is _numpy.float32 else NPY_HALF
    cdef float* numbers
    cdef double* given
    cdef Images w
    if not is_bytes(x) or not (planar or layout == "NHWC") or not PyFloat_CheckExact(max_value):
        return None
    ndim, size, most = ndim_of(x), size_of(x), max_value
    if not (ndim == 3 or ndim == 4) or size == 0 or not SMALLEST_MAX <= most <= LARGEST_MAX:
        return None
    if dtype is not _numpy.float32 and dtype is not _numpy.float16:
        return None
    channels = shape_of(x)[ndim - 1]
    mean, std = from_list(mean), from_list(std)
    if not is_vector(mean, -1, channels) or not is_vector(std, -1, channels):
        return None
    threads = threads_for(size)
    if threads == 0:
        return None
    y = image_output(x, planar, kind, out)
    if y is None:
        return None
    memset(&w, 0, sizeof(Images))
    w.x, w.y, w.channels = <const unsigned char*> data_of(x), data_of(y), channels
    w.pixels = shape_of(x)[ndim - 3] * shape_of(x)[ndim - 2]
    w.planar, w.half = planar, kind == NPY_HALF
    w.repeated = repeated = channels if planar else channels * max(1, REPEATED // channels)
    given = <double*> PyMem_Malloc(2 * channels * sizeof(double) + 3 * repeated * sizeof(float))
    if not given:
        raise MemoryError
    numbers = <float*> (given + 2 * channels)
    try:
        read_numbers(mean, 0.0, given, channels)
        read_numbers(std, 0.0, given + channels, channels)
        for c in range(channels):
            if not given[channels + c] * most > 0.0:
                return None
            centre, scale = given[c] * most, 1.0 / (given[channels + c] * most)
            numbers[c], numbers[repeated + c] = <float> centre, <float> scale
            numbers[2 * repeated + c] = <float> ((<double> <float> centre - centre) * scale)
            for k in range(3):
                if not fabs(numbers[k * repeated + c]) < INFINITY:     # float32 cannot hold it
                    return None
        for c in range(channels, repeated):
            numbers[c], numbers[repeated + c] = numbers[c - channels], numbers[repeated + c - channels]
            numbers[2 * repeated + c] = numbers[2 * repeated + c - channels]
        for c in range(3):
            w.coefficients[c] = numbers + c * repeated
        with nogil:
            pool_run(normalize_images, &w, size // (w.pixels * channels) * parts(w.pixels, BAND), threads)
    finally:
        PyMem_Free(given)
    return y


def image_statistics(cnp.ndarray x, cnp.ndarray sums, cnp.ndarray squares, int threads):
    """Add the sums of bytes (images, pixels, channels), and of their squares, over each piece, to uint64."""
    cdef Images w = images_of(x)
    w.sums, w.squares = <uint64_t*> data_of(sums), <uint64_t*> data_of(squares)
    cdef Py_ssize_t units = shape_of(x)[0] * parts(w.pixels, COUNTED)
    with nogil:
        pool_run(count_images, &w, units, threads)
