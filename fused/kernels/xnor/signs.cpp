// Products and 3x3 convolutions of numbers -c and +c with weights -H and +H; see signs.py. Sums are
// integers, which are scaled by c and then by H.
#include "../images.h"
#include "patches.h"

namespace xnor
{

enum { SIDE = 1024 };    // columns side by side, so many that processors read ahead within a row
enum { MOST = 1 << 17 }; // sums for each thread, which stay in the cache until they are scaled

// The bits of a row of at most 64 numbers.
__attribute__((target("avx2,no-avx512f"))) static inline uint64_t pack_row(const float *from,
                                                                           long numbers)
{
    typedef float vector __attribute__((vector_size(32), aligned(4), may_alias));
    uint64_t bits = 0;
    long i = 0;
    for (; i + 8 <= numbers; i += 8)
        bits |= (uint64_t)(255 ^ __builtin_ia32_movmskps256(*(const vector *)(from + i))) << i;
    for (; i < numbers; i++)
        bits |= (uint64_t)!__builtin_signbit(from[i]) << i;
    return bits;
}

// words[column]: the bits of up to SIDE columns of at most 64 numbers, whose rows are `stride` apart.
static inline void pack_columns(const float *from, long stride, long numbers, long columns,
                                uint64_t *words)
{
    uint32_t halves[2][SIDE]; // as wide as the numbers
    for (uint32_t *half : halves)
        memset(half, 0, columns * sizeof *half);
    for (long i = 0; i < numbers; i++) {
        const float *row = from + i * stride;
        uint32_t *half = halves[i / 32];
        for (long j = 0; j < columns; j++)
            half[j] |= (uint32_t)!signbit(row[j]) << i % 32;
    }
    for (long j = 0; j < columns; j++)
        words[j] = halves[0][j] | (uint64_t)halves[1][j] << 32;
}

// The number that all of these are, but for the sign.
static float magnitude(const fused::Array<float> &numbers)
{
    return numbers.size() ? fabsf(*numbers.data()) : 0;
}

// bits[rows][words], from numbers [rows][inputs].
static void pack_rows(const float *x, long rows, long inputs, uint64_t *bits)
{
    const long words = fused::ceil_div(inputs, 64);
    fused::parallel(rows * words, rows * inputs, [=](long begin, long end) {
        for (long word = begin; word < end; word++) {
            const long first = word % words * 64;
            bits[word] = pack_row(x + word / words * inputs + first, std::min(64L, inputs - first));
        }
    });
}

// bits[batch][plane][words]: the channels of pixels, from images [batch][channels][plane].
static void pack_pixels(const float *images, long batch, long channels, long plane, uint64_t *bits)
{
    const long words = fused::ceil_div(channels, 64);
    fused::parallel(batch, batch * channels * plane, [=](long begin, long end) {
        for (long image = begin; image < end; image++)
            for (long first = 0; first < plane; first += SIDE)
                for (long k = 0; k < words; k++) {
                    uint64_t found[SIDE];
                    const long n = std::min(long(SIDE), plane - first);
                    pack_columns(images + (image * channels + 64 * k) * plane + first, plane,
                                 std::min(64L, channels - 64 * k), n, found);
                    for (long j = 0; j < n; j++)
                        bits[(image * plane + first + j) * words + k] = found[j];
                }
    });
}

// The panels of weights [inputs][units]. Units beyond the last have bits 0.
static void pack_matrix(const float *weights, long inputs, long units, uint64_t *panels)
{
    const long words = fused::ceil_div(inputs, 64);
    fused::parallel(words, inputs * units, [=](long begin, long end) {
        for (long k = begin; k < end; k++)
            for (long unit = 0; unit < units; unit += SIDE) {
                uint64_t found[SIDE];
                const long n = std::min(long(SIDE), units - unit);
                pack_columns(weights + 64 * k * units + unit, units,
                             std::min(64L, inputs - 64 * k), n, found);
                for (long j = n; j % PANEL; j++)
                    found[j] = 0;
                for (long j = 0; j < n; j += PANEL)
                    memcpy(panels + ((unit + j) / PANEL * words + k) * PANEL, found + j,
                           PANEL * sizeof *panels);
            }
    });
}

// The panels of filters [units][channels][9], whose rows are taps before channels.
static void pack_filters(const float *filters, long channels, long units, uint64_t *panels)
{
    const long words = fused::ceil_div(channels, 64), all = fused::ceil_div(units, PANEL) * PANEL;
    fused::parallel(all, units * channels * 9, [=](long begin, long end) {
        for (long unit = begin; unit < end; unit++)
            for (long k = 0; k < words; k++) {
                uint64_t found[9] = {0};
                if (unit < units)
                    pack_columns(filters + (unit * channels + 64 * k) * 9, 9,
                                 std::min(64L, channels - 64 * k), 9, found);
                uint64_t *to = panels + (unit / PANEL * 9 * words + k) * PANEL + unit % PANEL;
                for (long tap = 0; tap < 9; tap++)
                    to[tap * words * PANEL] = found[tap];
            }
    });
}

// Writes sums [batch][plane][units] as planes [batch][units][plane].
static void scale_planes(const int32_t *sums, long batch, long plane, long units, float c, float H,
                         float *to)
{
    enum { TOGETHER = 64 }; // pixels, which are written to a plane one after the other
    const long blocks = fused::ceil_div(plane, TOGETHER);
    fused::parallel(batch * blocks, batch * plane * units, [=](long begin, long end) {
        for (long block = begin; block < end; block++) {
            const long image = block / blocks, first = block % blocks * TOGETHER;
            const long n = std::min(long(TOGETHER), plane - first);
            const int32_t *from = sums + (image * plane + first) * units;
            for (long unit = 0; unit < units; unit++)
                for (long j = 0; j < n; j++)
                    to[(image * units + unit) * plane + first + j] =
                        H * (c * (float)from[j * units + unit]);
        }
    });
}

static void dot_signs(PyArrayObject *x, PyArrayObject *W, PyArrayObject **y)
{
    const fused::Array<float> left(x), right(W);
    const long rows = left.dim(0), inputs = left.dim(1), units = right.dim(1);
    if (right.dim(0) != inputs)
        fused::raise_value_error("%ld inputs to a product with weights of %ld", inputs,
                                 right.dim(0));
    check_sums(inputs, 1);
    const long words = fused::ceil_div(inputs, 64), panels = fused::ceil_div(units, PANEL);
    Scratch bits(rows * words), packed(panels * words * PANEL);
    Scratch sums(fused::ceil_div(rows * units, 2));
    pack_rows(left.data(), rows, inputs, bits.data());
    pack_matrix(right.data(), inputs, units, packed.data());
    multiply(Rows{bits.data(), 1, words}, rows, Weights(packed.data(), units, words),
             std::vector<int32_t>(panels * PANEL, inputs), (int32_t *)sums.data());
    scale_planes((int32_t *)sums.data(), 1, rows * units, 1, magnitude(left), magnitude(right),
                 fused::prepare<float>(y, {rows, units}));
}

static void convolve_signs(PyArrayObject *images, PyArrayObject *filters, PyArrayObject **output)
{
    convolution::check_filters(images, filters, false);
    const fused::Array<float> input(images), weights(filters);
    const long batch = input.dim(0), channels = input.dim(1), units = weights.dim(0);
    const long height = input.dim(2), width = input.dim(3), plane = height * width;
    check_sums(9 * channels, 1);
    const long size = fused::ceil_div(channels, 64), words = 9 * size;
    Scratch bits(batch * plane * size), packed(fused::ceil_div(units, PANEL) * words * PANEL);
    pack_pixels(input.data(), batch, channels, plane, bits.data());
    pack_filters(weights.data(), channels, units, packed.data());
    const Weights w(packed.data(), units, words);
    const std::vector<int32_t> bases = border(w, channels, 64 * size, 1);
    const long together = MOST * omp_get_max_threads();
    const long most = std::max(1L, together / std::max(1L, plane * units)); // images at once
    Scratch sums(fused::ceil_div(std::min(most, batch) * plane * units, 2));
    float *to = fused::prepare<float>(output, {batch, units, height, width});
    BitPatches source;
    (Patches &)source = {height, width, words, 1};
    for (long first = 0; first < batch; first += most) {
        const long n = std::min(most, batch - first);
        source.data = bits.data() + first * plane * size;
        multiply(source, n * plane, w, bases, (int32_t *)sums.data());
        scale_planes((int32_t *)sums.data(), n, plane, units, magnitude(input),
                     magnitude(weights), to + first * units * plane);
    }
}

} // namespace xnor
