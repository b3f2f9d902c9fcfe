// Patches of 3x3 of images of bits, the rows of a convolution; see xnor.py.
#pragma once

#include "products.h"

namespace xnor
{

// Patches of 3x3, one for each pixel of images with a border of zeros. Tap (i, j) of a true
// convolution is at (row + 1 - i, column + 1 - j). Taps outside the image read as bits 0, i.e. -1;
// `border` computes the correction for each of 16 edge cases. The class of a pixel is the sum of 1
// if nothing is above it, 2 if nothing is below it, 4 if nothing is to its left, and 8 if nothing
// is to its right.
//     5 1 1  9      one row:  7 3 3 11      one column: 13      one pixel: 15
//     4 0 0  8                                          12
//     4 0 0  8                                          12
//     6 2 2 10                                          14
struct Patches {
    long height, width, words, planes; // words of a plane of a patch
    long scratch(long n) const { return n * planes * words; }
    long row_class(long pixel) const
    {
        const long column = pixel % width, row = pixel / width % height;
        return (row == 0) | (row == height - 1) << 1 | (column == 0) << 2 |
               (column == width - 1) << 3;
    }
    // The pixel that a tap of `pixel` reads, -1 outside.
    long source(long pixel, int tap) const
    {
        const long column = pixel % width + 1 - tap % 3;
        const long row = pixel / width % height + 1 - tap / 3;
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

// Patches of bits [batch][height][width][words / 9].
struct BitPatches : Patches {
    const uint64_t *data;
    const uint64_t *rows(long first, long end, uint64_t *scratch) const
    {
        const long size = words / 9;
        uint64_t *to = scratch;
        for (long pixel = first; pixel < end; pixel++)
            for (int tap = 0; tap < 9; ++tap, to += size) {
                const long from = source(pixel, tap);
                if (from >= 0)
                    for (long k = 0; k < size; k++)
                        to[k] = data[from * size + k];
                else
                    for (long k = 0; k < size; k++)
                        to[k] = 0;
            }
        return scratch;
    }
};

// The bases of the 16 classes of pixels. Taps have `channels` bits and begin `step` apart. A tap
// inside the image adds `channels`. A tap outside adds 2 popcount(w), which cancels what it
// contributes.
static std::vector<int32_t> border(const Weights &w, long channels, long step, long planes)
{
    const long units = w.number * PANEL;
    const int32_t most = (1 << planes) - 1;
    std::vector<int32_t> bases(16 * units);
    for (long unit = 0; unit < w.units; unit++)
        for (int tap = 0; tap < 9; tap++) {
            int32_t ones = 0;
            long bit = tap * step;
            for (long left = channels, take; left > 0; left -= take, bit += take) {
                const uint64_t word =
                    w.panels[(unit / PANEL * w.words + bit / 64) * PANEL + unit % PANEL];
                take = std::min(left, 64 - bit % 64);
                ones += __builtin_popcountll(word >> bit % 64 << (64 - take));
            }
            for (int c = 0; c < 16; c++)
                bases[c * units + unit] += most * (outside(c, tap) ? 2 * ones : channels);
        }
    return bases;
}

} // namespace xnor
