// The arrays of an elementwise update, whose loop update.py writes.
#pragma once

#include "common.h"

#include <memory>

namespace update
{

// Inputs of the same shape; the first of them are the old values of the outputs.
class Tensors
{
public:
    explicit Tensors(std::initializer_list<PyArrayObject *> inputs)
    {
        for (PyArrayObject *input : inputs) {
            if (!PyArray_SAMESHAPE(input, *inputs.begin()))
                fused::raise_value_error("Update: an input has another shape than the parameter");
            arrays.emplace_back(new fused::Array<float>(input));
        }
    }
    long size() const { return arrays[0]->size(); }
    const float *data(int i) const { return arrays[i]->data(); }
    // The data of output i, which takes the memory of its old value if `inplace`.
    float *output(int i, PyArrayObject **output, bool inplace) const
    {
        if (!inplace)
            return fused::prepare<float>(output, arrays[i]->shape());
        Py_XDECREF(*output);
        *output = arrays[i]->reference();
        return (float *)PyArray_DATA(*output);
    }

private:
    std::vector<std::unique_ptr<fused::Array<float>>> arrays;
};

} // namespace update
