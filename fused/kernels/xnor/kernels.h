// The choice of a kernel; see xnor.py and counts.h.
#pragma once

#include "slices.h"

namespace xnor
{

// Products of blocks of many rows.
struct Blocks {
    long rows, panels; // the most that a block has
    long (*scratch)(long rows, long words); // words aligned to 64 bytes; a plane counts as a row
    void (*subtract)(const Block &, uint64_t *scratch);
};

// Kernels from the fastest to the one that every processor has.
struct Kernel {
    const char *name;
    bool available;
    Tile tiles[4]; // ROWS x WIDE, ROWS x 1, 1 x WIDE and 1 x 1 rows and panels
    Blocks blocks; // if it has any
};
#define TILES(count) {count<ROWS, WIDE>, count<ROWS, 1>, count<1, WIDE>, count<1, 1>}

// The kernel that the environment variable BINARYCONNECT_XNOR names, otherwise the fastest one that
// the processor can run.
static const Kernel &chosen_kernel()
{
#ifdef __x86_64__
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f");
#endif
    static const Kernel kernels[] = {
#ifdef __x86_64__
        {"avx512", wide && __builtin_cpu_supports("avx512vpopcntdq"), TILES(count_avx512), {}},
        {"avx512bw", wide && __builtin_cpu_supports("avx512bw"), TILES(count_avx2),
         {256, SLICE, slices_scratch, subtract_slices}},
        {"avx2", bool(__builtin_cpu_supports("avx2")), TILES(count_avx2),
         {128, 4 * COLUMNS * 4, tables_scratch, subtract_tables}},
#endif
        {"plain", true, TILES(count_plain), {}},
    };
    const char *wanted = getenv("BINARYCONNECT_XNOR");
    for (const Kernel &kernel : kernels)
        if (kernel.available && (!wanted || !*wanted || strcmp(wanted, kernel.name) == 0))
            return kernel;
    fused::raise_value_error("BINARYCONNECT_XNOR is '%s', expected avx512, avx512bw, avx2 or plain, "
                             "of which this processor has the instructions",
                             wanted);
}

} // namespace xnor
