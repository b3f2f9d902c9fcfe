// Pixels as planes of bits.
#pragma once

#include "../common.h"

namespace xnor
{

// The bits of 8 bytes as planes: byte p of the result has bit p of each byte.
static inline uint64_t transpose(uint64_t x)
{
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAu;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCu;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0u;
    return x ^ t ^ (t << 28);
}

// Converts `n` bytes to 8 planes of `words` words.
static void split_planes(const uint8_t *bytes, long n, long words, uint64_t *to)
{
    memset(to, 0, 64 * words);
    for (long i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        for (int b = 0; b < 8 && i + b < n; b++)
            eight |= (uint64_t)bytes[i + b] << 8 * b;
        eight = transpose(eight);
        for (int plane = 0; plane < 8; plane++)
            to[plane * words + i / 64] |= (eight >> 8 * plane & 255) << i % 64;
    }
}

} // namespace xnor
