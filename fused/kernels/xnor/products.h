// Products of rows of bits with weights.
#pragma once

#include "kernels.h"

namespace xnor
{

enum { BLOCK_ROWS = 64, BLOCK_BYTES = 1 << 18 }; // weights, to stay in the second-level cache
enum { LEAST_ROWS = 32 }; // from which on blocks are faster than tiles; a plane counts as a row

// Weights in panels.
struct Weights {
    const uint64_t *panels;
    long number, words, units; // number of panels, words of a unit

    Weights(const uint64_t *panels, long units, long words)
        : panels(panels), number(fused::ceil_div(units, PANEL)), words(words), units(units)
    {
    }

    // Those of an array. Raises unless they fit.
    Weights(const fused::Array<uint64_t> &array, long units, long words)
        : Weights(array.data(), units, words)
    {
        if (array.dim(2) != PANEL || array.dim(0) != number || array.dim(1) != words)
            fused::raise_value_error(
                "xnor: panels of shape (%ld, %ld, %ld) do not fit %ld units and rows of %ld words, "
                "expected (%ld, %ld, %d)",
                array.dim(0), array.dim(1), array.dim(2), units, words, number, words, PANEL);
    }
};

// Rows in memory, as they are: a source of `multiply`.
struct Rows {
    const uint64_t *data;
    long planes, stride;
    long scratch(long) const { return 0; }
    const uint64_t *rows(long first, long, uint64_t *) const { return data + first * stride; }
    long row_class(long) const { return 0; }
};

// Raises unless sums of `inputs` numbers, each of `planes` bits, are below 2^30.
static void check_sums(long inputs, long planes)
{
    if (planes > 29 || ((1L << planes) - 1) * inputs >= 1L << 30)
        fused::raise_value_error("xnor: sums of %ld inputs of %ld bits are not below 2^30", inputs,
                                 planes);
}

// Memory of 64-bit words, not initialized, aligned for every vector.
class Scratch
{
public:
    explicit Scratch(long words) : memory(new (std::align_val_t(64)) uint64_t[words]) {}
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    ~Scratch() { operator delete[](memory, std::align_val_t(64)); }
    uint64_t *data() { return memory; }

private:
    uint64_t *memory;
};

// Rows [top, bottom) times panels [left, right), tile by tile; see `multiply`.
template <class Source>
static void multiply_tiles(const Kernel &kernel, const Source &source, const uint64_t *rows,
                           long top, long bottom, const Weights &w, long left, long right,
                           const int32_t *bases, int32_t *out)
{
    const long stride = source.planes * w.words;
    long high, wide;
    for (long r = top; r < bottom; r += high) {
        high = bottom - r >= ROWS ? ROWS : 1;
        for (long q = left; q < right; q += wide) {
            int32_t counts[ROWS * WIDE * PANEL];
            wide = right - q >= WIDE ? WIDE : 1;
            kernel.tiles[2 * (high == 1) + (wide == 1)](
                rows + (r - top) * stride, stride, source.planes, w.words,
                w.panels + q * w.words * PANEL, counts);
            const long units = std::min(wide * PANEL, w.units - q * PANEL);
            for (long i = 0; i < high; i++) {
                const int32_t *base = bases + (source.row_class(r + i) * w.number + q) * PANEL;
                const int32_t *count = counts + i * wide * PANEL;
                int32_t *to = out + (r + i) * w.units + q * PANEL;
                for (long j = 0; j < units; j++)
                    to[j] = base[j] - 2 * count[j];
            }
        }
    }
}

// The same, as a block.
template <class Source>
static void multiply_block(const Kernel &kernel, const Source &source, const uint64_t *rows,
                           long top, long bottom, const Weights &w, long left, long right,
                           const int32_t *bases, int32_t *out, uint64_t *scratch)
{
    const long units = std::min(right * PANEL, w.units) - left * PANEL;
    for (long r = top; r < bottom; r++)
        memcpy(out + r * w.units + left * PANEL,
               bases + (source.row_class(r) * w.number + left) * PANEL, units * sizeof *out);
    kernel.blocks.subtract({rows, bottom - top, source.planes, w.words,
                            w.panels + left * w.words * PANEL, right - left,
                            out + top * w.units + left * PANEL, w.units, units},
                           scratch);
}

// out[n][units] = base[class of the row][number * PANEL] - 2 counts, for the `n` rows of `source`.
// The base is the product if no bit differs. A source has `planes`; `scratch(n)`, the number of
// words that `n` rows need; `rows(first, end, scratch)`, where these rows lie; and
// `row_class(row)`. Each thread has its own source, so that the compiler knows that scratch is not
// part of it.
template <class Source>
static void multiply(Source source, long n, const Weights &w, const std::vector<int32_t> &bases,
                     int32_t *out)
{
    const Kernel &kernel = chosen_kernel();
    const long panel = w.words * PANEL, number = w.number, all_rows = n * source.planes;
    const bool blocks = kernel.blocks.rows && all_rows >= LEAST_ROWS;
    const long tall = blocks ? std::min(n, fused::ceil_div(kernel.blocks.rows, source.planes))
                             : BLOCK_ROWS;
    const long block = blocks ? kernel.blocks.panels
                              : std::max<long>(BLOCK_BYTES / (8 * std::max(panel, 1L)) / WIDE * WIDE,
                                               WIDE);
    const long own = fused::ceil_div(source.scratch(tall), 8) * 8;
    const long needed = blocks ? kernel.blocks.scratch(tall * source.planes, w.words) : 0;
    const long each = own + fused::ceil_div(needed, 8) * 8;
    Scratch memory(omp_get_max_threads() * each);
#pragma omp parallel for collapse(2) schedule(dynamic) \
    firstprivate(source) if (all_rows * w.words * number > 4096)
    for (long top = 0; top < n; top += tall)
        for (long left = 0; left < number; left += block) {
            const long bottom = std::min(n, top + tall), right = std::min(number, left + block);
            uint64_t *scratch = memory.data() + omp_get_thread_num() * each;
            const uint64_t *rows = source.rows(top, bottom, scratch);
            if (blocks)
                multiply_block(kernel, source, rows, top, bottom, w, left, right, bases.data(), out,
                               scratch + own);
            else
                multiply_tiles(kernel, source, rows, top, bottom, w, left, right, bases.data(),
                               out);
        }
}

} // namespace xnor
