// 3x3 convolution with filters of -H and +H by additions, or by counting if an image is binary too;
// see convolution.py, signed_sums.h and counted_images.h.
//
// A table serves all filters, and the nine positions that its pixel has under a filter.
//     tables  [rows of pixels][groups of four channels][pixels of a row, border included][16]
//     signs   [panels of filters][rows of a filter][words][columns of a filter][PANEL]

#include "counted_images.h"
#include "images.h"
#include "signed_sums.h"

namespace convolution
{

using signed_sums::GROUPS;
using signed_sums::Signs;
using signed_sums::TABLE;
using signed_sums::WORD;
static_assert(int(LANES) == signed_sums::LANES, "an index has a lane per filter");

enum { PIXELS = 8 };      // pixels of a row; with PANEL filters, their sums stay in registers
enum { BAND = 2 };        // rows of outputs at a time
enum { CACHE_LINE = 16 }; // floats

struct Geometry {
    long inputs, outputs, height, width; // inputs, outputs: channels
    long groups() const { return fused::ceil_div(inputs, 4); }
    long words() const { return fused::ceil_div(inputs, WORD); }
    long panels() const { return fused::ceil_div(outputs, PANEL); }
    long plane() const { return height * width; }
    long padded() const { return fused::ceil_div(width, PIXELS) * PIXELS; }
    long columns() const { return padded() + 2; }
    // Sizes in floats.
    long strip() const { return BAND * padded() * PANEL; }
    long row_of_tables() const { return groups() * columns() * TABLE; }
    long scratch() const
    {
        const long bits = fused::ceil_div(Bits::size(height, columns(), words()), LANES) * LANES;
        return strip() + std::max((BAND + 2) * row_of_tables(), bits);
    }
};

struct Filters {
    const float *data;
    long of_output, of_input; // strides, in floats
    bool turned;              // by 180 degrees
    // Bit i is 1 if the weight of input first + i at (row, column) of the square is negative.
    uint32_t negative(long output, long first, long n, long row, long column) const
    {
        const long tap = turned ? 8 - row * 3 - column : row * 3 + column;
        return signed_sums::negative(data + output * of_output + first * of_input + tap, of_input,
                                     n);
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
                        const long output = std::min(panel * PANEL + k, g.outputs - 1);
                        const long first = word * WORD, n = std::min<long>(WORD, g.inputs - first);
                        signs[(((panel * 3 + row) * g.words() + word) * 3 + column) * PANEL + k] =
                            filters.negative(output, first, n, row, column);
                    }
}

// The tables of a row of pixels.
static void make_tables(const float *row, const Geometry &g, float *tables)
{
    __m512 sign[4];
    for (int i = 0; i < 4; i++)
        sign[i] = signed_sums::sign_of(i);
    for (long c = 0; c < g.inputs; c += 4, tables += g.columns() * TABLE) {
        const float *channel[4];
        __mmask16 present[4];
        for (int i = 0; i < 4; i++) {
            channel[i] = row + std::min(c + i, g.inputs - 1) * g.plane();
            present[i] = c + i < g.inputs ? 0xffff : 0;
        }
        for (int i = 0; i < 4; i++) // read ahead, for the next band
            for (long x = 0; x < g.width; x += CACHE_LINE)
                __builtin_prefetch(channel[i] + BAND * g.width + x, 0, 2);
        _mm512_store_ps(tables, _mm512_setzero_ps());
        for (long x = 0; x < g.width; x++) {
            __m512 sum = _mm512_mul_ps(sign[0], _mm512_set1_ps(channel[0][x]));
            for (int i = 1; i < 4; i++) { // products with +-1 are exact
                const __m512 value = _mm512_set1_ps(channel[i][x]);
                sum = _mm512_mask3_fmadd_ps(sign[i], value, sum, present[i]);
            }
            _mm512_store_ps(tables + (x + 1) * TABLE, sum);
        }
        for (long x = g.width + 1; x < g.columns(); x++)
            _mm512_store_ps(tables + x * TABLE, _mm512_setzero_ps());
    }
}

// Adds to sums[PIXELS][PANEL] the products of a row of the input with a row of the filters.
static inline __attribute__((always_inline)) void add_row(const float *tables, const Geometry &g,
                                                          const uint32_t *signs, __m512 (*sums)[2])
{
    const long stride = g.columns() * TABLE;
    for (long first = 0; first < g.groups(); first += GROUPS, signs += 3 * PANEL) {
        Signs index[3] = {Signs(signs), Signs(signs + PANEL), Signs(signs + 2 * PANEL)};
        const long end = std::min(first + GROUPS, g.groups());
#pragma GCC unroll 1
        for (long group = first; group < end; group++, tables += stride) {
#pragma GCC unroll 10
            for (int x = 0; x < PIXELS + 2; x++) {
                const __m512 table = _mm512_load_ps(tables + x * TABLE);
#pragma GCC unroll 3
                for (int column = 0; column < 3; column++) {
                    const int pixel = x - column;
                    if (pixel >= 0 && pixel < PIXELS)
                        signed_sums::add(table, index[column], sums[pixel]);
                }
            }
#pragma GCC unroll 3
            for (int column = 0; column < 3; column++)
                index[column].next();
        }
    }
}

// Begins to bring the places of a strip's outputs into the cache. They are planes apart, and would be
// waited for one by one.
static void prefetch_strip(long panel, long top, long bottom, const Geometry &g,
                           const float *output)
{
    for (long c = panel * PANEL; c < std::min((panel + 1) * PANEL, g.outputs); c++)
        for (long i = top * g.width; i < bottom * g.width; i += CACHE_LINE)
            __builtin_prefetch(output + c * g.plane() + i, 1, 2);
}

// Writes a strip, BAND rows of the outputs of a panel, channels last.
static void write_strip(const float *strip, long panel, long top, long bottom, const Geometry &g,
                        float *output)
{
    write_pixels(strip, g.padded(), output + panel * PANEL * g.plane() + top * g.width, g.plane(),
                 std::min<long>(PANEL, g.outputs - panel * PANEL), (bottom - top) * g.width,
                 g.width);
}

// Convolves one image by additions. The scratch memory holds a strip, and the tables of BAND + 2
// rows of pixels.
static void convolve_image(const float *image, const uint32_t *signs, float H, const Geometry &g,
                           float *output, float *scratch)
{
    const long size = g.row_of_tables();
    float *strip = scratch, *tables = scratch + g.strip();
    const __m512 scale = _mm512_set1_ps(H);
    long made = 0;
    for (long top = 0; top < g.height; top += BAND) {
        const long bottom = std::min(top + BAND, g.height);
        for (; made < std::min(bottom + 1, g.height); made++)
            make_tables(image + made * g.width, g, tables + made % (BAND + 2) * size);
        for (long panel = 0; panel < g.panels(); panel++) {
            prefetch_strip(panel, top, bottom, g, output);
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
            write_strip(strip, panel, top, bottom, g, output);
        }
    }
}

// Convolves one image by counting. Returns false if it has other values than -c, 0 and +c.
__attribute__((target("avx512vpopcntdq"))) static bool
count_image(const float *image, const uint32_t *signs, float H, const Geometry &g, float *output,
            float *scratch)
{
    float *strip = scratch;
    Bits bits(g.height, g.width, g.columns(), g.words(), scratch + g.strip());
    if (!bits.pack(image, g.inputs))
        return false;
    const __m512 c = _mm512_set1_ps(bits.magnitude), scale = _mm512_set1_ps(H);
    for (long panel = 0; panel < g.panels(); panel++)
        for (long top = 0; top < g.height; top += BAND) {
            const long bottom = std::min(top + BAND, g.height);
            prefetch_strip(panel, top, bottom, g, output);
            for (long y = top; y < bottom; y++)
                for (long x = 0; x < g.width; x += PIXELS) {
                    __m512i negative[PIXELS][2] = {};
                    count<PIXELS>(bits, signs + panel * 9 * g.words() * PANEL, y, x, negative);
                    float *place = strip + ((y - top) * g.padded() + x) * PANEL;
                    for (int pixel = 0; pixel < PIXELS; pixel++) {
                        const __m512i n =
                            _mm512_set1_epi32(bits.number[y * bits.columns + x + pixel]);
                        for (int half = 0; half < 2; half++) {
                            const __m512i twice = _mm512_slli_epi32(negative[pixel][half], 1);
                            const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(n, twice));
                            _mm512_store_ps(place + pixel * PANEL + half * LANES,
                                            scale * (c * sum));
                        }
                    }
                }
            write_strip(strip, panel, top, bottom, g, output);
        }
    return true;
}

static void convolve_binary(PyArrayObject *images, PyArrayObject *filters, PyArrayObject **output,
                            bool transposed)
{
    check_filters(images, filters, transposed);
    const fused::Array<float> input(images), weights(filters);
    const long count = input.dim(0), of_first = weights.dim(1) * 9, of_second = 9;
    const Geometry g = {input.dim(1), weights.dim(transposed), input.dim(2), input.dim(3)};
    const Filters signs = {weights.data(), transposed ? of_second : of_first,
                           transposed ? of_first : of_second, !transposed};
    float *to = fused::prepare<float>(output, {count, g.outputs, g.height, g.width});
    if (!count || !g.outputs || !g.plane())
        return;
    const float *from = input.data(), H = g.inputs ? fabsf(weights.data()[0]) : 0;
    const long threads = omp_get_max_threads();
    float *memory = workspace(threads * g.scratch() + g.panels() * 9 * g.words() * PANEL);
    uint32_t *packed = (uint32_t *)(memory + threads * g.scratch());
#pragma omp parallel
    {
        pack_signs(signs, g, packed);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < count; i++) {
            const float *image = from + i * g.inputs * g.plane();
            float *out = to + i * g.outputs * g.plane();
            float *scratch = memory + omp_get_thread_num() * g.scratch();
            if (!counted::available() || !count_image(image, packed, H, g, out, scratch))
                convolve_image(image, packed, H, g, out, scratch);
        }
    }
}

} // namespace convolution
