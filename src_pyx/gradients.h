/* Sums of gradients down columns, in float64: element by element, so no order is left to a compiler. A few rows
 * at a time, for the sums that wait in memory to be read and written once for all of them; not more, since rows whose
 * length is a power of two share their place in L1 (with 8 at a time, 4096x1024 took half as long again). */
#ifndef FASTNORM_GRADIENTS_H
#define FASTNORM_GRADIENTS_H

#include <stddef.h>

#include "lanes.h"

enum { GRADIENT_ROWS = 4 };

#define ROWS_IN_ORDER(rows) rows(0) rows(1) rows(2) rows(3)

#define POSITION(i)                                                                                       \
    g = dy[i * dy_stride + k];                                                                            \
    sum += g;                                                                                             \
    product = fma(g * rstd[r + i], (double)x[i * x_stride + k] - mean[r + i], product);
#define COLUMN(i)                                                                                         \
    g = dy[i * dy_stride + k];                                                                            \
    sum += g;                                                                                             \
    product = fma(g, (double)x[i * x_stride + k] - centre, product);

#define DEFINE_GRADIENT_SUMS(lanes, scalar)                                                               \
    /* Rows, each with its statistics: sums += dy, products += dy * xhat, for the parameters of positions. */ \
    static void lanes##_position_sums(                                                                    \
        const lanes *base_x, ptrdiff_t x_stride, const lanes *base_dy, ptrdiff_t dy_stride, ptrdiff_t rows, ptrdiff_t n, \
        const double *mean, const double *rstd, double *restrict products, double *restrict sums)         \
    {                                                                                                     \
        const scalar *restrict x = (const scalar *)base_x, *restrict dy = (const scalar *)base_dy;        \
        ptrdiff_t r = 0;                                                                                  \
        for (; r + GRADIENT_ROWS <= rows; r += GRADIENT_ROWS, x += GRADIENT_ROWS * x_stride, dy += GRADIENT_ROWS * dy_stride) \
            for (ptrdiff_t k = 0; k < n; k++) {                                                           \
                double sum = sums[k], product = products[k], g;                                           \
                ROWS_IN_ORDER(POSITION)                                                           \
                sums[k] = sum, products[k] = product;                                                     \
            }                                                                                             \
        for (; r < rows; r++, x += x_stride, dy += dy_stride)                                             \
            for (ptrdiff_t k = 0; k < n; k++) {                                                           \
                double g = dy[k];                                                                         \
                sums[k] += g;                                                                             \
                products[k] = fma(g * rstd[r], (double)x[k] - mean[r], products[k]);                                  \
            }                                                                                             \
    }                                                                                                     \
    /* Columns, each with its mean: sums += dy, products += dy * (x - mean). */                           \
    static void lanes##_column_dots(                                                                      \
        const lanes *base_x, ptrdiff_t x_stride, const lanes *base_dy, ptrdiff_t dy_stride, ptrdiff_t rows, ptrdiff_t n, \
        const double *restrict mean, double *restrict products, double *restrict sums)                    \
    {                                                                                                     \
        const scalar *restrict x = (const scalar *)base_x, *restrict dy = (const scalar *)base_dy;        \
        ptrdiff_t r = 0;                                                                                  \
        for (; r + GRADIENT_ROWS <= rows; r += GRADIENT_ROWS, x += GRADIENT_ROWS * x_stride, dy += GRADIENT_ROWS * dy_stride) \
            for (ptrdiff_t k = 0; k < n; k++) {                                                           \
                double sum = sums[k], product = products[k], centre = mean[k], g;                         \
                ROWS_IN_ORDER(COLUMN)                                                             \
                sums[k] = sum, products[k] = product;                                                     \
            }                                                                                             \
        for (; r < rows; r++, x += x_stride, dy += dy_stride)                                             \
            for (ptrdiff_t k = 0; k < n; k++) {                                                           \
                double g = dy[k];                                                                         \
                sums[k] += g;                                                                             \
                products[k] = fma(g, (double)x[k] - mean[k], products[k]);                                              \
            }                                                                                             \
    }

DEFINE_GRADIENT_SUMS(lanes32, float)
DEFINE_GRADIENT_SUMS(lanes64, double)

#endif
