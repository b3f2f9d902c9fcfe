// Converts signs, pixels and sums to bits; see xnor.py.
#include "planes.h"

namespace xnor
{

// Packs rows of `size` numbers. Bit i of row `row` is is_one(row, i), flipped if bit i of `flips`
// is set.
template <class IsOne>
static void pack_rows(long rows, long size, const uint64_t *flips, uint64_t *to, IsOne is_one)
{
    const long words = fused::ceil_div(size, 64);
    fused::parallel(rows * words, rows * size, [=](long begin, long end) {
        for (long word = begin; word < end; word++) {
            const long row = word / words, first = word % words * 64;
            uint64_t packed = 0;
            for (long i = 0; i < std::min(64L, size - first); i++)
                packed |= (uint64_t)is_one(row, first + i) << i;
            to[word] = packed ^ (flips ? flips[word % words] : 0);
        }
    });
}

static void pack(PyArrayObject *x, PyArrayObject **bits)
{
    const fused::Array<float> signs(x);
    const long n = signs.dim(0), size = signs.dim(1);
    const float *from = signs.data();
    pack_rows(n, size, nullptr, fused::prepare<uint64_t>(bits, {n, fused::ceil_div(size, 64)}),
              [=](long row, long i) { return from[row * size + i] >= 0; });
}

static void planes(PyArrayObject *pixels, PyArrayObject **bits)
{
    const fused::Array<uint8_t> bytes(pixels);
    const long n = bytes.dim(0), size = bytes.dim(1), words = fused::ceil_div(size, 64);
    const uint8_t *from = bytes.data();
    uint64_t *to = fused::prepare<uint64_t>(bits, {n, 8, words});
    fused::parallel(n, n * size, [=](long begin, long end) {
        for (long row = begin; row < end; row++)
            split_planes(from + row * size, size, words, to + row * 8 * words);
    });
}

static void threshold(PyArrayObject *sums, PyArrayObject *thresholds, PyArrayObject *negative,
                      PyArrayObject **bits)
{
    const fused::Array<int32_t> numbers(sums), least(thresholds);
    const fused::Array<uint64_t> flipped(negative);
    std::vector<npy_intp> shape = numbers.shape();
    const long units = shape.back(), words = fused::ceil_div(units, 64);
    if (least.dim(0) != units || flipped.dim(0) != words)
        fused::raise_value_error(
            "xnor: %ld thresholds and %ld words of directions do not fit %ld units", least.dim(0),
            flipped.dim(0), units);
    shape.back() = words;
    uint64_t *to = fused::prepare<uint64_t>(bits, shape);
    const int32_t *from = numbers.data(), *t = least.data();
    pack_rows(units ? numbers.size() / units : 0, units, flipped.data(), to,
              [=](long row, long i) { return from[row * units + i] >= t[i]; });
}

static void pool(PyArrayObject *bits, PyArrayObject *negative, PyArrayObject **out)
{
    const fused::Array<uint64_t> images(bits), flipped(negative);
    const long batch = images.dim(0), height = images.dim(1), width = images.dim(2);
    const long words = images.dim(3), rows = height / 2, columns = width / 2;
    if (flipped.dim(0) != words)
        fused::raise_value_error("xnor: %ld words of directions do not fit pixels of %ld",
                                 flipped.dim(0), words);
    uint64_t *to = fused::prepare<uint64_t>(out, {batch, rows, columns, words});
    const uint64_t *from = images.data(), *flips = flipped.data();
    for (long row = 0; row < batch * rows; row++)
        for (long column = 0; column < columns; column++, to += words) {
            const long first = (row / rows * height + row % rows * 2) * width + 2 * column;
            const uint64_t *upper = from + first * words, *lower = upper + width * words;
            for (long k = 0; k < words; k++)
                to[k] = ((upper[k] ^ flips[k]) | (upper[words + k] ^ flips[k]) |
                         (lower[k] ^ flips[k]) | (lower[words + k] ^ flips[k])) ^
                        flips[k];
        }
}

} // namespace xnor
