#section support_code

#include <stdint.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), LANES
   counters at a time. Each of the four 32-bit words of a counter is the lower half of a 64-bit
   lane; what the upper half holds does not matter. */
#if defined(__AVX512F__)
#define LANES 8
#elif defined(__AVX2__)
#define LANES 4
#else
#define LANES 2
#endif
typedef uint64_t lanes __attribute__((vector_size(8 * LANES), may_alias));

/* Product of the lower halves, 64 bits each. */
static inline lanes widening_product(lanes a, lanes b)
{
#if defined(__AVX512F__)
    return (lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* The draws of counters (8 group, step) to (8 group + 7, step): word w of counter 8 group + c is
   draws[16 (w / 2) + 2 c + w % 2]. */
static void philox(uint64_t group, uint64_t step, uint64_t key, uint32_t draws[32])
{
    const lanes zero = {0}, low = zero + 0xffffffffu, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    lanes number = zero;
    for (int c = 0; c < LANES; ++c)
        number[c] = c;
    for (int first = 0; first < 8; first += LANES) {
        lanes counter = number + (8 * group + first);
        lanes x0 = counter, x1 = counter >> 32, x2 = zero + step, x3 = x2 >> 32;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; ++round) {
            lanes p0 = widening_product(x0, m0), p1 = widening_product(x2, m1);
            x0 = (p1 >> 32) ^ x1 ^ k0;
            x2 = (p0 >> 32) ^ x3 ^ k1;
            x1 = p1;
            x3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        lanes words01 = (x0 & low) | (x1 << 32), words23 = (x2 & low) | (x3 << 32);
        memcpy(draws + 2 * first, &words01, sizeof words01);
        memcpy(draws + 16 + 2 * first, &words23, sizeof words23);
    }
}

/* Binarizes n weights by the 32 draws of each group of 32; a draw's upper 24 bits are a uniform
   number in [0, 1). */
static void draw_signs(const float *W, float *Wb, npy_intp n, float H, const npy_uint64 *state)
{
#pragma omp parallel for schedule(static) if (n > 16384)
    for (npy_intp group = 0; group < (n + 31) / 32; ++group) {
        uint32_t draws[32];
        philox(group, state[1], state[0], draws);
        const float *w = W + 32 * group;
        float *wb = Wb + 32 * group;
        if (32 * group + 32 <= n) {
            for (int i = 0; i < 32; ++i)
                wb[i] = (int32_t)(draws[i] >> 8) * 0x1p-24f < (w[i] / H + 1) / 2 ? H : -H;
        } else {
            for (int i = 0; i < n - 32 * group; ++i)
                wb[i] = (int32_t)(draws[i] >> 8) * 0x1p-24f < (w[i] / H + 1) / 2 ? H : -H;
        }
    }
}

static void take_signs(const float *W, float *Wb, npy_intp n, float H)
{
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (npy_intp i = 0; i < n; ++i)
        Wb[i] = (W[i] / H + 1) / 2 >= 0.5f ? H : -H;
}

static int prepare(PyArrayObject **output, int ndim, npy_intp *shape, int type)
{
    if (*output && PyArray_IS_C_CONTIGUOUS(*output) &&
        PyArray_CompareLists(PyArray_DIMS(*output), shape, ndim))
        return 0;
    Py_XDECREF(*output);
    *output = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, type);
    return *output ? 0 : -1;
}

int binarize_by_sign(PyArrayObject *W, PyArrayObject *H, PyArrayObject **Wb)
{
    PyArrayObject *w = PyArray_GETCONTIGUOUS(W);
    if (!w || prepare(Wb, PyArray_NDIM(w), PyArray_DIMS(w), NPY_FLOAT32)) {
        Py_XDECREF(w);
        return -1;
    }
    take_signs((float *)PyArray_DATA(w), (float *)PyArray_DATA(*Wb), PyArray_SIZE(w),
               *(float *)PyArray_DATA(H));
    Py_DECREF(w);
    return 0;
}

int binarize_by_draw(PyArrayObject *W, PyArrayObject *H, PyArrayObject *state, PyArrayObject **Wb,
                     PyArrayObject **next_state)
{
    npy_intp two = 2;
    if (PyArray_DIM(state, 0) != 2) {
        PyErr_Format(PyExc_ValueError, "the state has %ld numbers, expected 2: key and step",
                     (long)PyArray_DIM(state, 0));
        return -1;
    }
    npy_uint64 now[2] = {*(npy_uint64 *)PyArray_GETPTR1(state, 0),
                         *(npy_uint64 *)PyArray_GETPTR1(state, 1)};
    PyArrayObject *w = PyArray_GETCONTIGUOUS(W);
    if (!w || prepare(Wb, PyArray_NDIM(w), PyArray_DIMS(w), NPY_FLOAT32) ||
        prepare(next_state, 1, &two, NPY_UINT64)) {
        Py_XDECREF(w);
        return -1;
    }
    draw_signs((float *)PyArray_DATA(w), (float *)PyArray_DATA(*Wb), PyArray_SIZE(w),
               *(float *)PyArray_DATA(H), now);
    ((npy_uint64 *)PyArray_DATA(*next_state))[0] = now[0];
    ((npy_uint64 *)PyArray_DATA(*next_state))[1] = now[1] + 1;
    Py_DECREF(w);
    return 0;
}
