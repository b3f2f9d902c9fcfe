// Products of matrices of +-1; see xnor.py and counts.h.
#include "products.h"

namespace xnor
{

static void dot(PyArrayObject *bits, PyArrayObject *panels, PyArrayObject **out, long inputs,
                long units)
{
    const fused::Array<uint64_t> x(bits), array(panels);
    const long n = x.dim(0), planes = x.dim(1), words = x.dim(2);
    if (64 * words < inputs)
        fused::raise_value_error("xnor: rows of %ld words do not hold %ld inputs", words, inputs);
    check_sums(inputs, planes);
    const Weights w(array, units, words);
    const std::vector<int32_t> base(w.number * PANEL, ((1 << planes) - 1) * inputs);
    const Rows source = {x.data(), planes, planes * words};
    multiply(source, n, w, base, fused::prepare<int32_t>(out, {n, units}));
}

} // namespace xnor
