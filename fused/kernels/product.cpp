#section support_code

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <algorithm>
#include <immintrin.h>
#include <vector>

/* x W for W of -H and +H. The sums of four inputs, each with either sign, are sixteen: a register
   full, made once for all units. Each unit then takes the sum that its four signs say, so that one
   permutation and one addition serve four weights of sixteen units. */
namespace {

const npy_intp ROWS = 8;    /* of x at once */
const npy_intp UNITS = 32;  /* of W at once: two registers */
const npy_intp INPUTS = 32; /* whose signs are one word of 32 bits */
const npy_intp WORDS = 4;   /* whose tables (16 KiB) stay in the fastest cache */
const int GROUPS = 8;       /* of four inputs to a word */

npy_intp rounded_up(npy_intp n, npy_intp unit) { return (n + unit - 1) / unit * unit; }
npy_intp words_of(npy_intp inputs) { return rounded_up(inputs, INPUTS) / INPUTS; }

/* Bit i: whether x[i] is negative, for n <= 32 numbers. */
inline uint32_t negative(const float *x, npy_intp n)
{
    const uint32_t there = n < 32 ? (1u << n) - 1 : ~0u;
    return _mm512_movepi32_mask(_mm512_maskz_loadu_epi32(there & 0xffff, x)) |
           (uint32_t)_mm512_movepi32_mask(_mm512_maskz_loadu_epi32(there >> 16, x + 16)) << 16;
}

/* Signs of UNITS units, of UNITS more, ...: for each word of inputs, bit i of the u-th number says
   whether the weight of input 32 word + i and the block's unit u is negative; 0 beyond the matrix.
   Element (input, unit) of the matrix is W[input * of_input + unit * of_unit], where one of the two
   strides is 1. */
void pack_signs(const float *W, npy_intp inputs, npy_intp outputs, npy_intp of_input,
                npy_intp of_unit, uint32_t *signs)
{
    const npy_intp words = words_of(inputs);
#pragma omp parallel for schedule(static) collapse(2) if (inputs * outputs > 16384)
    for (npy_intp block = 0; block < outputs; block += UNITS)
        for (npy_intp word = 0; word < words; ++word) {
            uint32_t *to = signs + block * words + word * UNITS;
            const float *from = W + block * of_unit + word * INPUTS * of_input;
            const npy_intp there = std::min(UNITS, outputs - block);
            const npy_intp n = std::min(INPUTS, inputs - word * INPUTS);
            if (of_unit == 1) { /* a row of the matrix is one input of all units */
                __m512i low = _mm512_setzero_si512(), high = low;
                for (npy_intp i = 0; i < n; ++i) {
                    const uint32_t minus = negative(from + i * of_input, there);
                    const __m512i bit = _mm512_set1_epi32(1u << i);
                    low = _mm512_mask_or_epi32(low, minus & 0xffff, low, bit);
                    high = _mm512_mask_or_epi32(high, minus >> 16, high, bit);
                }
                _mm512_storeu_si512(to, low);
                _mm512_storeu_si512(to + 16, high);
            } else {
                for (npy_intp u = 0; u < UNITS; ++u)
                    to[u] = u < there ? negative(from + u * of_unit, n) : 0;
            }
        }
}

/* The sixteen sums of four inputs from x on: where bit i of the index is set, input i is taken
   with a minus. Inputs from `n` on are zero. */
inline __m512 signed_sums(const float *x, npy_intp n)
{
    const __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i minus = _mm512_set1_epi32(INT32_MIN);
    __m512 term[4];
    for (int i = 0; i < 4; ++i) {
        const __m512i value = _mm512_castps_si512(_mm512_set1_ps(i < n ? x[i] : 0));
        const __m512i sign = _mm512_and_si512(_mm512_slli_epi32(index, 31 - i), minus);
        term[i] = _mm512_castsi512_ps(_mm512_xor_si512(value, sign));
    }
    return _mm512_add_ps(_mm512_add_ps(term[0], term[1]), _mm512_add_ps(term[2], term[3]));
}

/* ROWS sums of UNITS units each, over `words` words of inputs more. */
inline void accumulate(const float *tables, const uint32_t *signs, npy_intp words, float *sums)
{
    const __m512 one = _mm512_set1_ps(1);
    __m512 sum[2][ROWS];
    for (int row = 0; row < ROWS; ++row) {
        sum[0][row] = _mm512_loadu_ps(sums + row * UNITS);
        sum[1][row] = _mm512_loadu_ps(sums + row * UNITS + 16);
    }
    for (npy_intp word = 0; word < words; ++word) {
        __m512i index0 = _mm512_loadu_si512(signs + word * UNITS);
        __m512i index1 = _mm512_loadu_si512(signs + word * UNITS + 16);
        for (int group = 0; group < GROUPS; ++group) {
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; ++row, tables += 16) {
                const __m512 table = _mm512_loadu_ps(tables);
                sum[0][row] = _mm512_add_ps(sum[0][row], _mm512_permutexvar_ps(index0, table));
                /* Half of the sums by multiply-adds: they run beside additions. */
                const __m512 other = _mm512_permutexvar_ps(index1, table);
                sum[1][row] = _mm512_fmadd_ps(other, one, sum[1][row]);
            }
            index0 = _mm512_srli_epi32(index0, 4); /* of an index only four bits count */
            index1 = _mm512_srli_epi32(index1, 4);
        }
    }
    for (int row = 0; row < ROWS; ++row) {
        _mm512_storeu_ps(sums + row * UNITS, sum[0][row]);
        _mm512_storeu_ps(sums + row * UNITS + 16, sum[1][row]);
    }
}

/* Rows [first, first + ROWS) of the product, as far as there are; `sums` has ROWS of UNITS, of
   UNITS more, ... */
void multiply_rows(const float *x, npy_intp first, npy_intp rows, npy_intp inputs,
                   const uint32_t *signs, float H, float *sums, float *y, npy_intp outputs)
{
    alignas(64) float tables[WORDS * GROUPS * ROWS * 16];
    const npy_intp words = words_of(inputs), there = std::min(ROWS, rows - first);
    memset(sums, 0, ROWS * rounded_up(outputs, UNITS) * sizeof *sums);
    for (npy_intp word = 0; word < words; word += WORDS) {
        const npy_intp n = std::min(WORDS, words - word);
        float *table = tables;
        for (npy_intp input = word * INPUTS; input < (word + n) * INPUTS; input += 4)
            for (npy_intp row = 0; row < ROWS; ++row, table += 16) {
                const float *from = x + std::min(first + row, rows - 1) * inputs + input;
                _mm512_store_ps(table, signed_sums(from, inputs - input));
            }
        for (npy_intp u = 0; u < outputs; u += UNITS)
            accumulate(tables, signs + u * words + word * UNITS, n, sums + u * ROWS);
    }
    for (npy_intp row = 0; row < there; ++row)
        for (npy_intp u = 0; u < outputs; ++u)
            y[(first + row) * outputs + u] =
                H * sums[u / UNITS * ROWS * UNITS + row * UNITS + u % UNITS];
}

/* y = x W, or x W^T if `transposed`. */
int product(PyArrayObject *X, PyArrayObject *W, PyArrayObject **Y, int transposed)
{
    const npy_intp rows = PyArray_DIM(X, 0), inputs = PyArray_DIM(W, transposed);
    npy_intp shape[2] = {rows, PyArray_DIM(W, !transposed)};
    const npy_intp outputs = shape[1];
    if (PyArray_DIM(X, 1) != inputs) {
        PyErr_Format(PyExc_ValueError, "%ld inputs to a product with weights of %ld",
                     (long)PyArray_DIM(X, 1), (long)inputs);
        return -1;
    }
    if (!*Y || !PyArray_IS_C_CONTIGUOUS(*Y) || !PyArray_CompareLists(PyArray_DIMS(*Y), shape, 2)) {
        Py_XDECREF(*Y);
        *Y = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT32);
    }
    PyArrayObject *x = PyArray_GETCONTIGUOUS(X), *w = PyArray_GETCONTIGUOUS(W);
    const int failed = !*Y || !x || !w;
    if (!failed && rows * outputs) {
        const float *weights = (float *)PyArray_DATA(w), H = inputs ? fabsf(weights[0]) : 0;
        const npy_intp width = PyArray_DIM(W, 1), units = rounded_up(outputs, UNITS);
        std::vector<uint32_t> signs(words_of(inputs) * units);
        pack_signs(weights, inputs, outputs, transposed ? 1 : width, transposed ? width : 1,
                   signs.data());
#pragma omp parallel if (rows * inputs * outputs > 65536)
        {
            std::vector<float> sums(ROWS * units);
#pragma omp for schedule(dynamic)
            for (npy_intp first = 0; first < rows; first += ROWS)
                multiply_rows((float *)PyArray_DATA(x), first, rows, inputs, signs.data(), H,
                              sums.data(), (float *)PyArray_DATA(*Y), outputs);
        }
    }
    Py_XDECREF(x);
    Py_XDECREF(w);
    return failed ? -1 : 0;
}

} // namespace

int binary_product(PyArrayObject *x, PyArrayObject *W, PyArrayObject **y)
{
    return product(x, W, y, 0);
}

int binary_product_transposed(PyArrayObject *x, PyArrayObject *W, PyArrayObject **y)
{
    return product(x, W, y, 1);
}
