// Products of +-1 by exclusive or and population count; see xnor.py.
//
// A bit is 1 for +1 and 0 for -1. A product of two signs is +1 if their bits agree, otherwise -1.
// If d = popcount(x xor w) of n bits differ,
//     x . w = (n - d) - d = n - 2 popcount(x xor w)
// For example, n = 4:  x = + + - -  0011    (bit 0 at the right)
//                      w = + - - +  1001    x xor w = 1010, d = 2, x . w = 1 - 1 + 1 - 1 = 0
// Bit i of a row is in word i / 64; bits beyond the end are 0. Weights are in panels of PANEL
// units, [panels][words][PANEL]. A vector holds one word of each of PANEL units and is compared
// with one word of a row, so that counts need no sum over lanes, and rows of any length waste
// nothing. These are the kernels for few rows; tables.h and slices.h have those for many.
#pragma once

#include "../common.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace xnor
{

enum { PANEL = 8 };          // units side by side
enum { ROWS = 4, WIDE = 4 }; // a tile of ROWS rows by WIDE panels stays in registers

// counts[R][U * PANEL]: the number of bits that differ between R rows and U panels; plane p counts
// 2^p times. A row has `planes` times `words` words and begins `stride` words after the previous
// row.
typedef void (*Tile)(const uint64_t *rows, long stride, long planes, long words,
                     const uint64_t *panels, int32_t *counts);

// Products of many rows with many panels: subtracts from `out`, rows of `stride` numbers of which
// this block has `units`, twice the number of bits that differ; plane p counts 2^p times. Rows of
// `planes` times `words` words lie one after the other.
struct Block {
    const uint64_t *rows;
    long n, planes, words;
    const uint64_t *panels;
    long number; // of panels
    int32_t *out;
    long stride, units;
};

template <int R, int U>
static void count_plain(const uint64_t *rows, long stride, long planes, long words,
                        const uint64_t *panels, int32_t *counts)
{
    for (int r = 0; r < R; r++)
        for (int u = 0; u < U; u++) {
            int32_t sums[PANEL] = {0};
            for (long plane = planes; plane-- > 0;) {
                for (int lane = 0; lane < PANEL; lane++)
                    sums[lane] *= 2;
                for (long k = 0; k < words; k++)
                    for (int lane = 0; lane < PANEL; lane++)
                        sums[lane] += __builtin_popcountll(rows[r * stride + plane * words + k] ^
                                                           panels[(u * words + k) * PANEL + lane]);
            }
            memcpy(counts + (r * U + u) * PANEL, sums, sizeof sums);
        }
}

#ifdef __x86_64__
template <int R, int U>
__attribute__((target("avx512f,avx512vpopcntdq"))) static void
count_avx512(const uint64_t *rows, long stride, long planes, long words, const uint64_t *panels,
             int32_t *counts)
{
    __m512i sums[R][U];
    for (int r = 0; r < R; r++)
        for (int u = 0; u < U; u++)
            sums[r][u] = _mm512_setzero_si512();
    for (long plane = planes; plane-- > 0;) {
        for (int r = 0; r < R; r++)
            for (int u = 0; u < U; u++)
                sums[r][u] = _mm512_slli_epi64(sums[r][u], 1);
        for (long k = 0; k < words; k++) {
            __m512i weights[U];
            for (int u = 0; u < U; u++)
                weights[u] = _mm512_loadu_si512(panels + (u * words + k) * PANEL);
            for (int r = 0; r < R; r++) {
                const __m512i word = _mm512_set1_epi64(rows[r * stride + plane * words + k]);
                for (int u = 0; u < U; u++)
                    sums[r][u] = _mm512_add_epi64(
                        sums[r][u], _mm512_popcnt_epi64(_mm512_xor_si512(word, weights[u])));
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int u = 0; u < U; u++)
            _mm256_storeu_si256((__m256i *)(counts + (r * U + u) * PANEL),
                                _mm512_cvtepi64_epi32(sums[r][u]));
}

// Population counts of nibbles from a table (Mula, Kurz and Lemire, "Faster population counts using
// AVX2 instructions", 2018), summed in bytes as long as these cannot overflow. This uses the
// compiler's vectors, because intrinsics cannot be inlined if the other code may use AVX-512.
typedef uint8_t bytes __attribute__((vector_size(32)));
typedef char chars __attribute__((vector_size(32)));
typedef uint64_t lanes __attribute__((vector_size(32)));
typedef uint64_t unaligned_lanes __attribute__((vector_size(32), aligned(8)));

template <int R, int U>
__attribute__((target("avx2,no-avx512f"))) static void
count_avx2(const uint64_t *rows, long stride, long planes, long words, const uint64_t *panels,
           int32_t *counts)
{
    const chars table = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    const lanes zero = {0}, nibble = zero + 0x0f0f0f0f0f0f0f0fu;
    const long most = 31; // words: 31 x 8 bits < 256
    for (int u = 0; u < U; u++) {
        lanes sums[R][2];
        for (int r = 0; r < R; r++)
            sums[r][0] = sums[r][1] = zero;
        for (long plane = planes; plane-- > 0;) {
            for (int r = 0; r < R; r++) {
                sums[r][0] <<= 1;
                sums[r][1] <<= 1;
            }
            for (long first = 0; first < words; first += most) {
                const long end = words < first + most ? words : first + most;
                bytes totals[R][2];
                for (int r = 0; r < R; r++)
                    totals[r][0] = totals[r][1] = (bytes)zero;
                for (long k = first; k < end; k++)
                    for (int half = 0; half < 2; half++) {
                        const lanes weights =
                            *(const unaligned_lanes *)(panels + (u * words + k) * PANEL + 4 * half);
                        for (int r = 0; r < R; r++) {
                            const lanes x = weights ^ rows[r * stride + plane * words + k];
                            const chars low = (chars)(x & nibble), high = (chars)(x >> 4 & nibble);
                            totals[r][half] += (bytes)__builtin_ia32_pshufb256(table, low) +
                                               (bytes)__builtin_ia32_pshufb256(table, high);
                        }
                    }
                for (int r = 0; r < R; r++)
                    for (int half = 0; half < 2; half++)
                        sums[r][half] +=
                            (lanes)__builtin_ia32_psadbw256((chars)totals[r][half], (chars)zero);
            }
        }
        for (int r = 0; r < R; r++)
            for (int lane = 0; lane < PANEL; lane++)
                counts[(r * U + u) * PANEL + lane] = sums[r][lane / 4][lane % 4];
    }
}
#endif

} // namespace xnor
