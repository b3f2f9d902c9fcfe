// 3x3 convolution by Winograd's minimal filtering; see convolution.py.
//
// An image is cut into tiles of M x M outputs, each made from TILE x TILE inputs. Transforming
// tiles and filters turns the convolution into TILE * TILE independent matrix products (tiles x
// channels) (channels x filters), which need (3 M / TILE)^2 times fewer multiplications. Transforms
// run on vectors of channels, so transformed tiles, filters and products are kept in panels of
// PANEL channels:
//     tiles    [TILE * TILE][panels of channels][tiles][PANEL]
//     filters  [TILE * TILE][panels of filters][channels][PANEL]
// which is also the order in which the products read them, so that nothing is repacked.
#include "winograd.h"

namespace convolution
{

enum { ROWS = LANES / 2 }; // rows; with 2 vectors each, a product stays in registers

// A stack of images (count, channels, height, width) as rows of tiles, image after image.
template <int M>
struct Images {
    enum { TILE = M + 2 };
    float *data;
    long count, channels, height, width;
    long panels() const { return fused::ceil_div(channels, PANEL); }
    long tile_rows() const { return count * fused::ceil_div(height, M); }
    long tile_columns() const { return fused::ceil_div(width, M); }
    // The channels of panel `panel`, and the first pixel row of tile row `row`.
    long first_pixel_row(long row) const { return row % fused::ceil_div(height, M) * M; }
    float *planes(long row, long panel) const
    {
        return data +
               (row / fused::ceil_div(height, M) * channels + panel * PANEL) * height * width;
    }
    long planes_in(long panel) const { return std::min<long>(PANEL, channels - panel * PANEL); }
};

// The inverse of write_pixels.
static void read_pixels(const float *from, long plane_size, long planes, long pixels, long width,
                        float *strip, long columns)
{
    for (long c = 0; c < planes; c += LANES) {
        float *place = strip + c;
        for (long first = 0, x = 0; first < pixels; first += LANES) {
            vec square[LANES] = {};
            const long count = std::min<long>(LANES, pixels - first);
            for (long i = 0; i < std::min<long>(LANES, planes - c); i++) {
                const float *row = from + (c + i) * plane_size + first;
                if (count == LANES)
                    square[i] = *(const unaligned_vec *)row;
                else
                    memcpy(&square[i], row, 4 * count);
            }
            transpose(square);
            for (long i = 0; i < count; i++, x++) {
                if (x == width) {
                    x = 0;
                    place += (columns - width) * PANEL;
                }
                *(vec *)place = square[i];
                place += PANEL;
            }
        }
    }
}

// Transforms one row of tiles of one panel of channels. F is Input or OutputAdjoint. With Input,
// tiles overlap and extend `border` = 1 pixel over the edge, where images are zero; with
// OutputAdjoint, the border is 0. `strip` is scratch memory for F::IN pixel rows, channels last.
template <class F, int M>
static void transform_tile_row(const Images<M> &images, long row, long panel, float *strip,
                               float *tiles, long stride)
{
    const long border = (F::IN - M) / 2, columns = images.tile_columns() * M + 2 * border;
    const long top = images.first_pixel_row(row) - border, begin = top < 0 ? 0 : top;
    const long end = std::min(top + F::IN, images.height);
    if (border || columns != images.width || end - begin != F::IN)
        memset(strip, 0, 4 * F::IN * columns * PANEL);
    read_pixels(images.planes(row, panel) + begin * images.width, images.height * images.width,
                images.planes_in(panel), (end - begin) * images.width, images.width,
                strip + ((begin - top) * columns + border) * PANEL, columns);
    for (long t = 0; t < images.tile_columns(); t++)
        for (long lane = 0; lane < PANEL; lane += LANES)
            transform<F>(strip + t * M * PANEL + lane, columns * PANEL, PANEL,
                         tiles + t * PANEL + lane, images.TILE * stride, stride);
}

// The inverse: transforms one row of products to the pixels of one panel of channels.
template <int M>
static void write_tile_row(const Images<M> &images, long row, long panel, float *strip,
                           const float *tiles, long stride)
{
    const long columns = images.tile_columns() * M, top = images.first_pixel_row(row);
    for (long t = 0; t < images.tile_columns(); t++)
        for (long lane = 0; lane < PANEL; lane += LANES)
            transform<Output<M>>(tiles + t * PANEL + lane, images.TILE * stride, stride,
                                 strip + t * M * PANEL + lane, columns * PANEL, PANEL);
    write_pixels(strip, columns, images.planes(row, panel) + top * images.width,
                 images.height * images.width, images.planes_in(panel),
                 std::min<long>(M, images.height - top) * images.width, images.width);
}

// product[ROWS][PANEL] of ROWS rows of the left matrix with right[depth][PANEL]. The `depth`
// columns of the left matrix are in panels, which are `panel_stride` apart.
static inline void multiply(const float *left, long panel_stride, long depth, const float *right,
                            float *product)
{
    vec sum[ROWS][2] = {};
    for (long first = 0; first < depth; first += PANEL, left += panel_stride)
#pragma GCC unroll 1
        for (long k = 0; k < std::min<long>(PANEL, depth - first); k++, right += PANEL) {
            const vec right0 = *(const vec *)right, right1 = *(const vec *)(right + LANES);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                sum[i][0] += left[i * PANEL + k] * right0;
                sum[i][1] += left[i * PANEL + k] * right1;
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
        *(vec *)(product + i * PANEL) = sum[i][0];
        *(vec *)(product + i * PANEL + LANES) = sum[i][1];
    }
}

// product[ROWS][PANEL] += left^T right over `depth` rows of both.
static inline void multiply_transposed(const float *left, long depth, const float *right,
                                       float *product)
{
    vec sum[ROWS][2] = {};
#pragma GCC unroll 1
    for (long t = 0; t < depth; t++, left += PANEL, right += PANEL) {
        const vec right0 = *(const vec *)right, right1 = *(const vec *)(right + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            sum[i][0] += left[i] * right0;
            sum[i][1] += left[i] * right1;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
        *(vec *)(product + i * PANEL) += sum[i][0];
        *(vec *)(product + i * PANEL + LANES) += sum[i][1];
    }
}

// About how many tiles are processed at a time. With fewer, filters (or sums of their gradient)
// would be read too often; more would not stay in the cache.
enum { FORWARD_CHUNK = 128, GRADIENT_CHUNK = 256 };

// Floats from the matrix of one product, of `rows` times PANEL, to the next matrix. The same
// element of all matrices is used together, so with a power of two, they would all be in the same
// few lines of the cache.
static long product_stride(long rows)
{
    return (rows + 1) * PANEL;
}

// The number of chunks of whole rows: each has about `tiles` tiles, and each of `threads` threads
// has the same number of chunks.
template <int M>
static long count_chunks(const Images<M> &images, long tiles, long threads)
{
    const long all = images.tile_rows() * images.tile_columns();
    const long chunks = fused::ceil_div(all, tiles * threads) * threads;
    return std::max(1L, std::min(chunks, images.tile_rows()));
}

// filters: (output.channels, input.channels, 3, 3) with strides in floats.
template <int M>
static void convolve(const Images<M> input, const float *filters, const long *strides,
                     const Images<M> output)
{
    enum { TILE = M + 2, PRODUCTS = TILE * TILE };
    const long threads = omp_get_max_threads();
    const long rows = input.tile_rows();
    const long chunks = count_chunks(input, FORWARD_CHUNK, threads);
    const long tiles = fused::ceil_div(rows, chunks) * input.tile_columns();
    const long padded = fused::ceil_div(tiles, ROWS) * ROWS; // multiply() takes ROWS at a time
    const long input_stride = product_stride(input.panels() * padded);
    const long output_stride = product_stride(output.panels() * padded);
    const long filter_stride = product_stride(output.panels() * input.channels);
    const long strip_size = TILE * (input.tile_columns() * M + 2) * PANEL;
    const long share = PRODUCTS * (input_stride + output_stride) + strip_size;
    float *transformed = workspace(PRODUCTS * filter_stride + threads * share);

#pragma omp parallel
    {
        float *strip = transformed + PRODUCTS * filter_stride + omp_get_thread_num() * share;
        float *in = strip + strip_size, *out = in + PRODUCTS * input_stride;

#pragma omp for collapse(2)
        for (long panel = 0; panel < output.panels(); panel++)
            for (long c = 0; c < input.channels; c++) {
                float taps[9][PANEL] __attribute__((aligned(64)));
                for (long k = 0; k < output.planes_in(panel); k++)
                    for (long i = 0; i < 3; i++)
                        for (long j = 0; j < 3; j++) // flipped: a true convolution
                            taps[i * 3 + j][k] =
                                filters[(panel * PANEL + k) * strides[0] + c * strides[1] +
                                        (2 - i) * strides[2] + (2 - j) * strides[3]];
                for (long lane = 0; lane < PANEL; lane += LANES)
                    transform<Filter<M>>(&taps[0][lane], 3 * PANEL, PANEL,
                                         transformed + (panel * input.channels + c) * PANEL + lane,
                                         TILE * filter_stride, filter_stride);
            }

#pragma omp for schedule(dynamic)
        for (long chunk = 0; chunk < chunks; chunk++) {
            const long first = rows * chunk / chunks, end = rows * (chunk + 1) / chunks;
            for (long panel = 0; panel < input.panels(); panel++)
                for (long row = first; row < end; row++)
                    transform_tile_row<Input<M>>(
                        input, row, panel, strip,
                        in + (panel * padded + (row - first) * input.tile_columns()) * PANEL,
                        input_stride);
            for (long product = 0; product < PRODUCTS; product++)
                for (long panel = 0; panel < output.panels(); panel++)
                    for (long t = 0; t < padded; t += ROWS)
                        multiply(
                            in + product * input_stride + t * PANEL, padded * PANEL, input.channels,
                            transformed + product * filter_stride + panel * input.channels * PANEL,
                            out + product * output_stride + (panel * padded + t) * PANEL);
            for (long panel = 0; panel < output.panels(); panel++)
                for (long row = first; row < end; row++)
                    write_tile_row(output, row, panel, strip,
                                   out + (panel * padded + (row - first) * input.tile_columns()) *
                                             PANEL,
                                   output_stride);
        }
    }
}

// The gradient with respect to the filters, (output.channels, input.channels, 3, 3), contiguous. It
// uses the adjoint of each step of convolve. The order of sums does not depend on the number of
// threads.
template <int M>
static void filter_gradient(const Images<M> input, const Images<M> output, float *gradient)
{
    enum { TILE = M + 2, PRODUCTS = TILE * TILE };
    const long threads = omp_get_max_threads();
    const long rows = input.tile_rows(), chunks = count_chunks(input, GRADIENT_CHUNK, 1);
    const long tiles = fused::ceil_div(rows, chunks) * input.tile_columns();
    const long padded_channels = fused::ceil_div(input.channels, ROWS) * ROWS;
    const long input_stride = product_stride(input.panels() * tiles);
    const long output_stride = product_stride(output.panels() * tiles);
    const long filter_stride = product_stride(output.panels() * padded_channels);
    const long strip_size = TILE * (input.tile_columns() * M + 2) * PANEL;
    float *in =
        workspace(PRODUCTS * (input_stride + output_stride + filter_stride) + threads * strip_size);
    float *out = in + PRODUCTS * input_stride, *sums = out + PRODUCTS * output_stride;

#pragma omp parallel
    {
        float *strip = sums + PRODUCTS * filter_stride + omp_get_thread_num() * strip_size;
#pragma omp for
        for (long i = 0; i < PRODUCTS * filter_stride; i++)
            sums[i] = 0;

        for (long chunk = 0; chunk < chunks; chunk++) {
            const long first = rows * chunk / chunks, end = rows * (chunk + 1) / chunks;
            const long used = (end - first) * input.tile_columns();
#pragma omp for collapse(2) nowait
            for (long panel = 0; panel < input.panels(); panel++)
                for (long row = first; row < end; row++)
                    transform_tile_row<Input<M>>(
                        input, row, panel, strip,
                        in + (panel * tiles + (row - first) * input.tile_columns()) * PANEL,
                        input_stride);
#pragma omp for collapse(2)
            for (long panel = 0; panel < output.panels(); panel++)
                for (long row = first; row < end; row++)
                    transform_tile_row<OutputAdjoint<M>>(
                        output, row, panel, strip,
                        out + (panel * tiles + (row - first) * input.tile_columns()) * PANEL,
                        output_stride);
#pragma omp for collapse(2)
            for (long product = 0; product < PRODUCTS; product++)
                for (long panel = 0; panel < output.panels(); panel++)
                    for (long c = 0; c < input.channels; c += ROWS)
                        multiply_transposed(
                            in + product * input_stride + c / PANEL * tiles * PANEL + c % PANEL,
                            used, out + product * output_stride + panel * tiles * PANEL,
                            sums + product * filter_stride + (panel * padded_channels + c) * PANEL);
        }

#pragma omp for collapse(2)
        for (long panel = 0; panel < output.panels(); panel++)
            for (long c = 0; c < input.channels; c++) {
                float taps[9][PANEL] __attribute__((aligned(64)));
                for (long lane = 0; lane < PANEL; lane += LANES)
                    transform<FilterAdjoint<M>>(sums + (panel * padded_channels + c) * PANEL + lane,
                                                TILE * filter_stride, filter_stride, &taps[0][lane],
                                                3 * PANEL, PANEL);
                for (long k = 0; k < output.planes_in(panel); k++)
                    for (long tap = 0; tap < 9; tap++)
                        gradient[((panel * PANEL + k) * input.channels + c) * 9 + 8 - tap] =
                            taps[tap][k];
            }
    }
}

template <int M>
static Images<M> images_of(const float *data, const std::vector<npy_intp> &shape)
{
    return {(float *)data, shape[0], shape[1], shape[2], shape[3]};
}

template <int M>
static void convolve_arrays(PyArrayObject *images, PyArrayObject *filters, PyArrayObject **output,
                            bool transposed)
{
    check_filters(images, filters, transposed);
    const fused::Array<float> input(images);
    const float *first = (const float *)PyArray_DATA(filters);
    long strides[4];
    for (int i = 0; i < 4; i++)
        strides[i] = PyArray_STRIDE(filters, i) / (long)sizeof(float);
    if (transposed) { // their transpose, turned by 180 degrees
        first += 2 * strides[2] + 2 * strides[3];
        const long turned[4] = {strides[1], strides[0], -strides[2], -strides[3]};
        memcpy(strides, turned, sizeof strides);
    }
    std::vector<npy_intp> shape = input.shape();
    shape[1] = PyArray_DIM(filters, transposed);
    const float *to = fused::prepare<float>(output, shape);
    convolve(images_of<M>(input.data(), input.shape()), first, strides, images_of<M>(to, shape));
}

// Raises unless the gradient of an output fits the images.
static void check_output_gradient(const std::vector<npy_intp> &in, const std::vector<npy_intp> &out)
{
    if (in[0] != out[0] || in[2] != out[2] || in[3] != out[3])
        fused::raise_value_error(
            "conv3x3: a gradient of shape (%ld, %ld, %ld, %ld) does not fit images of shape "
            "(%ld, %ld, %ld, %ld)",
            out[0], out[1], out[2], out[3], in[0], in[1], in[2], in[3]);
}

static void filter_gradient_arrays(PyArrayObject *images, PyArrayObject *output_gradient,
                                   PyArrayObject **gradient)
{
    const fused::Array<float> input(images), output(output_gradient);
    const std::vector<npy_intp> in = input.shape(), out = output.shape();
    check_output_gradient(in, out);
    float *to = fused::prepare<float>(gradient, {out[1], in[1], 3, 3});
    filter_gradient(images_of<4>(input.data(), in), images_of<4>(output.data(), out), to);
}

} // namespace convolution
