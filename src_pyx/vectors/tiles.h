/* Rows of a few elements, transposed: element j of row k lies in lane k of bundle j of a tile, so that what is done
 * once a row is done for many of them in vectors. It is done in square blocks, of as many rows as 16 bytes hold
 * elements; the last block of a row begins where it ends with the row, and moves some elements twice.
 */
#ifndef FASTNORM_TILES_H
#define FASTNORM_TILES_H

#include "vectors/lanes.h"

/* A block: to[j][k] = from[k][j], of up to four rows of up to four float, or two of two double. In intrinsics: of
 * vectors put together from elements GCC makes scalars. */
#if defined(__GNUC__) && defined(__SSE2__)
#  include <emmintrin.h>
enum { float_side = 4, double_side = 2 };

INLINE __m128 float_read_few(const float *p, ptrdiff_t n) {
    if (n >= 4) return _mm_loadu_ps(p);
    __m128 last = n & 1 ? _mm_load_ss(p + n - 1) : _mm_setzero_ps();
    return n & 2 ? _mm_movelh_ps(_mm_loadl_pi(_mm_setzero_ps(), (const __m64 *)p), last) : last;
}
INLINE void float_write_few(float *p, ptrdiff_t n, __m128 v) {
    if (n >= 4) _mm_storeu_ps(p, v);
    if (n < 4 && n & 2) _mm_storel_pi((__m64 *)p, v);
    if (n < 4 && n & 1) _mm_store_ss(p + n - 1, n & 2 ? _mm_movehl_ps(v, v) : v);
}
INLINE void float_transpose(
    const float *from, ptrdiff_t from_stride, ptrdiff_t rows, ptrdiff_t n, float *to, ptrdiff_t to_stride)
{
    __m128 zero = _mm_setzero_ps(), a = float_read_few(from, n);
    __m128 b = rows > 1 ? float_read_few(from + from_stride, n) : zero;
    __m128 c = rows > 2 ? float_read_few(from + 2 * from_stride, n) : zero;
    __m128 d = rows > 3 ? float_read_few(from + 3 * from_stride, n) : zero;
    _MM_TRANSPOSE4_PS(a, b, c, d);
    float_write_few(to, rows, a);
    if (n > 1) float_write_few(to + to_stride, rows, b);
    if (n > 2) float_write_few(to + 2 * to_stride, rows, c);
    if (n > 3) float_write_few(to + 3 * to_stride, rows, d);
}
INLINE void double_transpose(
    const double *from, ptrdiff_t from_stride, ptrdiff_t rows, ptrdiff_t n, double *to, ptrdiff_t to_stride)
{
    __m128d a = _mm_loadu_pd(from), b = _mm_loadu_pd(from + from_stride);
    (void)rows, (void)n;  /* two: a single row, or rows of one, need no transposing */
    _mm_storeu_pd(to, _mm_unpacklo_pd(a, b));
    _mm_storeu_pd(to + to_stride, _mm_unpackhi_pd(a, b));
}
#else
enum { float_side = 1, double_side = 1 };
#  define float_transpose(from, from_stride, rows, n, to, to_stride) (*(to) = *(from))
#  define double_transpose(from, from_stride, rows, n, to, to_stride) (*(to) = *(from))
#endif

#define DEFINE_TRANSPOSE(lanes, scalar)                                                                   \
    INLINE void scalar##_transpose_blocks(                                                                \
        const scalar *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t n, scalar *y, ptrdiff_t y_stride,  \
        ptrdiff_t block_rows, ptrdiff_t block_n)                                                          \
    {                                                                                                     \
        for (ptrdiff_t k = 0; k < rows; k += block_rows)                                                  \
            for (ptrdiff_t j = 0; j < n; j += block_n) {                                                  \
                ptrdiff_t row = k + block_rows <= rows ? k : rows - block_rows;                           \
                ptrdiff_t column = j + block_n <= n ? j : n - block_n;                                    \
                scalar##_transpose(                                                                       \
                    x + row * x_stride + column, x_stride, block_rows, block_n,                           \
                    y + column * y_stride + row, y_stride);                                               \
            }                                                                                             \
    }                                                                                                     \
    /* y[j][k] = x[k][j], for `rows` of n elements; strides are those of rows. */                         \
    INLINE void lanes##_transpose(                                                                        \
        const lanes *from, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t n, lanes *to, ptrdiff_t y_stride) \
    {                                                                                                     \
        enum { side = scalar##_side };                                                                    \
        const scalar *x = (const scalar *)from;                                                           \
        scalar *y = (scalar *)to;                                                                         \
        if (n == 1)                                                                                       \
            for (ptrdiff_t k = 0; k < rows; k++) y[k] = x[k * x_stride];                                  \
        else if (rows == 1)                                                                               \
            for (ptrdiff_t j = 0; j < n; j++) y[j * y_stride] = x[j];                                     \
        /* Blocks of a constant size, so that none need ask: rows of two and three are points and colours. */ \
        else if (rows >= side && n >= side)                                                               \
            scalar##_transpose_blocks(x, x_stride, rows, n, y, y_stride, side, side);                     \
        else if (rows >= side && n == 2)                                                                  \
            scalar##_transpose_blocks(x, x_stride, rows, n, y, y_stride, side, 2);                        \
        else if (rows >= side && n == 3)                                                                  \
            scalar##_transpose_blocks(x, x_stride, rows, n, y, y_stride, side, 3);                        \
        else if (rows == 2 && n >= side)                                                                  \
            scalar##_transpose_blocks(x, x_stride, rows, n, y, y_stride, 2, side);                        \
        else if (rows == 3 && n >= side)                                                                  \
            scalar##_transpose_blocks(x, x_stride, rows, n, y, y_stride, 3, side);                        \
        else                                                                                              \
            scalar##_transpose_blocks(                                                                    \
                x, x_stride, rows, n, y, y_stride, rows < side ? rows : side, n < side ? n : side);       \
    }

DEFINE_TRANSPOSE(lanes32, float)
DEFINE_TRANSPOSE(lanes64, double)

#endif
