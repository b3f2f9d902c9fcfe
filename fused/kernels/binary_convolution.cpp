// 3x3 convolution with filters of -H and +H by additions; see convolution.py for what it computes.
//
// The sums of four channels of a pixel, each with either sign, are sixteen: a register full, made
// once for all filters and for the nine places of the pixel under a filter. Each filter then takes
// the sum that its four signs say: one permutation and one addition serve 64 products.
//     tables  [rows of pixels][groups of four channels][pixels of a row, border included][16]
//     signs   [panels of filters][rows of a filter][words][columns of a filter][PANEL]
// A word has 32 bits, one for each of 32 channels.

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

namespace convolution
{

enum { PIXELS = 8 };                   // of a row, by PANEL filters: their sums stay in registers
enum { BAND = 2 };                     // rows of outputs at a time
enum { CHANNELS = 32, GROUPS = 8 };    // to a word
enum { TABLE = 16, CACHE_LINE = 16 };  // floats

struct Geometry {
    long inputs, outputs, height, width;  // inputs, outputs: channels
    long groups() const { return quotient_up(inputs, 4); }
    long words() const { return quotient_up(inputs, CHANNELS); }
    long panels() const { return quotient_up(outputs, PANEL); }
    long plane() const { return height * width; }
    long padded() const { return quotient_up(width, PIXELS) * PIXELS; }
    long columns() const { return padded() + 2; }
    // Sizes in floats.
    long row_of_tables() const { return groups() * columns() * TABLE; }
    long scratch() const { return (BAND + 2) * row_of_tables() + BAND * padded() * PANEL; }
};

struct Filters {
    const float *data;
    long of_output, of_input;  // strides, in floats
    bool turned;               // by 180 degrees
    // Whether the weight of the input's pixel (row, column) in a square of 3x3 is negative.
    uint32_t negative(long output, long input, long row, long column) const
    {
        const long tap = row * 3 + column;
        return signbit(data[output * of_output + input * of_input + (turned ? 8 - tap : tap)]) != 0;
    }
};

static void pack_signs(const Filters &filters, const Geometry &g, uint32_t *signs)
{
#pragma omp for collapse(2)
    for (long panel = 0; panel < g.panels(); panel++)
        for (long row = 0; row < 3; row++)
            for (long word = 0; word < g.words(); word++)
                for (long column = 0; column < 3; column++)
                    for (long k = 0; k < PANEL; k++) {
                        const long output = smaller(panel * PANEL + k, g.outputs - 1);
                        const long first = word * CHANNELS;
                        uint32_t bits = 0;
                        for (long i = 0; i < smaller(CHANNELS, g.inputs - first); i++)
                            bits |= filters.negative(output, first + i, row, column) << i;
                        signs[(((panel * 3 + row) * g.words() + word) * 3 + column) * PANEL + k] =
                            bits;
                    }
}

// The tables of a row of pixels. Bit i of a table's index: channel i of the group has a minus.
static void make_tables(const float *row, const Geometry &g, float *tables)
{
    __m512 sign[4];
    for (int i = 0; i < 4; i++)
        for (int index = 0; index < TABLE; index++)
            sign[i][index] = index >> i & 1 ? -1 : 1;
    for (long c = 0; c < g.inputs; c += 4, tables += g.columns() * TABLE) {
        const float *channel[4];
        __mmask16 present[4];
        for (int i = 0; i < 4; i++) {
            channel[i] = row + smaller(c + i, g.inputs - 1) * g.plane();
            present[i] = c + i < g.inputs ? 0xffff : 0;
        }
        for (int i = 0; i < 4; i++)  // read ahead, for the next band
            for (long x = 0; x < g.width; x += CACHE_LINE)
                __builtin_prefetch(channel[i] + BAND * g.width + x, 0, 2);
        _mm512_store_ps(tables, _mm512_setzero_ps());
        for (long x = 0; x < g.width; x++) {
            __m512 sum = _mm512_mul_ps(sign[0], _mm512_set1_ps(channel[0][x]));
            for (int i = 1; i < 4; i++) {  // products with +-1 are exact
                const __m512 value = _mm512_set1_ps(channel[i][x]);
                sum = _mm512_mask3_fmadd_ps(sign[i], value, sum, present[i]);
            }
            _mm512_store_ps(tables + (x + 1) * TABLE, sum);
        }
        for (long x = g.width + 1; x < g.columns(); x++)
            _mm512_store_ps(tables + x * TABLE, _mm512_setzero_ps());
    }
}

// Adds to sums[PIXELS][PANEL] what a row of the input gives through a row of the filters.
static inline __attribute__((always_inline)) void add_row(const float *tables, const Geometry &g,
                                                          const uint32_t *signs, __m512 (*sums)[2])
{
    const __m512 one = _mm512_set1_ps(1);
    const long stride = g.columns() * TABLE;
    for (long first = 0; first < g.groups(); first += GROUPS, signs += 3 * PANEL) {
        __m512i index[3][2];
        for (int column = 0; column < 3; column++)
            for (int half = 0; half < 2; half++)
                index[column][half] = _mm512_loadu_si512(signs + column * PANEL + half * LANES);
        const long end = smaller(first + GROUPS, g.groups());
#pragma GCC unroll 1
        for (long group = first; group < end; group++, tables += stride) {
#pragma GCC unroll 10
            for (int x = 0; x < PIXELS + 2; x++) {
                const __m512 table = _mm512_load_ps(tables + x * TABLE);
#pragma GCC unroll 3
                for (int column = 0; column < 3; column++) {
                    const int pixel = x - column;
                    if (pixel < 0 || pixel >= PIXELS)
                        continue;
                    // Half of the sums by multiply-adds: they run beside additions.
                    sums[pixel][0] += _mm512_permutexvar_ps(index[column][0], table);
                    sums[pixel][1] = _mm512_fmadd_ps(
                        _mm512_permutexvar_ps(index[column][1], table), one, sums[pixel][1]);
                }
            }
#pragma GCC unroll 3
            for (int column = 0; column < 3; column++)
                for (int half = 0; half < 2; half++)  // of an index only four bits count
                    index[column][half] = _mm512_srli_epi32(index[column][half], 4);
        }
    }
}

// All of one image, with scratch for the tables of BAND + 2 rows of pixels and for BAND rows of
// the outputs of a panel, channels last.
static void convolve_image(const float *image, const uint32_t *signs, float H, const Geometry &g,
                           float *output, float *scratch)
{
    const long size = g.row_of_tables();
    float *tables = scratch, *strip = scratch + (BAND + 2) * size;
    const __m512 scale = _mm512_set1_ps(H);
    long made = 0;
    for (long top = 0; top < g.height; top += BAND) {
        const long bottom = smaller(top + BAND, g.height);
        for (; made < smaller(bottom + 1, g.height); made++)
            make_tables(image + made * g.width, g, tables + made % (BAND + 2) * size);
        for (long panel = 0; panel < g.panels(); panel++) {
            for (long y = top; y < bottom; y++)
                for (long x = 0; x < g.width; x += PIXELS) {
                    __m512 sums[PIXELS][2] = {};
                    for (long row = 0; row < 3; row++)
                        if (y + row >= 1 && y + row <= g.height)
                            add_row(tables + (y + row - 1) % (BAND + 2) * size + x * TABLE, g,
                                    signs + (panel * 3 + row) * g.words() * 3 * PANEL, sums);
                    float *place = strip + ((y - top) * g.padded() + x) * PANEL;
                    for (int pixel = 0; pixel < PIXELS; pixel++)
                        for (int half = 0; half < 2; half++)
                            _mm512_store_ps(place + pixel * PANEL + half * LANES,
                                            sums[pixel][half] * scale);
                }
            write_pixels(strip, g.padded(), output + panel * PANEL * g.plane() + top * g.width,
                         g.plane(), smaller(PANEL, g.outputs - panel * PANEL),
                         (bottom - top) * g.width, g.width);
        }
    }
}

// Returns 0, or -1 without memory.
static int convolve_binary(const float *images, long count, const Filters &filters, float H,
                           const Geometry &g, float *output)
{
    float *memory =
        workspace(omp_get_max_threads() * g.scratch() + g.panels() * 9 * g.words() * PANEL);
    if (!memory)
        return -1;
    uint32_t *signs = (uint32_t *)(memory + omp_get_max_threads() * g.scratch());
#pragma omp parallel
    {
        pack_signs(filters, g, signs);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < count; i++)
            convolve_image(images + i * g.inputs * g.plane(), signs, H, g,
                           output + i * g.outputs * g.plane(),
                           memory + omp_get_thread_num() * g.scratch());
    }
    return 0;
}

static int convolve_binary_arrays(PyArrayObject *images, PyArrayObject *filters, bool transposed,
                                  PyArrayObject **output)
{
    if (check_filters(images, filters, transposed))
        return -1;
    const npy_intp *in = PyArray_DIMS(images);
    const Geometry g = {in[1], PyArray_DIM(filters, transposed), in[2], in[3]};
    images = PyArray_GETCONTIGUOUS(images);
    filters = PyArray_GETCONTIGUOUS(filters);
    int failed = !images || !filters || prepare_output(output, in[0], g.outputs, in[2], in[3]);
    if (!failed && PyArray_SIZE(*output)) {
        const float *weights = (const float *)PyArray_DATA(filters);
        const long of_first = PyArray_DIM(filters, 1) * 9, of_second = 9;
        const Filters signs = {weights, transposed ? of_second : of_first,
                               transposed ? of_first : of_second, !transposed};
        const float H = g.inputs ? fabsf(weights[0]) : 0;
        if (convolve_binary((const float *)PyArray_DATA(images), in[0], signs, H, g,
                            (float *)PyArray_DATA(*output))) {
            PyErr_NoMemory();
            failed = -1;
        }
    }
    Py_XDECREF(images);
    Py_XDECREF(filters);
    return failed;
}

}  // namespace convolution
