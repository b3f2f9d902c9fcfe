#section support_code

/* Products of +-1 by exclusive or and population count; see xnor.py for what they compute.

   A bit is 1 for +1 and 0 for -1, bit i of a row in word i / 64; bits beyond the end are 0. Weights
   lie in panels of PANEL units: [panels][words][PANEL], so that a vector holds a word each of PANEL
   units, to be compared with one word of a row: counts need no sum over lanes, and rows of any
   length waste nothing. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace xnor
{

enum { PANEL = 8, ROWS = 4, WIDE = 4 };  // a tile: ROWS rows by WIDE panels stay in registers
enum { BLOCK_ROWS = 64, BLOCK_BYTES = 1 << 18 };  // of weights, to stay in the second-level cache

static inline npy_intp smaller(npy_intp a, npy_intp b)
{
    return a < b ? a : b;
}

/* Bits that differ between R rows and U panels, plane p counted 2^p times: counts[R][U * PANEL].
   A row is `planes` times `words` words, `stride` from the next row. */
typedef void (*tile)(const uint64_t *rows, npy_intp stride, npy_intp planes, npy_intp words,
                     const uint64_t *panels, int32_t *counts);

template <int R, int U>
static void count_plain(const uint64_t *rows, npy_intp stride, npy_intp planes, npy_intp words,
                        const uint64_t *panels, int32_t *counts)
{
    for (int r = 0; r < R; ++r)
        for (int u = 0; u < U; ++u) {
            int32_t sums[PANEL] = {0};
            for (npy_intp plane = planes; plane-- > 0;) {
                for (int lane = 0; lane < PANEL; ++lane)
                    sums[lane] *= 2;
                for (npy_intp k = 0; k < words; ++k)
                    for (int lane = 0; lane < PANEL; ++lane)
                        sums[lane] +=
                            __builtin_popcountll(rows[r * stride + plane * words + k] ^
                                                 panels[(u * words + k) * PANEL + lane]);
            }
            memcpy(counts + (r * U + u) * PANEL, sums, sizeof sums);
        }
}

#ifdef __x86_64__
template <int R, int U>
__attribute__((target("avx512f,avx512vpopcntdq"))) static void
count_avx512(const uint64_t *rows, npy_intp stride, npy_intp planes, npy_intp words,
             const uint64_t *panels, int32_t *counts)
{
    __m512i sums[R][U];
    for (int r = 0; r < R; ++r)
        for (int u = 0; u < U; ++u)
            sums[r][u] = _mm512_setzero_si512();
    for (npy_intp plane = planes; plane-- > 0;) {
        for (int r = 0; r < R; ++r)
            for (int u = 0; u < U; ++u)
                sums[r][u] = _mm512_slli_epi64(sums[r][u], 1);
        for (npy_intp k = 0; k < words; ++k) {
            __m512i weights[U];
            for (int u = 0; u < U; ++u)
                weights[u] = _mm512_loadu_si512(panels + (u * words + k) * PANEL);
            for (int r = 0; r < R; ++r) {
                const __m512i word = _mm512_set1_epi64(rows[r * stride + plane * words + k]);
                for (int u = 0; u < U; ++u)
                    sums[r][u] = _mm512_add_epi64(
                        sums[r][u], _mm512_popcnt_epi64(_mm512_xor_si512(word, weights[u])));
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int u = 0; u < U; ++u)
            _mm256_storeu_si256((__m256i *)(counts + (r * U + u) * PANEL),
                                _mm512_cvtepi64_epi32(sums[r][u]));
}

/* Population counts of nibbles from a table (Mula, Kurz and Lemire, "Faster population counts using
   AVX2 instructions", 2018), summed in bytes as long as these cannot overflow. The compiler's
   vectors, not the intrinsics: these cannot be inlined where the rest may use AVX-512. */
typedef uint8_t bytes __attribute__((vector_size(32)));
typedef char chars __attribute__((vector_size(32)));
typedef uint64_t lanes __attribute__((vector_size(32)));
typedef uint64_t unaligned_lanes __attribute__((vector_size(32), aligned(8)));

template <int R, int U>
__attribute__((target("avx2,no-avx512f"))) static void
count_avx2(const uint64_t *rows, npy_intp stride, npy_intp planes, npy_intp words,
           const uint64_t *panels, int32_t *counts)
{
    const chars table = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    const lanes zero = {0}, nibble = zero + 0x0f0f0f0f0f0f0f0fu;
    const npy_intp most = 31;  // words: 31 x 8 bits < 256
    for (int u = 0; u < U; ++u) {
        lanes sums[R][2];
        for (int r = 0; r < R; ++r)
            sums[r][0] = sums[r][1] = zero;
        for (npy_intp plane = planes; plane-- > 0;) {
            for (int r = 0; r < R; ++r) {
                sums[r][0] <<= 1;
                sums[r][1] <<= 1;
            }
            for (npy_intp first = 0; first < words; first += most) {
                const npy_intp end = smaller(words, first + most);
                bytes totals[R][2];
                for (int r = 0; r < R; ++r)
                    totals[r][0] = totals[r][1] = (bytes)zero;
                for (npy_intp k = first; k < end; ++k)
                    for (int half = 0; half < 2; ++half) {
                        const lanes weights = *(const unaligned_lanes *)(
                            panels + (u * words + k) * PANEL + 4 * half);
                        for (int r = 0; r < R; ++r) {
                            const lanes x = weights ^ rows[r * stride + plane * words + k];
                            const chars low = (chars)(x & nibble), high = (chars)(x >> 4 & nibble);
                            totals[r][half] += (bytes)__builtin_ia32_pshufb256(table, low) +
                                               (bytes)__builtin_ia32_pshufb256(table, high);
                        }
                    }
                for (int r = 0; r < R; ++r)
                    for (int half = 0; half < 2; ++half)
                        sums[r][half] +=
                            (lanes)__builtin_ia32_psadbw256((chars)totals[r][half], (chars)zero);
            }
        }
        for (int r = 0; r < R; ++r)
            for (int lane = 0; lane < PANEL; ++lane)
                counts[(r * U + u) * PANEL + lane] = sums[r][lane / 4][lane % 4];
    }
}
#endif

/* Kernels from the fastest to the one that every processor has. */
struct kernel {
    const char *name;
    int available;
    tile tiles[2][2];  // [ROWS rows, or 1][WIDE panels, or 1]
};
#define TILES(count)                                                                              \
    {                                                                                             \
        {count<ROWS, WIDE>, count<ROWS, 1>},                                                      \
        {                                                                                         \
            count<1, WIDE>, count<1, 1>                                                           \
        }                                                                                         \
    }

/* The kernel of the environment's BINARYCONNECT_XNOR, else the fastest that the processor has; NULL
   with a Python error if it has not that one. */
static const kernel *chosen_kernel()
{
#ifdef __x86_64__
    __builtin_cpu_init();
#endif
    static const kernel kernels[] = {
#ifdef __x86_64__
        {"avx512",
         __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq"),
         TILES(count_avx512)},
        {"avx2", __builtin_cpu_supports("avx2"), TILES(count_avx2)},
#endif
        {"plain", 1, TILES(count_plain)},
    };
    const char *wanted = getenv("BINARYCONNECT_XNOR");
    for (const kernel &one : kernels)
        if (one.available && (!wanted || !*wanted || strcmp(wanted, one.name) == 0))
            return &one;
    PyErr_Format(PyExc_ValueError,
                 "BINARYCONNECT_XNOR is '%s', expected avx512, avx2 or plain, of which this "
                 "processor has the instructions",
                 wanted);
    return NULL;
}

/* Weights, and what the product is where no bit differs: base[classes of rows][panels * PANEL]. */
struct weights {
    const uint64_t *panels;
    npy_intp number, words, units;
    const int32_t *base;
};

/* out[n][units] = base[class of the row] - 2 counts, for the `n` rows of `source`. A source has
   `planes`; `scratch()`, words that a block of rows needs; `rows(first, end, scratch)`, where these
   lie, and `row_class(row)`. */
template <class Source>
static int multiply(const kernel *kernel, const Source &source, npy_intp n, weights w, int32_t *out)
{
    const npy_intp stride = source.planes * w.words, panel = w.words * PANEL;
    npy_intp block = BLOCK_BYTES / (8 * (panel ? panel : 1)) / WIDE * WIDE;
    block = block > WIDE ? block : WIDE;
    int failed = 0;
#pragma omp parallel if (n * stride * w.number > 4096)
    {
        const npy_intp needed = source.scratch();
        uint64_t *scratch = needed ? (uint64_t *)malloc(8 * needed) : NULL;
        if (needed && !scratch)
#pragma omp atomic write
            failed = 1;
#pragma omp for collapse(2) schedule(dynamic)
        for (npy_intp top = 0; top < n; top += BLOCK_ROWS)
            for (npy_intp left = 0; left < w.number; left += block) {
                if (needed && !scratch)
                    continue;
                const npy_intp bottom = smaller(n, top + BLOCK_ROWS);
                const npy_intp right = smaller(w.number, left + block);
                const uint64_t *rows = source.rows(top, bottom, scratch);
                npy_intp high, wide;
                for (npy_intp r = top; r < bottom; r += high) {
                    high = bottom - r >= ROWS ? ROWS : 1;
                    for (npy_intp q = left; q < right; q += wide) {
                        int32_t counts[ROWS * WIDE * PANEL];
                        wide = right - q >= WIDE ? WIDE : 1;
                        kernel->tiles[high == 1][wide == 1](rows + (r - top) * stride, stride,
                                                            source.planes, w.words,
                                                            w.panels + q * panel, counts);
                        const npy_intp units = smaller(wide * PANEL, w.units - q * PANEL);
                        for (npy_intp i = 0; i < high; ++i) {
                            const int32_t *base = w.base + source.row_class(r + i) * w.number * PANEL + q * PANEL;
                            const int32_t *count = counts + i * wide * PANEL;
                            int32_t *to = out + (r + i) * w.units + q * PANEL;
                            for (npy_intp j = 0; j < units; ++j)
                                to[j] = base[j] - 2 * count[j];
                        }
                    }
                }
            }
        free(scratch);
    }
    if (failed)
        PyErr_NoMemory();
    return -failed;
}

/* Rows as they lie. */
struct Rows {
    const uint64_t *data;
    npy_intp planes, stride;
    npy_intp scratch() const
    {
        return 0;
    }
    const uint64_t *rows(npy_intp first, npy_intp, uint64_t *) const
    {
        return data + first * stride;
    }
    npy_intp row_class(npy_intp) const
    {
        return 0;
    }
};

/* Patches of 3x3, one for each pixel of images with a border of zeros, tap (i, j) of a true
   convolution at (row + 1 - i, column + 1 - j). Where a tap is outside, its bits are 0: as inputs
   of -1 to the kernel, whose part of the product `border` takes away again, for each of 16 classes:
   nothing above the pixel 1, below it 2, to its left 4, to its right 8. */
struct Patches {
    npy_intp height, width, words, planes;  // words of a plane of a patch
    npy_intp scratch() const
    {
        return BLOCK_ROWS * planes * words;
    }
    npy_intp row_class(npy_intp pixel) const
    {
        const npy_intp column = pixel % width, row = pixel / width % height;
        return (row == 0) | (row == height - 1) << 1 | (column == 0) << 2 |
               (column == width - 1) << 3;
    }
    /* The pixel that a tap of `pixel` reads, -1 outside. */
    npy_intp source(npy_intp pixel, int tap) const
    {
        const npy_intp column = pixel % width + 1 - tap % 3;
        const npy_intp row = pixel / width % height + 1 - tap / 3;
        return row < 0 || row >= height || column < 0 || column >= width
                   ? -1
                   : (pixel / (height * width) * height + row) * width + column;
    }
};
static inline int outside(int row_class, int tap)
{
    return (row_class & 1 && tap / 3 == 2) || (row_class & 2 && tap / 3 == 0) ||
           (row_class & 4 && tap % 3 == 2) || (row_class & 8 && tap % 3 == 0);
}

/* Of bits [batch][height][width][words / 9]. */
struct BitPatches : Patches {
    const uint64_t *data;
    const uint64_t *rows(npy_intp first, npy_intp end, uint64_t *scratch) const
    {
        const npy_intp size = words / 9;
        uint64_t *to = scratch;
        for (npy_intp pixel = first; pixel < end; ++pixel)
            for (int tap = 0; tap < 9; ++tap, to += size) {
                const npy_intp from = source(pixel, tap);
                if (from >= 0)
                    for (npy_intp k = 0; k < size; ++k)
                        to[k] = data[from * size + k];
                else
                    for (npy_intp k = 0; k < size; ++k)
                        to[k] = 0;
            }
        return scratch;
    }
};

/* The bits of 8 bytes as planes: byte p of the result has bit p of each of them. */
static inline uint64_t transpose(uint64_t x)
{
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAu;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCu;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0u;
    return x ^ t ^ (t << 28);
}

/* `n` bytes to 8 planes of `words` words. */
static void split_planes(const uint8_t *bytes, npy_intp n, npy_intp words, uint64_t *to)
{
    memset(to, 0, 64 * words);
    for (npy_intp i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        for (int b = 0; b < 8 && i + b < n; ++b)
            eight |= (uint64_t)bytes[i + b] << 8 * b;
        eight = transpose(eight);
        for (int plane = 0; plane < 8; ++plane)
            to[plane * words + i / 64] |= (eight >> 8 * plane & 255) << i % 64;
    }
}

/* Of the 8 planes of pixels [batch][channels][height][width]: bit (tap, channel) of a patch. */
struct PixelPatches : Patches {
    const uint8_t *data;
    npy_intp channels;
    npy_intp scratch() const
    {
        return Patches::scratch() + 8 * words;  // the bytes of a patch
    }
    const uint64_t *rows(npy_intp first, npy_intp end, uint64_t *scratch) const
    {
        uint8_t *bytes = (uint8_t *)(scratch + Patches::scratch());
        const npy_intp area = height * width;
        for (npy_intp pixel = first; pixel < end; ++pixel) {
            for (int tap = 0; tap < 9; ++tap) {
                const npy_intp from = source(pixel, tap);
                uint8_t *to = bytes + tap * channels;
                if (from < 0) {
                    memset(to, 0, channels);
                    continue;
                }
                const uint8_t *image = data + from / area * channels * area + from % area;
                for (npy_intp c = 0; c < channels; ++c)
                    to[c] = image[c * area];
            }
            split_planes(bytes, 9 * channels, words, scratch + (pixel - first) * 8 * words);
        }
        return scratch;
    }
};

/* The base of 16 classes of pixels, whose taps have `channels` bits and begin `step` apart. */
static int32_t *border(weights w, npy_intp channels, npy_intp step, npy_intp planes)
{
    const npy_intp units = w.number * PANEL;
    const int32_t most = (1 << planes) - 1;
    int32_t *base = (int32_t *)calloc(16 * units, sizeof *base);
    if (!base) {
        PyErr_NoMemory();
        return NULL;
    }
    for (npy_intp unit = 0; unit < w.units; ++unit)
        for (int tap = 0; tap < 9; ++tap) {
            int32_t ones = 0;
            npy_intp bit = tap * step;
            for (npy_intp left = channels, take; left > 0; left -= take, bit += take) {
                const uint64_t word =
                    w.panels[(unit / PANEL * w.words + bit / 64) * PANEL + unit % PANEL];
                take = smaller(left, 64 - bit % 64);
                ones += __builtin_popcountll(word >> bit % 64 << (64 - take));
            }
            for (int c = 0; c < 16; ++c)
                base[c * units + unit] += most * (outside(c, tap) ? 2 * ones : channels);
        }
    return base;
}

static int prepare(PyArrayObject **output, int ndim, const npy_intp *shape, int type)
{
    if (*output && PyArray_IS_C_CONTIGUOUS(*output) &&
        PyArray_CompareLists(PyArray_DIMS(*output), shape, ndim))
        return 0;
    Py_XDECREF(*output);
    *output = (PyArrayObject *)PyArray_SimpleNew(ndim, (npy_intp *)shape, type);
    return *output ? 0 : -1;
}

/* The weights of an array of panels, for rows of `words` words; `units` of 0 with a Python error if
   it does not fit. */
static weights take_weights(PyArrayObject *panels, npy_intp units, npy_intp words)
{
    const npy_intp *shape = PyArray_DIMS(panels);
    weights w = {(const uint64_t *)PyArray_DATA(panels), shape[0], shape[1], units, NULL};
    if (shape[2] != PANEL || shape[0] != (units + PANEL - 1) / PANEL || shape[1] != words) {
        PyErr_Format(PyExc_ValueError,
                     "xnor: panels of shape (%ld, %ld, %ld) do not fit %ld units and rows of %ld "
                     "words, expected (%ld, %ld, %d)",
                     (long)shape[0], (long)shape[1], (long)shape[2], (long)units, (long)words,
                     (long)(units + PANEL - 1) / PANEL, (long)words, PANEL);
        w.units = 0;
    }
    return w;
}

static int convolve(PyArrayObject *panels, Patches patches, const void *data, npy_intp batch,
                    npy_intp channels, npy_intp units, PyArrayObject **out)
{
    const npy_intp shape[4] = {batch, patches.height, patches.width, units};
    const kernel *kernel = chosen_kernel();
    weights w = take_weights(panels, units, patches.words);
    if (!kernel || !w.units || prepare(out, 4, shape, NPY_INT32))
        return -1;
    const npy_intp step = patches.planes == 1 ? patches.words / 9 * 64 : channels;
    int32_t *base = border(w, channels, step, patches.planes);
    if (!base)
        return -1;
    w.base = base;
    const npy_intp pixels = batch * patches.height * patches.width;
    int32_t *to = (int32_t *)PyArray_DATA(*out);
    int failed;
    if (patches.planes == 1) {
        BitPatches source;
        (Patches &)source = patches;
        source.data = (const uint64_t *)data;
        failed = multiply(kernel, source, pixels, w, to);
    } else {
        PixelPatches source;
        (Patches &)source = patches;
        source.data = (const uint8_t *)data;
        source.channels = channels;
        failed = multiply(kernel, source, pixels, w, to);
    }
    free(base);
    return failed;
}

}  // namespace xnor

#section support_code_apply

int APPLY_SPECIFIC(pack)(PyArrayObject *x, PyArrayObject **bits, PARAMS_TYPE *)
{
    const npy_intp n = PyArray_DIM(x, 0), size = PyArray_DIM(x, 1);
    const npy_intp shape[2] = {n, (size + 63) / 64};
    x = PyArray_GETCONTIGUOUS(x);
    const int failed = !x || xnor::prepare(bits, 2, shape, NPY_UINT64);
    if (!failed) {
        const float *from = (const float *)PyArray_DATA(x);
        uint64_t *to = (uint64_t *)PyArray_DATA(*bits);
#pragma omp parallel for schedule(static) if (n * size > 16384)
        for (npy_intp word = 0; word < n * shape[1]; ++word) {
            const npy_intp first = word % shape[1] * 64, end = xnor::smaller(64, size - first);
            const float *row = from + word / shape[1] * size + first;
            uint64_t packed = 0;
            for (npy_intp i = 0; i < end; ++i)
                packed |= (uint64_t)(row[i] >= 0) << i;
            to[word] = packed;
        }
    }
    Py_XDECREF(x);
    return -failed;
}

int APPLY_SPECIFIC(planes)(PyArrayObject *pixels, PyArrayObject **bits, PARAMS_TYPE *)
{
    const npy_intp n = PyArray_DIM(pixels, 0), size = PyArray_DIM(pixels, 1);
    const npy_intp shape[3] = {n, 8, (size + 63) / 64};
    pixels = PyArray_GETCONTIGUOUS(pixels);
    const int failed = !pixels || xnor::prepare(bits, 3, shape, NPY_UINT64);
    if (!failed) {
        const uint8_t *from = (const uint8_t *)PyArray_DATA(pixels);
        uint64_t *to = (uint64_t *)PyArray_DATA(*bits);
#pragma omp parallel for schedule(static) if (n * size > 16384)
        for (npy_intp row = 0; row < n; ++row)
            xnor::split_planes(from + row * size, size, shape[2], to + row * 8 * shape[2]);
    }
    Py_XDECREF(pixels);
    return -failed;
}

int APPLY_SPECIFIC(dot)(PyArrayObject *bits, PyArrayObject *panels, PyArrayObject **out,
                        PARAMS_TYPE *params)
{
    const npy_intp n = PyArray_DIM(bits, 0), planes = PyArray_DIM(bits, 1);
    const npy_intp words = PyArray_DIM(bits, 2), shape[2] = {n, (npy_intp)params->units};
    if (64 * words < params->inputs) {
        PyErr_Format(PyExc_ValueError, "xnor: rows of %ld words do not hold %ld inputs", (long)words,
                     (long)params->inputs);
        return -1;
    }
    const xnor::kernel *kernel = xnor::chosen_kernel();
    int failed = !kernel;
    int32_t *base = NULL;
    bits = PyArray_GETCONTIGUOUS(bits);
    panels = PyArray_GETCONTIGUOUS(panels);
    failed = failed || !bits || !panels || xnor::prepare(out, 2, shape, NPY_INT32);
    if (!failed) {
        xnor::weights w = xnor::take_weights(panels, params->units, words);
        const npy_intp units = w.number * xnor::PANEL;
        failed = !w.units;
        if (!failed && !(base = (int32_t *)malloc(units * sizeof *base))) {
            PyErr_NoMemory();
            failed = 1;
        }
        if (!failed) {
            for (npy_intp unit = 0; unit < units; ++unit)
                base[unit] = ((1 << planes) - 1) * params->inputs;
            w.base = base;
            const xnor::Rows source = {(const uint64_t *)PyArray_DATA(bits), planes,
                                       planes * words};
            failed = xnor::multiply(kernel, source, n, w, (int32_t *)PyArray_DATA(*out));
        }
    }
    free(base);
    Py_XDECREF(bits);
    Py_XDECREF(panels);
    return -!!failed;
}

int APPLY_SPECIFIC(convolve)(PyArrayObject *bits, PyArrayObject *panels, PyArrayObject **out,
                             PARAMS_TYPE *params)
{
    const npy_intp *shape = PyArray_DIMS(bits);
    const npy_intp channels = params->inputs;
    if (shape[3] != (channels + 63) / 64) {
        PyErr_Format(PyExc_ValueError, "xnor: pixels of %ld words do not hold %ld channels",
                     (long)shape[3], (long)channels);
        return -1;
    }
    bits = PyArray_GETCONTIGUOUS(bits);
    panels = PyArray_GETCONTIGUOUS(panels);
    const xnor::Patches patches = {shape[1], shape[2], 9 * shape[3], 1};
    const int failed = !bits || !panels ||
                       xnor::convolve(panels, patches, PyArray_DATA(bits), shape[0], channels,
                                      params->units, out);
    Py_XDECREF(bits);
    Py_XDECREF(panels);
    return -failed;
}

int APPLY_SPECIFIC(convolve_pixels)(PyArrayObject *pixels, PyArrayObject *panels,
                                    PyArrayObject **out, PARAMS_TYPE *params)
{
    const npy_intp *shape = PyArray_DIMS(pixels);
    const npy_intp channels = params->inputs;
    if (shape[1] != channels) {
        PyErr_Format(PyExc_ValueError, "xnor: images have %ld channels, expected %ld",
                     (long)shape[1], (long)channels);
        return -1;
    }
    pixels = PyArray_GETCONTIGUOUS(pixels);
    panels = PyArray_GETCONTIGUOUS(panels);
    const xnor::Patches patches = {shape[2], shape[3], (9 * channels + 63) / 64, 8};
    const int failed = !pixels || !panels ||
                       xnor::convolve(panels, patches, PyArray_DATA(pixels), shape[0], channels,
                                      params->units, out);
    Py_XDECREF(pixels);
    Py_XDECREF(panels);
    return -failed;
}

/* Raises unless `units` thresholds come with a bit each in `negative`. */
static int APPLY_SPECIFIC(fit)(npy_intp units, npy_intp thresholds, npy_intp words)
{
    if (thresholds == units && words == (units + 63) / 64)
        return 1;
    PyErr_Format(PyExc_ValueError,
                 "xnor: %ld thresholds and %ld words of directions do not fit %ld units",
                 (long)thresholds, (long)words, (long)units);
    return 0;
}

int APPLY_SPECIFIC(threshold)(PyArrayObject *sums, PyArrayObject *thresholds,
                              PyArrayObject *negative, PyArrayObject **bits, PARAMS_TYPE *)
{
    const npy_intp ndim = PyArray_NDIM(sums), units = PyArray_DIM(sums, ndim - 1);
    npy_intp shape[NPY_MAXDIMS], words = (units + 63) / 64;
    if (!APPLY_SPECIFIC(fit)(units, PyArray_DIM(thresholds, 0), PyArray_DIM(negative, 0)))
        return -1;
    for (int axis = 0; axis < ndim; ++axis)
        shape[axis] = axis == ndim - 1 ? words : PyArray_DIM(sums, axis);
    sums = PyArray_GETCONTIGUOUS(sums);
    thresholds = PyArray_GETCONTIGUOUS(thresholds);
    negative = PyArray_GETCONTIGUOUS(negative);
    const int failed =
        !sums || !thresholds || !negative || xnor::prepare(bits, ndim, shape, NPY_UINT64);
    if (!failed) {
        const int32_t *from = (const int32_t *)PyArray_DATA(sums);
        const int32_t *least = (const int32_t *)PyArray_DATA(thresholds);
        const uint64_t *flipped = (const uint64_t *)PyArray_DATA(negative);
        uint64_t *to = (uint64_t *)PyArray_DATA(*bits);
        const npy_intp n = PyArray_SIZE(*bits);
#pragma omp parallel for schedule(static) if (64 * n > 16384)
        for (npy_intp word = 0; word < n; ++word) {
            const npy_intp first = word % words * 64, end = xnor::smaller(64, units - first);
            const int32_t *row = from + word / words * units + first, *t = least + first;
            uint64_t packed = 0;
            for (npy_intp i = 0; i < end; ++i)
                packed |= (uint64_t)(row[i] >= t[i]) << i;
            to[word] = packed ^ flipped[word % words];
        }
    }
    Py_XDECREF(sums);
    Py_XDECREF(thresholds);
    Py_XDECREF(negative);
    return -failed;
}

int APPLY_SPECIFIC(pool)(PyArrayObject *bits, PyArrayObject *negative, PyArrayObject **out,
                         PARAMS_TYPE *)
{
    const npy_intp *in = PyArray_DIMS(bits), words = in[3];
    const npy_intp shape[4] = {in[0], in[1] / 2, in[2] / 2, words};
    if (PyArray_DIM(negative, 0) != words) {
        PyErr_Format(PyExc_ValueError, "xnor: %ld words of directions do not fit pixels of %ld",
                     (long)PyArray_DIM(negative, 0), (long)words);
        return -1;
    }
    bits = PyArray_GETCONTIGUOUS(bits);
    negative = PyArray_GETCONTIGUOUS(negative);
    const int failed = !bits || !negative || xnor::prepare(out, 4, shape, NPY_UINT64);
    if (!failed) {
        const uint64_t *from = (const uint64_t *)PyArray_DATA(bits);
        const uint64_t *flipped = (const uint64_t *)PyArray_DATA(negative);
        uint64_t *to = (uint64_t *)PyArray_DATA(*out);
        for (npy_intp image = 0; image < in[0]; ++image)
            for (npy_intp row = 0; row < shape[1]; ++row)
                for (npy_intp column = 0; column < shape[2]; ++column, to += words) {
                    const uint64_t *upper =
                        from + ((image * in[1] + 2 * row) * in[2] + 2 * column) * words;
                    const uint64_t *lower = upper + in[2] * words;
                    for (npy_intp k = 0; k < words; ++k)
                        to[k] = ((upper[k] ^ flipped[k]) | (upper[words + k] ^ flipped[k]) |
                                 (lower[k] ^ flipped[k]) | (lower[words + k] ^ flipped[k])) ^
                                flipped[k];
                }
    }
    Py_XDECREF(bits);
    Py_XDECREF(negative);
    return -failed;
}
