/* Activations, in place, for what is in cache. float32 has polynomials of its own, written so that a compiler can only
 * vectorise them: products and sums are rounded one by one, and every instruction set gives the same bits. float64 calls
 * the C library.
 */
#ifndef FASTNORM_ACTIVATIONS_H
#define FASTNORM_ACTIVATIONS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef void (*activation)(void *y, ptrdiff_t n);

/* 1.5 * 2^23: a number added to it is rounded to an integer, which the low bits hold. */
#define TO_INTEGER 12582912.0f

/* expm1(x) = 2^k * q + (2^k - 1) with x = k ln 2 + r and q = expm1(r): Cephes, expf. Returns q, writes 2^k. */
static inline float expm1_parts(float x, float *power) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + TO_INTEGER, k = shifted - TO_INTEGER;
    float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    memcpy(power, &bits, sizeof bits);
    return r + (r * r) * p;
}

static inline float sigmoid_float(float x) {
    float power, q = expm1_parts(-x, &power);
    float s = 1.0f / (1.0f + (power + power * q));
    return x < -87.0f ? 0.0f : s;
}

static inline float tanh_float(float x) {
    float power, size = x < 0.0f ? -x : x, q = expm1_parts(2.0f * size, &power);
    float e = power * q + (power - 1.0f), t = e / (e + 2.0f);
    t = size > 9.0f ? 1.0f : t;
    return x < 0.0f ? -t : t;
}

/* The distribution function of the normal distribution: half of erfc(z) = t exp(-z^2 + P(t)), t = 1 / (1 + z / 2), for
 * z = |x| / sqrt(2), as in Numerical Recipes, section 6.2. Its error is relative: nothing cancels in the tail. */
static inline float normal_float(float x) {
    float z = (x < 0.0f ? -x : x) * 0.70710678f, t = 1.0f / (1.0f + 0.5f * z);
    float p = 0.17087277f;
    p = p * t + -0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t + -1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t + -0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t + -1.26551223f;
    float power, q = expm1_parts(p - z * z, &power), tail = (0.5f * t) * (power + power * q);
    return x < 0.0f ? tail : 1.0f - tail;
}

static inline double sigmoid_double(double x) { return 1.0 / (1.0 + exp(-x)); }
static inline double tanh_double(double x) { return tanh(x); }
static inline double normal_double(double x) { return 0.5 * erfc(x * -0.70710678118654752); }

/* Minus infinity times a weight of 0 is to be 0. */
#define AT_LEAST(x, bound) ((x) < (bound) ? (bound) : (x))

#define DEFINE_ACTIVATION(name, scalar, formula)                                  \
    static void name##_all_##scalar(void *values, ptrdiff_t n) {                  \
        scalar *y = (scalar *)values;                                             \
        for (ptrdiff_t i = 0; i < n; i++) {                                       \
            scalar x = y[i];                                                      \
            y[i] = formula;                                                       \
        }                                                                         \
    }

#define DEFINE_ACTIVATIONS(scalar)                                                                         \
    DEFINE_ACTIVATION(relu, scalar, x < 0 ? (scalar)0 : x)                                                 \
    DEFINE_ACTIVATION(gelu, scalar, AT_LEAST(x, -200) * normal_##scalar(x)) \
    DEFINE_ACTIVATION(gelu_tanh, scalar,                                                                   \
        AT_LEAST(x, -200) * sigmoid_##scalar((scalar)1.5957691216057308 * (x + (scalar)0.044715 * (x * x * x))))           \
    DEFINE_ACTIVATION(silu, scalar, AT_LEAST(x, -800) * sigmoid_##scalar(x))                                               \
    DEFINE_ACTIVATION(sigmoid, scalar, sigmoid_##scalar(x))                                                \
    DEFINE_ACTIVATION(tanh, scalar, tanh_##scalar(x))                                                      \
    /* In the order of fastnorm/activations.py. */                                                         \
    static const activation activations_##scalar[] = {                                                     \
        relu_all_##scalar, gelu_all_##scalar, gelu_tanh_all_##scalar, silu_all_##scalar,                   \
        sigmoid_all_##scalar, tanh_all_##scalar                                                            \
    };

DEFINE_ACTIVATIONS(float)
DEFINE_ACTIVATIONS(double)

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
        for (ptrdiff_t i = 0; i < n; i++) target[i] = (signed char)(int)((y[i] * factor + magic) - magic); \
    }

DEFINE_QUANTIZE(float, uint32_t, TO_INTEGER)
DEFINE_QUANTIZE(double, uint64_t, 6755399441055744.0)

#endif
