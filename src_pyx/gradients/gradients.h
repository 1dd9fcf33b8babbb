/* Sums of gradients down columns, in float64: element by element, so no order is left to a compiler. A few rows
 * at a time, for the sums that wait in memory to be read and written once for all of them; not more, since rows whose
 * length is a power of two share their place in L1 (with 8 at a time, 4096x1024 took half as long again). And a few
 * columns of them at a time, in registers: GCC, left to itself, widens whole vectors by halves, which AVX2 pays for
 * with shuffles (a fifth to a third of the time).
 */
#ifndef FASTNORM_GRADIENTS_H
#define FASTNORM_GRADIENTS_H

#include <stddef.h>

#include "vectors/lanes.h"

enum {
    GRADIENT_ROWS = 4,
    GRADIENT_COLUMNS = 8,
    GRADIENT_WIDTH = sizeof(double_part) / sizeof(double),
    GRADIENT_PARTS = GRADIENT_COLUMNS / GRADIENT_WIDTH
};

/* Adjacent elements, as many as a part has of float64. */
INLINE double_part double_widened(const double *p) {
    double_part a;
    memcpy(&a, p, sizeof a);
    return a;
}
#if defined(__GNUC__) && defined(__AVX512F__)
INLINE double_part float_widened(const float *p) { return (double_part)_mm512_cvtps_pd(_mm256_loadu_ps(p)); }
#elif defined(__GNUC__) && defined(__AVX2__)
INLINE double_part float_widened(const float *p) { return (double_part)_mm256_cvtps_pd(_mm_loadu_ps(p)); }
#elif defined(__GNUC__)
INLINE double_part float_widened(const float *p) { return (double_part){p[0], p[1]}; }
#else
INLINE double_part float_widened(const float *p) { return *p; }
#endif

/* sums += dy, and products += dy * factor * (x - centre), of up to GRADIENT_ROWS rows. `by_row` these are the row's,
 * rstd[i] and mean[i]; otherwise the centre is the column's, and there is no factor. Inlined for each case, so that no
 * loop asks. */
#define DEFINE_GRADIENT_SUMS(lanes, scalar)                                                               \
    INLINE void scalar##_gradient_rows(                                                                   \
        const scalar *x, ptrdiff_t x_stride, const scalar *dy, ptrdiff_t dy_stride, int rows, ptrdiff_t n, \
        int by_row, const double *mean, const double *rstd, double *restrict products, double *restrict sums) \
    {                                                                                                     \
        enum { parts = GRADIENT_PARTS, width = GRADIENT_WIDTH };                                          \
        double_part sum[parts], product[parts], centre[parts], g, d;                                      \
        ptrdiff_t k = 0;                                                                                  \
        for (; k + GRADIENT_COLUMNS <= n; k += GRADIENT_COLUMNS) {                                        \
            UNROLL for (int j = 0; j < parts; j++) {                                                      \
                sum[j] = double_widened(sums + k + j * width);                                            \
                product[j] = double_widened(products + k + j * width);                                    \
                if (!by_row) centre[j] = double_widened(mean + k + j * width);                              \
            }                                                                                             \
            UNROLL for (int i = 0; i < rows; i++)                                                         \
                UNROLL for (int j = 0; j < parts; j++) {                                                  \
                    g = scalar##_widened(dy + i * dy_stride + k + j * width);                             \
                    d = scalar##_widened(x + i * x_stride + k + j * width);                               \
                    sum[j] += g;                                                                          \
                    d = by_row ? d - mean[i] : d - centre[j];                                               \
                    product[j] = double_fused(by_row ? g * rstd[i] : g, d, product[j]);                     \
                }                                                                                         \
            UNROLL for (int j = 0; j < parts; j++) {                                                      \
                memcpy(sums + k + j * width, &sum[j], sizeof sum[j]);                                     \
                memcpy(products + k + j * width, &product[j], sizeof product[j]);                         \
            }                                                                                             \
        }                                                                                                 \
        for (; k < n; k++)                                                                                \
            for (ptrdiff_t i = 0; i < rows; i++) {                                                        \
                double one_g = dy[i * dy_stride + k], one_d = (double)x[i * x_stride + k] - mean[by_row ? i : k]; \
                sums[k] += one_g;                                                                         \
                products[k] = fma(by_row ? one_g * rstd[i] : one_g, one_d, products[k]);                    \
            }                                                                                             \
    }                                                                                                     \
    INLINE void scalar##_gradient_sums(                                                                   \
        const scalar *x, ptrdiff_t x_stride, const scalar *dy, ptrdiff_t dy_stride, ptrdiff_t rows, ptrdiff_t n, \
        int by_row, const double *mean, const double *rstd, double *products, double *sums)               \
    {                                                                                                     \
        for (; rows >= GRADIENT_ROWS; rows -= GRADIENT_ROWS) {                                            \
            scalar##_gradient_rows(x, x_stride, dy, dy_stride, GRADIENT_ROWS, n, by_row, mean, rstd, products, sums); \
            x += GRADIENT_ROWS * x_stride, dy += GRADIENT_ROWS * dy_stride;                               \
            if (by_row) mean += GRADIENT_ROWS, rstd += GRADIENT_ROWS;                                     \
        }                                                                                                 \
        if (rows > 0)                                                                                     \
            scalar##_gradient_rows(x, x_stride, dy, dy_stride, (int)rows, n, by_row, mean, rstd, products, sums); \
    }                                                                                                     \
    /* For the parameters of positions: of dy * xhat, of rows that have statistics each. */               \
    static void lanes##_position_sums(                                                                    \
        const lanes *x, ptrdiff_t x_stride, const lanes *dy, ptrdiff_t dy_stride, ptrdiff_t rows, ptrdiff_t n, \
        const double *mean, const double *rstd, double *products, double *sums)                           \
    {                                                                                                     \
        scalar##_gradient_sums(                                                                           \
            (const scalar *)x, x_stride, (const scalar *)dy, dy_stride, rows, n, 1, mean, rstd, products, sums); \
    }                                                                                                     \
    /* Of dy * (x - mean), of columns that have a mean each. */                                           \
    static void lanes##_column_dots(                                                                      \
        const lanes *x, ptrdiff_t x_stride, const lanes *dy, ptrdiff_t dy_stride, ptrdiff_t rows, ptrdiff_t n, \
        const double *mean, double *products, double *sums)                                               \
    {                                                                                                     \
        scalar##_gradient_sums(                                                                           \
            (const scalar *)x, x_stride, (const scalar *)dy, dy_stride, rows, n, 0, mean, NULL, products, sums); \
    }

DEFINE_GRADIENT_SUMS(lanes32, float)
DEFINE_GRADIENT_SUMS(lanes64, double)

#endif
