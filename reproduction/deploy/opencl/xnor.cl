/* Networks of +-1 on a GPU (Binarized Neural Networks, section 4 and Algorithm 5), in OpenCL C 1.2:
   products by exclusive or and population count, and two float products to compare them with.
   Integers are exact, and so are float sums of integers below 2^24.

   A bit is 1 for +1 and 0 for -1, bit i of a row in word i / 32; bits beyond the end are 0, and rows
   have an even number of words. Where x and w differ in `count` of n bits, x.w = n - 2 count.

   Sizes of work: dimension 0 runs over the last axis of what a kernel writes, dimension 1 over the
   axis before. In the tiled kernels a group of GROUP x GROUP work items computes TILE x TILE outputs
   from parts of both factors in local memory; each work item computes EACH x EACH of them, GROUP
   apart, so that neighbors read neighboring memory. Loops over EACH are unrolled: what they index
   then stays in registers. */

#define GROUP 16
#define EACH 4
#define TILE (GROUP * EACH)
#define TILED __kernel __attribute__((reqd_work_group_size(GROUP, GROUP, 1)))

/* c = a b for floats, with one work item for each output: the paper's unoptimized kernel. */
__kernel void plain_product(__global const float *a, __global const float *b, int rows, int depth,
                            int units, __global float *c)
{
    const int unit = get_global_id(0), row = get_global_id(1);
    if (row >= rows || unit >= units)
        return;
    float sum = 0;
    for (int k = 0; k < depth; ++k)
        sum += a[(size_t)row * depth + k] * b[(size_t)k * units + unit];
    c[(size_t)row * units + unit] = sum;
}

/* The same by tiles. */
TILED void tiled_product(__global const float *a, __global const float *b, int rows, int depth,
                         int units, __global float *c)
{
    __local float part_a[TILE][GROUP + 1], part_b[GROUP][TILE];
    const int x = get_local_id(0), y = get_local_id(1);
    const int left = get_group_id(0) * TILE, top = get_group_id(1) * TILE;
    float sums[EACH][EACH] = {{0}};
    for (int start = 0; start < depth; start += GROUP) {
        for (int i = 0; i < EACH; ++i) {
            const int row = top + y + GROUP * i, unit = left + x + GROUP * i;
            part_a[y + GROUP * i][x] =
                row < rows && start + x < depth ? a[(size_t)row * depth + start + x] : 0;
            part_b[y][x + GROUP * i] =
                unit < units && start + y < depth ? b[(size_t)(start + y) * units + unit] : 0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < GROUP; ++k)
#pragma unroll
            for (int i = 0; i < EACH; ++i)
#pragma unroll
                for (int j = 0; j < EACH; ++j)
                    sums[i][j] += part_a[y + GROUP * i][k] * part_b[k][x + GROUP * j];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const int row = top + y + GROUP * i, unit = left + x + GROUP * j;
            if (row < rows && unit < units)
                c[(size_t)row * units + unit] = sums[i][j];
        }
}

/* The activations of a layer of floats, in place: +1 if (x >= threshold) xor negative, otherwise -1.
   x holds integers. */
__kernel void signs(__global float *x, int units, __global const int *thresholds,
                    __global const uint *negative)
{
    const int unit = get_global_id(0);
    const size_t at = (size_t)get_global_id(1) * units + unit;
    const int below = negative[unit / 32] >> unit % 32 & 1;
    x[at] = (x[at] >= thresholds[unit]) != below ? 1 : -1;
}

/* The signs of floats as bits, 1 if a float is at least 0. Bit i of row r is from
   x[r * of_row + i * of_bit], so that rows may be the rows or the columns of a matrix. */
__kernel void pack(__global const float *x, int n, int of_row, int of_bit, int words,
                   __global uint *bits)
{
    const int word = get_global_id(0), row = get_global_id(1);
    uint packed = 0;
    for (int b = 0; b < 32 && 32 * word + b < n; ++b)
        packed |= (uint)(x[(size_t)row * of_row + (size_t)(32 * word + b) * of_bit] >= 0) << b;
    bits[(size_t)row * words + word] = packed;
}

/* The place that a tap reads for a place in images of height x width, or -1 outside the image. Tap
   3 i + j of a true convolution reads (row + 1 - i, column + 1 - j). */
static inline int source(int place, int tap, int height, int width)
{
    const int column = place % width + 1 - tap % 3;
    const int row = place / width % height + 1 - tap / 3;
    return row < 0 || row >= height || column < 0 || column >= width
               ? -1
               : (place / (height * width) * height + row) * width + column;
}

/* The kind of edge at a place: the sum of 1 if nothing is above it, 2 if nothing is below it, 4 if
   nothing is to its left, and 8 if nothing is to its right. A dense layer has height 0. */
static inline int edge(int place, int height, int width)
{
    if (height == 0)
        return 0;
    const int column = place % width, row = place / width % height;
    return (row == 0) | (row == height - 1) << 1 | (column == 0) << 2 | (column == width - 1) << 3;
}

/* The rows of the first layer, [places][8][words]. Plane p has bit p of each pixel; if s_p = +-1 are
   its bits, sum_p 2^p s_p is 2 pixel - 255. A row has bits (tap, channel) of the patch of a place, or
   with one tap the channels of the place itself. Bits outside the image are 0. */
__kernel void planes(__global const uchar *pixels, int channels, int height, int width, int taps,
                     int words, __global uint *bits)
{
    const int word = get_global_id(0), place = get_global_id(1), area = height * width;
    uint packed[8] = {0};
    for (int b = 0; b < 32 && 32 * word + b < taps * channels; ++b) {
        const int i = 32 * word + b;
        const int from = source(place, taps == 1 ? 4 : i / channels, height, width);
        if (from < 0)
            continue;
        const uint pixel =
            pixels[((size_t)(from / area) * channels + i % channels) * area + from % area];
        for (int p = 0; p < 8; ++p)
            packed[p] |= (pixel >> p & 1) << b;
    }
    for (int p = 0; p < 8; ++p)
        bits[((size_t)place * 8 + p) * words + word] = packed[p];
}

/* The rows of a convolution, [places][9][words], from bits [places][words]. */
__kernel void patches(__global const uint *bits, int height, int width, int words,
                      __global uint *rows)
{
    const int k = get_global_id(0), place = get_global_id(1);
    const int from = source(place, k / words, height, width);
    rows[(size_t)place * 9 * words + k] = from < 0 ? 0 : bits[(size_t)from * words + k % words];
}

/* The number of bits that differ between rows [n][planes][words] and weights [units][words], for the
   outputs of this work item. Plane p counts 2^p times. */
static inline void count(__global const uint *rows, __global const uint *weights, int n, int units,
                         int planes, int words, __local uint (*part_x)[GROUP + 1],
                         __local uint (*part_w)[GROUP + 1], int (*counts)[EACH])
{
    const int x = get_local_id(0), y = get_local_id(1);
    const int left = get_group_id(0) * TILE, top = get_group_id(1) * TILE;
    for (int plane = planes - 1; plane >= 0; --plane) {
#pragma unroll
        for (int i = 0; i < EACH; ++i)
#pragma unroll
            for (int j = 0; j < EACH; ++j)
                counts[i][j] *= 2;
        for (int start = 0; start < words; start += GROUP) {
            const int word = start + x;
            for (int i = 0; i < EACH; ++i) {
                const int row = top + y + GROUP * i, unit = left + y + GROUP * i;
                part_x[y + GROUP * i][x] =
                    row < n && word < words ? rows[((size_t)row * planes + plane) * words + word] : 0;
                part_w[y + GROUP * i][x] =
                    unit < units && word < words ? weights[(size_t)unit * words + word] : 0;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int k = 0; k < GROUP; ++k)
#pragma unroll
                for (int i = 0; i < EACH; ++i)
#pragma unroll
                    for (int j = 0; j < EACH; ++j)
                        counts[i][j] +=
                            popcount(part_x[y + GROUP * i][k] ^ part_w[x + GROUP * j][k]);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
}

/* The sums of a layer, [n][units]. base[edge][units] is the sum if no bit differs. For places at an
   edge, it also cancels what the bits 0 outside the image add. */
TILED void xnor_sums(__global const uint *rows, __global const uint *weights,
                     __global const int *base, int n, int units, int planes, int words, int height,
                     int width, __global int *sums)
{
    __local uint part_x[TILE][GROUP + 1], part_w[TILE][GROUP + 1];
    int counts[EACH][EACH] = {{0}};
    count(rows, weights, n, units, planes, words, part_x, part_w, counts);
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const int row = get_group_id(1) * TILE + get_local_id(1) + GROUP * i;
            const int unit = get_group_id(0) * TILE + get_local_id(0) + GROUP * j;
            if (row < n && unit < units)
                sums[(size_t)row * units + unit] =
                    base[edge(row, height, width) * units + unit] - 2 * counts[i][j];
        }
}

/* The activations of a layer as bits [n][words of units]: 1 if (sum >= threshold) xor negative. A
   tile is TILE / 32 words wide; rows are padded to that width. */
TILED void xnor_bits(__global const uint *rows, __global const uint *weights,
                     __global const int *base, int n, int units, int planes, int words, int height,
                     int width, __global const int *thresholds, __global const uint *negative,
                     __global uint *bits)
{
    __local uint part_x[TILE][GROUP + 1], part_w[TILE][GROUP + 1], packed[TILE][TILE / 32];
    const int x = get_local_id(0), y = get_local_id(1);
    int counts[EACH][EACH] = {{0}};
    count(rows, weights, n, units, planes, words, part_x, part_w, counts);
    if (x < TILE / 32)
        for (int i = 0; i < EACH; ++i)
            packed[y + GROUP * i][x] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const int row = get_group_id(1) * TILE + y + GROUP * i;
            const int unit = get_group_id(0) * TILE + x + GROUP * j;
            if (row >= n || unit >= units)
                continue;
            const int sum = base[edge(row, height, width) * units + unit] - 2 * counts[i][j];
            const int below = negative[unit / 32] >> unit % 32 & 1;
            if ((sum >= thresholds[unit]) != below)
                atomic_or(&packed[y + GROUP * i][(x + GROUP * j) / 32], 1u << unit % 32);
        }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (x < TILE / 32)
        for (int i = 0; i < EACH; ++i) {
            const int row = get_group_id(1) * TILE + y + GROUP * i;
            if (row < n)
                bits[((size_t)row * get_num_groups(0) + get_group_id(0)) * (TILE / 32) + x] =
                    packed[y + GROUP * i][x];
        }
}

/* The activations after 2x2 max pooling of the sums, from the activations before: the disjunction of
   four bits or, if `negative`, their conjunction. The borders of odd images are ignored. */
__kernel void pool(__global const uint *bits, __global const uint *negative, int height, int width,
                   int words, __global uint *pooled)
{
    const int word = get_global_id(0), place = get_global_id(1);
    const int column = place % (width / 2), row = place / (width / 2) % (height / 2);
    const int image = place / (width / 2) / (height / 2);
    const size_t first = ((size_t)image * height + 2 * row) * width + 2 * column;
    const uint a = bits[first * words + word], b = bits[(first + 1) * words + word];
    const uint c = bits[(first + width) * words + word], d = bits[(first + width + 1) * words + word];
    pooled[(size_t)place * words + word] =
        (a | b | c | d) & ~negative[word] | a & b & c & d & negative[word];
}
