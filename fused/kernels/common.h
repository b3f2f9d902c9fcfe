// What every op needs: arrays, errors and threads. An op is a function of its inputs, of pointers
// to its outputs, and of its parameters; op.py calls it within `fails`.
#pragma once

#include <Python.h>
#include <numpy/arrayobject.h>

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <vector>

namespace fused
{

inline long ceil_div(long a, long b)
{
    return (a + b - 1) / b;
}

// Thrown after Python's own exception is set.
struct Raised {};

template <class... Values>
[[noreturn]] void raise_value_error(const char *format, Values... values)
{
    PyErr_Format(PyExc_ValueError, format, values...);
    throw Raised();
}

// Runs an op, and returns whether it failed. Then Python's exception is set.
template <class Op>
bool fails(Op op)
{
    try {
        op();
        return false;
    } catch (const Raised &) {
    } catch (const std::bad_alloc &) {
        PyErr_NoMemory();
    }
    return true;
}

// Runs body(begin, end) on all threads, each for a part of [0, n). Runs it on one thread if `work`,
// about the number of elements, is too little to share.
template <class Body>
void parallel(long n, long work, Body body)
{
#pragma omp parallel if (work > 16384)
    {
        const long threads = omp_get_num_threads(), thread = omp_get_thread_num();
        body(n * thread / threads, n * (thread + 1) / threads);
    }
}

// An input, C-contiguous: the array itself, or a copy of it.
template <class T>
class Array
{
public:
    explicit Array(PyArrayObject *input) : array(PyArray_GETCONTIGUOUS(input))
    {
        if (!array)
            throw Raised();
    }
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    ~Array() { Py_DECREF(array); }
    const T *data() const { return (const T *)PyArray_DATA(array); }
    PyArrayObject *reference() const
    {
        Py_INCREF(array);
        return array;
    }
    long size() const { return PyArray_SIZE(array); }
    long dim(int axis) const { return PyArray_DIM(array, axis); }
    std::vector<npy_intp> shape() const
    {
        return {PyArray_DIMS(array), PyArray_DIMS(array) + PyArray_NDIM(array)};
    }

private:
    PyArrayObject *array;
};

inline int type_of(const float *)
{
    return NPY_FLOAT32;
}
inline int type_of(const int32_t *)
{
    return NPY_INT32;
}
inline int type_of(const uint32_t *)
{
    return NPY_UINT32;
}
inline int type_of(const uint64_t *)
{
    return NPY_UINT64;
}

// Makes *output a C-contiguous array of T of this shape, unless it already is one. Returns its
// data.
template <class T>
T *prepare(PyArrayObject **output, const std::vector<npy_intp> &shape)
{
    const int ndim = shape.size();
    if (!*output || !PyArray_IS_C_CONTIGUOUS(*output) ||
        !PyArray_CompareLists(PyArray_DIMS(*output), shape.data(), ndim)) {
        Py_XDECREF(*output);
        *output = (PyArrayObject *)PyArray_SimpleNew(ndim, (npy_intp *)shape.data(),
                                                     type_of((const T *)nullptr));
        if (!*output)
            throw Raised();
    }
    return (T *)PyArray_DATA(*output);
}

} // namespace fused
