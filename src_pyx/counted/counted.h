/* Sums over elements that count unequally, and gradients through them, in float64, column by column: row i, column j of
 * x counts w[i * w_stride + j], or with `shared` w[i * w_stride] in every column. What counts 0 may be NaN: it is taken
 * for the centre. Every column is added up by itself, so no order is left to a compiler, and no product is fused.
 */
#ifndef FASTNORM_COUNTED_H
#define FASTNORM_COUNTED_H

#include <stddef.h>

#include "vectors/lanes.h"

#define DEFINE_COUNTED(lanes, scalar)                                                                     \
    /* sums += w * d, d = x - centre, and squares += w * d * d or, without these, totals += w. */          \
    INLINE void scalar##_counted_sums(                                                                    \
        const scalar *restrict x, ptrdiff_t x_stride, const double *restrict w, ptrdiff_t w_stride, int shared, \
        ptrdiff_t rows, ptrdiff_t columns, const double *restrict centre, double *restrict totals,        \
        double *restrict sums, double *restrict squares, int squared)                                     \
    {                                                                                                     \
        for (; rows > 0; rows--, x += x_stride, w += w_stride)                                            \
            for (ptrdiff_t j = 0; j < columns; j++) {                                                     \
                double count = shared ? w[0] : w[j], d = (double)x[j] - centre[j];                        \
                d = count == 0.0 ? 0.0 : d;                                                               \
                if (!squared) totals[j] += count;                                                         \
                sums[j] += count * d;                                                                     \
                if (squared) squares[j] += count * d * d;                                                 \
            }                                                                                             \
    }                                                                                                     \
    static void lanes##_counted_sums(                                                                     \
        const lanes *x, ptrdiff_t x_stride, const double *w, ptrdiff_t w_stride, int shared, ptrdiff_t rows, \
        ptrdiff_t columns, const double *centre, double *totals, double *sums, double *squares)           \
    {                                                                                                     \
        const scalar *p = (const scalar *)x;                                                              \
        if (squares && shared)                                                                            \
            scalar##_counted_sums(p, x_stride, w, w_stride, 1, rows, columns, centre, totals, sums, squares, 1); \
        else if (squares)                                                                                 \
            scalar##_counted_sums(p, x_stride, w, w_stride, 0, rows, columns, centre, totals, sums, squares, 1); \
        else if (shared)                                                                                  \
            scalar##_counted_sums(p, x_stride, w, w_stride, 1, rows, columns, centre, totals, sums, squares, 0); \
        else                                                                                              \
            scalar##_counted_sums(p, x_stride, w, w_stride, 0, rows, columns, centre, totals, sums, squares, 0); \
    }                                                                                                     \
    /* sums += dy and products += dy * (x - mean); x is passed over where it counts 0 and dy is 0. */       \
    INLINE void scalar##_counted_dots(                                                                    \
        const scalar *restrict x, const scalar *restrict dy, ptrdiff_t x_stride, const double *restrict w,\
        ptrdiff_t w_stride, int shared, ptrdiff_t rows, ptrdiff_t columns, const double *restrict mean,   \
        double *restrict sums, double *restrict products)                                                 \
    {                                                                                                     \
        for (; rows > 0; rows--, x += x_stride, dy += x_stride, w += w_stride)                            \
            for (ptrdiff_t j = 0; j < columns; j++) {                                                     \
                double count = shared ? w[0] : w[j], g = dy[j], d = (double)x[j] - mean[j];               \
                d = count + fabs(g) == 0.0 ? 0.0 : d;                                                     \
                sums[j] += g;                                                                             \
                products[j] += g * d;                                                                     \
            }                                                                                             \
    }                                                                                                     \
    static void lanes##_counted_dots(                                                                     \
        const lanes *x, const lanes *dy, ptrdiff_t x_stride, const double *w, ptrdiff_t w_stride, int shared,\
        ptrdiff_t rows, ptrdiff_t columns, const double *mean, double *sums, double *products)            \
    {                                                                                                     \
        const scalar *p = (const scalar *)x, *q = (const scalar *)dy;                                     \
        if (shared)                                                                                       \
            scalar##_counted_dots(p, q, x_stride, w, w_stride, 1, rows, columns, mean, sums, products);        \
        else                                                                                              \
            scalar##_counted_dots(p, q, x_stride, w, w_stride, 0, rows, columns, mean, sums, products);        \
    }                                                                                                     \
    /* dx = rstd * (scale * dy - w * (a + (x - mean) * rstd * b)). */                                     \
    INLINE void scalar##_counted_grad(                                                                    \
        const scalar *restrict x, const scalar *restrict dy, scalar *restrict dx, ptrdiff_t x_stride,     \
        const double *restrict w, ptrdiff_t w_stride, int shared, ptrdiff_t rows, ptrdiff_t columns,      \
        const double *restrict mean, const double *restrict rstd, const double *restrict scale,           \
        const double *restrict a, const double *restrict b)                                               \
    {                                                                                                     \
        for (; rows > 0; rows--, x += x_stride, dy += x_stride, dx += x_stride, w += w_stride)            \
            for (ptrdiff_t j = 0; j < columns; j++) {                                                     \
                double count = shared ? w[0] : w[j], d = ((double)x[j] - mean[j]) * rstd[j];              \
                double through = count * (a[j] + d * b[j]);                                               \
                through = count == 0.0 ? 0.0 : through;                                                   \
                dx[j] = (scalar)(rstd[j] * (scale[j] * dy[j] - through));                                 \
            }                                                                                             \
    }                                                                                                     \
    static void lanes##_counted_grad(                                                                     \
        const lanes *x, const lanes *dy, lanes *dx, ptrdiff_t x_stride, const double *w, ptrdiff_t w_stride,\
        int shared, ptrdiff_t rows, ptrdiff_t columns, const double *mean, const double *rstd,            \
        const double *scale, const double *a, const double *b)                                            \
    {                                                                                                     \
        const scalar *p = (const scalar *)x, *q = (const scalar *)dy;                                     \
        scalar *r = (scalar *)dx;                                                                         \
        if (shared)                                                                                       \
            scalar##_counted_grad(p, q, r, x_stride, w, w_stride, 1, rows, columns, mean, rstd, scale, a, b);\
        else                                                                                              \
            scalar##_counted_grad(p, q, r, x_stride, w, w_stride, 0, rows, columns, mean, rstd, scale, a, b);\
    }

DEFINE_COUNTED(lanes32, float)
DEFINE_COUNTED(lanes64, double)

#endif
