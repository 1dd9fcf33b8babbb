/* Eight rows added down columns: a bundle of columns part by part, so that everything on the way is in registers, of
 * which AVX2 has 16 and a bundle fills four.
 */
#ifndef FASTNORM_COLUMN_SUMS_H
#define FASTNORM_COLUMN_SUMS_H

#include "vectors/lanes.h"

#define SUM_OF_EIGHT(v) ((((v)[0] + (v)[1]) + ((v)[2] + (v)[3])) + (((v)[4] + (v)[5]) + ((v)[6] + (v)[7])))

/* Rows begin `stride` elements apart, and `count` elements of each exist; others count as 0. */
#define DEFINE_COLUMN_SUMS(lanes, scalar)                                                                 \
    INLINE scalar##_part lanes##_part_of(const scalar *row, ptrdiff_t first, ptrdiff_t count) {           \
        scalar##_part v = {0};                                                                            \
        if (count >= lanes##_count) memcpy(&v, row + first, sizeof v);                                    \
        else v = scalar##_load_some(row + first, count - first, v);                                       \
        return v;                                                                                         \
    }                                                                                                     \
    /* The sum of the rows. */                                                                            \
    INLINE lanes lanes##_sum_of_rows(const lanes *base, ptrdiff_t stride, ptrdiff_t count) {              \
        lanes total;                                                                                      \
        EACH_PART(lanes##_parts, {                                                                        \
            scalar##_part v[8];                                                                           \
            UNROLL for (int r = 0; r < 8; r++)                                                            \
                v[r] = lanes##_part_of((const scalar *)base + r * stride, k * lanes##_width, count);      \
            total.part[k] = SUM_OF_EIGHT(v);                                                              \
        })                                                                                                \
        return total;                                                                                     \
    }                                                                                                     \
    /* Add to `sums` the deviations of the rows from `shift`, to `powers` their squares or magnitudes. */ \
    INLINE void lanes##_add_deviations(const lanes *base, ptrdiff_t stride, ptrdiff_t count, const lanes *shift, \
                                       int magnitudes, lanes *sums, lanes *powers) {                      \
        EACH_PART(lanes##_parts, {                                                                        \
            scalar##_part d[8];                                                                           \
            UNROLL for (int r = 0; r < 8; r++)                                                            \
                d[r] = lanes##_part_of((const scalar *)base + r * stride, k * lanes##_width, count) - shift->part[k]; \
            sums->part[k] = sums->part[k] + SUM_OF_EIGHT(d);                                              \
            UNROLL for (int r = 0; r < 8; r++) d[r] = magnitudes ? scalar##_magnitude(d[r]) : d[r] * d[r]; \
            powers->part[k] = powers->part[k] + SUM_OF_EIGHT(d);                                          \
        })                                                                                                \
    }

DEFINE_COLUMN_SUMS(lanes32, float)
DEFINE_COLUMN_SUMS(lanes64, double)

#endif
