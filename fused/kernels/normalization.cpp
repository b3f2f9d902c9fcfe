#section support_code

#include <math.h>

/* An array of shape (rows, channels, area) is taken `width` channels at a time: at most BLOCK of
   them side by side where area is 1, else one. Sums over rows and area are in double precision, in
   LANES partial sums: the same whatever the number of threads and the processor. */
#define BLOCK 128
#define LANES 16

typedef struct {
    npy_intp rows, channels, area;
} shape;

typedef struct {
    double epsilon;
    int on_variance, rectify;
} options;

static inline npy_intp channels_at_once(shape s)
{
    return s.area == 1 ? BLOCK : 1;
}

/* sum(a) into `total` for `width` channels, where `a` is an expression of the index `i` in the
   arrays and of the channel `c` of the block. */
#define SUM(total, a)                                                                             \
    if (s.area == 1) {                                                                            \
        for (npy_intp c = 0; c < width; ++c)                                                      \
            total[c] = 0;                                                                         \
        for (npy_intp row = 0; row < s.rows; ++row) {                                             \
            const npy_intp start = row * s.channels + first;                                      \
            for (npy_intp c = 0; c < width; ++c) {                                                \
                const npy_intp i = start + c;                                                     \
                total[c] += a;                                                                    \
            }                                                                                     \
        }                                                                                         \
    } else {                                                                                      \
        const npy_intp c = 0;                                                                     \
        double lanes[LANES] = {0};                                                                \
        for (npy_intp row = 0; row < s.rows; ++row) {                                             \
            const npy_intp start = (row * s.channels + first) * s.area;                           \
            npy_intp k = 0;                                                                       \
            for (; k + LANES <= s.area; k += LANES)                                               \
                for (int lane = 0; lane < LANES; ++lane) {                                        \
                    const npy_intp i = start + k + lane;                                          \
                    lanes[lane] += a;                                                             \
                }                                                                                 \
            for (int lane = 0; k < s.area; ++k, ++lane) {                                         \
                const npy_intp i = start + k;                                                     \
                lanes[lane] += a;                                                                 \
            }                                                                                     \
        }                                                                                         \
        total[0] = 0;                                                                             \
        for (int lane = 0; lane < LANES; ++lane)                                                  \
            total[0] += lanes[lane];                                                              \
    }

/* Runs `statement` for each element i of channel c of the block. */
#define EACH(statement)                                                                           \
    for (npy_intp row = 0; row < s.rows; ++row) {                                                 \
        const npy_intp start = (row * s.channels + first) * s.area;                               \
        if (s.area == 1)                                                                          \
            for (npy_intp c = 0; c < width; ++c) {                                                \
                const npy_intp i = start + c;                                                     \
                statement;                                                                        \
            }                                                                                     \
        else                                                                                      \
            for (npy_intp k = 0; k < s.area; ++k) {                                               \
                const npy_intp c = 0, i = start + k;                                              \
                statement;                                                                        \
            }                                                                                     \
    }

/* What x - mean is divided by. */
static inline double divisor(double std, options o)
{
    return o.on_variance ? sqrt(std * std + o.epsilon) : std + o.epsilon;
}

static void normalize(shape s, npy_intp first, npy_intp width, const float *__restrict x,
                      const float *gamma, const float *beta, options o,
                      float *__restrict y, float *means, float *stds)
{
    const double n = (double)s.rows * s.area;
    double total[BLOCK];
    float mean[BLOCK], scale[BLOCK], shift[BLOCK];
    SUM(total, x[i])
    for (npy_intp c = 0; c < width; ++c)
        mean[c] = means[first + c] = total[c] / n;
    SUM(total, (double)(x[i] - mean[c]) * (x[i] - mean[c]))
    for (npy_intp c = 0; c < width; ++c) {
        const double std = sqrt(total[c] / n);
        stds[first + c] = std;
        scale[c] = gamma[first + c] / divisor(std, o);
        shift[c] = beta[first + c];
    }
    if (o.rectify) {
        EACH({
            const float z = (x[i] - mean[c]) * scale[c] + shift[c];
            y[i] = z > 0 ? z : 0;
        })
    } else {
        EACH(y[i] = (x[i] - mean[c]) * scale[c] + shift[c])
    }
}

/* With d = x - mean, n values, y = gamma d / s + beta, s = std + epsilon or sqrt(std^2 + epsilon):
   dx = gamma / s (dy - sum(dy) / n) - gamma sum(dy d) / (s^2 n) ds/dstd d / std. */
static void normalize_backward(shape s, npy_intp first, npy_intp width, const float *__restrict dy,
                               const float *__restrict x, const float *gamma, const float *beta,
                               const float *means, const float *stds, options o,
                               float *__restrict dx, float *dgamma, float *dbeta)
{
    const double n = (double)s.rows * s.area;
    double total[BLOCK], total_d[BLOCK];
    float mean[BLOCK], scale[BLOCK], shift[BLOCK], mean_dy[BLOCK], factor_d[BLOCK];
    for (npy_intp c = 0; c < width; ++c) {
        mean[c] = means[first + c];
        shift[c] = beta[first + c];
        scale[c] = gamma[first + c] / divisor(stds[first + c], o);
    }
    /* The slope of the rectifier, 0.5 (z + |z|), is 0.5 at zero. */
    if (o.rectify)
        EACH({
            const float z = (x[i] - mean[c]) * scale[c] + shift[c];
            dx[i] = z > 0 ? dy[i] : z == 0 ? 0.5f * dy[i] : 0;
        })
    else
        EACH(dx[i] = dy[i])
    SUM(total, dx[i])
    SUM(total_d, (double)dx[i] * (x[i] - mean[c]))
    for (npy_intp c = 0; c < width; ++c) {
        const double std = stds[first + c], by = divisor(std, o);
        dbeta[first + c] = total[c];
        dgamma[first + c] = total_d[c] / by;
        mean_dy[c] = total[c] / n;
        /* ds/dstd / std: where all values are equal d is zero and its factor does not matter. */
        const double slope = o.on_variance ? 1 / by : std > 0 ? 1 / std : 0;
        factor_d[c] = gamma[first + c] * total_d[c] / (by * by * n) * slope;
    }
    EACH(dx[i] = scale[c] * (dx[i] - mean_dy[c]) - factor_d[c] * (x[i] - mean[c]))
}

static int prepare(PyArrayObject **output, int ndim, npy_intp *dims)
{
    if (*output && PyArray_IS_C_CONTIGUOUS(*output) &&
        PyArray_CompareLists(PyArray_DIMS(*output), dims, ndim))
        return 0;
    Py_XDECREF(*output);
    *output = (PyArrayObject *)PyArray_SimpleNew(ndim, dims, NPY_FLOAT32);
    return *output ? 0 : -1;
}

/* The shape of x, after a check that each of the `n` others has a number per channel; NULL with
   a Python error in `contiguous` else. */
static int take(PyArrayObject **inputs, PyArrayObject **contiguous, int n, int channel_vectors,
                shape *s)
{
    PyArrayObject *x = inputs[0];
    s->rows = PyArray_DIM(x, 0);
    s->channels = PyArray_DIM(x, 1);
    s->area = 1;
    for (int axis = 2; axis < PyArray_NDIM(x); ++axis)
        s->area *= PyArray_DIM(x, axis);
    for (int j = 0; j < n; ++j) {
        if (j >= n - channel_vectors ? PyArray_DIM(inputs[j], 0) != s->channels
                                     : !PyArray_SAMESHAPE(inputs[j], x)) {
            PyErr_Format(PyExc_ValueError, "batch normalization: shape of input %d does not fit", j);
            return -1;
        }
    }
    for (int j = 0; j < n; ++j)
        if (!(contiguous[j] = PyArray_GETCONTIGUOUS(inputs[j])))
            return -1;
    return 0;
}

#define DATA(array) ((float *)PyArray_DATA(array))

#section support_code_apply

int APPLY_SPECIFIC(batch_norm)(PyArrayObject *x, PyArrayObject *gamma, PyArrayObject *beta, PyArrayObject **y,
               PyArrayObject **mean, PyArrayObject **std, PARAMS_TYPE *params)
{
    const options o = {params->epsilon, params->on_variance, params->rectify};
    PyArrayObject *inputs[3] = {x, gamma, beta}, *in[3] = {NULL};
    shape s;
    int failed = take(inputs, in, 3, 2, &s) || prepare(y, PyArray_NDIM(x), PyArray_DIMS(x)) ||
                 prepare(mean, 1, &s.channels) || prepare(std, 1, &s.channels);
    if (!failed) {
        const npy_intp step = channels_at_once(s);
#pragma omp parallel for schedule(static) if (PyArray_SIZE(x) > 16384)
        for (npy_intp first = 0; first < s.channels; first += step)
            normalize(s, first, first + step < s.channels ? step : s.channels - first, DATA(in[0]),
                      DATA(in[1]), DATA(in[2]), o, DATA(*y), DATA(*mean), DATA(*std));
    }
    for (int j = 0; j < 3; ++j)
        Py_XDECREF(in[j]);
    return failed;
}

int APPLY_SPECIFIC(batch_norm_backward)(PyArrayObject *dy, PyArrayObject *x, PyArrayObject *gamma,
                        PyArrayObject *beta, PyArrayObject *mean, PyArrayObject *std,
                        PyArrayObject **dx, PyArrayObject **dgamma, PyArrayObject **dbeta,
                        PARAMS_TYPE *params)
{
    const options o = {params->epsilon, params->on_variance, params->rectify};
    PyArrayObject *inputs[6] = {dy, x, gamma, beta, mean, std}, *in[6] = {NULL};
    shape s;
    int failed = take(inputs, in, 6, 4, &s) || prepare(dx, PyArray_NDIM(x), PyArray_DIMS(x)) ||
                 prepare(dgamma, 1, &s.channels) || prepare(dbeta, 1, &s.channels);
    if (!failed) {
        const npy_intp step = channels_at_once(s);
#pragma omp parallel for schedule(static) if (PyArray_SIZE(x) > 16384)
        for (npy_intp first = 0; first < s.channels; first += step)
            normalize_backward(s, first, first + step < s.channels ? step : s.channels - first,
                               DATA(in[0]), DATA(in[1]), DATA(in[2]), DATA(in[3]), DATA(in[4]),
                               DATA(in[5]), o, DATA(*dx), DATA(*dgamma), DATA(*dbeta));
    }
    for (int j = 0; j < 6; ++j)
        Py_XDECREF(in[j]);
    return failed;
}
