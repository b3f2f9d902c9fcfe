// 2x2 max pooling, stride 2, borders of odd images ignored; see pooling.py for what it computes.

#include <string.h>

namespace pooling
{

// Makes *array a contiguous float32 array of this shape, kept if it already is one.
static int prepare_output(PyArrayObject **array, npy_intp a, npy_intp b, npy_intp c, npy_intp d)
{
    npy_intp shape[4] = {a, b, c, d};
    if (*array && PyArray_IS_C_CONTIGUOUS(*array) &&
        PyArray_CompareLists(PyArray_DIMS(*array), shape, 4))
        return 0;
    Py_XDECREF(*array);
    *array = (PyArrayObject *)PyArray_SimpleNew(4, shape, NPY_FLOAT32);
    return *array ? 0 : -1;
}

static inline float larger(float a, float b)
{
    return a > b ? a : b;
}

static int max_pool(PyArrayObject *input, PyArrayObject **output)
{
    input = PyArray_GETCONTIGUOUS(input);
    if (!input)
        return -1;
    const npy_intp *shape = PyArray_DIMS(input);
    const long height = shape[2], width = shape[3], rows = height / 2, columns = width / 2;
    int failed = prepare_output(output, shape[0], shape[1], rows, columns);
    if (!failed) {
        const float *from = (const float *)PyArray_DATA(input);
        float *to = (float *)PyArray_DATA(*output);
#pragma omp parallel for schedule(static)
        for (long plane = 0; plane < shape[0] * shape[1]; plane++)
            for (long y = 0; y < rows; y++) {
                const float *upper = from + (plane * height + 2 * y) * width,
                            *lower = upper + width;
                float *maximum = to + (plane * rows + y) * columns;
#pragma omp simd
                for (long x = 0; x < columns; x++)
                    maximum[x] = larger(larger(upper[2 * x], upper[2 * x + 1]),
                                        larger(lower[2 * x], lower[2 * x + 1]));
            }
    }
    Py_DECREF(input);
    return failed;
}

static int max_pool_gradient(PyArrayObject *input, PyArrayObject *output_gradient,
                             PyArrayObject **gradient)
{
    const npy_intp *shape = PyArray_DIMS(input), *pooled = PyArray_DIMS(output_gradient);
    const long height = shape[2], width = shape[3], rows = height / 2, columns = width / 2;
    if (pooled[0] != shape[0] || pooled[1] != shape[1] || pooled[2] != rows ||
        pooled[3] != columns) {
        PyErr_SetString(PyExc_ValueError,
                        "max_pool_2x2: the gradient's shape is not that of the output");
        return -1;
    }
    input = PyArray_GETCONTIGUOUS(input);
    output_gradient = PyArray_GETCONTIGUOUS(output_gradient);
    int failed =
        !input || !output_gradient || prepare_output(gradient, shape[0], shape[1], height, width);
    if (!failed) {
        const float *from = (const float *)PyArray_DATA(input),
                    *given = (const float *)PyArray_DATA(output_gradient);
        float *to = (float *)PyArray_DATA(*gradient);
        if (height % 2 || width % 2)  // the ignored border
            memset(to, 0, sizeof(float) * PyArray_SIZE(*gradient));
#pragma omp parallel for schedule(static)
        for (long plane = 0; plane < shape[0] * shape[1]; plane++)
            for (long y = 0; y < rows; y++) {
                const long first = (plane * height + 2 * y) * width;
                const float *upper = from + first, *lower = upper + width,
                            *g = given + (plane * rows + y) * columns;
                float *upper_gradient = to + first, *lower_gradient = upper_gradient + width;
#pragma omp simd
                for (long x = 0; x < columns; x++) {
                    const float a = upper[2 * x], b = upper[2 * x + 1], c = lower[2 * x],
                                d = lower[2 * x + 1];
                    const float maximum = larger(larger(a, b), larger(c, d));
                    upper_gradient[2 * x] = a == maximum ? g[x] : 0;
                    upper_gradient[2 * x + 1] = b == maximum ? g[x] : 0;
                    lower_gradient[2 * x] = c == maximum ? g[x] : 0;
                    lower_gradient[2 * x + 1] = d == maximum ? g[x] : 0;
                }
            }
    }
    Py_XDECREF(input);
    Py_XDECREF(output_gradient);
    return failed;
}

}  // namespace pooling
