// Products of matrices with weights of -H and +H: by additions (see product.py and signed_sums.h),
// or by counting if x is binary too.
#include "counted.h"
#include "signed_sums.h"

namespace product
{

using namespace signed_sums;

enum { ROWS = 10 }; // rows of x at once; batches of 50, 100 and 200 leave no rest
enum { WORDS = 4 }; // words at once; their tables (20 KiB) stay in the fastest cache
// How many weights ahead of its use memory is asked for: processors read ahead within a page only.
enum { AHEAD = 1024 };

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

// The signs of W (rows, columns), packed for x W, whose units are the columns, and for x W^T, whose
// units are the rows: [panels of units][words of inputs][PANEL]. Bit i of a word is the sign of its
// input i, or 0 beyond the matrix. So a part of 32 rows and 32 columns is a word of each of 32
// units in both, and is read once.
template <class Negative>
static void pack(const fused::Array<float> &W, Negative negative, PyArrayObject **signs,
                 PyArrayObject **turned)
{
    static_assert(+PANEL == +WORD, "");
    const long rows = W.dim(0), columns = W.dim(1);
    const long down = fused::ceil_div(rows, WORD), across = fused::ceil_div(columns, WORD);
    const float *from = W.data();
    uint32_t *to = fused::prepare<uint32_t>(signs, {across * down * WORD});
    uint32_t *other = fused::prepare<uint32_t>(turned, {down * across * WORD});
    std::vector<__m512i> scratch(omp_get_max_threads() * across * 2);
    __m512i *const words_of_all = scratch.data();
    fused::parallel(down, rows * columns, [=](long begin, long end) {
        __m512i *words = words_of_all + omp_get_thread_num() * across * 2;
        for (long part = begin; part < end; part++) {
            std::fill_n(words, across * 2, _mm512_setzero_si512());
            for (long i = 0; i < WORD; i++) {
                const bool present = part * WORD + i < rows;
                const float *w = from + (part * WORD + i) * columns;
                const __m512i bit = _mm512_set1_epi32(1u << i);
                for (long k = 0; k < across; k++) {
                    const long n = std::min<long>(WORD, columns - k * WORD);
                    const uint32_t minus = present ? negative(w + k * WORD, n) : 0;
                    _mm_prefetch(w + k * WORD + AHEAD, _MM_HINT_T0);
                    _mm_prefetch(w + k * WORD + AHEAD + LANES, _MM_HINT_T0);
                    __m512i &low = words[2 * k], &high = words[2 * k + 1];
                    low = _mm512_mask_or_epi32(low, minus & 0xffff, low, bit);
                    high = _mm512_mask_or_epi32(high, minus >> 16, high, bit);
                    other[(part * across + k) * WORD + i] = minus;
                }
            }
            for (long k = 0; k < across; k++)
                memcpy(to + (k * down + part) * WORD, &words[2 * k], WORD * sizeof *to);
        }
    });
}

static void pack_binary(PyArrayObject *W, PyArrayObject **signs, PyArrayObject **turned)
{
    pack(fused::Array<float>(W), OfBinary(), signs, turned);
}

static void pack_latent(PyArrayObject *W, PyArrayObject *H, PyArrayObject **signs,
                        PyArrayObject **turned)
{
    const float h = *(const float *)PyArray_DATA(H);
    if (h == 1)
        pack(fused::Array<float>(W), OfLatent<true>{h}, signs, turned);
    else
        pack(fused::Array<float>(W), OfLatent<false>{h}, signs, turned);
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

struct Shape {
    long rows, inputs, units;
    long words() const { return fused::ceil_div(inputs, WORD); }
    long panels() const { return fused::ceil_div(units, PANEL); }
};

// Rows [first, first + ROWS) of the product, if present; sums[panels][ROWS][PANEL] is scratch.
static void multiply_rows(const float *x, long first, const Shape &w, const uint32_t *signs,
                          float H, float *sums, float *y)
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
                const float *from = x + std::min(first + row, w.rows - 1) * w.inputs + input;
                _mm512_store_ps(table, table_of(sign, from, w.inputs - input));
            }
        for (long panel = 0; panel < w.panels(); panel++)
            accumulate(tables, signs + (panel * words + word) * PANEL, n,
                       sums + panel * ROWS * PANEL);
    }
    for (long row = 0; row < std::min<long>(ROWS, w.rows - first); row++)
        for (long unit = 0; unit < w.units; unit += LANES) {
            const float *from = sums + (unit / PANEL * ROWS + row) * PANEL + unit % PANEL;
            const __m512 scaled = _mm512_set1_ps(H) * _mm512_loadu_ps(from);
            _mm512_mask_storeu_ps(y + (first + row) * w.units + unit, lanes(w.units - unit),
                                  scaled);
        }
}

// y = x W, or x W^T if `transposed`, for weights of -H and +H of the shape of W with these signs.
static void multiply(PyArrayObject *x, PyArrayObject *W, PyArrayObject *packed, float H,
                     PyArrayObject **y, bool transposed)
{
    const fused::Array<float> left(x);
    const fused::Array<uint32_t> right(packed);
    const Shape w = {left.dim(0), PyArray_DIM(W, transposed), PyArray_DIM(W, !transposed)};
    if (left.dim(1) != w.inputs)
        fused::raise_value_error("%ld inputs to a product with weights of %ld", left.dim(1),
                                 w.inputs);
    float *to = fused::prepare<float>(y, {w.rows, w.units});
    if (!w.rows || !w.units)
        return;
    const float *from = left.data();
    const uint32_t *signs = right.data();
    if (counted::available()) {
        const counted::Bits bits(from, w.rows, w.inputs);
        if (bits.possible) {
            counted::multiply(bits, signs, w.units, H, to);
            return;
        }
    }
    const long scratch = ROWS * w.panels() * PANEL;
    std::vector<float> sums(omp_get_max_threads() * scratch);
#pragma omp parallel for schedule(dynamic) if (w.rows * w.inputs * w.units > 65536)
    for (long first = 0; first < w.rows; first += ROWS)
        multiply_rows(from, first, w, signs, H, sums.data() + omp_get_thread_num() * scratch, to);
}

static void multiply_latent(PyArrayObject *x, PyArrayObject *W, PyArrayObject *packed,
                            PyArrayObject *H, PyArrayObject **y, bool transposed)
{
    multiply(x, W, packed, *(const float *)PyArray_DATA(H), y, transposed);
}

// The same for W of -H and +H.
static void multiply_binary(PyArrayObject *x, PyArrayObject *W, PyArrayObject *packed,
                            PyArrayObject **y, bool transposed)
{
    const float H = PyArray_SIZE(W) ? fabsf(*(const float *)PyArray_DATA(W)) : 0;
    multiply(x, W, packed, H, y, transposed);
}

} // namespace product
