// 2x2 max pooling with stride 2. The borders of odd images are ignored; see pooling.py.
#include "common.h"

namespace pooling
{

// NaN if either is.
static inline float larger(float a, float b)
{
    return a > b || a != a ? a : b;
}

// The four pixels of a window in the rows `upper` and `lower`, and their maximum.
struct Window {
    float a, b, c, d;
    Window(const float *upper, const float *lower, long x)
        : a(upper[2 * x]), b(upper[2 * x + 1]), c(lower[2 * x]), d(lower[2 * x + 1])
    {
    }
    float maximum() const { return larger(larger(a, b), larger(c, d)); }
};

static void max_pool(PyArrayObject *input, PyArrayObject **output)
{
    const fused::Array<float> images(input);
    const long planes = images.dim(0) * images.dim(1), height = images.dim(2);
    const long width = images.dim(3), rows = height / 2, columns = width / 2;
    const float *from = images.data();
    float *to = fused::prepare<float>(output, {images.dim(0), images.dim(1), rows, columns});
    fused::parallel(planes * rows, images.size(), [=](long begin, long end) {
        for (long row = begin; row < end; row++) {
            const float *upper = from + (row / rows * height + row % rows * 2) * width;
            const float *lower = upper + width;
            float *maximum = to + row * columns;
#pragma omp simd
            for (long x = 0; x < columns; x++)
                maximum[x] = Window(upper, lower, x).maximum();
        }
    });
}

// The maximum gets the gradient. Each of several equal pixels gets it, and NaN does.
static void max_pool_gradient(PyArrayObject *input, PyArrayObject *output_gradient,
                              PyArrayObject **gradient)
{
    const fused::Array<float> images(input), gradients(output_gradient);
    const long planes = images.dim(0) * images.dim(1), height = images.dim(2);
    const long width = images.dim(3), rows = height / 2, columns = width / 2;
    if (gradients.shape() != std::vector<npy_intp>({images.dim(0), images.dim(1), rows, columns}))
        fused::raise_value_error("max_pool_2x2: the gradient's shape is not that of the output");
    const float *from = images.data(), *given = gradients.data();
    float *to = fused::prepare<float>(gradient, images.shape());
    if (height % 2 || width % 2) // the ignored border
        memset(to, 0, sizeof(float) * images.size());
    fused::parallel(planes * rows, images.size(), [=](long begin, long end) {
        for (long row = begin; row < end; row++) {
            const long first = (row / rows * height + row % rows * 2) * width;
            const float *upper = from + first, *lower = upper + width, *g = given + row * columns;
            float *upper_gradient = to + first, *lower_gradient = upper_gradient + width;
#pragma omp simd
            for (long x = 0; x < columns; x++) {
                const Window w(upper, lower, x);
                const float maximum = w.maximum();
                upper_gradient[2 * x] = w.a == maximum || w.a != w.a ? g[x] : 0;
                upper_gradient[2 * x + 1] = w.b == maximum || w.b != w.b ? g[x] : 0;
                lower_gradient[2 * x] = w.c == maximum || w.c != w.c ? g[x] : 0;
                lower_gradient[2 * x + 1] = w.d == maximum || w.d != w.d ? g[x] : 0;
            }
        }
    });
}

} // namespace pooling
