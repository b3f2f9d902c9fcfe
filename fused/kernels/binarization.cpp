// Binarizes weights to -H and +H by their sign or by random numbers; see binarization.py.
#include "common.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace binarization
{

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), COUNTERS
// counters at a time. Each of the four 32-bit words of a counter is the lower half of a 64-bit
// number; the content of the upper half does not matter.
#if defined(__AVX512F__)
enum { COUNTERS = 8 };
#elif defined(__AVX2__)
enum { COUNTERS = 4 };
#else
enum { COUNTERS = 2 };
#endif
typedef uint64_t numbers __attribute__((vector_size(8 * COUNTERS), may_alias));

// The products of the lower halves, 64 bits each.
static inline numbers widening_product(numbers a, numbers b)
{
#if defined(__AVX512F__)
    return (numbers)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (numbers)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (numbers)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The random words of counters (8 group, step) to (8 group + 7, step): word w of counter
// 8 group + c is draws[16 (w / 2) + 2 c + w % 2].
static void philox(uint64_t group, uint64_t step, uint64_t key, uint32_t draws[32])
{
    const numbers zero = {0}, low = zero + 0xffffffffu;
    const numbers m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    numbers index = zero;
    for (int c = 0; c < COUNTERS; c++)
        index[c] = c;
    for (int first = 0; first < 8; first += COUNTERS) {
        const numbers counter = index + (8 * group + first);
        numbers x0 = counter, x1 = counter >> 32, x2 = zero + step, x3 = x2 >> 32;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; round++) {
            const numbers p0 = widening_product(x0, m0), p1 = widening_product(x2, m1);
            x0 = (p1 >> 32) ^ x1 ^ k0;
            x2 = (p0 >> 32) ^ x3 ^ k1;
            x1 = p1;
            x3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const numbers words01 = (x0 & low) | (x1 << 32), words23 = (x2 & low) | (x3 << 32);
        memcpy(draws + 2 * first, &words01, sizeof words01);
        memcpy(draws + 16 + 2 * first, &words23, sizeof words23);
    }
}

static void by_sign(PyArrayObject *W, PyArrayObject *H, PyArrayObject **Wb)
{
    const fused::Array<float> weights(W);
    const float *w = weights.data(), h = *(const float *)PyArray_DATA(H);
    float *wb = fused::prepare<float>(Wb, weights.shape());
    fused::parallel(weights.size(), weights.size(), [=](long begin, long end) {
        for (long i = begin; i < end; i++)
            wb[i] = (w[i] / h + 1) / 2 >= 0.5f ? h : -h;
    });
}

// Each group of 32 weights has 32 random words. The upper 24 bits of a word are a uniform number in
// [0, 1).
static void by_draw(PyArrayObject *W, PyArrayObject *H, PyArrayObject *state, PyArrayObject **Wb,
                    PyArrayObject **next_state)
{
    if (PyArray_DIM(state, 0) != 2)
        fused::raise_value_error("the state has %ld numbers, expected 2: key and step",
                                 (long)PyArray_DIM(state, 0));
    const uint64_t key = *(uint64_t *)PyArray_GETPTR1(state, 0);
    const uint64_t step = *(uint64_t *)PyArray_GETPTR1(state, 1);
    const fused::Array<float> weights(W);
    const float *w = weights.data(), h = *(const float *)PyArray_DATA(H);
    const long n = weights.size();
    float *wb = fused::prepare<float>(Wb, weights.shape());
    fused::parallel(fused::ceil_div(n, 32), n, [=](long begin, long end) {
        for (long group = begin; group < end; group++) {
            uint32_t draws[32];
            philox(group, step, key, draws);
            const auto draw = [&](long i) {
                const float uniform = (int32_t)(draws[i - 32 * group] >> 8) * 0x1p-24f;
                wb[i] = uniform < (w[i] / h + 1) / 2 ? h : -h;
            };
            const long first = 32 * group;
            if (first + 32 <= n)
                for (int i = 0; i < 32; i++)
                    draw(first + i);
            else
                for (long i = first; i < n; i++)
                    draw(i);
        }
    });
    uint64_t *next = fused::prepare<uint64_t>(next_state, {2});
    next[0] = key;
    next[1] = step + 1;
}

} // namespace binarization
