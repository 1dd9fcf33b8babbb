/* Powers of float64 numbers, for results in float32: exp(exponent * log(base)) by the textbook's series, in loops that
 * compilers make vectors of. No step is fused, so every instruction set gives the same bits; the relative error is a few
 * units of 2^-53 for an exponent around 1, and grows with the exponent's product with the logarithm.
 */
#ifndef FASTNORM_POWERS_H
#define FASTNORM_POWERS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LN_2 0.693147180559945309417
#define LN_2_HIGH 0x1.62e42fefap-1      /* 36 bits: products with exponents are exact */
#define LN_2_LOW 0x1.cf79abc9e3b3ap-40
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define TWO_TO_52 4503599627370496.0    /* or'd into its low bits, an integer becomes a number */
#define TO_WHOLE 6755399441055744.0     /* 1.5 * 2^52: a number added to it is rounded to an integer, in the low bits */
#define LARGEST_LOG 700.0               /* its exponential is neither infinite nor subnormal */

static inline uint64_t bits_of(double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static inline double number_of(uint64_t bits) {
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* c[0] + c[1] x + ... + c[7] x^7, by pairs: less waits for less than in Horner's rule. */
static inline double of_eight(const double *c, double x, double square) {
    double low = (c[0] + c[1] * x) + (c[2] + c[3] * x) * square, high = (c[4] + c[5] * x) + (c[6] + c[7] * x) * square;
    return low + high * (square * square);
}

/* Whether a base is normal and positive, and the logarithm of its power far from the ends of the range. */
static inline int is_ordinary(double base, double logarithm) {
    return (base >= DBL_MIN) & (base <= DBL_MAX) & (fabs(logarithm) <= LARGEST_LOG);
}

enum { POWERS = 64 };   /* at a time */

/* powers = bases^exponent, of up to POWERS numbers: log(2^k m) = k ln 2 + 2 artanh(s), s = (m - 1) / (m + 1), m between
 * the roots of 1/2 and 2; exp(k ln 2 + r) = 2^k exp(r). What is not ordinary (0, negative, infinite, NaN, far out) is
 * the C library's. In several loops: in one, numbers would wait for all steps of those before. */
static inline void raise_all(const double *restrict bases, double *restrict powers, ptrdiff_t count, double exponent) {
    static const double log_series[] = {1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17};
    static const double low[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040};
    static const double high[] = {  /* the reciprocals of 8!, 9!, ... */
        1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800, 1.0 / 87178291200,
        1.0 / 1307674368000
    };
    const uint64_t root_of_half = bits_of(0.70710678118654752440), bias = (uint64_t)EXPONENT_BIAS << MANTISSA_BITS;
    double whole[POWERS], rest[POWERS];     /* k, and s; then 2^k, and r */
    uint64_t strange = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        uint64_t bits = bits_of(bases[i]), biased = (bits + (bias - root_of_half)) >> MANTISSA_BITS;
        double m = number_of(bits + bias - (biased << MANTISSA_BITS));
        whole[i] = number_of(biased | bits_of(TWO_TO_52)) - (TWO_TO_52 + EXPONENT_BIAS);
        rest[i] = (m - 1.0) / (m + 1.0);
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        double s = rest[i], square = s * s;
        powers[i] = exponent * (whole[i] * LN_2 + 2.0 * (s + s * square * of_eight(log_series, square, square * square)));
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        double shifted = powers[i] * (1.0 / LN_2) + TO_WHOLE, k = shifted - TO_WHOLE;
        strange += !is_ordinary(bases[i], powers[i]);
        rest[i] = (powers[i] - k * LN_2_HIGH) - k * LN_2_LOW;
        whole[i] = number_of((bits_of(shifted) + EXPONENT_BIAS) << MANTISSA_BITS);
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        double r = rest[i], square = r * r, fourth = square * square;
        powers[i] = whole[i] * (of_eight(low, r, square) + of_eight(high, r, square) * (fourth * fourth));
    }
    for (ptrdiff_t i = 0; strange && i < count; i++)
        if (!is_ordinary(bases[i], exponent * log(bases[i]))) powers[i] = pow(bases[i], exponent);
}

#endif
