// Products of many rows by slices of bits, with AVX-512; see counts.h.
//
// A vector, a slice, has one bit of each of 512 units, so that the bit of a row that is compared
// with it is the same for all of them. For three bits of the weights there are 8 cases of the bits
// of a row; the number of bits that differ, 0 to 3, is tabulated for each as two slices, its lower
// bit `sum` and its upper bit `carry`. A row therefore reads, and never computes, the products of
// three bits. The slices are added by carry-save adders (Harley and Seal; Mula, Kurz and Lemire,
// "Faster population counts using AVX2 instructions", 2018): of three slices of weight 2^l,
//     a + b + c = 2 majority(a, b, c) + (a xor b xor c)
// are two VPTERNLOG. The counts of a row remain slices, one for each power of two, until all words
// are added.
//
// The bound: a word of 64 bits has 43 slices of 22 tables, which 42 adders and, on average, one
// more reduce to the counts. That is 86 instructions for 512 x 64 products of bits: 762 a cycle if
// a processor starts two.
#pragma once

#include "tables.h"

namespace xnor
{

#ifdef __x86_64__

enum { SLICE = 64 };           // panels
enum { GROUPS = 21, LOW = 6 }; // groups of three bits of a word; powers of two below 64
#define SLICES __attribute__((target("avx512f,avx512bw")))

// Bit r of byte i of vector p becomes bit p of byte i of vector r.
SLICES static inline void transpose_bits(__m512i *x)
{
    for (int s = 4; s; s >>= 1) {
        const __m512i low = _mm512_set1_epi8(s == 4 ? 0x0f : s == 2 ? 0x33 : 0x55);
        for (int r = 0; r < 8; r++)
            if (!(r & s)) {
                const __m512i a = x[r], b = x[r + s];
                x[r] = _mm512_ternarylogic_epi64(low, a, _mm512_slli_epi64(b, s), 0xCA);
                x[r + s] = _mm512_ternarylogic_epi64(low, _mm512_srli_epi64(a, s), b, 0xCA);
            }
    }
}

// Word r of vector p becomes word p of vector r.
SLICES static inline void transpose_words(__m512i *x)
{
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    for (int s = 4; s; s >>= 1) {
        const __m512i step = _mm512_set1_epi64(s), other = _mm512_set1_epi64(8);
        const __mmask8 upper = _mm512_test_epi64_mask(lane, step);
        const __m512i from_other = _mm512_add_epi64(lane, other);
        const __m512i first =
            _mm512_mask_sub_epi64(lane, upper, from_other, step);
        const __m512i second =
            _mm512_mask_mov_epi64(_mm512_add_epi64(lane, step), upper, from_other);
        for (int r = 0; r < 8; r++)
            if (!(r & s)) {
                const __m512i a = x[r], b = x[r + s];
                x[r] = _mm512_permutex2var_epi64(a, first, b);
                x[r + s] = _mm512_permutex2var_epi64(a, second, b);
            }
    }
}

// bits[64]: those of a word of each unit of SLICE panels, of which `number` exist. Bit 8 i + r of a
// slice belongs to unit 64 r + i.
SLICES static void slice(const uint64_t *panels, long words, long number, __m512i *bits)
{
    uint8_t pair[64];   // byte j of two units side by side
    uint16_t order[32]; // the pairs of byte j side by side
    for (int i = 0; i < 64; i++)
        pair[i] = i % 2 * 8 + i / 2 % 8;
    for (int i = 0; i < 32; i++)
        order[i] = i % 4 * 8 + i / 4;
    const __m512i pairs = _mm512_loadu_si512(pair), orders = _mm512_loadu_si512(order);
    for (int r = 0; r < 8; r++) {
        __m512i x[8];
        for (int i = 0; i < 8; i++) {
            const long panel = 8 * r + i;
            const __m512i units = panel < number
                                      ? _mm512_loadu_si512(panels + panel * words * PANEL)
                                      : _mm512_setzero_si512();
            x[i] = _mm512_permutexvar_epi16(orders, _mm512_shuffle_epi8(units, pairs));
        }
        transpose_words(x);
        for (int j = 0; j < 8; j++)
            bits[8 * j + r] = x[j];
    }
    for (int j = 0; j < 8; j++)
        transpose_bits(bits + 8 * j);
}

// The tables of a word: of three bits of weights and the 8 cases of the bits of a row, and of the
// last bit.
struct Slices {
    struct {
        __m512i sum, carry;
    } of[GROUPS][8];
    __m512i last[2];
};

SLICES static void tabulate(const __m512i *bits, Slices &to)
{
    const __m512i ones = _mm512_set1_epi64(-1);
    for (int g = 0; g < GROUPS; g++)
        for (int x = 0; x < 8; x++) {
            const __m512i a = _mm512_xor_si512(bits[3 * g], x & 1 ? ones : _mm512_setzero_si512());
            const __m512i b =
                _mm512_xor_si512(bits[3 * g + 1], x & 2 ? ones : _mm512_setzero_si512());
            const __m512i c =
                _mm512_xor_si512(bits[3 * g + 2], x & 4 ? ones : _mm512_setzero_si512());
            to.of[g][x].sum = _mm512_ternarylogic_epi64(a, b, c, 0x96);
            to.of[g][x].carry = _mm512_ternarylogic_epi64(a, b, c, 0xE8);
        }
    to.last[0] = bits[63];
    to.last[1] = _mm512_xor_si512(bits[63], ones);
}

// Adds two slices to `sum` and returns the carry.
SLICES static inline __m512i full_add(__m512i &sum, __m512i a, __m512i b)
{
    const __m512i carry = _mm512_ternarylogic_epi64(sum, a, b, 0xE8);
    sum = _mm512_ternarylogic_epi64(sum, a, b, 0x96);
    return carry;
}

// Slices of powers of two below 64. An adder takes two slices; the first waits for the second.
struct Adders {
    __m512i sums[LOW], waiting[LOW], out;
    bool waits[LOW];
};

template <int L>
SLICES __attribute__((always_inline)) static inline void add(Adders &to, __m512i x)
{
    if constexpr (L == LOW)
        to.out = x;
    else if (!to.waits[L]) {
        to.waits[L] = true;
        to.waiting[L] = x;
    } else {
        to.waits[L] = false;
        add<L + 1>(to, full_add(to.sums[L], to.waiting[L], x));
    }
}

// Adds word `k` of `n` rows to their counts. The counts of a row are `size` vectors: the slices
// below 64 and, for each power of two from 64, its slice and a slice that waits to be added.
SLICES static void add_word(const uint64_t *rows, long n, long words, long k, const Slices &slices,
                            __m512i *counts, long size)
{
    // The place of an entry in a table: the bits of the group, moved by a shuffle and a shift to
    // bit 7, since an entry has 128 bytes.
    uint8_t source[64] = {0};
    uint16_t shift[32] = {0}, mask[32] = {0};
    for (int g = 0; g <= GROUPS; g++) {
        source[2 * g] = 3 * g / 8;
        source[2 * g + 1] = g < GROUPS - 1 ? 3 * g / 8 + 1 : 128; // 128 gives 0
        shift[g] = 7 - 3 * g % 8;
        mask[g] = 7 << 7;
    }
    // The last bit, 63, is bit 7 of byte 7 and chooses one of two vectors. It stays where it is.
    const __m512i sources = _mm512_loadu_si512(source), shifts = _mm512_loadu_si512(shift);
    const __m512i masks = _mm512_loadu_si512(mask);
    for (long row = 0; row < n; row++, counts += size) {
        alignas(64) uint16_t places[32];
        const __m512i word = _mm512_set1_epi64(rows[row * words + k]);
        _mm512_store_si512(
            places, _mm512_and_si512(
                        _mm512_sllv_epi16(_mm512_shuffle_epi8(word, sources), shifts), masks));
        const char *tables = (const char *)&slices;
        // Places are read from memory: to extract them would take the ports of the adders.
        asm("" : "+r"(tables), "+m"(places));
        Adders to;
        for (int l = 0; l < LOW; l++) {
            to.sums[l] = counts[l];
            to.waits[l] = false;
        }
#pragma GCC unroll 21
        for (int g = 0; g < GROUPS; g++) {
            const __m512i *entry =
                (const __m512i *)(tables + g * sizeof slices.of[0] + places[g]);
            add<0>(to, entry[0]);
            add<1>(to, entry[1]);
        }
        add<0>(to, *(const __m512i *)(tables + sizeof slices.of + places[GROUPS] / 2));
        for (int l = 0; l < LOW; l++)
            counts[l] = to.sums[l];
        // As in a binary counter, the slice of 2^l takes part in every (2^(l - 6))th word.
        __m512i *high = counts + LOW, carry = to.out;
        for (long bits = k; bits & 1; bits >>= 1, high += 2)
            carry = full_add(high[0], high[1], carry);
        high[1] = carry;
    }
}

static long levels_of(long words)
{
    return 64 - __builtin_clzl(words | 1);
}

// counts[SLICE * PANEL] from the slices of a row of `words` words.
SLICES static void unslice(const __m512i *slices, long words, int32_t *counts)
{
    const long levels = levels_of(words);
    __m512i all[LOW + 64];
    for (long l = 0; l < LOW + 64; l++)
        all[l] = l < LOW            ? slices[l]
                 : l < LOW + levels ? slices[2 * l - LOW]
                                    : _mm512_setzero_si512();
    for (long level = 0; level < levels; level++)
        if (words >> level & 1) { // a slice waits
            __m512i carry = slices[LOW + 2 * level + 1];
            for (long l = LOW + level; l < LOW + levels; l++) {
                const __m512i sum = all[l];
                all[l] = _mm512_xor_si512(sum, carry);
                carry = _mm512_and_si512(sum, carry);
            }
        }
    memset(counts, 0, SLICE * PANEL * sizeof *counts);
    for (int first = 0; first < LOW + levels; first += 8) {
        transpose_bits(all + first);
        const uint8_t *eight = (const uint8_t *)(all + first);
        for (long unit = 0; unit < SLICE * PANEL; unit++)
            counts[unit] += (int32_t)eight[unit] << first;
    }
}

static long slices_scratch(long rows, long words)
{
    return std::max(tables_scratch(rows, words), rows * (LOW + 2 * levels_of(words)) * 8);
}

SLICES static void subtract_slices(const Block &block, uint64_t *scratch)
{
    if (block.number < SLICE / 2) { // most of a slice would be empty
        subtract_tables(block, scratch);
        return;
    }
    const long words = block.words, rows = block.n * block.planes;
    const long size = LOW + 2 * levels_of(words);
    __m512i *counts = (__m512i *)scratch;
    memset(scratch, 0, rows * size * sizeof *counts);
    for (long k = 0; k < words; k++) {
        __m512i bits[64];
        Slices slices;
        slice(block.panels + k * PANEL, words, block.number, bits);
        tabulate(bits, slices);
        add_word(block.rows, rows, words, k, slices, counts, size);
    }
    for (long row = 0; row < rows; row++) {
        int32_t numbers[SLICE * PANEL];
        unslice(counts + row * size, words, numbers);
        int32_t *to = block.out + row / block.planes * block.stride;
        const int shift = 1 + row % block.planes;
        for (long j = 0; j < block.units; j++)
            to[j] -= numbers[j] << shift;
    }
}

#undef SLICES
#endif

} // namespace xnor
