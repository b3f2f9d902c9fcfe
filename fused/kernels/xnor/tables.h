// Products of many rows by tables of AVX2; see counts.h.
//
// A row is compared with four bits of 32 units at a time. For the four bits x of a row, the 16
// numbers popcount(x xor w) are a constant table, which VPSHUFB reads at the bits w of 32 units. An
// entry is a byte and has the numbers of two rows, that of row a in the low nibble and that of row
// b in the high nibble:
//     TABLES[a | b << 4][w] = popcount(a xor w) + 16 popcount(b xor w)
// After three tables the sums in the nibbles are at most 12. Then they are added to bytes: those of
// row a as t & 0x0f, those of row b as t >> 4 in lanes of 16 bits. The latter brings 16 times the
// sum of the odd byte of row a into the even byte, which is subtracted at the end. Sums of 16 times
// three tables are at most 192.
//
// Functions of other headers are not inlined here if the other code may use AVX-512, so that loops
// call none.
//
// The bound: three tables take 3 VPSHUFB, 2 VPADDB, and VPAND, VPSRLW and 2 VPADDW, i.e. 9
// instructions for 768 products of bits: 256 a cycle if a processor starts three, 341 if four.
#pragma once

#include "counts.h"

namespace xnor
{

#ifdef __x86_64__

enum { COLUMNS = 3 };          // vectors of 32 units side by side
enum { SOME = 3, STEPS = 48 }; // words that are summed in bytes, and their tables

struct Tables {
    alignas(64) uint8_t of[256][16];
    constexpr Tables() : of()
    {
        for (int rows = 0; rows < 256; rows++)
            for (int w = 0; w < 16; w++)
                of[rows][w] =
                    __builtin_popcount((rows & 15) ^ w) + 16 * __builtin_popcount(rows >> 4 ^ w);
    }
};
static constexpr Tables TABLES;

typedef uint16_t shorts __attribute__((vector_size(32)));
typedef char half_chars __attribute__((vector_size(16)));
typedef long long half_lanes __attribute__((vector_size(16), may_alias));

// codes[pairs][ceil(words / SOME)][STEPS]: where the tables of two rows of `words` words begin. Table
// j of a word is for the low nibbles of byte j, table 8 + j for the high ones. Tables beyond a row
// are the first, which has 0 for the bits 0 of weights.
__attribute__((target("avx2,no-avx512f"))) static void
find_tables(const uint64_t *rows, long n, long words, uint16_t *codes)
{
    const uint64_t nibble = 0x0f0f0f0f0f0f0f0fu;
    const long padded = fused::ceil_div(words, SOME) * SOME;
    for (long row = 0; row < n; row += 2)
        for (long k = 0; k < padded; k++, codes += 16) {
            const uint64_t a = k < words ? rows[row * words + k] : 0;
            const uint64_t b = k < words && row + 1 < n ? rows[(row + 1) * words + k] : 0;
            const half_lanes both = {(long long)((a & nibble) | (b & nibble) << 4),
                                     (long long)((a >> 4 & nibble) | (b & ~nibble))};
            *(shorts *)codes = (shorts)__builtin_ia32_pmovzxbw256((half_chars)both) << 4;
        }
}

// nibbles[16][step]: those of word `k` of 4 panels, of which `number` exist. Byte 2 i + q is that of
// unit 16 q + i, so that the sums of even bytes, and those of odd ones, belong to units in order.
__attribute__((target("avx2,no-avx512f"))) static void
split_nibbles(const uint64_t *panels, long words, long number, lanes *nibbles, long step)
{
    const lanes zero = {0}, nibble = zero + 0x0f0f0f0f0f0f0f0fu;
    uint64_t units[4][PANEL] = {{0}};
    for (long p = 0; p < 4 && p < number; p++)
        memcpy(units[p], panels + p * words * PANEL, sizeof units[p]);
    chars x[8], y[8];
    for (int i = 0; i < 8; i++)
        x[i] = (chars)(lanes){units[0][i], units[2][i], units[1][i], units[3][i]};
    // The transposition of 16 units x 8 bytes in each half: every round moves a bit of the index of
    // a vector to the index of a byte, and one back.
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 4; i++) {
            y[2 * i] = __builtin_ia32_punpcklbw256(x[i], x[i + 4]);
            y[2 * i + 1] = __builtin_ia32_punpckhbw256(x[i], x[i + 4]);
        }
        memcpy(x, y, sizeof x);
    }
    for (int j = 0; j < 8; j++) {
        nibbles[j * step] = (lanes)x[j] & nibble;
        nibbles[(8 + j) * step] = (lanes)x[j] >> 4 & nibble;
    }
}

// counts[pairs][2][C][2]: adds the numbers of bits that differ in some words of pairs of rows and 32
// C units, which `groups` of three tables count.
template <int C>
__attribute__((target("avx2,no-avx512f"))) static void
count_tables(const uint16_t *codes, long size, long pairs, const lanes *nibbles, long groups,
             shorts *counts)
{
    const shorts zero = {0}, low = zero + 0x0f0f, byte = zero + 255;
    for (long pair = 0; pair < pairs; pair++, codes += size, counts += 4 * C) {
        shorts first[C], second[C];
        for (int c = 0; c < C; c++)
            first[c] = second[c] = zero;
        for (long step = 0; step < 3 * groups; step += 3) {
            bytes sums[C];
            for (int s = 0; s < 3; s++) {
                const half_lanes table =
                    *(const half_lanes *)((const char *)TABLES.of + codes[step + s]);
                const chars both = (chars)__builtin_ia32_vbroadcastsi256(table);
                for (int c = 0; c < C; c++) {
                    const bytes t =
                        (bytes)__builtin_ia32_pshufb256(both, (chars)nibbles[(step + s) * C + c]);
                    sums[c] = s ? sums[c] + t : t;
                }
            }
            for (int c = 0; c < C; c++) {
                first[c] += (shorts)sums[c] & low;
                second[c] += (shorts)sums[c] >> 4;
            }
        }
        for (int c = 0; c < C; c++) {
            const shorts odd = first[c] >> 8, high = second[c] - (odd << 4);
            counts[2 * c] += first[c] & byte;
            counts[2 * c + 1] += odd;
            counts[2 * (C + c)] += high & byte;
            counts[2 * (C + c) + 1] += high >> 8;
        }
    }
}

static long tables_scratch(long rows, long words)
{
    const long pairs = fused::ceil_div(rows, 2);
    return pairs * (fused::ceil_div(words, SOME) * STEPS / 4 + 2 * COLUMNS * 32 / 4);
}

// Subtracts the products with 4 C of the panels, the first of which is `left`.
template <int C>
__attribute__((target("avx2,no-avx512f"))) static void
subtract_columns(const Block &block, long left, const uint16_t *codes, uint16_t *counts)
{
    const long words = block.words, rows = block.n * block.planes, pairs = fused::ceil_div(rows, 2);
    const long size = fused::ceil_div(words, SOME) * STEPS;
    const long units = std::min(block.units - left * PANEL, 32L * C);
    const long most = 65535 / 64 / SOME * SOME; // words that counts of 16 bits hold
    for (long first = 0; first < words; first += most) {
        const long end = std::min(words, first + most);
        memset(counts, 0, pairs * 2 * 32 * C * sizeof *counts);
        for (long k = first; k < end; k += SOME) {
            lanes nibbles[STEPS * C];
            const long now = std::min<long>(SOME, end - k);
            for (long i = 0; i < SOME; i++)
                for (long c = 0; c < C; c++) {
                    const long panel = left + 4 * c;
                    split_nibbles(block.panels + (panel * words + k + i) * PANEL, words,
                                  i < now ? block.number - panel : 0, nibbles + 16 * i * C + c, C);
                }
            count_tables<C>(codes + k / SOME * STEPS, size, pairs, nibbles,
                            fused::ceil_div(16 * now, 3), (shorts *)counts);
        }
        for (long row = 0; row < rows; row++) {
            int32_t *to = block.out + row / block.planes * block.stride + left * PANEL;
            const uint16_t *from = counts + row * 32 * C;
            const int shift = 1 + row % block.planes;
            for (long j = 0; j < units; j++)
                to[j] -= from[j] << shift;
        }
    }
}

static void subtract_tables(const Block &block, uint64_t *scratch)
{
    const long rows = block.n * block.planes;
    const long size = fused::ceil_div(block.words, SOME) * STEPS;
    uint16_t *codes = (uint16_t *)scratch;
    uint16_t *counts = codes + fused::ceil_div(rows, 2) * size;
    find_tables(block.rows, rows, block.words, codes);
    for (long left = 0, wide; left < block.number; left += wide) {
        wide = block.number - left > 4 ? 4 * COLUMNS : 4;
        (wide > 4 ? subtract_columns<COLUMNS> : subtract_columns<1>)(block, left, codes, counts);
    }
}

#endif

} // namespace xnor
