// The layout of images in convolutions: vectors of channels, in panels of PANEL channels. Theano's
// layout is planes of pixels.
#pragma once

#include "common.h"

namespace convolution
{

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { PANEL = 2 * LANES };
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef float unaligned_vec __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));
typedef int indices __attribute__((vector_size(4 * LANES)));

// Transposes a square of LANES vectors: swaps ever smaller blocks beside its diagonal.
static inline __attribute__((always_inline)) void transpose(vec *square)
{
#pragma GCC unroll 4
    for (int size = LANES / 2; size; size /= 2) {
        indices upper, lower;
        for (int lane = 0; lane < LANES; lane++) {
            upper[lane] = lane & size ? LANES + lane - size : lane;
            lower[lane] = lane & size ? LANES + lane : lane + size;
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & size)) {
                const vec a = square[i], b = square[i + size];
                square[i] = __builtin_shuffle(a, b, upper);
                square[i + size] = __builtin_shuffle(a, b, lower);
            }
    }
}

// Copies from `strip` to `pixels` consecutive pixels of `planes` planes. In `strip`, channels are
// last, and each row of `width` pixels takes `columns` places.
static void write_pixels(const float *strip, long columns, float *to, long plane_size, long planes,
                         long pixels, long width)
{
    for (long c = 0; c < planes; c += LANES) {
        const float *place = strip + c;
        for (long first = 0, x = 0; first < pixels; first += LANES) {
            vec square[LANES] = {};
            const long count = std::min<long>(LANES, pixels - first);
            for (long i = 0; i < count; i++, x++) {
                if (x == width) {
                    x = 0;
                    place += (columns - width) * PANEL;
                }
                square[i] = *(const vec *)place;
                place += PANEL;
            }
            transpose(square);
            for (long i = 0; i < std::min<long>(LANES, planes - c); i++) {
                float *row = to + (c + i) * plane_size + first;
                if (count == LANES)
                    *(unaligned_vec *)row = square[i];
                else
                    memcpy(row, &square[i], 4 * count);
            }
        }
    }
}

// Memory for at least `floats` floats, which is kept from call to call, because new pages cost more
// than the transforms.
static float *workspace(long floats)
{
    static float *memory = NULL;
    static long size = 0;
    if (size < floats) {
        free(memory);
        memory = (float *)aligned_alloc(64, 4 * fused::ceil_div(floats, 16) * 16);
        size = memory ? floats : 0;
        if (!memory)
            throw std::bad_alloc();
    }
    return memory;
}

// Raises unless filters are (filters, channels, 3, 3) and fit the channels of the images. If
// transposed, the channels of the images must fit the number of filters.
static void check_filters(PyArrayObject *images, PyArrayObject *filters, bool transposed)
{
    const npy_intp *shape = PyArray_DIMS(filters), channels = PyArray_DIM(images, 1);
    if (shape[!transposed] != channels || shape[2] != 3 || shape[3] != 3)
        fused::raise_value_error(
            "conv3x3: filters of shape (%ld, %ld, %ld, %ld) do not fit images of %ld channels, "
            "expected %s%ld%s, 3, 3)",
            shape[0], shape[1], shape[2], shape[3], channels, transposed ? "(" : "(filters, ",
            channels, transposed ? ", channels" : "");
}

} // namespace convolution
