/* Two rows by the coefficients of their columns, which are read once for both; `x_stride` and its like are elements
 * from one to the other. Part by part, so that these coefficients are in registers, of which AVX2 has 16.
 */
#ifndef FASTNORM_TWO_ROWS_H
#define FASTNORM_TWO_ROWS_H

#include "vectors/lanes.h"

/* Part k of a bundle of coefficients. */
#define COEFFICIENT(scalar, name, bundle) scalar##_part name = (bundle)->part[k]; IN_REGISTER(name)

#define DEFINE_TWO_ROWS(lanes, scalar)                                                                    \
    /* y = (x - centre) * scale + shift. */                                                               \
    INLINE void scalar##_apply_part(                                                                      \
        const scalar *x, scalar *y, scalar##_part centre, scalar##_part scale, scalar##_part scale_rest,  \
        scalar##_part shift)                                                                              \
    {                                                                                                     \
        scalar##_part v;                                                                                  \
        memcpy(&v, x, sizeof v);                                                                          \
        v = v - centre;                                                                                   \
        v = scalar##_fused(v, scale, scalar##_fused(v, scale_rest, shift));                               \
        memcpy(y, &v, sizeof v);                                                                          \
    }                                                                                                     \
    INLINE void lanes##_apply_to_two(                                                                     \
        const lanes *x, ptrdiff_t x_stride, lanes *y, ptrdiff_t y_stride, const lanes *centre, const lanes *scale, \
        const lanes *scale_rest, const lanes *shift)                                                      \
    {                                                                                                     \
        EACH_PART(lanes##_parts, {                                                                        \
            COEFFICIENT(scalar, c, centre);                                                               \
            COEFFICIENT(scalar, s, scale);                                                                \
            COEFFICIENT(scalar, r, scale_rest);                                                           \
            COEFFICIENT(scalar, t, shift);                                                                \
            const scalar *from = (const scalar *)x + k * lanes##_width;                                   \
            scalar *to = (scalar *)y + k * lanes##_width;                                                 \
            scalar##_apply_part(from, to, c, s, r, t);                                                    \
            scalar##_apply_part(from + x_stride, to + y_stride, c, s, r, t);                              \
        })                                                                                                \
    }                                                                                                     \
    /* dx = scale * dy + slope * (x - centre) + shift. */                                                 \
    INLINE void scalar##_slope_part(                                                                      \
        const scalar *x, const scalar *dy, scalar *dx, scalar##_part centre, scalar##_part scale,         \
        scalar##_part slope, scalar##_part shift)                                                         \
    {                                                                                                     \
        scalar##_part d, g;                                                                               \
        memcpy(&d, x, sizeof d);                                                                          \
        memcpy(&g, dy, sizeof g);                                                                         \
        d = d - centre;                                                                                   \
        d = scalar##_fused(g, scale, scalar##_fused(d, slope, shift));                                    \
        memcpy(dx, &d, sizeof d);                                                                         \
    }                                                                                                     \
    INLINE void lanes##_slope_to_two(                                                                     \
        const lanes *x, ptrdiff_t x_stride, const lanes *dy, ptrdiff_t dy_stride, lanes *dx, ptrdiff_t dx_stride, \
        const lanes *centre, const lanes *scale, const lanes *slope, const lanes *shift)                  \
    {                                                                                                     \
        EACH_PART(lanes##_parts, {                                                                        \
            COEFFICIENT(scalar, c, centre);                                                               \
            COEFFICIENT(scalar, s, scale);                                                                \
            COEFFICIENT(scalar, r, slope);                                                                \
            COEFFICIENT(scalar, t, shift);                                                                \
            const scalar *from = (const scalar *)x + k * lanes##_width;                                   \
            const scalar *upstream = (const scalar *)dy + k * lanes##_width;                              \
            scalar *to = (scalar *)dx + k * lanes##_width;                                                \
            scalar##_slope_part(from, upstream, to, c, s, r, t);                                          \
            scalar##_slope_part(from + x_stride, upstream + dy_stride, to + dx_stride, c, s, r, t);       \
        })                                                                                                \
    }

DEFINE_TWO_ROWS(lanes32, float)
DEFINE_TWO_ROWS(lanes64, double)

#endif
