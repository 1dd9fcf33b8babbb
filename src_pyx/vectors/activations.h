/* Activations, in place, for what is in cache. float32 has polynomials of its own, over bundles: no part of a bundle
 * waits for another, so the processor works on several at once. Every instruction set gives the same bits. float64
 * calls the C library.
 */
#ifndef FASTNORM_ACTIVATIONS_H
#define FASTNORM_ACTIVATIONS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors/lanes.h"

typedef void (*activation)(void *y, ptrdiff_t n);

/* 1.5 * 2^23: a number added to it is rounded to an integer, which the low bits hold. */
#define TO_INTEGER 12582912.0f

/* The larger, or the smaller, of a number and a bound; NaN stays. */
#if defined(__GNUC__) && defined(__AVX512F__)
INLINE float_part float_at_least(float_part a, float_part bound) {
    return (float_part)_mm512_max_ps((__m512)bound, (__m512)a);
}
INLINE float_part float_at_most(float_part a, float_part bound) {
    return (float_part)_mm512_min_ps((__m512)bound, (__m512)a);
}
#elif defined(__GNUC__) && defined(__AVX2__)
INLINE float_part float_at_least(float_part a, float_part bound) {
    return (float_part)_mm256_max_ps((__m256)bound, (__m256)a);
}
INLINE float_part float_at_most(float_part a, float_part bound) {
    return (float_part)_mm256_min_ps((__m256)bound, (__m256)a);
}
#elif defined(__GNUC__) && defined(__SSE2__)
INLINE float_part float_at_least(float_part a, float_part bound) {
    return (float_part)_mm_max_ps((__m128)bound, (__m128)a);
}
INLINE float_part float_at_most(float_part a, float_part bound) {
    return (float_part)_mm_min_ps((__m128)bound, (__m128)a);
}
#elif defined(__GNUC__)
INLINE float_part float_at_least(float_part a, float_part bound) { return CHOSEN(float_part, (bound > a), a, bound); }
INLINE float_part float_at_most(float_part a, float_part bound) { return CHOSEN(float_part, (bound < a), a, bound); }
#else
INLINE float float_at_least(float a, float bound) { return bound > a ? bound : a; }
INLINE float float_at_most(float a, float bound) { return bound < a ? bound : a; }
#endif

/* 2^k for the integer k in the low bits of k + TO_INTEGER; 0 for -127. */
INLINE float_part float_power_of_two(float_part shifted) {
#if defined(__GNUC__)
    return (float_part)(((__typeof__(shifted < shifted))shifted + 127) << 23);
#else
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    memcpy(&shifted, &bits, sizeof bits);
    return shifted;
#endif
}

#define EVERYWHERE(value) lanes32_splat(NULL, value)

INLINE lanes32 at_least(lanes32 a, float bound) {
    EACH_PART(lanes32_parts, a.part[k] = float_at_least(a.part[k], EVERYWHERE(bound).part[k]))
    return a;
}
INLINE lanes32 at_most(lanes32 a, float bound) {
    EACH_PART(lanes32_parts, a.part[k] = float_at_most(a.part[k], EVERYWHERE(bound).part[k]))
    return a;
}
INLINE lanes32 power_of_two(lanes32 shifted) {
    EACH_PART(lanes32_parts, shifted.part[k] = float_power_of_two(shifted.part[k]))
    return shifted;
}
INLINE lanes32 divide(lanes32 a, lanes32 b) {
    EACH_PART(lanes32_parts, a.part[k] = a.part[k] / b.part[k])
    return a;
}
INLINE lanes32 scaled(lanes32 a, float factor) { return lanes32_multiply(a, EVERYWHERE(factor)); }

/* Horner's rule; the first coefficient is that of the highest power. */
INLINE lanes32 polynomial(lanes32 x, const float *coefficients, int count) {
    lanes32 p = EVERYWHERE(coefficients[0]);
    UNROLL for (int i = 1; i < count; i++) p = lanes32_fused(p, x, EVERYWHERE(coefficients[i]));
    return p;
}

/* expm1(x) = 2^k * q + (2^k - 1) with x = k ln 2 + r and q = expm1(r): Cephes, expf. Returns q, writes 2^k. */
INLINE lanes32 expm1_parts(lanes32 x, lanes32 *power) {
    static const float coefficients[] = {
        1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f
    };
    x = at_most(at_least(x, -88.0f), 88.0f);
    lanes32 shifted = lanes32_fused(x, EVERYWHERE(1.44269504f), EVERYWHERE(TO_INTEGER));
    lanes32 k = lanes32_subtract(shifted, EVERYWHERE(TO_INTEGER));
    lanes32 r = lanes32_fused(k, EVERYWHERE(-0.69314718f), x);
    r = lanes32_fused(k, EVERYWHERE(1.90465430e-9f), r);
    *power = power_of_two(shifted);
    return lanes32_fused(lanes32_multiply(r, r), polynomial(r, coefficients, 6), r);
}

/* 0 where it would be below 2^-126.5, finite from 88 up. */
INLINE lanes32 exp_lanes(lanes32 x) {
    lanes32 power, q = expm1_parts(x, &power);
    return lanes32_fused(power, q, power);
}

INLINE lanes32 sigmoid_lanes(lanes32 x) {
    lanes32 e = exp_lanes(x);
    return divide(e, lanes32_add(e, EVERYWHERE(1.0f)));
}

INLINE lanes32 tanh_lanes(lanes32 x) {
    lanes32 power, q = expm1_parts(scaled(at_most(at_least(x, -10.0f), 10.0f), 2.0f), &power);
    lanes32 e = lanes32_fused(power, q, lanes32_subtract(power, EVERYWHERE(1.0f)));
    return divide(e, lanes32_add(e, EVERYWHERE(2.0f)));
}

/* Infinity times 0 is to be 0. */
#define LEAST_FACTOR (-200.0f)
#define AT_LEAST(x, bound) ((x) < (bound) ? (bound) : (x))

/* max(x, 0) - |x| times the tail of the normal distribution beyond |x|. That is half of erfc(z) = t exp(-z^2 + P(t))
 * for z = |x| / sqrt(2), t = 1 / (1 + z / 2), as in Numerical Recipes, section 6.2. Its error is relative. */
INLINE lanes32 gelu_lanes(lanes32 x) {
    static const float coefficients[] = {
        0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
        -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f
    };
    lanes32 one = EVERYWHERE(1.0f), size = lanes32_magnitude(x);
    lanes32 t = divide(one, lanes32_fused(size, EVERYWHERE(0.35355339f), one));
    lanes32 e = exp_lanes(lanes32_fused(scaled(size, -0.5f), size, polynomial(t, coefficients, 10)));
    lanes32 factor = scaled(at_most(size, -LEAST_FACTOR), -0.5f);
    return lanes32_fused(factor, lanes32_multiply(t, e), at_least(x, 0.0f));
}

INLINE lanes32 gelu_tanh_lanes(lanes32 x) {
    lanes32 cubic = lanes32_fused(scaled(lanes32_multiply(x, x), 0.044715f), x, x);
    return lanes32_multiply(at_least(x, LEAST_FACTOR), sigmoid_lanes(scaled(cubic, 1.5957691216057308f)));
}

INLINE lanes32 silu_lanes(lanes32 x) { return lanes32_multiply(at_least(x, LEAST_FACTOR), sigmoid_lanes(x)); }

INLINE lanes32 relu_lanes(lanes32 x) { return at_least(x, 0.0f); }

#define DEFINE_SINGLE(name)                                                                                 \
    static void name##_all_float(void *values, ptrdiff_t n) {                                              \
        lanes32 *y = (lanes32 *)values;                                                                    \
        ptrdiff_t rest = n % lanes32_count, whole = n - rest;                                              \
        for (ptrdiff_t i = 0; i < whole; i += lanes32_count) lanes32_store(y, i, name##_lanes(lanes32_load(y, i))); \
        if (rest) lanes32_store_partial(y, whole, rest, name##_lanes(lanes32_load_partial(y, whole, rest, 0.0))); \
    }

static inline double relu_double(double x) { return AT_LEAST(x, 0); }
static inline double sigmoid_double(double x) { return 1.0 / (1.0 + exp(-x)); }
static inline double tanh_double(double x) { return tanh(x); }
static inline double gelu_double(double x) { return AT_LEAST(x, -200) * (0.5 * erfc(x * -0.70710678118654752)); }
static inline double gelu_tanh_double(double x) {
    return AT_LEAST(x, -200) * sigmoid_double(1.5957691216057308 * (x + 0.044715 * (x * x * x)));
}
static inline double silu_double(double x) { return AT_LEAST(x, -800) * sigmoid_double(x); }

#define DEFINE_DOUBLE(name)                                                                                \
    static void name##_all_double(void *values, ptrdiff_t n) {                                             \
        double *y = (double *)values;                                                                      \
        for (ptrdiff_t i = 0; i < n; i++) y[i] = name##_double(y[i]);                                      \
    }

/* In the order of fastnorm/activations.py. */
#define EACH_ACTIVATION(step) step(relu) step(gelu) step(gelu_tanh) step(silu) step(sigmoid) step(tanh)
#define SINGLE_ENTRY(name) name##_all_float,
#define DOUBLE_ENTRY(name) name##_all_double,

EACH_ACTIVATION(DEFINE_SINGLE)
EACH_ACTIVATION(DEFINE_DOUBLE)
static const activation activations_float[] = {EACH_ACTIVATION(SINGLE_ENTRY)};
static const activation activations_double[] = {EACH_ACTIVATION(DOUBLE_ENTRY)};

/* A line as int8 and a scale: 127 is the largest magnitude. Magnitudes are compared as integers, which have their order
 * (NaN is the largest), since a compiler may not reorder the comparisons of floats. */
#define DEFINE_QUANTIZE(scalar, word, magic)                                                        \
    static void quantize_##scalar(const scalar *y, signed char *target, ptrdiff_t n, float *scale) { \
        word largest = 0, bits;                                                                     \
        for (ptrdiff_t i = 0; i < n; i++) {                                                         \
            memcpy(&bits, y + i, sizeof bits);                                                      \
            bits &= (word)-1 >> 1;                                                                  \
            largest = bits > largest ? bits : largest;                                              \
        }                                                                                           \
        scalar most;                                                                                \
        memcpy(&most, &largest, sizeof most);                                                       \
        scalar factor = most > 0 ? 127 / most : 0;                                                  \
        *scale = (float)(most / 127);                                                               \
        if (!(factor > 0 && factor < (scalar)INFINITY)) { /* not of numbers, all 0, or too small */ \
            memset(target, 0, n);                                                                   \
            return;                                                                                 \
        }                                                                                           \
        for (ptrdiff_t i = 0; i < n; i++) target[i] = (signed char)(int)((y[i] * factor + magic) - magic); \
    }

DEFINE_QUANTIZE(float, uint32_t, TO_INTEGER)
DEFINE_QUANTIZE(double, uint64_t, 6755399441055744.0)

#endif
