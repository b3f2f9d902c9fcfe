// Products with weights of -H and +H by counting, where the other factor x is -c, 0 or +c as binary
// activations are, after dropout or not. A sum of n products that are not zero is, over H c,
// n - 2 popcount((x xor w) and present). Counts are integers, so sums are exact. For processors with
// VPOPCNTDQ.
#pragma once

#include "signed_sums.h"

namespace counted
{

using namespace signed_sums;

enum { ROWS = 8 }; // rows of x at once

inline bool available() { return __builtin_cpu_supports("avx512vpopcntdq"); }

// The bits of x (rows, inputs), in words as those of weights: whether an element is negative, and
// whether it is not zero.
struct Bits {
    long rows, words;
    float magnitude; // c
    bool possible;   // whether x has no other values
    std::vector<uint32_t> minus, present;
    std::vector<int> number; // of elements of a row that are not zero

    Bits(const float *x, long rows_, long inputs)
        : rows(rows_), words(fused::ceil_div(inputs, WORD)), magnitude(0), minus(rows * words),
          present(rows * words), number(rows)
    {
        for (long i = 0; i < rows * inputs && !magnitude; i++)
            magnitude = fabsf(x[i]);
        bool other = !(magnitude <= FLT_MAX);
#pragma omp parallel for reduction(| : other) if (rows * inputs > 65536)
        for (long row = 0; row < rows; row++)
            for (long word = 0; word < words && !other; word++) {
                const long first = word * WORD, n = std::min<long>(WORD, inputs - first);
                const float *from = x + row * inputs + first;
                const uint32_t here = find(from, n, other);
                minus[row * words + word] = negative(from, 1, n);
                present[row * words + word] = here;
                number[row] += __builtin_popcount(here);
            }
        possible = !other;
    }

private:
    uint32_t find(const float *from, long n, bool &other) const
    {
        uint32_t found = 0;
        for (long i = 0; i < WORD; i += LANES) {
            const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes(n - i), from + i));
            const __mmask16 here = _mm512_cmp_ps_mask(size, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            other |= _mm512_mask_cmp_ps_mask(here, size, _mm512_set1_ps(magnitude), _CMP_NEQ_UQ);
            found |= (uint32_t)here << i;
        }
        return found;
    }
};

// y (rows, units) from the bits of x and the signs [panels][words][PANEL] of the weights.
__attribute__((target("avx512vpopcntdq"))) static void
multiply(const Bits &x, const uint32_t *signs, long units, float H, float *y)
{
    const long panels = fused::ceil_div(units, PANEL), rows = x.rows, words = x.words;
#pragma omp parallel for schedule(static) if (rows * units * words > 2048)
    for (long panel = 0; panel < panels; panel++)
        for (long first = 0; first < rows; first += ROWS) {
            const uint32_t *weights = signs + panel * words * PANEL, *minus[ROWS], *present[ROWS];
            for (long row = 0; row < ROWS; row++) {
                const long begin = std::min(first + row, rows - 1) * words;
                minus[row] = x.minus.data() + begin;
                present[row] = x.present.data() + begin;
            }
            __m512i different[ROWS][2] = {};
            for (long word = 0; word < words; word++, weights += PANEL) {
                const __m512i low = _mm512_loadu_si512(weights);
                const __m512i high = _mm512_loadu_si512(weights + LANES);
#pragma GCC unroll 8
                for (long row = 0; row < ROWS; row++) {
                    const __m512i sign = _mm512_set1_epi32(minus[row][word]);
                    const __m512i here = _mm512_set1_epi32(present[row][word]);
                    enum { XOR_AND = 0x28 };
                    different[row][0] = _mm512_add_epi32(
                        different[row][0],
                        _mm512_popcnt_epi32(_mm512_ternarylogic_epi32(low, sign, here, XOR_AND)));
                    different[row][1] = _mm512_add_epi32(
                        different[row][1],
                        _mm512_popcnt_epi32(_mm512_ternarylogic_epi32(high, sign, here, XOR_AND)));
                }
            }
            for (long row = first; row < std::min(first + ROWS, rows); row++)
                for (long half = 0; half < 2; half++) {
                    const long unit = panel * PANEL + half * LANES;
                    const __m512i twice = _mm512_slli_epi32(different[row - first][half], 1);
                    const __m512i sum = _mm512_sub_epi32(_mm512_set1_epi32(x.number[row]), twice);
                    const __m512 scaled = _mm512_set1_ps(x.magnitude) * _mm512_cvtepi32_ps(sum);
                    _mm512_mask_storeu_ps(y + row * units + unit, lanes(units - unit),
                                          _mm512_set1_ps(H) * scaled);
                }
        }
}

} // namespace counted
