/* Rounding to float16, for arithmetic in it that is done in float32: for +, -, * and / that gives the same bits. */
#ifndef FASTNORM_HALF_H
#define FASTNORM_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

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

#endif
