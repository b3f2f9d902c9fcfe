// Products of matrices with weights of -H and +H: by additions (see product.py and signed_sums.h), or
// by counting if x is binary too.
#include "counted.h"
#include "signed_sums.h"

namespace product
{

using namespace signed_sums;

enum { ROWS = 10 }; // rows of x at once; batches of 50, 100 and 200 leave no rest
enum { WORDS = 4 }; // words at once; their tables (20 KiB) stay in the fastest cache

// Weights. Element (input, unit) is data[input * of_input + unit * of_unit]; one of the strides is
// 1.
struct Weights {
    const float *data;
    long inputs, units, of_input, of_unit;
    long words() const { return fused::ceil_div(inputs, WORD); }
    long panels() const { return fused::ceil_div(units, PANEL); }
};

// Bit i: whether weight i is negative, for n <= 32 weights of -H and +H.
struct OfBinary {
    uint32_t operator()(const float *weights, long n) const { return negative(weights, 1, n); }
};

// The same of real-valued weights, by the rule of binarization: w is positive if
// (w / H + 1) / 2 >= 1 / 2.
template <bool UNIT> // whether H is 1
struct OfLatent {
    float H;
    uint32_t operator()(const float *weights, long n) const
    {
        return half(weights, lanes(n)) | half(weights + LANES, lanes(n - LANES)) << LANES;
    }
    uint32_t half(const float *weights, __mmask16 present) const
    {
        __m512 w = _mm512_maskz_loadu_ps(present, weights);
        if (!UNIT)
            w = w / _mm512_set1_ps(H);
        const __m512 one = _mm512_set1_ps(1);
        return _mm512_mask_cmp_ps_mask(present, w + one, one, _CMP_NGE_UQ); // NaN is negative
    }
};

// Signs [panels][words][PANEL]. Bit i of a word is the sign of its input i, or 0 beyond the matrix.
template <class Negative>
static void pack_signs(const Weights w, Negative negative, uint32_t *signs)
{
    const long words = w.words(), panels = w.panels();
    // Neighbours in the loop are neighbours in a row of the matrix.
    const bool by_input = w.of_unit == 1;
    fused::parallel(panels * words, w.inputs * w.units, [=](long begin, long end) {
        for (long k = begin; k < end; k++) {
            const long panel = by_input ? k % panels : k / words;
            const long word = by_input ? k / panels : k % words;
            const long first_unit = panel * PANEL, first = word * WORD;
            const float *from = w.data + first_unit * w.of_unit + first * w.of_input;
            const long units = std::min<long>(PANEL, w.units - first_unit);
            const long inputs = std::min<long>(WORD, w.inputs - first);
            uint32_t *to = signs + (panel * words + word) * PANEL;
            if (by_input) { // a row of the matrix is one input of all units
                __m512i low = _mm512_setzero_si512(), high = low;
                for (long i = 0; i < inputs; i++) {
                    const uint32_t minus = negative(from + i * w.of_input, units);
                    const __m512i bit = _mm512_set1_epi32(1u << i);
                    low = _mm512_mask_or_epi32(low, minus & 0xffff, low, bit);
                    high = _mm512_mask_or_epi32(high, minus >> 16, high, bit);
                }
                _mm512_storeu_si512(to, low);
                _mm512_storeu_si512(to + LANES, high);
            } else {
                for (long u = 0; u < PANEL; u++)
                    to[u] = u < units ? negative(from + u * w.of_unit, inputs) : 0;
            }
        }
    });
}

// The table of the four inputs that begin at x. Inputs `n` and later are zero.
static inline __m512 table_of(const __m512 *sign, const float *x, long n)
{
    __m512 term[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        term[i] = sign[i] * _mm512_set1_ps(i < n ? x[i] : 0);
    return (term[0] + term[1]) + (term[2] + term[3]);
}

// Adds `words` words of inputs to sums[ROWS][PANEL].
static inline void accumulate(const float *tables, const uint32_t *signs, long words, float *sums)
{
    __m512 sum[ROWS][2];
#pragma GCC unroll 10
    for (int row = 0; row < ROWS; row++) {
        sum[row][0] = _mm512_loadu_ps(sums + row * PANEL);
        sum[row][1] = _mm512_loadu_ps(sums + row * PANEL + LANES);
    }
    for (long word = 0; word < words; word++) {
        Signs index(signs + word * PANEL);
        for (int group = 0; group < GROUPS; group++, index.next())
#pragma GCC unroll 10
            for (int row = 0; row < ROWS; row++, tables += TABLE)
                add(_mm512_loadu_ps(tables), index, sum[row]);
    }
#pragma GCC unroll 10
    for (int row = 0; row < ROWS; row++) {
        _mm512_storeu_ps(sums + row * PANEL, sum[row][0]);
        _mm512_storeu_ps(sums + row * PANEL + LANES, sum[row][1]);
    }
}

// Rows [first, first + ROWS) of the product, if present; sums[panels][ROWS][PANEL] is scratch.
static void multiply_rows(const float *x, long first, long rows, const Weights &w,
                          const uint32_t *signs, float H, float *sums, float *y)
{
    alignas(64) float tables[WORDS * GROUPS * ROWS * TABLE];
    const __m512 sign[4] = {sign_of(0), sign_of(1), sign_of(2), sign_of(3)};
    const long words = w.words();
    memset(sums, 0, ROWS * w.panels() * PANEL * sizeof *sums);
    for (long word = 0; word < words; word += WORDS) {
        const long n = std::min<long>(WORDS, words - word);
        float *table = tables;
        for (long input = word * WORD; input < (word + n) * WORD; input += 4)
            for (long row = 0; row < ROWS; row++, table += TABLE) {
                const float *from = x + std::min(first + row, rows - 1) * w.inputs + input;
                _mm512_store_ps(table, table_of(sign, from, w.inputs - input));
            }
        for (long panel = 0; panel < w.panels(); panel++)
            accumulate(tables, signs + (panel * words + word) * PANEL, n,
                       sums + panel * ROWS * PANEL);
    }
    for (long row = 0; row < std::min<long>(ROWS, rows - first); row++)
        for (long u = 0; u < w.units; u++)
            y[(first + row) * w.units + u] = H * sums[(u / PANEL * ROWS + row) * PANEL + u % PANEL];
}

// y = x W, or x W^T if `transposed`.
template <class Negative>
static void multiply(PyArrayObject *x, const fused::Array<float> &right, float H, Negative negative,
                     PyArrayObject **y, bool transposed)
{
    const fused::Array<float> left(x);
    const long rows = left.dim(0), width = right.dim(1);
    const Weights w = {right.data(), right.dim(transposed), right.dim(!transposed),
                       transposed ? 1 : width, transposed ? width : 1};
    if (left.dim(1) != w.inputs)
        fused::raise_value_error("%ld inputs to a product with weights of %ld", left.dim(1),
                                 w.inputs);
    float *to = fused::prepare<float>(y, {rows, w.units});
    if (!rows || !w.units)
        return;
    const float *from = left.data();
    std::vector<uint32_t> signs(w.panels() * w.words() * PANEL);
    pack_signs(w, negative, signs.data());
    if (counted::available()) {
        const counted::Bits bits(from, rows, w.inputs);
        if (bits.possible) {
            counted::multiply(bits, signs.data(), w.units, H, to);
            return;
        }
    }
    const long scratch = ROWS * w.panels() * PANEL;
    std::vector<float> sums(omp_get_max_threads() * scratch);
#pragma omp parallel for schedule(dynamic) if (rows * w.inputs * w.units > 65536)
    for (long first = 0; first < rows; first += ROWS)
        multiply_rows(from, first, rows, w, signs.data(), H,
                      sums.data() + omp_get_thread_num() * scratch, to);
}

static void multiply(PyArrayObject *x, PyArrayObject *W, PyArrayObject **y, bool transposed)
{
    const fused::Array<float> right(W);
    const float H = right.size() ? fabsf(right.data()[0]) : 0;
    multiply(x, right, H, OfBinary(), y, transposed);
}

static void multiply_latent(PyArrayObject *x, PyArrayObject *W, PyArrayObject *H,
                            PyArrayObject **y, bool transposed)
{
    const fused::Array<float> right(W);
    const float h = *(const float *)PyArray_DATA(H);
    if (h == 1)
        multiply(x, right, h, OfLatent<true>{h}, y, transposed);
    else
        multiply(x, right, h, OfLatent<false>{h}, y, transposed);
}

} // namespace product
