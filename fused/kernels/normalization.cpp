// Batch normalization and a rectifier, forward and backward; see normalization.py.
#include "channels.h"

namespace normalization
{

struct Options {
    double epsilon;
    bool on_variance, rectify;
    // The divisor of x - mean.
    double divisor(double std) const
    {
        return on_variance ? sqrt(std * std + epsilon) : std + epsilon;
    }
};

static void normalize(const Block block, const Options options, const float *__restrict x,
                      const float *gamma, const float *beta, float *__restrict y, float *means,
                      float *stds)
{
    double totals[PANEL];
    float mean[PANEL], scale[PANEL], shift[PANEL];
    sum(block, totals, [&](long i, long) { return x[i]; });
    for (long c = 0; c < block.width; c++)
        mean[c] = means[block.first + c] = totals[c] / block.n();
    sum(block, totals, [&](long i, long c) { return (double)(x[i] - mean[c]) * (x[i] - mean[c]); });
    for (long c = 0; c < block.width; c++) {
        const double std = sqrt(totals[c] / block.n());
        stds[block.first + c] = std;
        scale[c] = gamma[block.first + c] / options.divisor(std);
        shift[c] = beta[block.first + c];
    }
    const auto z = [&](long i, long c) { return (x[i] - mean[c]) * scale[c] + shift[c]; };
    if (options.rectify)
        fill(block, y, [&](long i, long c) {
            const float value = z(i, c);
            return value <= 0 ? 0 : value; // NaN stays
        });
    else
        fill(block, y, z);
}

// With d = x - mean, n values, y = gamma d / s + beta, s = std + epsilon or sqrt(std^2 + epsilon):
// dx = gamma / s (dy - sum(dy) / n) - gamma sum(dy d) / (s^2 n) ds/dstd d / std.
static void differentiate(const Block block, const Options options, const float *dy, const float *x,
                          const float *gamma, const float *beta, const float *means,
                          const float *stds, float *dx, float *dgamma, float *dbeta)
{
    double totals[PANEL], totals_d[PANEL];
    float mean[PANEL], scale[PANEL], shift[PANEL], mean_dy[PANEL], factor_d[PANEL];
    for (long c = 0; c < block.width; c++) {
        mean[c] = means[block.first + c];
        shift[c] = beta[block.first + c];
        scale[c] = gamma[block.first + c] / options.divisor(stds[block.first + c]);
    }
    if (options.rectify) // slope 0.5 (1 + sgn z); values of dy or z that are not finite stay so
        fill(block, dx, [&](long i, long c) {
            const float z = (x[i] - mean[c]) * scale[c] + shift[c];
            return z > 0 ? dy[i] : z < 0 ? dy[i] - dy[i] : 0.5f * dy[i] + z;
        });
    else
        fill(block, dx, [&](long i, long) { return dy[i]; });
    sum(block, totals, [&](long i, long) { return dx[i]; });
    sum(block, totals_d, [&](long i, long c) { return (double)dx[i] * (x[i] - mean[c]); });
    for (long c = 0; c < block.width; c++) {
        const double std = stds[block.first + c], by = options.divisor(std);
        dbeta[block.first + c] = totals[c];
        dgamma[block.first + c] = totals_d[c] / by;
        mean_dy[c] = totals[c] / block.n();
        // ds/dstd / std. If all values are equal, d is zero and its factor does not matter.
        const double slope = options.on_variance ? 1 / by : std > 0 ? 1 / std : 0;
        factor_d[c] = gamma[block.first + c] * totals_d[c] / (by * by * block.n()) * slope;
    }
    fill(block, dx, [&](long i, long c) {
        return scale[c] * (dx[i] - mean_dy[c]) - factor_d[c] * (x[i] - mean[c]);
    });
}

static void forward(PyArrayObject *x, PyArrayObject *gamma, PyArrayObject *beta, PyArrayObject **y,
                    PyArrayObject **mean, PyArrayObject **std, double epsilon, bool on_variance,
                    bool rectify)
{
    const Options options = {epsilon, on_variance, rectify};
    const fused::Array<float> x_in(x), gamma_in(gamma), beta_in(beta);
    float *y_out = fused::prepare<float>(y, x_in.shape());
    float *mean_out = fused::prepare<float>(mean, gamma_in.shape());
    float *std_out = fused::prepare<float>(std, gamma_in.shape());
    for_blocks(x, {gamma, beta}, [&](const Block &block) {
        normalize(block, options, x_in.data(), gamma_in.data(), beta_in.data(), y_out, mean_out,
                  std_out);
    });
}

static void backward(PyArrayObject *dy, PyArrayObject *x, PyArrayObject *gamma, PyArrayObject *beta,
                     PyArrayObject *mean, PyArrayObject *std, PyArrayObject **dx,
                     PyArrayObject **dgamma, PyArrayObject **dbeta, double epsilon,
                     bool on_variance, bool rectify)
{
    const Options options = {epsilon, on_variance, rectify};
    if (!PyArray_SAMESHAPE(dy, x))
        fused::raise_value_error("batch normalization: the gradient's shape is not the output's");
    const fused::Array<float> dy_in(dy), x_in(x), gamma_in(gamma), beta_in(beta), mean_in(mean),
        std_in(std);
    float *dx_out = fused::prepare<float>(dx, x_in.shape());
    float *dgamma_out = fused::prepare<float>(dgamma, gamma_in.shape());
    float *dbeta_out = fused::prepare<float>(dbeta, gamma_in.shape());
    for_blocks(x, {gamma, beta, mean, std}, [&](const Block &block) {
        differentiate(block, options, dy_in.data(), x_in.data(), gamma_in.data(), beta_in.data(),
                      mean_in.data(), std_in.data(), dx_out, dgamma_out, dbeta_out);
    });
}

} // namespace normalization
