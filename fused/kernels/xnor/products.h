// Products of rows of bits with weights.
#pragma once

#include "counts.h"

namespace xnor
{

enum { BLOCK_ROWS = 64, BLOCK_BYTES = 1 << 18 }; // weights, to stay in the second-level cache

// Weights of an array of panels.
struct Weights {
    fused::Array<uint64_t> panels;
    long number, words, units;

    Weights(PyArrayObject *array, long units, long words)
        : panels(array), number(panels.dim(0)), words(words), units(units)
    {
        if (panels.dim(2) != PANEL || number != fused::ceil_div(units, PANEL) ||
            panels.dim(1) != words)
            fused::raise_value_error(
                "xnor: panels of shape (%ld, %ld, %ld) do not fit %ld units and rows of %ld words, "
                "expected (%ld, %ld, %d)",
                number, panels.dim(1), panels.dim(2), units, words, fused::ceil_div(units, PANEL),
                words, PANEL);
    }
};

// Raises unless sums of `inputs` numbers, each of `planes` bits, are below 2^30.
static void check_sums(long inputs, long planes)
{
    if (planes > 29 || ((1L << planes) - 1) * inputs >= 1L << 30)
        fused::raise_value_error("xnor: sums of %ld inputs of %ld bits are not below 2^30", inputs,
                                 planes);
}

// out[n][units] = base[class of the row][number * PANEL] - 2 counts, for the `n` rows of `source`.
// The base is the product if no bit differs. A source has `planes`; `scratch()`, the number of
// words that a block of rows needs; `rows(first, end, scratch)`, where these rows lie; and
// `row_class(row)`. Each thread has its own source, so that the compiler knows that scratch is not
// part of it.
template <class Source>
static void multiply(Source source, long n, const Weights &w, const std::vector<int32_t> &bases,
                     int32_t *out)
{
    const Kernel &kernel = chosen_kernel();
    const long stride = source.planes * w.words, panel = w.words * PANEL;
    const long block = std::max<long>(BLOCK_BYTES / (8 * std::max(panel, 1L)) / WIDE * WIDE, WIDE);
    const long words = w.words, number = w.number, all_units = w.units, needed = source.scratch();
    std::vector<uint64_t> scratch(omp_get_max_threads() * needed);
    const uint64_t *panels = w.panels.data();
#pragma omp parallel for collapse(2) schedule(dynamic) \
    firstprivate(source) if (n * stride * number > 4096)
    for (long top = 0; top < n; top += BLOCK_ROWS)
        for (long left = 0; left < number; left += block) {
            const long bottom = std::min(n, top + BLOCK_ROWS);
            const long right = std::min(number, left + block);
            const uint64_t *rows =
                source.rows(top, bottom, scratch.data() + omp_get_thread_num() * needed);
            long high, wide;
            for (long r = top; r < bottom; r += high) {
                high = bottom - r >= ROWS ? ROWS : 1;
                for (long q = left; q < right; q += wide) {
                    int32_t counts[ROWS * WIDE * PANEL];
                    wide = right - q >= WIDE ? WIDE : 1;
                    kernel.tiles[2 * (high == 1) + (wide == 1)](rows + (r - top) * stride, stride,
                                                                source.planes, words,
                                                                panels + q * panel, counts);
                    const long units = std::min(wide * PANEL, all_units - q * PANEL);
                    for (long i = 0; i < high; i++) {
                        const int32_t *base =
                            bases.data() + (source.row_class(r + i) * number + q) * PANEL;
                        const int32_t *count = counts + i * wide * PANEL;
                        int32_t *to = out + (r + i) * all_units + q * PANEL;
                        for (long j = 0; j < units; j++)
                            to[j] = base[j] - 2 * count[j];
                    }
                }
            }
        }
}

} // namespace xnor
