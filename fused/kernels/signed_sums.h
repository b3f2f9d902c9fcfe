// Products with weights of -H and +H by additions, on processors with AVX-512.
//
// Four inputs a, b, c, d have sixteen signed sums. They fill a register, and are computed once for
// all units. Bit i of an index is 1 if input i has a minus sign:
//     0000  a+b+c+d    0001 -a+b+c+d    0010  a-b+c+d    0011 -a-b+c+d
//     0100  a+b-c+d    0101 -a+b-c+d    0110  a-b-c+d    0111 -a-b-c+d
//     1000  a+b+c-d    1001 -a+b+c-d    ...              1111 -a-b-c-d
// The signs of its four weights select the sum of a unit. One permutation and one addition serve 64
// weights: four weights of each of sixteen units.
#pragma once

#include "common.h"

#include <immintrin.h>

namespace signed_sums
{

enum { LANES = 16 };        // numbers in a register
enum { PANEL = 2 * LANES }; // units side by side, in two registers
enum { WORD = 32 };         // inputs whose signs are in a word of a unit
enum { GROUPS = WORD / 4 }; // groups of four inputs in a word
enum { TABLE = LANES };     // numbers in a table

// The lanes of the first n numbers.
static inline __mmask16 lanes(long n) { return n >= LANES ? 0xffff : n > 0 ? (1u << n) - 1 : 0; }

// -1 if bit `input` of the lane is set, otherwise 1. Products with these are exact.
static inline __m512 sign_of(int input)
{
    __m512 sign;
    for (int index = 0; index < TABLE; index++)
        sign[index] = index >> input & 1 ? -1 : 1;
    return sign;
}

// The table of the four inputs that begin at x, for the signs of inputs 0 to 3. Inputs `n` and later
// are zero.
static inline __m512 table_of(const __m512 *sign, const float *x, long n)
{
    __m512 term[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        term[i] = sign[i] * _mm512_set1_ps(i < n ? x[i] : 0);
    return (term[0] + term[1]) + (term[2] + term[3]);
}

// Bit i: whether weights[i * stride] is negative, for n <= 32 weights.
static inline uint32_t negative(const float *weights, long stride, long n)
{
    if (stride == 1) {
        const uint32_t present = n < 32 ? (1u << n) - 1 : ~0u;
        const __m512i low = _mm512_maskz_loadu_epi32(present & 0xffff, weights);
        const __m512i high = _mm512_maskz_loadu_epi32(present >> 16, weights + 16);
        return _mm512_movepi32_mask(low) | (uint32_t)_mm512_movepi32_mask(high) << 16;
    }
    uint32_t bits = 0;
    for (long i = 0; i < n; i++)
        bits |= (uint32_t)(signbit(weights[i * stride]) != 0) << i;
    return bits;
}

// The signs of a word of inputs for the units of a panel.
struct Signs {
    __m512i word[2];
    explicit Signs(const uint32_t *words)
        : word{_mm512_loadu_si512(words), _mm512_loadu_si512(words + LANES)}
    {
    }
    // Moves to the next four inputs: only the lowest four bits of an index count.
    void next()
    {
        word[0] = _mm512_srli_epi32(word[0], 4);
        word[1] = _mm512_srli_epi32(word[1], 4);
    }
};

// Adds to the sums of the units of a panel the numbers that their signs select from a table.
static inline __attribute__((always_inline)) void add(__m512 table, const Signs &signs,
                                                      __m512 sums[2])
{
    sums[0] = _mm512_add_ps(sums[0], _mm512_permutexvar_ps(signs.word[0], table));
    // Half of the sums use multiply-adds, which run in parallel with additions.
    const __m512 other = _mm512_permutexvar_ps(signs.word[1], table);
    sums[1] = _mm512_fmadd_ps(other, _mm512_set1_ps(1), sums[1]);
}

} // namespace signed_sums
