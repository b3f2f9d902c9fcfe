// Sums over all axes but that of the channels; see sums.py.
#include "channels.h"

namespace normalization
{

static void sum_channels(PyArrayObject *x, PyArrayObject **sums)
{
    const fused::Array<float> from(x);
    const float *data = from.data();
    float *to = fused::prepare<float>(sums, {PyArray_DIM(x, 1)});
    for_blocks(x, {}, [=](const Block &block) {
        double totals[PANEL];
        sum(block, totals, [=](long i, long) { return data[i]; });
        for (long c = 0; c < block.width; c++)
            to[block.first + c] = totals[c];
    });
}

} // namespace normalization
