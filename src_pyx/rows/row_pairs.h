/* A step of two rows at once: the result of a bundle of one, and the sums over a bundle of the next. Part by part, so
 * that everything on the way is in registers, of which AVX2 has 16 and a bundle fills four.
 */
#ifndef FASTNORM_ROW_PAIRS_H
#define FASTNORM_ROW_PAIRS_H

#include "vectors/lanes.h"

/* Bundles of x, y, weight and bias (of `weights` 1 the first, of 0 none), `centre` to `shift` the coefficients; of
 * another row, `ahead`, whose deviations from `middle` are added to `sums`, for a variance, and their squares to
 * `squares`. What goes past the caches is written at once: lines of which a part is written, then others read, leave in
 * pieces. */
#define DEFINE_ROW_PAIRS(lanes, scalar)                                                                   \
    INLINE void lanes##_step_of_pair(                                                                     \
        const lanes *x, lanes *y, const lanes *weight, const lanes *bias, int weights, lanes centre, lanes scale, \
        lanes scale_rest, lanes shift, int streamed, const lanes *ahead, lanes middle, int variance, lanes *sums, \
        lanes *squares)                                                                                   \
    {                                                                                                     \
        lanes result;                                                                                     \
        EACH_PART(lanes##_parts, {                                                                        \
            scalar##_part d;                                                                              \
            scalar##_part v;                                                                              \
            scalar##_part w = {0};                                                                        \
            scalar##_part b = {0};                                                                        \
            memcpy(&d, (const scalar *)ahead + k * lanes##_width, sizeof d);                              \
            d = d - middle.part[0];                                                                       \
            if (variance) sums->part[k] = sums->part[k] + d;                                              \
            squares->part[k] = scalar##_fused(d, d, squares->part[k]);                                    \
            memcpy(&v, (const scalar *)x + k * lanes##_width, sizeof v);                                  \
            v = v - centre.part[0];                                                                       \
            v = scalar##_fused(v, scale.part[0], scalar##_fused(v, scale_rest.part[0], shift.part[0]));   \
            if (weights > 0) memcpy(&w, (const scalar *)weight + k * lanes##_width, sizeof w);            \
            if (weights > 1) memcpy(&b, (const scalar *)bias + k * lanes##_width, sizeof b);              \
            if (weights > 0) v = scalar##_fused(v, w, b);                                                 \
            result.part[k] = v;                                                                           \
            if (!streamed) memcpy((scalar *)y + k * lanes##_width, &v, sizeof v);                         \
        })                                                                                                \
        if (streamed) lanes##_stream(y, 0, result);                                                       \
    }

/* The same backward: dx of a bundle from dy, x and the coefficients `centre` to `shift`; of another row g = weight *
 * dy, for `sums`, and g * (x - middle), for `products`. */
#define DEFINE_GRADIENT_PAIRS(lanes, scalar)                                                              \
    INLINE void lanes##_gradient_step_of_pair(                                                            \
        const lanes *x, const lanes *dy, lanes *dx, const lanes *weight, int weighted, lanes centre, lanes scale, \
        lanes slope, lanes shift, int streamed, const lanes *ahead, const lanes *ahead_dy, lanes middle, lanes *sums, \
        lanes *products)                                                                                  \
    {                                                                                                     \
        lanes result;                                                                                     \
        EACH_PART(lanes##_parts, {                                                                        \
            scalar##_part w = {0};                                                                        \
            scalar##_part g;                                                                              \
            scalar##_part d;                                                                              \
            if (weighted) memcpy(&w, (const scalar *)weight + k * lanes##_width, sizeof w);               \
            memcpy(&g, (const scalar *)ahead_dy + k * lanes##_width, sizeof g);                           \
            memcpy(&d, (const scalar *)ahead + k * lanes##_width, sizeof d);                              \
            if (weighted) g = g * w;                                                                      \
            sums->part[k] = sums->part[k] + g;                                                            \
            products->part[k] = scalar##_fused(g, d - middle.part[0], products->part[k]);                 \
            memcpy(&g, (const scalar *)dy + k * lanes##_width, sizeof g);                                 \
            memcpy(&d, (const scalar *)x + k * lanes##_width, sizeof d);                                  \
            if (weighted) g = g * w;                                                                      \
            d = scalar##_fused(d - centre.part[0], slope.part[0], shift.part[0]);                         \
            g = scalar##_fused(g, scale.part[0], d);                                                      \
            result.part[k] = g;                                                                           \
            if (!streamed) memcpy((scalar *)dx + k * lanes##_width, &g, sizeof g);                        \
        })                                                                                                \
        if (streamed) lanes##_stream(dx, 0, result);                                                      \
    }

DEFINE_ROW_PAIRS(lanes32, float)
DEFINE_ROW_PAIRS(lanes64, double)
DEFINE_GRADIENT_PAIRS(lanes32, float)
DEFINE_GRADIENT_PAIRS(lanes64, double)

#endif
