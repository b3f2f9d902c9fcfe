// The gradient with respect to 3x3 filters whose images consist of -c and +c, as binary activations
// do, by additions; see convolution.py and signed_sums.h.
//
// A table has the signed sums of four pixels side by side of a gradient of the output. It serves
// all channels of the images, and their nine positions under a filter, whose signs are its indices.
#include "convolution.cpp"
#include "signed_sums.h"

namespace convolution
{

using signed_sums::Signs;
using signed_sums::TABLE;
using signed_sums::table_of;
using signed_sums::WORD;

enum { FILTERS = 8 }; // filters at once; with PANEL channels, their sums stay in registers
enum { SLOTS = 40 };  // about how many tables of a filter; with FILTERS, they take 20 KiB

// The signs of images [images][rows][channels, of whole panels]: bit x of a word is whether pixel x
// of the row is negative. They are possible if all pixels are -c or +c, and a row fits a word.
struct SignedImages {
    long channels, height, width, panels;
    float magnitude; // c
    bool possible;
    std::vector<uint32_t> signs;

    SignedImages(const float *data, const std::vector<npy_intp> &shape)
        : channels(shape[1]), height(shape[2]), width(shape[3]),
          panels(fused::ceil_div(channels, PANEL)), magnitude(0), possible(width <= WORD)
    {
        const long rows = shape[0] * channels * height;
        if (!possible || !rows || !width)
            return;
        magnitude = fabsf(data[0]);
        signs.resize(shape[0] * height * panels * PANEL);
        bool other = !(magnitude <= FLT_MAX);
#pragma omp parallel for reduction(| : other) if (rows * width > 16384)
        for (long row = 0; row < rows; row++) {
            const long y = row % height, channel = row / height % channels;
            const long image = row / height / channels;
            const float *pixels = data + row * width;
            for (long x = 0; x < width; x += LANES) {
                const __mmask16 inside = signed_sums::lanes(width - x);
                const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(inside, pixels + x));
                const __m512 c = _mm512_set1_ps(magnitude);
                other |= _mm512_mask_cmp_ps_mask(inside, size, c, _CMP_NEQ_UQ) != 0;
            }
            signs[(image * height + y) * panels * PANEL + channel] =
                signed_sums::negative(pixels, 1, width);
        }
        possible = !other;
    }
};

// Tables of a gradient of the output, for some of its rows and FILTERS filters: [rows][slots]
// [FILTERS][TABLE]. The last two slots of a row are its first group without the first pixel and its
// last group without the last pixel: there, a filter reaches beyond the image, where it is zero.
struct Tables {
    long height, width, groups, rows; // rows at a time
    std::vector<__m512> memory;

    Tables(long height, long width)
        : height(height), width(width), groups(fused::ceil_div(width, 4)),
          rows(std::min(std::max(SLOTS / slots(), 1L), height)), memory(rows * slots() * FILTERS)
    {
    }
    long slots() const { return groups + 2; }
    const __m512 *row(long row) const { return memory.data() + row * slots() * FILTERS; }

    // Rows [top, bottom) of the planes of `filters` filters.
    void make(const float *planes, long filters, long top, long bottom)
    {
        const __m512 sign[4] = {signed_sums::sign_of(0), signed_sums::sign_of(1),
                                signed_sums::sign_of(2), signed_sums::sign_of(3)};
        float pixels[WORD];
        for (long y = top; y < bottom; y++)
            for (long filter = 0; filter < filters; filter++) {
                __m512 *to = memory.data() + (y - top) * slots() * FILTERS + filter;
                memcpy(pixels, planes + (filter * height + y) * width, width * sizeof *pixels);
                const auto table = [&](long group, long end) {
                    return table_of(sign, pixels + group * 4, end - group * 4);
                };
                for (long group = 0; group < groups; group++)
                    to[group * FILTERS] = table(group, width);
                to[(groups + 1) * FILTERS] = table(groups - 1, width - 1);
                pixels[0] = 0;
                to[groups * FILTERS] = table(0, width);
            }
    }
};

// Adds to sums[FILTERS][PANEL] the products of `rows` rows of tables with rows of images, whose
// signs are `stride` apart, under column `column` of the filters.
static inline __attribute__((always_inline)) void add_rows(const Tables &tables, long first,
                                                           long rows, const uint32_t *signs,
                                                           long stride, int column, float *sums)
{
    __m512 sum[FILTERS][2] = {};
    for (long row = 0; row < rows; row++, signs += stride) {
        Signs index(signs);
        for (__m512i &word : index.word)
            word = column == 0   ? _mm512_slli_epi32(word, 1)
                   : column == 2 ? _mm512_srli_epi32(word, 1)
                                 : word;
        const __m512 *tables_of_row = tables.row(first + row);
        for (long group = 0; group < tables.groups; group++, index.next()) {
            const bool left = column == 0 && group == 0;
            const bool right = column == 2 && group == tables.groups - 1;
            const long slot = left ? tables.groups : right ? tables.groups + 1 : group;
#pragma GCC unroll 8
            for (int i = 0; i < FILTERS; i++)
                signed_sums::add(tables_of_row[slot * FILTERS + i], index, sum[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < FILTERS; i++)
        for (int half = 0; half < 2; half++) {
            float *to = sums + i * PANEL + half * LANES;
            _mm512_storeu_ps(to, _mm512_loadu_ps(to) + sum[i][half]);
        }
}

// sums[3][panels][3][FILTERS][PANEL], for the rows and the columns of filters, of all images.
// `planes` are those of FILTERS filters, or of the last `filters`; those of images are `stride`
// apart.
static void sum_images(const SignedImages &images, long count, const float *planes, long stride,
                       long filters, Tables &tables, float *sums)
{
    const long height = images.height, row_of_signs = images.panels * PANEL;
    for (long image = 0; image < count; image++)
        for (long top = 0; top < height; top += tables.rows) {
            const long bottom = std::min(top + tables.rows, height);
            tables.make(planes + image * stride, filters, top, bottom);
            for (long row = 0; row < 3; row++) {
                const long first = std::max(top, 1 - row), end = std::min(bottom, height + 1 - row);
                const uint32_t *signs =
                    images.signs.data() + (image * height + first + row - 1) * row_of_signs;
                for (long panel = 0; panel < images.panels; panel++) {
                    float *to = sums + (row * images.panels + panel) * 3 * FILTERS * PANEL;
#pragma GCC unroll 3
                    for (int column = 0; column < 3; column++)
                        add_rows(tables, first - top, end - first, signs + panel * PANEL,
                                 row_of_signs, column, to + column * FILTERS * PANEL);
                }
            }
        }
}

static void binary_filter_gradient(PyArrayObject *images, PyArrayObject *output_gradient,
                                   PyArrayObject **gradient)
{
    const fused::Array<float> input(images), output(output_gradient);
    const std::vector<npy_intp> in = input.shape(), out = output.shape();
    check_output_gradient(in, out);
    const SignedImages binary(input.data(), in);
    if (!binary.possible) {
        filter_gradient_arrays(images, output_gradient, gradient);
        return;
    }
    float *to = fused::prepare<float>(gradient, {out[1], in[1], 3, 3});
    const long channels = in[1], panels = binary.panels, plane = in[2] * in[3];
    const long threads = omp_get_max_threads(), size = 9 * panels * FILTERS * PANEL;
    std::vector<float> sums_of_all(threads * size);
    std::vector<Tables> tables_of_all(threads, Tables(in[2], in[3]));
#pragma omp parallel
    {
        float *sums = sums_of_all.data() + omp_get_thread_num() * size;
        Tables &tables = tables_of_all[omp_get_thread_num()];
#pragma omp for schedule(dynamic)
        for (long first = 0; first < out[1]; first += FILTERS) {
            const long filters = std::min<long>(FILTERS, out[1] - first);
            std::fill_n(sums, size, 0);
            if (plane)
                sum_images(binary, in[0], output.data() + first * plane, out[1] * plane, filters,
                           tables, sums);
            for (long filter = 0; filter < filters; filter++)
                for (long channel = 0; channel < channels; channel++)
                    for (long row = 0; row < 3; row++)
                        for (long column = 0; column < 3; column++) {
                            const long panel = row * panels + channel / PANEL;
                            const long place = (panel * 3 + column) * FILTERS + filter;
                            // flipped: a true convolution
                            to[((first + filter) * channels + channel) * 9 + 8 - row * 3 - column] =
                                binary.magnitude * sums[place * PANEL + channel % PANEL];
                        }
        }
    }
}

} // namespace convolution
