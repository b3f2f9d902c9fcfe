// 3x3 convolution of images of -c, 0 and +c, as binary activations are, with filters of -H and +H by
// counting (see counted.h). Counts are integers, so sums are exact. Bound: 32 products of each of 16
// filters in three operations, 341 a cycle on two ports; sums of tables have 64.
#pragma once

#include "counted.h"
#include "images.h"

namespace convolution
{

// The channels of each pixel as bits, in words [rows][words][columns]. Columns include the border,
// where no product is present.
struct Bits {
    long height, width, columns, words;
    float magnitude; // c
    uint32_t *minus, *present;
    int32_t *number; // [rows][columns]: present products of the output at (row, column)

    static long size(long height, long columns, long words)
    {
        return (2 * words + 1) * height * columns;
    }

    Bits(long height, long width, long columns, long words, float *memory)
        : height(height), width(width), columns(columns), words(words), magnitude(0),
          minus((uint32_t *)memory), present(minus + height * words * columns),
          number((int32_t *)(present + height * words * columns))
    {
    }

    // Packs an image of planes. Returns false if it has other values.
    bool pack(const float *image, long channels)
    {
        const long plane = height * width;
        for (long i = 0; i < channels * plane && !magnitude; i++)
            magnitude = fabsf(image[i]);
        if (!(magnitude <= FLT_MAX))
            return false;
        memset(minus, 0, 4 * size(height, columns, words));
        for (long y = 0; y < height; y++)
            for (long word = 0; word < words; word++) {
                const long first = word * counted::WORD;
                const float *from = image + first * plane + y * width;
                const long place = (y * words + word) * columns + 1;
                if (!pack_row(from, plane, std::min<long>(counted::WORD, channels - first),
                              minus + place, present + place))
                    return false;
            }
        count_present();
        return true;
    }

private:
    bool pack_row(const float *from, long plane, long channels, uint32_t *signs, uint32_t *here)
    {
        const __m512 zero = _mm512_setzero_ps(), c = _mm512_set1_ps(magnitude);
        __mmask16 other = 0;
        for (long x = 0; x < width; x += LANES) {
            const __mmask16 inside = signed_sums::lanes(width - x);
            __m512i negative = _mm512_setzero_si512(), some = negative;
            for (long i = 0; i < channels; i++) {
                const float *pixels = from + i * plane + x;
                _mm_prefetch(pixels + 2 * width, _MM_HINT_T0); // read ahead, for a later row
                const __m512 value = _mm512_maskz_loadu_ps(inside, pixels);
                const __m512 absolute = _mm512_abs_ps(value);
                const __mmask16 nonzero = _mm512_cmp_ps_mask(absolute, zero, _CMP_NEQ_UQ);
                const __m512i bit = _mm512_set1_epi32(1u << i);
                other |= _mm512_mask_cmp_ps_mask(nonzero, absolute, c, _CMP_NEQ_UQ);
                negative = _mm512_mask_or_epi32(
                    negative, _mm512_movepi32_mask(_mm512_castps_si512(value)), negative, bit);
                some = _mm512_mask_or_epi32(some, nonzero, some, bit);
            }
            if (other)
                return false;
            _mm512_mask_storeu_epi32(signs + x, inside, negative);
            _mm512_mask_storeu_epi32(here + x, inside, some);
        }
        return true;
    }

    void count_present()
    {
        for (long y = 0; y < height; y++)
            for (long word = 0; word < words; word++)
                for (long x = 0; x < columns; x++) {
                    const int n = __builtin_popcount(present[(y * words + word) * columns + x]);
                    for (long row = std::max(y - 1, 0L); row < std::min(y + 2, height); row++)
                        for (long to = std::max(x - 2, 0L); to <= x; to++)
                            number[row * columns + to] += n;
                }
    }
};

// Counts, for PIXELS outputs of PANEL filters, the products that are present and negative.
// `signs` are [rows of a filter][words][columns of a filter][PANEL].
template <int PIXELS>
__attribute__((target("avx512vpopcntdq"))) static inline void
count(const Bits &bits, const uint32_t *signs, long y, long x, __m512i (*negative)[2])
{
    enum { XOR_AND = 0x28 };
    for (long row = 0; row < 3; row++) {
        if (y + row < 1 || y + row > bits.height)
            continue;
        const long first = (y + row - 1) * bits.words * bits.columns + x;
        for (long word = 0; word < bits.words; word++) {
            const uint32_t *minus = bits.minus + first + word * bits.columns;
            const uint32_t *present = bits.present + first + word * bits.columns;
            const uint32_t *weights = signs + (row * bits.words + word) * 3 * PANEL;
            __m512i filter[3][2];
#pragma GCC unroll 3
            for (int column = 0; column < 3; column++)
                for (int half = 0; half < 2; half++)
                    filter[column][half] =
                        _mm512_loadu_si512(weights + column * PANEL + half * LANES);
#pragma GCC unroll 10
            for (int i = 0; i < PIXELS + 2; i++) {
                const __m512i sign = _mm512_set1_epi32(minus[i]);
                const __m512i here = _mm512_set1_epi32(present[i]);
#pragma GCC unroll 3
                for (int column = 0; column < 3; column++) {
                    const int pixel = i - column;
                    if (pixel >= 0 && pixel < PIXELS)
#pragma GCC unroll 2
                        for (int half = 0; half < 2; half++)
                            negative[pixel][half] = _mm512_add_epi32(
                                negative[pixel][half],
                                _mm512_popcnt_epi32(_mm512_ternarylogic_epi32(
                                    filter[column][half], sign, here, XOR_AND)));
                }
            }
        }
    }
}

} // namespace convolution
