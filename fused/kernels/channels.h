// Sums over the elements of each channel, and loops over them, for batch normalization.
#pragma once

#include "common.h"

namespace normalization
{

enum { PANEL = 128 };   // channels side by side at most
enum { PARTIALS = 16 }; // partial sums, whatever the number of threads and the processor

// Channels [first, first + width) of arrays (rows, channels, area). The width is at most PANEL if
// area is 1, otherwise it is 1.
struct Block {
    long rows, channels, area, first, width;
    double n() const { return (double)rows * area; }
};

// totals[c]: the sum, in double precision, of term(i, c) over the elements i of channel c.
template <class Term>
static inline __attribute__((always_inline)) void sum(const Block &block, double *totals, Term term)
{
    const long width = block.width, area = block.area;
    if (area == 1) {
        for (long c = 0; c < width; c++)
            totals[c] = 0;
        for (long row = 0; row < block.rows; row++) {
            const long start = row * block.channels + block.first;
            for (long c = 0; c < width; c++)
                totals[c] += term(start + c, c);
        }
        return;
    }
    double partials[PARTIALS] = {0};
    for (long row = 0; row < block.rows; row++) {
        const long start = (row * block.channels + block.first) * area;
        long k = 0;
        for (; k + PARTIALS <= area; k += PARTIALS)
            for (int p = 0; p < PARTIALS; p++)
                partials[p] += term(start + k + p, 0);
        for (int p = 0; k < area; k++, p++)
            partials[p] += term(start + k, 0);
    }
    totals[0] = 0;
    for (int p = 0; p < PARTIALS; p++)
        totals[0] += partials[p];
}

// to[i] = value(i, c) for each element i of channel c.
template <class Value>
static inline __attribute__((always_inline)) void fill(const Block &block, float *to, Value value)
{
    const long width = block.width, area = block.area;
    for (long row = 0; row < block.rows; row++) {
        const long start = (row * block.channels + block.first) * area;
        if (area == 1)
#pragma GCC ivdep
            for (long c = 0; c < width; c++)
                to[start + c] = value(start + c, c);
        else
#pragma GCC ivdep
            for (long k = 0; k < area; k++)
                to[start + k] = value(start + k, 0);
    }
}

// Checks that each vector has one number for each channel of x (rows, channels, ...). Runs
// body(block) for blocks that cover all channels.
template <class Body>
static void for_blocks(PyArrayObject *x, std::initializer_list<PyArrayObject *> vectors, Body body)
{
    const long rows = PyArray_DIM(x, 0), channels = PyArray_DIM(x, 1);
    const long area = PyArray_MultiplyList(PyArray_DIMS(x) + 2, PyArray_NDIM(x) - 2);
    for (PyArrayObject *vector : vectors)
        if (PyArray_DIM(vector, 0) != channels)
            fused::raise_value_error(
                "batch normalization: %ld numbers for %ld channels, expected one each",
                (long)PyArray_DIM(vector, 0), channels);
    const long width = area == 1 ? PANEL : 1;
    fused::parallel(fused::ceil_div(channels, width), PyArray_SIZE(x), [=](long begin, long end) {
        for (long first = begin * width; first < std::min(end * width, channels); first += width)
            body({rows, channels, area, first, std::min(width, channels - first)});
    });
}

} // namespace normalization
