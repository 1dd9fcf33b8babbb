/* The unit in which every sum of the library is defined: a bundle of 128 bytes, 32 float or 16 double "lanes".
 *
 * Element i of a block goes to lane i % LANES; each lane adds up runs of 8 bundles (rows/rows.pxi; columns trees of 8
 * rows, columns/sums.h), then the runs in order; then the lanes are folded by halves: lane j takes lane j + 16, then
 * j + 8, 4, 2, 1.  Every variant of the kernels (SSE2, AVX2, AVX-512, and the
 * Numba kernels, which use LLVM's <32 x float>) keeps this order. A product and a sum are one rounding where the
 * source says `fused` and two where it does not, and the compiler may not choose, so all of them give the same bits.
 * (The base variant makes `fused` of float from double, and calls the C library for that of double: right on every
 * processor, and slow.)
 *
 * GCC lowers a vector that is wider than the instruction set badly, so a bundle is an array of native vectors.
 * A compiler without vector extensions gets an array of scalars: the same lanes, slower.
 */
#ifndef FASTNORM_LANES_H
#define FASTNORM_LANES_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#define BUNDLE_BYTES 128
#define CACHE_LINE_BYTES 64

#if defined(__GNUC__)
#  if defined(__AVX512F__)
#    define VECTOR_BYTES 64
#  elif defined(__AVX2__)
#    define VECTOR_BYTES 32
#  else
#    define VECTOR_BYTES 16
#  endif
#  define VECTOR(scalar) __attribute__((vector_size(VECTOR_BYTES))) scalar
#  define PREFETCH(address) __builtin_prefetch(address)
#  define UNROLL _Pragma("GCC unroll 32")
#  define INLINE static inline __attribute__((always_inline))
/* Has a vector stay in a register where GCC would rather read it from memory at each use. */
#  if defined(__AVX512F__)
#    define IN_REGISTER(vector) __asm__("" : "+v"(vector))
#  elif defined(__SSE2__)
#    define IN_REGISTER(vector) __asm__("" : "+x"(vector))
#  else
#    define IN_REGISTER(vector) (void)(vector)
#  endif
/* A statement for each part k. Written out, since only constant indices let a bundle live in registers. */
#  define AT(index, statement) { enum { k = index }; statement; }
#  define AT2(index, statement) AT(index, statement) AT(index + 1, statement)
#  define AT4(index, statement) AT2(index, statement) AT2(index + 2, statement)
#  if VECTOR_BYTES == 64
#    define EACH_PART(parts, statement) AT2(0, statement)
#  elif VECTOR_BYTES == 32
#    define EACH_PART(parts, statement) AT4(0, statement)
#  else
#    define EACH_PART(parts, statement) AT4(0, statement) AT4(4, statement)
#  endif
#  if VECTOR_BYTES == 64
#    define FOLD_QUARTERS(q) (((q)[0] + (q)[2]) + ((q)[1] + (q)[3]))
#  elif VECTOR_BYTES == 32
#    define FOLD_QUARTERS(q) ((q)[0] + (q)[1])
#  else
#    define FOLD_QUARTERS(q) ((q)[0])
#  endif
#else
#  define VECTOR(scalar) scalar
#  define PREFETCH(address) (void)(address)
#  define UNROLL
#  define INLINE static inline
#  define IN_REGISTER(vector) (void)(vector)
#  define EACH_PART(parts, statement) for (int k = 0; k < parts; k++) { statement; }
#endif

typedef VECTOR(float) float_part;
typedef VECTOR(double) double_part;

#define float_fma fmaf
#define double_fma fma

/* The lanes of a part in memory, folded: of one part, and of several (4 floats or 2 doubles fill a vector) side by
 * side. */
#if defined(__GNUC__)
typedef float float_quarter __attribute__((vector_size(16), aligned(8), may_alias));
typedef double double_quarter __attribute__((vector_size(16), aligned(8), may_alias));
typedef double double_four __attribute__((vector_size(32), aligned(8), may_alias));
enum { float_folded = 4, double_folded = 2 };

INLINE float_quarter float_quarters(const float *part) {
    const float_quarter *q = (const float_quarter *)part;
    return FOLD_QUARTERS(q);
}
INLINE double_quarter double_quarters(const double *part) {
    const double_quarter *q = (const double_quarter *)part;
    return FOLD_QUARTERS(q);
}
INLINE float float_fold(const float *part) {
    float_quarter q = float_quarters(part);
    return (q[0] + q[2]) + (q[1] + q[3]);
}
INLINE double double_fold(const double *part) {
    double_quarter q = double_quarters(part);
    return q[0] + q[1];
}
INLINE void float_fold_several(const float *parts, double *totals) {
    enum { width = sizeof(float_part) / sizeof(float) };
    float_quarter a = float_quarters(parts), b = float_quarters(parts + width);
    float_quarter c = float_quarters(parts + 2 * width), d = float_quarters(parts + 3 * width);
    float_quarter ab = (float_quarter){a[0], b[0], a[1], b[1]} + (float_quarter){a[2], b[2], a[3], b[3]};
    float_quarter cd = (float_quarter){c[0], d[0], c[1], d[1]} + (float_quarter){c[2], d[2], c[3], d[3]};
    float_quarter all = (float_quarter){ab[0], ab[1], cd[0], cd[1]} + (float_quarter){ab[2], ab[3], cd[2], cd[3]};
    *(double_four *)totals = __builtin_convertvector(all, double_four);
}
INLINE void double_fold_several(const double *parts, double *totals) {
    enum { width = sizeof(double_part) / sizeof(double) };
    double_quarter a = double_quarters(parts), b = double_quarters(parts + width);
    double_quarter all = (double_quarter){a[0], b[0]} + (double_quarter){a[1], b[1]};
    for (int k = 0; k < double_folded; k++) totals[k] = all[k];
}
#else
enum { float_folded = 1, double_folded = 1 };
INLINE float float_fold(const float *part) { return *part; }
INLINE double double_fold(const double *part) { return *part; }
INLINE void float_fold_several(const float *parts, double *totals) { *totals = (double)*parts; }
INLINE void double_fold_several(const double *parts, double *totals) { *totals = *parts; }
#endif

/* The first n elements of a part, n from below 0 to beyond its width; the others are those of `rest`, or stay. */
#if defined(__GNUC__) && defined(__AVX512F__)
#  include <immintrin.h>
INLINE unsigned first_bits(ptrdiff_t n, int width) {
    return n >= width ? (1u << width) - 1 : n > 0 ? (1u << n) - 1 : 0;
}
INLINE float_part float_load_some(const float *p, ptrdiff_t n, float_part rest) {
    return (float_part)_mm512_mask_loadu_ps((__m512)rest, (__mmask16)first_bits(n, 16), p);
}
INLINE double_part double_load_some(const double *p, ptrdiff_t n, double_part rest) {
    return (double_part)_mm512_mask_loadu_pd((__m512d)rest, (__mmask8)first_bits(n, 8), p);
}
INLINE void float_store_some(float *p, ptrdiff_t n, float_part v) {
    _mm512_mask_storeu_ps(p, (__mmask16)first_bits(n, 16), (__m512)v);
}
INLINE void double_store_some(double *p, ptrdiff_t n, double_part v) {
    _mm512_mask_storeu_pd(p, (__mmask8)first_bits(n, 8), (__m512d)v);
}
INLINE float_part float_fused(float_part a, float_part b, float_part c) {
    return (float_part)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE double_part double_fused(double_part a, double_part b, double_part c) {
    return (double_part)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__GNUC__) && defined(__AVX2__)
#  include <immintrin.h>
/* All bits of the first n of 8 (or 4) elements: a window on ones followed by zeros. */
INLINE __m256i first_elements(ptrdiff_t n, int width) {
    static const int ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    ptrdiff_t words = (n >= width ? width : n > 0 ? n : 0) * (8 / width);
    return _mm256_loadu_si256((const __m256i *)(ones_then_zeros + 8 - words));
}
INLINE float_part float_load_some(const float *p, ptrdiff_t n, float_part rest) {
    if (n >= 8) return (float_part)_mm256_loadu_ps(p);
    if (n <= 0) return rest;
    __m256i mask = first_elements(n, 8);
    return (float_part)_mm256_blendv_ps((__m256)rest, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}
INLINE double_part double_load_some(const double *p, ptrdiff_t n, double_part rest) {
    if (n >= 4) return (double_part)_mm256_loadu_pd(p);
    if (n <= 0) return rest;
    __m256i mask = first_elements(n, 4);
    return (double_part)_mm256_blendv_pd((__m256d)rest, _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
}
/* By halves: a masked store is forty operations on AMD's processors before Zen 5. */
INLINE void float_store_some(float *p, ptrdiff_t n, float_part v) {
    __m128 half = _mm256_castps256_ps128((__m256)v);
    if (n >= 8) {
        _mm256_storeu_ps(p, (__m256)v);
        return;
    }
    if (n <= 0) return;
    if (n & 4) {
        _mm_storeu_ps(p, half);
        p += 4;
        half = _mm256_extractf128_ps((__m256)v, 1);
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, half);
        p += 2;
        half = _mm_movehl_ps(half, half);
    }
    if (n & 1) _mm_store_ss(p, half);
}
INLINE void double_store_some(double *p, ptrdiff_t n, double_part v) {
    __m128d half = _mm256_castpd256_pd128((__m256d)v);
    if (n >= 4) {
        _mm256_storeu_pd(p, (__m256d)v);
        return;
    }
    if (n <= 0) return;
    if (n & 2) {
        _mm_storeu_pd(p, half);
        p += 2;
        half = _mm256_extractf128_pd((__m256d)v, 1);
    }
    if (n & 1) _mm_store_sd(p, half);
}
INLINE float_part float_fused(float_part a, float_part b, float_part c) {
    return (float_part)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INLINE double_part double_fused(double_part a, double_part b, double_part c) {
    return (double_part)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
/* A part in which some elements exist and some do not is called for: inline it would be most of this variant. */
#  if defined(__GNUC__)
#    define OUT_OF_LINE static __attribute__((noinline))
#  else
#    define OUT_OF_LINE static
#  endif
#  define DEFINE_SOME(scalar)                                                                             \
    OUT_OF_LINE scalar##_part scalar##_load_few(const scalar *p, ptrdiff_t n, scalar##_part rest) {       \
        scalar buffer[sizeof rest / sizeof(scalar)];                                                      \
        memcpy(buffer, &rest, sizeof rest);                                                               \
        for (ptrdiff_t k = 0; k < n; k++) buffer[k] = p[k];                                               \
        memcpy(&rest, buffer, sizeof rest);                                                               \
        return rest;                                                                                      \
    }                                                                                                     \
    OUT_OF_LINE void scalar##_store_few(scalar *p, ptrdiff_t n, scalar##_part v) {                        \
        scalar buffer[sizeof v / sizeof(scalar)];                                                         \
        memcpy(buffer, &v, sizeof v);                                                                     \
        for (ptrdiff_t k = 0; k < n; k++) p[k] = buffer[k];                                               \
    }                                                                                                     \
    INLINE scalar##_part scalar##_load_some(const scalar *p, ptrdiff_t n, scalar##_part rest) {           \
        if (n >= (ptrdiff_t)(sizeof rest / sizeof(scalar))) memcpy(&rest, p, sizeof rest);                \
        else if (n > 0) rest = scalar##_load_few(p, n, rest);                                             \
        return rest;                                                                                      \
    }                                                                                                     \
    INLINE void scalar##_store_some(scalar *p, ptrdiff_t n, scalar##_part v) {                            \
        if (n >= (ptrdiff_t)(sizeof v / sizeof(scalar))) memcpy(p, &v, sizeof v);                         \
        else if (n > 0) scalar##_store_few(p, n, v);                                                      \
    }
#  define DEFINE_FUSED(scalar)                                                                            \
    INLINE scalar##_part scalar##_fused(scalar##_part a, scalar##_part b, scalar##_part c) {              \
        scalar x[sizeof a / sizeof(scalar)], y[sizeof a / sizeof(scalar)], z[sizeof a / sizeof(scalar)];  \
        memcpy(x, &a, sizeof a); memcpy(y, &b, sizeof a); memcpy(z, &c, sizeof a);                        \
        for (size_t k = 0; k < sizeof a / sizeof(scalar); k++) z[k] = scalar##_fma(x[k], y[k], z[k]);     \
        memcpy(&c, z, sizeof a);                                                                          \
        return c;                                                                                         \
    }
DEFINE_SOME(float)
DEFINE_SOME(double)
DEFINE_FUSED(double)
#  if defined(__GNUC__) && defined(__SSE2__)
#    include <emmintrin.h>
/* The product is exact in double; the sum is rounded to odd there (towards 0, and the last bit set if anything was
 * lost), so that the rounding to float that follows is the only one that shows (Boldo and Melquiond, 2008). */
INLINE __m128d rounded_to_odd(__m128d product, __m128d c) {
    __m128d sum = _mm_add_pd(product, c), part = _mm_sub_pd(sum, product);
    __m128d lost = _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, part)), _mm_sub_pd(c, part));
    __m128i bits = _mm_castpd_si128(sum), zero = _mm_setzero_si128();
    __m128i inexact = _mm_castpd_si128(_mm_or_pd(
        _mm_cmplt_pd(lost, _mm_castsi128_pd(zero)), _mm_cmpgt_pd(lost, _mm_castsi128_pd(zero))));
    __m128i away = _mm_srli_epi64(_mm_and_si128(inexact, _mm_xor_si128(bits, _mm_castpd_si128(lost))), 63);
    return _mm_castsi128_pd(_mm_or_si128(_mm_sub_epi64(bits, away), _mm_srli_epi64(inexact, 63)));
}
OUT_OF_LINE float_part float_fused(float_part a, float_part b, float_part c) {
    __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
    __m128d low = rounded_to_odd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
    x = _mm_movehl_ps(x, x), y = _mm_movehl_ps(y, y), z = _mm_movehl_ps(z, z);
    __m128d high = rounded_to_odd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
    return (float_part)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#  else
DEFINE_FUSED(float)
#  endif
#endif

/* Without the sign, which is what -0 has: of a call for each lane GCC does not always make vectors. */
#if defined(__GNUC__)
#  define DEFINE_MAGNITUDE(scalar)                                                                        \
    INLINE scalar##_part scalar##_magnitude(scalar##_part a) {                                            \
        scalar##_part sign = -(scalar##_part){0};                                                         \
        return (scalar##_part)((__typeof__(a < a))a & ~(__typeof__(a < a))sign);                          \
    }
#else
#  define DEFINE_MAGNITUDE(scalar)                                                                        \
    INLINE scalar scalar##_magnitude(scalar a) { return (scalar)fabs(a); }
#endif
DEFINE_MAGNITUDE(float)
DEFINE_MAGNITUDE(double)

/* The smaller and the larger of two; NaN, once met in `b`, stays (as in numpy.min). Written out: of a choice
 * for each lane GCC 12 makes vectors for float alone. */
#if defined(__GNUC__) && defined(__AVX512F__)
#  define DEFINE_EXTREMES(scalar, suffix, vector)                                                         \
    INLINE scalar##_part scalar##_smaller(scalar##_part a, scalar##_part b) {                             \
        return (scalar##_part)_mm512_mask_mov_##suffix(                                                   \
            _mm512_min_##suffix((vector)b, (vector)a),                                                    \
            _mm512_cmp_##suffix##_mask((vector)b, (vector)b, _CMP_UNORD_Q), (vector)b);                   \
    }                                                                                                     \
    INLINE scalar##_part scalar##_larger(scalar##_part a, scalar##_part b) {                              \
        return (scalar##_part)_mm512_mask_mov_##suffix(                                                   \
            _mm512_max_##suffix((vector)b, (vector)a),                                                    \
            _mm512_cmp_##suffix##_mask((vector)b, (vector)b, _CMP_UNORD_Q), (vector)b);                   \
    }
#elif defined(__GNUC__) && defined(__AVX2__)
#  define DEFINE_EXTREMES(scalar, suffix, vector)                                                         \
    INLINE scalar##_part scalar##_smaller(scalar##_part a, scalar##_part b) {                             \
        return (scalar##_part)_mm256_blendv_##suffix(                                                     \
            _mm256_min_##suffix((vector)b, (vector)a), (vector)b,                                         \
            _mm256_cmp_##suffix((vector)b, (vector)b, _CMP_UNORD_Q));                                     \
    }                                                                                                     \
    INLINE scalar##_part scalar##_larger(scalar##_part a, scalar##_part b) {                              \
        return (scalar##_part)_mm256_blendv_##suffix(                                                     \
            _mm256_max_##suffix((vector)b, (vector)a), (vector)b,                                         \
            _mm256_cmp_##suffix((vector)b, (vector)b, _CMP_UNORD_Q));                                     \
    }
#elif defined(__GNUC__)
#  define CHOSEN(part, taken, a, b) ((part)((taken & (__typeof__(taken))b) | (~taken & (__typeof__(taken))a)))
#  define DEFINE_EXTREMES(scalar, suffix, vector)                                                         \
    INLINE scalar##_part scalar##_smaller(scalar##_part a, scalar##_part b) {                             \
        __typeof__(b < a) taken = (b < a) | (b != b);                                                     \
        return CHOSEN(scalar##_part, taken, a, b);                                                        \
    }                                                                                                     \
    INLINE scalar##_part scalar##_larger(scalar##_part a, scalar##_part b) {                              \
        __typeof__(b > a) taken = (b > a) | (b != b);                                                     \
        return CHOSEN(scalar##_part, taken, a, b);                                                        \
    }
#else
#  define DEFINE_EXTREMES(scalar, suffix, vector)                                                         \
    INLINE scalar scalar##_smaller(scalar a, scalar b) { return (b < a) | (b != b) ? b : a; }             \
    INLINE scalar scalar##_larger(scalar a, scalar b) { return (b > a) | (b != b) ? b : a; }
#endif
#if defined(__AVX512F__)
DEFINE_EXTREMES(float, ps, __m512)
DEFINE_EXTREMES(double, pd, __m512d)
#else
DEFINE_EXTREMES(float, ps, __m256)
DEFINE_EXTREMES(double, pd, __m256d)
#endif

/* Stores that go past the caches, into addresses that are multiples of a part's size; FENCE before others may read. */
#if defined(__GNUC__) && defined(__AVX512F__)
INLINE void float_stream(float *p, float_part v) { _mm512_stream_ps(p, (__m512)v); }
INLINE void double_stream(double *p, double_part v) { _mm512_stream_pd(p, (__m512d)v); }
#  define FENCE() _mm_sfence()
#elif defined(__GNUC__) && defined(__AVX2__)
INLINE void float_stream(float *p, float_part v) { _mm256_stream_ps(p, (__m256)v); }
INLINE void double_stream(double *p, double_part v) { _mm256_stream_pd(p, (__m256d)v); }
#  define FENCE() _mm_sfence()
#elif defined(__GNUC__) && defined(__SSE2__)
#  include <emmintrin.h>
INLINE void float_stream(float *p, float_part v) { _mm_stream_ps(p, (__m128)v); }
INLINE void double_stream(double *p, double_part v) { _mm_stream_pd(p, (__m128d)v); }
#  define FENCE() _mm_sfence()
#else
INLINE void float_stream(float *p, float_part v) { memcpy(p, &v, sizeof v); }
INLINE void double_stream(double *p, double_part v) { memcpy(p, &v, sizeof v); }
#  define FENCE() (void)0
#endif

/* Whether loops ask for memory ahead. Where the processor does that well itself, asking only takes the place of loads:
 * on AMD's Zen 4 calls take 4 % less without, up to 20 %; on Intel (Sapphire Rapids) up to twice as long, and on Zen 3
 * 2 % more, up to 70 (rows of 64). */
static int prefetching = 1;
/* 1: yes; 0: no; -1: by the processor. */
INLINE void choose_prefetching(int choice) {
    prefetching = choice != 0;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    if (choice < 0) prefetching = !__builtin_cpu_is("amd") || __builtin_cpu_is("znver3");
#endif
}

/* A hint that the cache line at an address, any address, will be needed. */
INLINE void prefetch_line(const void *address) {
    if (prefetching) PREFETCH(address);
}

/* One definition for both types: `lanes` is the bundle's name, `scalar` what it holds. */
#define DEFINE_LANES(lanes, scalar)                                                                       \
    enum {                                                                                                \
        lanes##_parts = BUNDLE_BYTES / sizeof(scalar##_part),                                              \
        lanes##_width = sizeof(scalar##_part) / sizeof(scalar),                                            \
        lanes##_count = BUNDLE_BYTES / sizeof(scalar)                                                     \
    };                                                                                                    \
    typedef struct { scalar##_part part[lanes##_parts]; } lanes;                                           \
                                                                                                          \
    INLINE lanes lanes##_load(const lanes *base, ptrdiff_t i) {                                           \
        lanes a;                                                                                          \
        const scalar *p = (const scalar *)base + i;                                                       \
        EACH_PART(lanes##_parts, memcpy(&a.part[k], p + k * lanes##_width, sizeof a.part[k]))             \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE void lanes##_store(lanes *base, ptrdiff_t i, lanes a) {                                        \
        scalar *p = (scalar *)base + i;                                                                   \
        EACH_PART(lanes##_parts, memcpy(p + k * lanes##_width, &a.part[k], sizeof a.part[k]))             \
    }                                                                                                     \
    /* How many elements there are before the first that `stream` may begin at. */                        \
    INLINE ptrdiff_t lanes##_before_aligned(const lanes *base) {                                          \
        return (ptrdiff_t)(-(size_t)base % sizeof(scalar##_part) / sizeof(scalar));                       \
    }                                                                                                     \
    INLINE void lanes##_stream(lanes *base, ptrdiff_t i, lanes a) {                                        \
        scalar *p = (scalar *)base + i;                                                                   \
        EACH_PART(lanes##_parts, scalar##_stream(p + k * lanes##_width, a.part[k]))                        \
    }                                                                                                     \
    INLINE lanes lanes##_splat(const lanes *like, double value) {                                         \
        lanes a;                                                                                          \
        (void)like;                                                                                       \
        EACH_PART(lanes##_parts, a.part[k] = (scalar)value - (scalar##_part){0})     \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE lanes lanes##_load_partial(const lanes *base, ptrdiff_t i, ptrdiff_t count, double fill) {     \
        const scalar *p = (const scalar *)base + i;                                                       \
        lanes a = lanes##_splat(base, fill);                                                              \
        EACH_PART(lanes##_parts,                                                                          \
                  a.part[k] = scalar##_load_some(p + k * lanes##_width, count - k * lanes##_width, a.part[k])) \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE void lanes##_store_partial(lanes *base, ptrdiff_t i, ptrdiff_t count, lanes a) {               \
        scalar *p = (scalar *)base + i;                                                                   \
        EACH_PART(lanes##_parts,                                                                          \
                  scalar##_store_some(p + k * lanes##_width, count - k * lanes##_width, a.part[k]))       \
    }                                                                                                     \
    INLINE lanes lanes##_add(lanes a, lanes b) {                                                          \
        EACH_PART(lanes##_parts, a.part[k] = a.part[k] + b.part[k])                 \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE lanes lanes##_subtract(lanes a, lanes b) {                                                     \
        EACH_PART(lanes##_parts, a.part[k] = a.part[k] - b.part[k])                 \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE lanes lanes##_multiply(lanes a, lanes b) {                                                     \
        EACH_PART(lanes##_parts, a.part[k] = a.part[k] * b.part[k])                 \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE lanes lanes##_magnitude(lanes a) {                                                             \
        EACH_PART(lanes##_parts, a.part[k] = scalar##_magnitude(a.part[k]))                               \
        return a;                                                                                         \
    }                                                                                                     \
    /* a * b + c, rounded once. */                                                                        \
    INLINE lanes lanes##_fused(lanes a, lanes b, lanes c) {                                               \
        EACH_PART(lanes##_parts, c.part[k] = scalar##_fused(a.part[k], b.part[k], c.part[k]))             \
        return c;                                                                                         \
    }                                                                                                     \
    INLINE double lanes##_fused_scalar(const lanes *like, double a, double b, double c) {                 \
        (void)like;                                                                                       \
        return (double)scalar##_fma((scalar)a, (scalar)b, (scalar)c);                                     \
    }                                                                                                     \
    INLINE lanes lanes##_minimum(lanes a, lanes b) {                                                      \
        EACH_PART(lanes##_parts, a.part[k] = scalar##_smaller(a.part[k], b.part[k]))                      \
        return a;                                                                                         \
    }                                                                                                     \
    INLINE lanes lanes##_maximum(lanes a, lanes b) {                                                      \
        EACH_PART(lanes##_parts, a.part[k] = scalar##_larger(a.part[k], b.part[k]))                       \
        return a;                                                                                         \
    }                                                                                                     \
    /* Halves are added while they are whole 16-byte vectors, then the lanes of the last of these. */      \
    INLINE double lanes##_total(lanes a) {                                                                \
        UNROLL for (int half = lanes##_parts / 2; half > 0; half /= 2)                                    \
            UNROLL for (int k = 0; k < half; k++) a.part[k] = a.part[k] + a.part[k + half];               \
        return (double)scalar##_fold((const scalar *)&a.part[0]);                                         \
    }                                                                                                     \
    /* The same for several bundles: each waits in memory as one vector, number i of `base`, until all are folded; \
     * `totals` has room for whole vectors of them. */                                                    \
    INLINE void lanes##_hold(lanes *base, ptrdiff_t i, lanes a) {                                         \
        UNROLL for (int half = lanes##_parts / 2; half > 0; half /= 2)                                    \
            UNROLL for (int k = 0; k < half; k++) a.part[k] = a.part[k] + a.part[k + half];               \
        memcpy((scalar *)base + i * lanes##_width, &a.part[0], sizeof a.part[0]);                         \
    }                                                                                                     \
    INLINE void lanes##_totals(const lanes *base, ptrdiff_t count, double *totals) {                      \
        for (ptrdiff_t i = 0; i < count; i += scalar##_folded)                                            \
            scalar##_fold_several((const scalar *)base + i * lanes##_width, totals + i);                  \
    }                                                                                                     \
    /* By halves too: which of two zeros remains must not depend on the variant. */                       \
    INLINE double lanes##_least(lanes a) {                                                                \
        scalar x[lanes##_count];                                                                          \
        memcpy(x, &a, sizeof a);                                                                          \
        for (int half = lanes##_count / 2; half > 0; half /= 2)                                           \
            for (int k = 0; k < half; k++)                                                                \
                x[k] = (x[k + half] < x[k]) | (x[k + half] != x[k + half]) ? x[k + half] : x[k];          \
        return (double)x[0];                                                                              \
    }                                                                                                     \
    INLINE double lanes##_largest(lanes a) {                                                              \
        scalar x[lanes##_count];                                                                          \
        memcpy(x, &a, sizeof a);                                                                          \
        for (int half = lanes##_count / 2; half > 0; half /= 2)                                           \
            for (int k = 0; k < half; k++)                                                                \
                x[k] = (x[k + half] > x[k]) | (x[k + half] != x[k + half]) ? x[k + half] : x[k];          \
        return (double)x[0];                                                                              \
    }                                                                                                     \
    INLINE lanes *lanes##_at(const lanes *base, ptrdiff_t i) {                                            \
        return (lanes *)((scalar *)base + i);                                                             \
    }                                                                                                     \
    /* A hint: the bundle at element i will be needed; any address will do. */                            \
    INLINE void lanes##_prefetch(const lanes *base, ptrdiff_t i) {                                        \
        if (!prefetching) return;                                                                         \
        for (int line = 0; line < BUNDLE_BYTES; line += CACHE_LINE_BYTES)                                 \
            PREFETCH((const char *)((const scalar *)base + i) + line);                                    \
    }                                                                                                     \
    INLINE double lanes##_element(const lanes *base, ptrdiff_t i) {                                       \
        return (double)((const scalar *)base + i)[0];                                                     \
    }                                                                                                     \
    INLINE void lanes##_set_element(lanes *base, ptrdiff_t i, double value) {                             \
        ((scalar *)base + i)[0] = (scalar)value;                                                          \
    }                                                                                                     \
    INLINE double lanes##_rounded(const lanes *like, double value) {                                      \
        (void)like;                                                                                       \
        return (double)(scalar)value;                                                                     \
    }

DEFINE_LANES(lanes32, float)
DEFINE_LANES(lanes64, double)

#endif
