// Shift-based batch normalization, forward and backward; see normalization.py.
#include "channels.h"

namespace normalization
{

#include "ap2.h"

// A total divided by the size of each axis but that of the channels.
static float average(float total, const std::vector<npy_intp> &shape)
{
    for (size_t axis = 0; axis < shape.size(); axis++)
        if (axis != 1)
            total /= (float)shape[axis];
    return total;
}

// Rounds as the plain expressions do, because a last bit can double or halve the output.
static void shift_normalize(const Block block, const std::vector<npy_intp> &shape, float epsilon,
                            const float *__restrict x, const float *gamma, const float *beta,
                            float *__restrict y, float *means, float *inv_stds)
{
    double totals[PANEL];
    float mean[PANEL], scale[PANEL], shift[PANEL];
    sum(block, totals, [&](long i, long) { return x[i]; });
    for (long c = 0; c < block.width; c++)
        mean[c] = means[block.first + c] = average(totals[c], shape);
    sum(block, totals, [&](long i, long c) {
        const float centered = x[i] - mean[c];
        return centered * ap2(centered);
    });
    for (long c = 0; c < block.width; c++) {
        const float inv_std = 1 / sqrtf(average(totals[c], shape) + epsilon);
        inv_stds[block.first + c] = inv_std;
        scale[c] = ap2(gamma[block.first + c]) * ap2(inv_std);
        shift[c] = beta[block.first + c];
    }
    fill(block, y, [&](long i, long c) { return (x[i] - mean[c]) * scale[c] + shift[c]; });
}

// With d = x - mean, n values, s = inv_std, y = ap2(gamma) d ap2(s) + beta, and gradients of ap2
// taken to be 1: dd = ap2(gamma) ap2(s) dy - sum(ap2(gamma) dy d) s^3 / 2 (ap2(d) + d) / n, and
// dx = dd - sum(dd) / n.
static void shift_differentiate(const Block block, const float *dy, const float *x,
                                const float *gamma, const float *means, const float *inv_stds,
                                float *dx, float *dgamma, float *dbeta)
{
    double totals[PANEL];
    float mean[PANEL], scale[PANEL], factor[PANEL];
    const double n = block.n();
    sum(block, totals, [&](long i, long) { return dy[i]; });
    for (long c = 0; c < block.width; c++) {
        mean[c] = means[block.first + c];
        dbeta[block.first + c] = totals[c];
    }
    sum(block, totals, [&](long i, long c) { return (double)dy[i] * (x[i] - mean[c]); });
    for (long c = 0; c < block.width; c++) {
        const float s = inv_stds[block.first + c], by = ap2(gamma[block.first + c]);
        dgamma[block.first + c] = totals[c] * ap2(s);
        scale[c] = by * ap2(s);
        factor[c] = -0.5 * by * totals[c] * s * s * s / n;
    }
    fill(block, dx, [&](long i, long c) {
        const float centered = x[i] - mean[c];
        return scale[c] * dy[i] + factor[c] * (ap2(centered) + centered);
    });
    sum(block, totals, [&](long i, long) { return dx[i]; });
    for (long c = 0; c < block.width; c++)
        mean[c] = totals[c] / n;
    fill(block, dx, [&](long i, long c) { return dx[i] - mean[c]; });
}

static void shift_forward(PyArrayObject *x, PyArrayObject *gamma, PyArrayObject *beta,
                          PyArrayObject **y, PyArrayObject **mean, PyArrayObject **inv_std,
                          double epsilon)
{
    const fused::Array<float> x_in(x), gamma_in(gamma), beta_in(beta);
    float *y_out = fused::prepare<float>(y, x_in.shape());
    float *mean_out = fused::prepare<float>(mean, gamma_in.shape());
    float *inv_std_out = fused::prepare<float>(inv_std, gamma_in.shape());
    for_blocks(x, {gamma, beta}, [&](const Block &block) {
        shift_normalize(block, x_in.shape(), epsilon, x_in.data(), gamma_in.data(),
                        beta_in.data(), y_out, mean_out, inv_std_out);
    });
}

static void shift_backward(PyArrayObject *dy, PyArrayObject *x, PyArrayObject *gamma,
                           PyArrayObject *mean, PyArrayObject *inv_std, PyArrayObject **dx,
                           PyArrayObject **dgamma, PyArrayObject **dbeta)
{
    if (!PyArray_SAMESHAPE(dy, x))
        fused::raise_value_error("batch normalization: the gradient's shape is not the output's");
    const fused::Array<float> dy_in(dy), x_in(x), gamma_in(gamma), mean_in(mean),
        inv_std_in(inv_std);
    float *dx_out = fused::prepare<float>(dx, x_in.shape());
    float *dgamma_out = fused::prepare<float>(dgamma, gamma_in.shape());
    float *dbeta_out = fused::prepare<float>(dbeta, gamma_in.shape());
    for_blocks(x, {gamma, mean, inv_std}, [&](const Block &block) {
        shift_differentiate(block, dy_in.data(), x_in.data(), gamma_in.data(), mean_in.data(),
                            inv_std_in.data(), dx_out, dgamma_out, dbeta_out);
    });
}

} // namespace normalization
