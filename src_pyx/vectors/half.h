/* The narrow types: rounding to float16 for arithmetic that is done in float32 (for +, -, * and / that gives the same
 * bits), and conversion of whole runs, by F16C where the instruction set has it. */
#ifndef FASTNORM_HALF_H
#define FASTNORM_HALF_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors/lanes.h"
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

/* The bits of the nearest bfloat16, the upper half of a float32, ties to even; a NaN stays one. */
static inline uint16_t bfloat_narrowed(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(0x7fc0u | (bits >> 16 & 0x8000u));
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float bfloat_widened(uint16_t bfloat)
{
    uint32_t bits = (uint32_t)bfloat << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Parts of 16-bit floats. */
#if defined(__GNUC__) && defined(__AVX512F__)
INLINE float_part half_part(const uint16_t *p) {
    return (float_part)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE void half_store_part(uint16_t *p, float_part v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, 0));
}
INLINE float_part bfloat_part(const uint16_t *p) {
    return (float_part)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
INLINE void bfloat_store_part(uint16_t *p, float_part v) {
    __m512i bits = (__m512i)v, upper = _mm512_srli_epi32(bits, 16);
    __m512i even = _mm512_add_epi32(_mm512_and_si512(upper, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, even), 16);
    __m512i nan = _mm512_or_si512(_mm512_and_si512(upper, _mm512_set1_epi32(0x8000)), _mm512_set1_epi32(0x7fc0));
    __mmask16 is_nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, is_nan, nan)));
}
#elif defined(__GNUC__) && defined(__AVX2__) && defined(__F16C__)
INLINE float_part half_part(const uint16_t *p) {
    return (float_part)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE void half_store_part(uint16_t *p, float_part v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, 0));
}
INLINE float_part bfloat_part(const uint16_t *p) {
    return (float_part)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
INLINE __m256i bfloat_bits(float_part v) {
    __m256i bits = (__m256i)v, odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
#  define BFLOAT_BUNDLES
#else
#  define DEFINE_PART(kind)                                                                               \
    INLINE float_part kind##_part(const uint16_t *p) {                                                    \
        float x[lanes32_width];                                                                           \
        float_part v;                                                                                     \
        for (int i = 0; i < lanes32_width; i++) x[i] = kind##_widened(p[i]);                              \
        memcpy(&v, x, sizeof v);                                                                          \
        return v;                                                                                         \
    }                                                                                                     \
    INLINE void kind##_store_part(uint16_t *p, float_part v) {                                            \
        float x[lanes32_width];                                                                           \
        memcpy(x, &v, sizeof v);                                                                          \
        for (int i = 0; i < lanes32_width; i++) p[i] = kind##_narrowed(x[i]);                             \
    }
DEFINE_PART(half)
DEFINE_PART(bfloat)
#endif

/* Whole bundles. */
#define DEFINE_LOAD(kind)                                                                                 \
    INLINE lanes32 kind##_load(const uint16_t *p) {                                                       \
        lanes32 a;                                                                                        \
        EACH_PART(lanes32_parts, a.part[k] = kind##_part(p + k * lanes32_width))                          \
        return a;                                                                                         \
    }
#define DEFINE_STORE(kind)                                                                                \
    INLINE void kind##_store(uint16_t *p, lanes32 a) {                                                    \
        EACH_PART(lanes32_parts, kind##_store_part(p + k * lanes32_width, a.part[k]))                     \
    }
DEFINE_LOAD(half)
DEFINE_LOAD(bfloat)
DEFINE_STORE(half)
#if defined(BFLOAT_BUNDLES)
/* NaN is looked for once in a bundle: to round it right costs as much as all else, and it is rare. */
INLINE void bfloat_store(uint16_t *p, lanes32 a) {
    __m256 first = _mm256_cmp_ps((__m256)a.part[0], (__m256)a.part[1], _CMP_UNORD_Q);
    __m256 second = _mm256_cmp_ps((__m256)a.part[2], (__m256)a.part[3], _CMP_UNORD_Q);
    if (__builtin_expect(_mm256_movemask_ps(_mm256_or_ps(first, second)), 0)) {
        float x[lanes32_count];
        memcpy(x, &a, sizeof x);
        for (int i = 0; i < lanes32_count; i++) p[i] = bfloat_narrowed(x[i]);
        return;
    }
    /* Packed, the quarters of two parts alternate. */
    __m256i low = _mm256_packus_epi32(bfloat_bits(a.part[0]), bfloat_bits(a.part[1]));
    __m256i high = _mm256_packus_epi32(bfloat_bits(a.part[2]), bfloat_bits(a.part[3]));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(low, 0xd8));
    _mm256_storeu_si256((__m256i *)(p + 16), _mm256_permute4x64_epi64(high, 0xd8));
}
#else
DEFINE_STORE(bfloat)
#endif

/* A bundle, of which the first `count` elements are in memory (the others are 0), and whole runs. */
#define DEFINE_NARROW(kind)                                                                               \
    INLINE lanes32 kind##_load_some(const uint16_t *p, ptrdiff_t count) {                                 \
        uint16_t some[lanes32_count] = {0};                                                               \
        for (ptrdiff_t i = 0; i < count; i++) some[i] = p[i];                                             \
        return kind##_load(some);                                                                         \
    }                                                                                                     \
    INLINE void kind##_store_some(uint16_t *p, ptrdiff_t count, lanes32 a) {                              \
        uint16_t some[lanes32_count];                                                                     \
        kind##_store(some, a);                                                                            \
        for (ptrdiff_t i = 0; i < count; i++) p[i] = some[i];                                             \
    }                                                                                                     \
    INLINE lanes32 lanes32_from_##kind(const uint16_t *p, ptrdiff_t count) {                              \
        return count < lanes32_count ? kind##_load_some(p, count) : kind##_load(p);                       \
    }                                                                                                     \
    INLINE void lanes32_to_##kind(uint16_t *p, ptrdiff_t count, lanes32 a) {                              \
        if (count < lanes32_count) kind##_store_some(p, count, a);                                        \
        else kind##_store(p, a);                                                                          \
    }                                                                                                     \
    static inline void kind##_to_floats(const uint16_t *source, float *target, ptrdiff_t n) {             \
        ptrdiff_t i = 0;                                                                                  \
        for (; i + lanes32_count <= n; i += lanes32_count)                                                \
            lanes32_store((lanes32 *)target, i, kind##_load(source + i));                                 \
        for (; i < n; i++) target[i] = kind##_widened(source[i]);                                         \
    }                                                                                                     \
    static inline void floats_to_##kind(const float *source, uint16_t *target, ptrdiff_t n) {             \
        ptrdiff_t i = 0;                                                                                  \
        for (; i + lanes32_count <= n; i += lanes32_count)                                                \
            kind##_store(target + i, lanes32_load((const lanes32 *)source, i));                           \
        for (; i < n; i++) target[i] = kind##_narrowed(source[i]);                                        \
    }
DEFINE_NARROW(half)
DEFINE_NARROW(bfloat)

/* Where lines of 16-bit floats lie while they are normalised. Not on the stack: 256 KiB are all that some threads have.
 */
#if defined(_MSC_VER)
#  define THREAD_LOCAL __declspec(thread)
#else
#  define THREAD_LOCAL _Thread_local
#endif
enum { DESK = 65536 };

/* It begins at a cache line: a vector's load that crosses two costs twice. */
static inline float *desk_of_thread(void) {
    static THREAD_LOCAL float memory[DESK + CACHE_LINE_BYTES / sizeof(float)];
    return (float *)(((uintptr_t)memory + CACHE_LINE_BYTES - 1) & ~(uintptr_t)(CACHE_LINE_BYTES - 1));
}

static inline void bytes_to_floats(const uint8_t *source, float *target, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) target[i] = (float)source[i];
}

#endif
