/* Images: interleaved bytes, (pixels, channels), to normalised floats, y = (x - centre) * scale + shift of each
 * channel. */
#ifndef FASTNORM_IMAGES_H
#define FASTNORM_IMAGES_H

#include <stddef.h>
#include <stdint.h>

/* One plane a channel, `plane` elements apart. The loops are written out for the usual numbers of channels, since only
 * a constant stride is vectorised. */
#define DEFINE_PLANES(channels)                                                                             \
    static void planes_of_##channels(                                                                       \
        const uint8_t *restrict x, float *restrict y, ptrdiff_t pixels, ptrdiff_t plane, const float *restrict centre, \
        const float *restrict scale, const float *restrict shift)                                           \
    {                                                                                                       \
        for (ptrdiff_t i = 0; i < pixels; i++)                                                              \
            for (int c = 0; c < channels; c++)                                                              \
                y[c * plane + i] = ((float)(int)x[channels * i + c] - centre[c]) * scale[c] + shift[c];     \
    }
DEFINE_PLANES(1)
DEFINE_PLANES(3)
DEFINE_PLANES(4)

/* One channel of any number of them. */
static void image_to_plane(
    const uint8_t *restrict x, float *restrict y, ptrdiff_t pixels, ptrdiff_t channels, float centre, float scale,
    float shift)
{
    for (ptrdiff_t i = 0; i < pixels; i++) y[i] = ((float)(int)x[channels * i] - centre) * scale + shift;
}

/* The same, interleaved as x is: `repeated` coefficients make whole vectors of a few pixels. */
static void image_to_pixels(
    const uint8_t *restrict x, float *restrict y, ptrdiff_t n, ptrdiff_t repeated, const float *restrict centre,
    const float *restrict scale, const float *restrict shift)
{
    ptrdiff_t i = 0;
    for (; i + repeated <= n; i += repeated)
        for (ptrdiff_t k = 0; k < repeated; k++)
            y[i + k] = ((float)(int)x[i + k] - centre[k]) * scale[k] + shift[k];
    for (ptrdiff_t k = 0; i + k < n; k++) y[i + k] = ((float)(int)x[i + k] - centre[k]) * scale[k] + shift[k];
}

/* Sums of a channel and of its squares over at most 65536 pixels: whole numbers, so exact in any order. */
#define DEFINE_SUMS(channels)                                                                               \
    static void sums_of_##channels(const uint8_t *x, ptrdiff_t pixels, uint64_t *sums, uint64_t *squares) { \
        uint32_t sum[channels] = {0}, square[channels] = {0};                                               \
        for (ptrdiff_t i = 0; i < pixels; i++)                                                              \
            for (int c = 0; c < channels; c++) {                                                            \
                uint32_t value = x[channels * i + c];                                                       \
                sum[c] += value;                                                                            \
                square[c] += value * value;                                                                 \
            }                                                                                               \
        for (int c = 0; c < channels; c++) sums[c] += sum[c], squares[c] += square[c];                      \
    }
DEFINE_SUMS(1)
DEFINE_SUMS(3)
DEFINE_SUMS(4)

static void image_sums(const uint8_t *x, ptrdiff_t pixels, ptrdiff_t channels, uint64_t *sums, uint64_t *squares) {
    if (channels == 1) sums_of_1(x, pixels, sums, squares);
    else if (channels == 3) sums_of_3(x, pixels, sums, squares);
    else if (channels == 4) sums_of_4(x, pixels, sums, squares);
    else
        for (ptrdiff_t i = 0; i < pixels; i++)
            for (ptrdiff_t c = 0; c < channels; c++) {
                uint64_t value = x[channels * i + c];
                sums[c] += value;
                squares[c] += value * value;
            }
}

#endif
