#section support_code_apply

/* The product of the rows of `a` and the rows of `b` in the simplest way: one output at a time, on all
   threads, without blocking, with sums in order. */
int APPLY_SPECIFIC(plain_product)(PyArrayObject *a, PyArrayObject *b, PyArrayObject **out)
{
    npy_intp shape[2] = {PyArray_DIM(a, 0), PyArray_DIM(b, 0)};
    const npy_intp depth = PyArray_DIM(a, 1);
    if (!PyArray_IS_C_CONTIGUOUS(a) || !PyArray_IS_C_CONTIGUOUS(b)) {
        PyErr_SetString(PyExc_ValueError, "plain product: rows must be contiguous");
        return -1;
    }
    Py_XDECREF(*out);
    *out = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT32);
    if (!*out)
        return -1;
    const float *x = (const float *)PyArray_DATA(a), *y = (const float *)PyArray_DATA(b);
    float *to = (float *)PyArray_DATA(*out);
#pragma omp parallel for collapse(2)
    for (npy_intp i = 0; i < shape[0]; ++i)
        for (npy_intp j = 0; j < shape[1]; ++j) {
            float sum = 0;
            for (npy_intp k = 0; k < depth; ++k)
                sum += x[i * depth + k] * y[j * depth + k];
            to[i * shape[1] + j] = sum;
        }
    return 0;
}
