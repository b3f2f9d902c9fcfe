// 3x3 convolution by Winograd's minimal filtering; see convolution.py for what it computes.
//
// An image is cut into tiles of M x M outputs, each made from TILE x TILE inputs. Transforming
// tiles and filters turns the convolution into TILE * TILE independent matrix products (tiles x
// channels) (channels x filters), which need (3 M / TILE)^2 times fewer multiplications. Transforms
// run on vectors of channels, so transformed tiles, filters and products are kept in panels of
// PANEL channels:
//     tiles    [TILE * TILE][panels of channels][tiles][PANEL]
//     filters  [TILE * TILE][panels of filters][channels][PANEL]
// which is also the order in which the products read them: nothing is repacked.

namespace convolution
{

enum { BLOCK = LANES / 2 };  // rows that, by 2 vectors of a product, stay in registers

// One-dimensional transforms; the two-dimensional ones apply them to columns, then rows. F(2, 3)
// evaluates polynomials at 0, 1, -1 and infinity.
template <int M>
struct Input;  // B^T d
template <int M>
struct Filter;  // G g
template <int M>
struct Output;  // A^T m
template <int M>
struct OutputAdjoint;  // A y
template <int M>
struct FilterAdjoint;  // G^T u

template <>
struct Input<2> {
    enum { IN = 4, OUT = 4 };
    static void apply(const vec *d, vec *v)
    {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
    }
};
template <>
struct Filter<2> {
    enum { IN = 3, OUT = 4 };
    static void apply(const vec *g, vec *u)
    {
        u[0] = g[0];
        u[1] = (g[0] + g[1] + g[2]) * 0.5f;
        u[2] = (g[0] - g[1] + g[2]) * 0.5f;
        u[3] = g[2];
    }
};
template <>
struct Output<2> {
    enum { IN = 4, OUT = 2 };
    static void apply(const vec *m, vec *y)
    {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
};

// F(4, 3) at 0, ROOT / 2, -ROOT / 2, ROOT, -ROOT and infinity: errors are a fifth of those of 0, 1,
// -1, 2, -2 and infinity.
static const float ROOT = 1.41421356f;

template <>
struct Input<4> {
    enum { IN = 6, OUT = 6 };
    static void apply(const vec *d, vec *v)
    {
        const vec even = d[4] - d[2] * 2.f, odd = (d[3] - d[1] * 2.f) * (ROOT / 2);
        const vec even2 = d[4] - d[2] * .5f, odd2 = (d[3] - d[1] * .5f) * ROOT;
        v[0] = d[0] - d[2] * 2.5f + d[4];
        v[1] = even + odd;
        v[2] = even - odd;
        v[3] = even2 + odd2;
        v[4] = even2 - odd2;
        v[5] = d[1] - d[3] * 2.5f + d[5];
    }
};
template <>
struct Filter<4> {
    enum { IN = 3, OUT = 6 };
    static void apply(const vec *g, vec *u)
    {
        const vec even = (g[0] + g[2] * .5f) * (-2.f / 3), odd = g[1] * (-ROOT / 3);
        const vec even2 = (g[0] + g[2] * 2.f) * (1.f / 6), odd2 = g[1] * (ROOT / 6);
        u[0] = g[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = even2 + odd2;
        u[4] = even2 - odd2;
        u[5] = g[2];
    }
};
template <>
struct Output<4> {
    enum { IN = 6, OUT = 4 };
    static void apply(const vec *m, vec *y)
    {
        const vec sum = m[1] + m[2], difference = (m[1] - m[2]) * (ROOT / 2);
        const vec sum2 = m[3] + m[4], difference2 = (m[3] - m[4]) * ROOT;
        y[0] = m[0] + sum + sum2;
        y[1] = difference + difference2;
        y[2] = sum * .5f + sum2 * 2.f;
        y[3] = difference * .5f + difference2 * 2.f + m[5];
    }
};
template <>
struct OutputAdjoint<4> {
    enum { IN = 4, OUT = 6 };
    static void apply(const vec *y, vec *m)
    {
        const vec even = y[0] + y[2] * .5f, odd = (y[1] + y[3] * .5f) * (ROOT / 2);
        const vec even2 = y[0] + y[2] * 2.f, odd2 = (y[1] + y[3] * 2.f) * ROOT;
        m[0] = y[0];
        m[1] = even + odd;
        m[2] = even - odd;
        m[3] = even2 + odd2;
        m[4] = even2 - odd2;
        m[5] = y[3];
    }
};
template <>
struct FilterAdjoint<4> {
    enum { IN = 6, OUT = 3 };
    static void apply(const vec *u, vec *g)
    {
        const vec sum = (u[1] + u[2]) * (-2.f / 3), sum2 = (u[3] + u[4]) * (1.f / 6);
        g[0] = u[0] + sum + sum2;
        g[1] = (u[2] - u[1]) * (ROOT / 3) + (u[3] - u[4]) * (ROOT / 6);
        g[2] = sum * .5f + sum2 * 2.f + u[5];
    }
};

// out = F in F^T, where element (i, j) of in is at in + i * in_row + j * in_column, and of out
// likewise (in floats).
template <class F>
static inline void transform(const float *in, long in_row, long in_column, float *out, long out_row,
                             long out_column)
{
    vec half[F::IN][F::OUT];  // column j of F in
#pragma GCC unroll 8
    for (int j = 0; j < F::IN; j++) {
        vec column[F::IN];
#pragma GCC unroll 8
        for (int i = 0; i < F::IN; i++)
            column[i] = *(const vec *)(in + i * in_row + j * in_column);
        F::apply(column, half[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < F::OUT; i++) {
        vec row[F::IN], result[F::OUT];
#pragma GCC unroll 8
        for (int j = 0; j < F::IN; j++)
            row[j] = half[j][i];
        F::apply(row, result);
#pragma GCC unroll 8
        for (int j = 0; j < F::OUT; j++)
            *(vec *)(out + i * out_row + j * out_column) = result[j];
    }
}

static inline long larger(long a, long b)
{
    return a > b ? a : b;
}

// A stack of images (count, channels, height, width) seen as rows of tiles, those of one image
// after those of another.
template <int M>
struct Images {
    enum { TILE = M + 2 };
    float *data;
    long count, channels, height, width;
    long panels() const { return quotient_up(channels, PANEL); }
    long tile_rows() const { return count * quotient_up(height, M); }
    long tile_columns() const { return quotient_up(width, M); }
    // The channels of panel `panel`, and the first pixel row of tile row `row`.
    long first_pixel_row(long row) const { return row % quotient_up(height, M) * M; }
    float *planes(long row, long panel) const
    {
        return data + (row / quotient_up(height, M) * channels + panel * PANEL) * height * width;
    }
    long planes_in(long panel) const { return smaller(PANEL, channels - panel * PANEL); }
};

// The inverse of write_pixels.
static void read_pixels(const float *from, long plane_size, long planes, long pixels, long width,
                        float *strip, long columns)
{
    for (long c = 0; c < planes; c += LANES) {
        float *place = strip + c;
        for (long first = 0, x = 0; first < pixels; first += LANES) {
            vec square[LANES] = {};
            const long count = smaller(LANES, pixels - first);
            for (long i = 0; i < smaller(LANES, planes - c); i++) {
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

// Transforms one row of tiles of one panel of channels. F is Input (tiles overlap and reach
// `border` = 1 pixel over the edge, where images are zero) or OutputAdjoint (border 0). `strip` is
// scratch for F::IN pixel rows, channels last.
template <class F, int M>
static void transform_tile_row(const Images<M> &images, long row, long panel, float *strip,
                               float *tiles, long stride)
{
    const long border = (F::IN - M) / 2, columns = images.tile_columns() * M + 2 * border;
    const long top = images.first_pixel_row(row) - border, begin = top < 0 ? 0 : top;
    const long end = smaller(top + F::IN, images.height);
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

// The inverse way: one row of transformed products to the pixels of one panel of channels.
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
                 smaller(M, images.height - top) * images.width, images.width);
}

// product[BLOCK][PANEL] of BLOCK rows of a panelled left matrix, its `depth` columns in panels
// `panel_stride` apart, with right[depth][PANEL].
static inline void multiply(const float *left, long panel_stride, long depth, const float *right,
                            float *product)
{
    vec sum[BLOCK][2] = {};
    for (long first = 0; first < depth; first += PANEL, left += panel_stride)
#pragma GCC unroll 1
        for (long k = 0; k < smaller(PANEL, depth - first); k++, right += PANEL) {
            const vec right0 = *(const vec *)right, right1 = *(const vec *)(right + LANES);
#pragma GCC unroll 8
            for (int i = 0; i < BLOCK; i++) {
                sum[i][0] += left[i * PANEL + k] * right0;
                sum[i][1] += left[i * PANEL + k] * right1;
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < BLOCK; i++) {
        *(vec *)(product + i * PANEL) = sum[i][0];
        *(vec *)(product + i * PANEL + LANES) = sum[i][1];
    }
}

// product[BLOCK][PANEL] += left^T right over `depth` rows of both.
static inline void multiply_transposed(const float *left, long depth, const float *right,
                                       float *product)
{
    vec sum[BLOCK][2] = {};
#pragma GCC unroll 1
    for (long t = 0; t < depth; t++, left += PANEL, right += PANEL) {
        const vec right0 = *(const vec *)right, right1 = *(const vec *)(right + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < BLOCK; i++) {
            sum[i][0] += left[i] * right0;
            sum[i][1] += left[i] * right1;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < BLOCK; i++) {
        *(vec *)(product + i * PANEL) += sum[i][0];
        *(vec *)(product + i * PANEL + LANES) += sum[i][1];
    }
}

// About how many tiles are in work at a time. Fewer would read filters (or sums of their gradient)
// too often, more would not stay in the cache.
enum { FORWARD_CHUNK = 128, GRADIENT_CHUNK = 256 };

// Floats from the matrix of one product to that of the next, of `rows` times PANEL. The same
// element of all of them is used together: a power of two would put them in the same few lines of
// the cache.
static long product_stride(long rows)
{
    return (rows + 1) * PANEL;
}

// In how many chunks of whole rows to work: about `tiles` tiles in each, as many chunks for each of
// `threads` threads.
template <int M>
static long count_chunks(const Images<M> &images, long tiles, long threads)
{
    const long all = images.tile_rows() * images.tile_columns();
    const long chunks = quotient_up(all, tiles * threads) * threads;
    return larger(1, smaller(chunks, images.tile_rows()));
}

// filters: (output.channels, input.channels, 3, 3) with strides in floats. Returns 0, or -1 without
// memory.
template <int M>
static int convolve(const Images<M> input, const float *filters, const long *strides,
                    const Images<M> output)
{
    enum { TILE = M + 2, PRODUCTS = TILE * TILE };
    const long threads = omp_get_max_threads();
    const long rows = input.tile_rows();
    const long chunks = count_chunks(input, FORWARD_CHUNK, threads);
    const long tiles = quotient_up(rows, chunks) * input.tile_columns();
    const long padded = quotient_up(tiles, BLOCK) * BLOCK;  // multiply() takes BLOCK at a time
    const long input_stride = product_stride(input.panels() * padded);
    const long output_stride = product_stride(output.panels() * padded);
    const long filter_stride = product_stride(output.panels() * input.channels);
    const long strip_size = TILE * (input.tile_columns() * M + 2) * PANEL;
    const long share = PRODUCTS * (input_stride + output_stride) + strip_size;
    float *transformed = workspace(PRODUCTS * filter_stride + threads * share);
    if (!transformed)
        return -1;

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
                        for (long j = 0; j < 3; j++)  // flipped: a true convolution
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
                    for (long t = 0; t < padded; t += BLOCK)
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
    return 0;
}

// The gradient with respect to the filters, (output.channels, input.channels, 3, 3), contiguous:
// the adjoint of each step of convolve. The order of all sums is independent of the number of
// threads.
template <int M>
static int filter_gradient(const Images<M> input, const Images<M> output, float *gradient)
{
    enum { TILE = M + 2, PRODUCTS = TILE * TILE };
    const long threads = omp_get_max_threads();
    const long rows = input.tile_rows(), chunks = count_chunks(input, GRADIENT_CHUNK, 1);
    const long tiles = quotient_up(rows, chunks) * input.tile_columns();
    const long padded_channels = quotient_up(input.channels, BLOCK) * BLOCK;
    const long input_stride = product_stride(input.panels() * tiles);
    const long output_stride = product_stride(output.panels() * tiles);
    const long filter_stride = product_stride(output.panels() * padded_channels);
    const long strip_size = TILE * (input.tile_columns() * M + 2) * PANEL;
    float *in =
        workspace(PRODUCTS * (input_stride + output_stride + filter_stride) + threads * strip_size);
    if (!in)
        return -1;
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
                    for (long c = 0; c < input.channels; c += BLOCK)
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
    return 0;
}

template <int M>
static Images<M> images_of(PyArrayObject *array)
{
    const npy_intp *shape = PyArray_DIMS(array);
    return {(float *)PyArray_DATA(array), shape[0], shape[1], shape[2], shape[3]};
}

template <int M>
static int convolve_arrays(PyArrayObject *input, PyArrayObject *filters, bool transposed,
                           PyArrayObject **output)
{
    if (check_filters(input, filters, transposed))
        return -1;
    const npy_intp *in = PyArray_DIMS(input);
    const float *first = (const float *)PyArray_DATA(filters);
    long strides[4];
    for (int i = 0; i < 4; i++)
        strides[i] = PyArray_STRIDE(filters, i) / (long)sizeof(float);
    if (transposed) {  // their transpose, turned by 180 degrees
        first += 2 * strides[2] + 2 * strides[3];
        const long turned[4] = {strides[1], strides[0], -strides[2], -strides[3]};
        memcpy(strides, turned, sizeof strides);
    }
    input = PyArray_GETCONTIGUOUS(input);
    int failed =
        !input || prepare_output(output, in[0], PyArray_DIM(filters, transposed), in[2], in[3]);
    if (!failed && convolve(images_of<M>(input), first, strides, images_of<M>(*output))) {
        PyErr_NoMemory();
        failed = -1;
    }
    Py_XDECREF(input);
    return failed;
}

template <int M>
static int filter_gradient_arrays(PyArrayObject *input, PyArrayObject *output,
                                  PyArrayObject **gradient)
{
    const npy_intp *in = PyArray_DIMS(input), *out = PyArray_DIMS(output);
    if (in[0] != out[0] || in[2] != out[2] || in[3] != out[3]) {
        PyErr_Format(
            PyExc_ValueError,
            "conv3x3: a gradient of shape (%ld, %ld, %ld, %ld) does not fit images of shape "
            "(%ld, %ld, %ld, %ld)",
            (long)out[0], (long)out[1], (long)out[2], (long)out[3], (long)in[0], (long)in[1],
            (long)in[2], (long)in[3]);
        return -1;
    }
    input = PyArray_GETCONTIGUOUS(input);
    output = PyArray_GETCONTIGUOUS(output);
    int failed = !input || !output || prepare_output(gradient, out[1], in[1], 3, 3);
    if (!failed && filter_gradient(images_of<M>(input), images_of<M>(output),
                                   (float *)PyArray_DATA(*gradient))) {
        PyErr_NoMemory();
        failed = -1;
    }
    Py_XDECREF(input);
    Py_XDECREF(output);
    return failed;
}

}  // namespace convolution
