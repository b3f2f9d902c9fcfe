"""3x3 convolution with binarized filters by additions, as products with binarized weights are
(product.py): tables of signed sums, on processors with AVX-512.

A graph rewrite puts this op in the place of :func:`fused.conv3x3` and of its gradient with respect
to the input, where the filters come from :func:`fused.binarize`. Twin: those. Each sum is taken in
one fixed order; sums of integers below 2^24 are exact.
"""

import theano

from .binarization import Binarize
from .c_op import enabled
from .convolution import Convolution
from .product import available


class BinaryConvolution(Convolution):
    """`Convolution` with filters all of whose values are -H or +H."""

    file = "binary_convolution.cpp"

    def call(self, images, filters, output):
        return f"convolve_binary_arrays({images}, {filters}, {self.transposed:d}, {output})"

    def c_compile_args(self):
        # Whatever processor THEANO_FLAGS name.
        return [*super().c_compile_args(), "-mavx512f"]


@theano.gof.local_optimizer([Convolution])
def fuse_binary_convolution(node):
    if type(node.op) is not Convolution or not (enabled() and available()):
        return False
    images, filters = node.inputs
    if filters.owner is None or not isinstance(filters.owner.op, Binarize):
        return False
    return [BinaryConvolution(node.op.transposed)(images, filters)]


# After the graph is simplified.
theano.compile.optdb.register(
    "fuse_binary_convolution",
    theano.gof.TopoOptimizer(fuse_binary_convolution),
    1.65,
    "fast_run",
)
