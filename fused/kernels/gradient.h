// The gradient X^T dY of weights whose inputs X are -c, 0 or +c, a few numbers at a time, so that
// it is never stored; see gradient.py.
//
// Samples are taken in groups: four if no input is zero, otherwise two. A table has the sum of a
// group for each of the 2^4 or 3^2 values that its inputs can have, for sixteen units at once. The
// tables serve all rows of a block, and each row adds one entry of the table of each group.
#pragma once

#include "signed_sums.h"

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
                "the gradient of inputs %ld x %ld and outputs %ld x %ld has another shape than the "
                "weights",
                x.dim(0), x.dim(1), dy.dim(0), dy.dim(1));
        samples = x.dim(0);
        rows = x.dim(1);
        columns = dy.dim(1);
        look_at_inputs();
        blocks = fused::ceil_div(rows, ROWS);
        groups = fused::ceil_div(samples, size);
        if (tabular)
            encode();
        arrange();
    }

    // Calls element(first, n, gradient) for all parts of the gradient: n numbers from its number
    // `first` on.
    template <class Element>
    void each(Element element) const
    {
        const long chunk = CHUNK / size; // groups whose tables fit into the fastest cache
#pragma omp parallel if (rows * columns * samples > 65536)
        {
            std::vector<__m512> tables(std::min(chunk, groups) * entries), tile(ROWS * STRIDE);
#pragma omp for schedule(dynamic) collapse(2)
            for (long block = 0; block < blocks; block++)
                for (long column = 0; column < columns; column += WIDTH) {
                    const long width = std::min<long>(WIDTH, columns - column);
                    for (long panel = 0; panel * LANES < width; panel++)
                        sum_panel(block, column + panel * LANES, chunk, tables.data(),
                                  tile.data() + panel);
                    const long first = block * ROWS, n = std::min<long>(ROWS, rows - first);
                    for (long row = 0; row < n; row++)
                        element((first + row) * columns + column, width,
                                (const float *)&tile[row * STRIDE]);
                }
        }
    }

private:
    // A tile of ROWS x WIDTH numbers of the gradient is in the processor's cache when it is used.
    // Its rows are a register further apart, because the cache holds few lines at a distance of
    // 4096 bytes.
    enum { ROWS = 128, PANELS = 64, STRIDE = PANELS + 1, WIDTH = PANELS * LANES, CHUNK = 128 };

    // Sets `magnitude` and how samples are grouped. `tabular` is false if inputs have other values
    // or outputs are not finite: zero times infinity is no zero.
    void look_at_inputs()
    {
        const float *data = x.data();
        const long n = x.size();
        magnitude = 0;
        for (long i = 0; i < n && !magnitude; i++)
            magnitude = fabsf(data[i]);
        const float c = magnitude;
        int zero = 0, other = 0;
#pragma omp simd reduction(| : zero, other)
        for (long i = 0; i < n; i++) {
            zero |= data[i] == 0;
            other |= data[i] != 0 && !(fabsf(data[i]) == c);
        }
        const float *outputs = dy.data();
#pragma omp simd reduction(| : other)
        for (long i = 0; i < samples * columns; i++)
            other |= !(fabsf(outputs[i]) <= FLT_MAX);
        tabular = !other;
        size = other ? 1 : zero ? 2 : 4;
        entries = other ? 1 : zero ? 9 : 16;
    }

    // The digit of an input in an entry's number: 0 for plus, 1 for minus; of ternary inputs 0 for
    // zero, 1 for plus, 2 for minus.
    __m512i digit(__m512 input) const
    {
        const __m512 zero = _mm512_setzero_ps();
        const __m512i one = _mm512_set1_epi32(1), two = _mm512_set1_epi32(2);
        const __mmask16 minus = _mm512_cmp_ps_mask(input, zero, _CMP_LT_OQ);
        if (size == 4)
            return _mm512_maskz_mov_epi32(minus, one);
        const __mmask16 plus = _mm512_cmp_ps_mask(input, zero, _CMP_GT_OQ);
        return _mm512_mask_mov_epi32(_mm512_maskz_mov_epi32(plus, one), minus, two);
    }

    // codes[block][group][ROWS]: LANES times the number of the entry.
    void encode()
    {
        codes.resize(blocks * groups * ROWS);
        const __m512i base = _mm512_set1_epi32(size == 4 ? 2 : 3);
        fused::parallel(blocks * groups, x.size(), [&](long begin, long end) {
            for (long k = begin; k < end; k++) {
                const long block = k / groups, sample = k % groups * size;
                for (long row = block * ROWS; row < (block + 1) * ROWS; row += LANES) {
                    const __mmask16 present = lanes(rows - row);
                    __m512i number = _mm512_setzero_si512();
                    for (long i = size - 1; i >= 0; i--) {
                        const float *from = x.data() + (sample + i) * rows + row;
                        const __m512 input = sample + i < samples
                                                 ? _mm512_maskz_loadu_ps(present, from)
                                                 : _mm512_setzero_ps();
                        number = _mm512_mullo_epi32(number, base);
                        number = _mm512_add_epi32(number, digit(input));
                    }
                    number = _mm512_slli_epi32(number, 4); // times LANES
                    _mm256_storeu_si256((__m256i *)(codes.data() + k * ROWS + row - block * ROWS),
                                        _mm512_cvtepi32_epi16(number));
                }
            }
        });
    }

    // outputs[panel][sample][LANES], and zeros beyond the samples of the last group.
    void arrange()
    {
        const long panels = fused::ceil_div(columns, LANES), height = groups * size;
        outputs.resize(panels * height);
        fused::parallel(panels, dy.size(), [&](long begin, long end) {
            for (long panel = begin; panel < end; panel++)
                for (long sample = 0; sample < samples; sample++)
                    outputs[panel * height + sample] =
                        _mm512_maskz_loadu_ps(lanes(columns - panel * LANES),
                                              dy.data() + sample * columns + panel * LANES);
        });
    }

    // Sums of a block of rows for LANES units; those of a row are STRIDE after those of the row
    // before. The first group replaces what was there.
    void sum_panel(long block, long column, long chunk, __m512 *tables, __m512 *sums) const
    {
        for (long group = 0; group < groups; group += chunk) {
            const long many = std::min(chunk, groups - group);
            tabulate(outputs.data() + (column / LANES * groups + group) * size, many, tables);
            if (tabular)
                add(block, group, many, tables, sums);
            else
                multiply(block, group, many, tables, sums);
        }
    }

    // The tables of `many` groups of outputs.
    void tabulate(const __m512 *output, long many, __m512 *table) const
    {
        const __m512 c = _mm512_set1_ps(tabular ? magnitude : 1);
        for (long group = 0; group < many; group++, output += size) {
            __m512 y[4];
            for (long i = 0; i < size; i++)
                y[i] = c * output[i];
            if (size == 4) {
                const __m512 low[4] = {y[0] + y[1], y[1] - y[0], y[0] - y[1], -y[0] - y[1]};
                const __m512 high[4] = {y[2] + y[3], y[3] - y[2], y[2] - y[3], -y[2] - y[3]};
                for (int i = 0; i < 16; i++)
                    *table++ = low[i % 4] + high[i / 4];
            } else if (size == 1) {
                *table++ = y[0];
            } else {
                const __m512 zero = _mm512_setzero_ps();
                const __m512 low[3] = {zero, y[0], -y[0]}, high[3] = {zero, y[1], -y[1]};
                for (int i = 0; i < 9; i++)
                    *table++ = low[i % 3] + high[i / 3];
            }
        }
    }

    // Adds `many` groups to the sums of a block of rows.
    void add(long block, long group, long many, const __m512 *tables, __m512 *sums) const
    {
        enum { TOGETHER = 8 };
        const uint16_t *code = codes.data() + (block * groups + group) * ROWS;
        for (long row = 0; row < ROWS; row += TOGETHER) {
            __m512 sum[TOGETHER];
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER; i++)
                sum[i] = group ? sums[(row + i) * STRIDE] : _mm512_setzero_ps();
            const float *table = (const float *)tables;
            for (long g = 0; g < many; g++, table += entries * LANES)
#pragma GCC unroll 8
                for (int i = 0; i < TOGETHER; i++)
                    sum[i] += _mm512_load_ps(table + code[g * ROWS + row + i]);
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER; i++)
                sums[(row + i) * STRIDE] = sum[i];
        }
    }

    // The same for inputs of any value: a group is a sample.
    void multiply(long block, long sample, long many, const __m512 *y, __m512 *sums) const
    {
        for (long row = 0; row < ROWS; row++) {
            const float *from = x.data() + sample * rows + std::min(block * ROWS + row, rows - 1);
            __m512 sum = sample ? sums[row * STRIDE] : _mm512_setzero_ps();
            for (long s = 0; s < many; s++)
                sum += _mm512_set1_ps(from[s * rows]) * y[s];
            sums[row * STRIDE] = sum;
        }
    }

    const fused::Array<float> x, dy;
    long samples, rows, columns, size, entries, blocks, groups;
    bool tabular;
    float magnitude;
    std::vector<uint16_t> codes;
    std::vector<__m512> outputs;
};

} // namespace update
