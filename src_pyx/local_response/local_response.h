/* Local response normalization of some positions of an item, all channels of each, in float64:
 *
 *     y = x * base^-beta,  base = k + slope * (the squares of x, added over the channels around)
 *
 * and its gradient dx = dy * base^-beta - 2 * slope * beta * x * (dy * x * base^(-beta - 1), added over the channels in
 * whose neighbourhood x is). An item is (channels, positions), so a neighbour is `positions` elements further. No product
 * is fused: whatever the instruction set, the bits are the same.
 */
#ifndef FASTNORM_LOCAL_RESPONSE_H
#define FASTNORM_LOCAL_RESPONSE_H

#include <stddef.h>

#include "local_response/powers.h"
#include "vectors/lanes.h"

typedef struct {
    ptrdiff_t before, after;    /* channels on either side */
    double slope, beta, k;
} Neighbourhood;

/* Which positions of an item are worked on. Their numbers lie on the desk as (channels, width). */
typedef struct {
    ptrdiff_t channels, positions, first, width;
} Positions;

/* Where run number r of adjacent elements begins in the item, how long it is and how many there are: one if all positions
 * are worked on, otherwise one for each channel. */
static inline int all_positions(const Positions *p) { return p->width == p->positions; }
static inline ptrdiff_t runs_of(const Positions *p) { return all_positions(p) ? 1 : p->channels; }
static inline ptrdiff_t run_length(const Positions *p) { return all_positions(p) ? p->channels * p->width : p->width; }
static inline ptrdiff_t run_start(const Positions *p, ptrdiff_t r) { return r * p->positions + p->first; }

/* sums[i] = the terms of elements i + shift * step, shift from -before to after, as far as these exist. */
#define DEFINE_NEIGHBOUR_SUMS(name, scalar, term)                                                         \
    static void name(const scalar *values, ptrdiff_t i, ptrdiff_t count, ptrdiff_t elements, ptrdiff_t step, \
                     ptrdiff_t before, ptrdiff_t after, double *restrict sums) {                          \
        memset(sums, 0, count * sizeof *sums);                                                            \
        for (ptrdiff_t shift = -before; shift <= after; shift++) {                                        \
            ptrdiff_t from = i + shift * step, rest = elements - from;                                    \
            for (ptrdiff_t j = from < 0 ? -from : 0; j < (rest < count ? rest : count); j++) {            \
                double value = values[from + j];                                                          \
                sums[j] += term;                                                                          \
            }                                                                                             \
        }                                                                                                 \
    }

DEFINE_NEIGHBOUR_SUMS(float_square_sums, float, value * value)
DEFINE_NEIGHBOUR_SUMS(double_square_sums, double, value * value)
DEFINE_NEIGHBOUR_SUMS(product_sums, double, value)

/* Float32 takes the series; float64 needs all that the C library has. */
static inline void float_raise(const double *bases, double *powers, ptrdiff_t count, double exponent) {
    raise_all(bases, powers, count, exponent);
}
static inline void double_raise(const double *bases, double *powers, ptrdiff_t count, double exponent) {
    for (ptrdiff_t i = 0; i < count; i++) powers[i] = pow(bases[i], exponent);
}

#define EACH_BLOCK(i, n, length) \
    for (ptrdiff_t i = 0, n; n = length - i < POWERS ? length - i : POWERS, i < length; i += POWERS)

#define DEFINE_LOCAL_RESPONSE(lanes, scalar)                                                              \
    static void scalar##_bases(const scalar *x, ptrdiff_t i, ptrdiff_t count, const Positions *p,         \
                               const Neighbourhood *near, double *restrict bases) {                       \
        scalar##_square_sums(x, i, count, p->channels * p->positions, p->positions, near->before, near->after, bases); \
        for (ptrdiff_t j = 0; j < count; j++) bases[j] = near->k + near->slope * bases[j];                \
    }                                                                                                     \
    /* x and y are those of the item, and rstd, if it is wanted. y may be x: it is written last. */       \
    static void lanes##_local_response(const lanes *item, lanes *result, double *rstd, const Positions *p,\
                                       const Neighbourhood *near, double *desk) {                         \
        const scalar *x = (const scalar *)item;                                                           \
        scalar *y = (scalar *)result;                                                                     \
        double bases[POWERS];                                                                             \
        ptrdiff_t length = run_length(p);                                                                 \
        for (ptrdiff_t r = 0; r < runs_of(p); r++)                                                        \
            EACH_BLOCK(i, n, length) {                                                                    \
                scalar##_bases(x, run_start(p, r) + i, n, p, near, bases);                                \
                scalar##_raise(bases, desk + r * length + i, n, -near->beta);                             \
            }                                                                                             \
        for (ptrdiff_t r = 0; r < runs_of(p); r++) {                                                      \
            ptrdiff_t start = run_start(p, r);                                                            \
            if (rstd) memcpy(rstd + start, desk + r * length, length * sizeof *rstd);                     \
            for (ptrdiff_t i = 0; i < length; i++) y[start + i] = (scalar)(x[start + i] * desk[r * length + i]); \
        }                                                                                                 \
    }                                                                                                     \
    /* `rstd`, if it is given, is base^-beta. The desk has room for two numbers of each element. */        \
    static void lanes##_local_response_grad(const lanes *item, const lanes *upstream, lanes *gradient,    \
                                            const double *rstd, const Positions *p, const Neighbourhood *near, \
                                            double *desk) {                                               \
        const scalar *x = (const scalar *)item, *dy = (const scalar *)upstream;                           \
        scalar *dx = (scalar *)gradient;                                                                  \
        double bases[POWERS], sums[POWERS], factor = 2.0 * near->slope * near->beta;                      \
        ptrdiff_t length = run_length(p), elements = p->channels * p->width;                              \
        double *scaled = desk, *products = desk + elements;                                               \
        for (ptrdiff_t r = 0; r < runs_of(p); r++)                                                        \
            EACH_BLOCK(i, n, length) {                                                                    \
                ptrdiff_t place = run_start(p, r) + i;                                                    \
                double *direct = scaled + r * length + i, *product = products + r * length + i;           \
                scalar##_bases(x, place, n, p, near, bases);                                              \
                if (rstd) memcpy(direct, rstd + place, n * sizeof *direct);                               \
                else scalar##_raise(bases, direct, n, -near->beta);                                       \
                for (ptrdiff_t j = 0; j < n; j++) {                                                       \
                    direct[j] = dy[place + j] * direct[j];                                                \
                    product[j] = direct[j] * x[place + j] / bases[j];                                     \
                }                                                                                         \
            }                                                                                             \
        for (ptrdiff_t r = 0; r < runs_of(p); r++)                                                        \
            EACH_BLOCK(i, n, length) {                                                                    \
                ptrdiff_t place = run_start(p, r) + i;                                                    \
                product_sums(products, r * length + i, n, elements, p->width, near->after, near->before, sums); \
                for (ptrdiff_t j = 0; j < n; j++)                                                         \
                    dx[place + j] = (scalar)(scaled[r * length + i + j] - factor * x[place + j] * sums[j]); \
            }                                                                                             \
    }

DEFINE_LOCAL_RESPONSE(lanes32, float)
DEFINE_LOCAL_RESPONSE(lanes64, double)

#endif
