/* The narrow types: rounding to float16 for arithmetic that is done in float32 (for +, -, * and / that gives the same
 * bits), and conversion of whole runs, by F16C where the instruction set has it. */
#ifndef FASTNORM_HALF_H
#define FASTNORM_HALF_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__F16C__)
#  include <immintrin.h>
#endif

/* x rounded to the nearest float16, ties to even. */
static inline float half_rounded(float x)
{
    uint32_t bits, magnitude;
    memcpy(&bits, &x, sizeof bits);
    magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) /* infinite or NaN */
        return x;
    if (magnitude < 0x38800000u) /* below 2^-14: multiples of 2^-24, which float32 counts in above 0.5 */
        return copysignf((fabsf(x) + 0.5f) - 0.5f, x);
    magnitude = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & ~0x1fffu; /* 13 bits fewer */
    if (magnitude >= 0x47800000u) /* from 65,520 on rounded to 65,536 */
        magnitude = 0x7f800000u;
    bits = (bits & 0x80000000u) | magnitude;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* The float of a float16's bits. */
static inline float half_widened(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13, sign = (uint32_t)(half & 0x8000u) << 16;
    float x;
    if (magnitude >= 0x7c00u << 13) { /* infinite or NaN */
        magnitude |= 0x7f800000u;
        memcpy(&x, &magnitude, sizeof x);
    } else { /* the exponent is 112 off; the product is exact, subnormals included */
        memcpy(&x, &magnitude, sizeof x);
        x *= 0x1p112f;
    }
    return copysignf(x, sign ? -1.0f : 1.0f);
}

/* The bits of the nearest float16, ties to even. */
static inline uint16_t half_narrowed(float x)
{
    uint32_t bits, rounded;
    float value = half_rounded(x);
    memcpy(&bits, &x, sizeof bits);
    bits = bits >> 16 & 0x8000u;
    if (value != value)
        return (uint16_t)(bits | 0x7e00u);
    if (fabsf(value) > 65504.0f)
        return (uint16_t)(bits | 0x7c00u);
    value = fabsf(value) * 0x1p-112f;
    memcpy(&rounded, &value, sizeof rounded);
    return (uint16_t)(bits | rounded >> 13);
}

static inline void halves_to_floats(const uint16_t *source, float *target, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(target + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(source + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(target + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(source + i))));
#endif
    for (; i < n; i++) target[i] = half_widened(source[i]);
}

static inline void floats_to_halves(const float *source, uint16_t *target, ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(target + i), _mm512_cvtps_ph(_mm512_loadu_ps(source + i), 0));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(target + i), _mm256_cvtps_ph(_mm256_loadu_ps(source + i), 0));
#endif
    for (; i < n; i++) target[i] = half_narrowed(source[i]);
}

/* bfloat16 is the upper half of a float32. */
static inline void bfloats_to_floats(const uint16_t *source, float *target, ptrdiff_t n)
{
    uint32_t *bits = (uint32_t *)(void *)target;
    for (ptrdiff_t i = 0; i < n; i++) bits[i] = (uint32_t)source[i] << 16;
}

static inline void floats_to_bfloats(const float *source, uint16_t *target, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, source + i, sizeof bits);
        /* To nearest, ties to even; a NaN stays one. */
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        target[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u | (bits >> 16 & 0x8000u) : rounded);
    }
}

static inline void bytes_to_floats(const uint8_t *source, float *target, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) target[i] = (float)source[i];
}

#endif
