// The gradient X^T dY of weights whose inputs X are -c, 0 or +c, a few numbers at a time, so that
// it is never stored; see gradient.py.
//
// A row of the gradient is the sum of the outputs dY of samples whose input is +c, less the sum of
// those whose input is -c. If no input is 0, it is the sum of all, less twice the latter. A bit for
// each sample and row says which outputs are added; the others cost nothing.
#pragma once

#include "signed_sums.h"

#include <memory>

namespace update
{

using signed_sums::LANES;
using signed_sums::lanes;

class Gradient
{
public:
    // X (samples, rows) and dY (samples, columns) of a gradient (rows, columns).
    Gradient(PyArrayObject *X, PyArrayObject *dY, PyArrayObject *W) : x(X), dy(dY)
    {
        if (x.dim(0) != dy.dim(0) || x.dim(1) != PyArray_DIM(W, 0) ||
            dy.dim(1) != PyArray_DIM(W, 1))
            fused::raise_value_error(
                "inputs %ld x %ld and outputs %ld x %ld give no gradient of weights %ld x %ld",
                x.dim(0), x.dim(1), dy.dim(0), dy.dim(1), (long)PyArray_DIM(W, 0),
                (long)PyArray_DIM(W, 1));
        samples = x.dim(0);
        rows = x.dim(1);
        columns = dy.dim(1);
        words = fused::ceil_div(samples, WORD);
        look_at_inputs();
        if (possible)
            pack();
        arrange();
    }

    // Calls element(first, n, gradient) for all parts of the gradient: n numbers from its number
    // `first` on.
    template <class Element>
    void each(Element element) const
    {
        const std::unique_ptr<__m512[]> tiles(new __m512[omp_get_max_threads() * ROWS * PANELS]);
#pragma omp parallel if (rows * columns * samples > 65536)
        {
            __m512 *tile = tiles.get() + omp_get_thread_num() * ROWS * PANELS;
            const Element own(element); // its constants stay in registers
#pragma omp for schedule(dynamic) collapse(2)
            for (long first = 0; first < rows; first += ROWS)
                for (long column = 0; column < columns; column += WIDTH) {
                    const long width = std::min<long>(WIDTH, columns - column);
                    const long n = std::min<long>(ROWS, rows - first);
                    for (long panel = 0; panel * LANES < width; panel += TOGETHER)
                        for (long row = 0; row < n; row++)
                            sum(first + row, column / LANES + panel, &tile[row * PANELS + panel]);
                    for (long row = 0; row < n; row++)
                        own((first + row) * columns + column, width,
                            (const float *)&tile[row * PANELS]);
                }
        }
    }

private:
    // A tile of ROWS x WIDTH numbers of the gradient is in the processor's cache when it is used.
    // It is wide, because memory is fastest where it is read in order. The outputs of 100 samples
    // for TOGETHER panels of units stay in the fastest cache, while all rows of a tile use them.
    enum { ROWS = 32, PANELS = 256, WIDTH = PANELS * LANES, TOGETHER = 4 };
    enum { WORD = 64, HALF = WORD / 2 }; // samples whose bits are in a word, and in half of it

    // Sets `magnitude`, and whether inputs may be zero. Bits are not possible if inputs have other
    // values, or if outputs are so large that sums of them overflow: infinity times zero is not zero,
    // and total - 2 x negative may be finite if a part of it is not.
    void look_at_inputs()
    {
        const float *data = x.data();
        const long n = x.size();
        magnitude = 0;
        for (long i = 0; i < n && !magnitude; i++)
            magnitude = fabsf(data[i]);
        const float c = magnitude;
        int zero = 0, other = !(c <= FLT_MAX);
#pragma omp simd reduction(| : zero, other)
        for (long i = 0; i < n; i++) {
            zero |= data[i] == 0;
            other |= data[i] != 0 && !(fabsf(data[i]) == c);
        }
        const float *outputs = dy.data();
        const float largest = FLT_MAX / 4 / std::max<long>(samples, 1) / std::max(c, 1.0f);
#pragma omp simd reduction(| : other)
        for (long i = 0; i < samples * columns; i++)
            other |= !(fabsf(outputs[i]) <= largest);
        possible = !other;
        zeros = zero;
    }

    // plus[row][word] and minus[row][word]: bit i of a word is whether the input of its sample i is
    // +c, or -c. Without zeros, plus is not needed and has no bits.
    void pack()
    {
        const long across = fused::ceil_div(rows, LANES);
        plus.resize(across * LANES * words);
        minus.resize(across * LANES * words);
        fused::parallel(across, x.size(), [&](long begin, long end) {
            for (long row = begin * LANES; row < end * LANES; row += LANES)
                for (long first = 0; first < samples; first += HALF) {
                    __m512i more = _mm512_setzero_si512(), less = more;
                    for (long i = 0; i < std::min<long>(HALF, samples - first); i++) {
                        const float *from = x.data() + (first + i) * rows + row;
                        const __m512 input = _mm512_maskz_loadu_ps(lanes(rows - row), from);
                        const __m512 zero = _mm512_setzero_ps();
                        const __m512i bit = _mm512_set1_epi32(1u << i);
                        more = _mm512_mask_or_epi32(
                            more, _mm512_cmp_ps_mask(input, zero, _CMP_GT_OQ), more, bit);
                        less = _mm512_mask_or_epi32(
                            less, _mm512_cmp_ps_mask(input, zero, _CMP_LT_OQ), less, bit);
                    }
                    for (long i = 0; i < LANES; i++) {
                        const long word = (row + i) * words + first / WORD;
                        plus[word] |= zeros ? half_word(more, i) << first % WORD : 0;
                        minus[word] |= half_word(less, i) << first % WORD;
                    }
                }
        });
    }

    static uint64_t half_word(__m512i halves, long lane)
    {
        uint32_t half[LANES];
        _mm512_storeu_si512(half, halves);
        return half[lane];
    }

    // outputs[panels / TOGETHER][sample][TOGETHER][LANES], times c, and totals[panels][LANES],
    // their sums over samples.
    void arrange()
    {
        const long parts = fused::ceil_div(columns, TOGETHER * LANES);
        const __m512 c = _mm512_set1_ps(possible ? magnitude : 1);
        outputs.resize(parts * samples * TOGETHER);
        totals.resize(parts * TOGETHER);
        fused::parallel(parts, dy.size(), [&](long begin, long end) {
            __m512 *to = outputs.data() + begin * samples * TOGETHER;
            for (long part = begin; part < end; part++)
                for (long sample = 0; sample < samples; sample++)
                    for (long i = 0; i < TOGETHER; i++, to++) {
                        const long column = (part * TOGETHER + i) * LANES;
                        const float *from = dy.data() + sample * columns + column;
                        *to = c * _mm512_maskz_loadu_ps(lanes(columns - column), from);
                        totals[part * TOGETHER + i] += *to;
                    }
        });
    }

    // The sums of a row for the units of TOGETHER panels.
    void sum(long row, long panel, __m512 *sums) const
    {
        const __m512 *y = outputs.data() + panel * samples;
        __m512 sum[TOGETHER] = {};
        if (!possible) {
            for (long sample = 0; sample < samples; sample++, y += TOGETHER)
#pragma GCC unroll 4
                for (int i = 0; i < TOGETHER; i++)
                    sum[i] += _mm512_set1_ps(x.data()[sample * rows + row]) * y[i];
        } else {
            for (long word = row * words; word < (row + 1) * words; word++, y += WORD * TOGETHER) {
                for (uint64_t bits = plus[word]; bits; bits &= bits - 1)
#pragma GCC unroll 4
                    for (int i = 0; i < TOGETHER; i++)
                        sum[i] += y[__builtin_ctzll(bits) * TOGETHER + i];
                for (uint64_t bits = minus[word]; bits; bits &= bits - 1)
#pragma GCC unroll 4
                    for (int i = 0; i < TOGETHER; i++)
                        sum[i] -= y[__builtin_ctzll(bits) * TOGETHER + i];
            }
            if (!zeros)
#pragma GCC unroll 4
                for (int i = 0; i < TOGETHER; i++)
                    sum[i] = totals[panel + i] + 2 * sum[i];
        }
#pragma GCC unroll 4
        for (int i = 0; i < TOGETHER; i++)
            sums[i] = sum[i];
    }

    const fused::Array<float> x, dy;
    long samples, rows, columns, words;
    bool possible, zeros;
    float magnitude;
    std::vector<uint64_t> plus, minus;
    std::vector<__m512> outputs, totals;
};

} // namespace update
