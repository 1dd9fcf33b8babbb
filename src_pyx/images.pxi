# Images of bytes to normalised floats in one pass: (images, pixels, channels) to planes, or interleaved as they come.

from libc.stdint cimport uint64_t

cdef extern from "images.h" nogil:
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
    void image_sums(
        const unsigned char* x, Py_ssize_t pixels, Py_ssize_t channels, uint64_t* sums,
        uint64_t* squares
    )

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


cdef inline void put_floats(
    const Images* w, const float* source, Py_ssize_t place, Py_ssize_t n
) noexcept nogil:
    """Round n numbers to float16, at element `place` of the output."""
    floats_to_halves(source, <bits16*> w.y + place, n)


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
    cdef Py_ssize_t bands = parts(w.pixels, BAND), k, i, first, last, image, number, place, n
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
            last = min(w.repeated, n - i)
            image_to_pixels(
                w.x + place + i, desk, last, w.repeated, w.coefficients[0] + number, w.coefficients[1] + number,
                w.coefficients[2] + number
            )
            put_floats(w, desk, place + i, last)


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
    w.x, w.pixels, w.channels = <const unsigned char*> data_of(x), cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(x, 2)
    return w


def image(
    cnp.ndarray x, cnp.ndarray y, bint planar, cnp.ndarray centre, cnp.ndarray scale, cnp.ndarray shift, int threads
):
    """y = (x - centre) * scale + shift for bytes (images, pixels, channels), coefficients (1 or images, repeated).

    y is float32 or float16; planar it is (images, channels, pixels). Coefficients are float32, `repeated` a multiple of
    the channels.
    """
    cdef Images w = images_of(x)
    w.y, w.planar, w.half = data_of(y), planar, cnp.PyArray_TYPE(y) == NPY_HALF
    w.coefficients[0], w.coefficients[1] = <const float*> data_of(centre), <const float*> data_of(scale)
    w.coefficients[2], w.repeated = <const float*> data_of(shift), cnp.PyArray_DIM(centre, 1)
    w.stride = w.repeated if cnp.PyArray_DIM(centre, 0) > 1 else 0
    cdef Py_ssize_t units = cnp.PyArray_DIM(x, 0) * parts(w.pixels, BAND)
    with nogil:
        pool_run(normalize_images, &w, units, threads)


def image_statistics(cnp.ndarray x, cnp.ndarray sums, cnp.ndarray squares, int threads):
    """Add the sums of bytes (images, pixels, channels), and of their squares, over each piece, to uint64."""
    cdef Images w = images_of(x)
    w.sums, w.squares = <uint64_t*> data_of(sums), <uint64_t*> data_of(squares)
    cdef Py_ssize_t units = cnp.PyArray_DIM(x, 0) * parts(w.pixels, COUNTED)
    with nogil:
        pool_run(count_images, &w, units, threads)
